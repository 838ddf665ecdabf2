"""The naive twins against einsum over explicit windows, in float64; the adjoints against the forward pass."""
import numpy as np
import pytest

from mpi_ftp import kernels

CASES = [  # n, c, f, kh, kw, ho, wo, stride, dilation, groups, block
    (1, 16, 16, 3, 3, 4, 5, 1, 1, 1, 16),
    (2, 3, 20, 3, 3, 3, 4, 1, 1, 1, 3),
    (2, 20, 5, 1, 1, 3, 2, 1, 1, 1, 16),
    (1, 17, 33, 3, 2, 2, 3, 2, 1, 1, 16),
    (1, 5, 7, 2, 3, 3, 2, 3, 2, 1, 5),
    (2, 40, 10, 3, 4, 1, 1, 1, 1, 1, 16),
    (1, 20, 20, 3, 3, 3, 2, 1, 1, 20, 16),
    (2, 12, 20, 3, 1, 2, 3, 2, 1, 4, 16),
    (1, 6, 12, 2, 2, 2, 2, 1, 2, 2, 6),
    (2, 40, 40, 3, 2, 3, 4, 2, 2, 40, 16),
    (2, 64, 96, 3, 3, 3, 4, 1, 1, 2, 16),
    (1, 32, 32, 2, 3, 3, 4, 2, 1, 2, 16),
    (1, 20, 40, 3, 3, 3, 4, 1, 1, 20, 16),
    (0, 16, 16, 3, 3, 4, 5, 1, 1, 1, 16),
    (1, 16, 16, 3, 3, 0, 5, 1, 1, 1, 16),
]


def spread(blocked, axis_gap=2):
    """The same values as a view with gaps along every outer axis."""
    n, cb, h, w, b = blocked.shape
    big = np.full((n + 1, cb + 2, h + axis_gap, w + 3, b), np.nan, blocked.dtype)
    view = big[1:, 1:cb + 1, 1:h + 1, 2:w + 2]
    view[:] = blocked
    return view


def windows(x, ho, wo, kh, kw, stride, dilation):
    """(N, C, H, W) -> (N, C, Ho, Wo, KH, KW) copies."""
    out = np.empty(x.shape[:2] + (ho, wo, kh, kw))
    for i in range(kh):
        for j in range(kw):
            rows = i * dilation + stride * np.arange(ho)
            cols = j * dilation + stride * np.arange(wo)
            out[..., i, j] = x[:, :, rows[:, None], cols]
    return out


def reference(x, w, ho, wo, stride, dilation, groups):
    f, c = w.shape[:2]
    wide = windows(x, ho, wo, *w.shape[2:], stride, dilation)
    n = len(x)
    y = np.empty((n, f, ho, wo))
    for g in range(groups):
        part = slice(g * f // groups, (g + 1) * f // groups)
        y[:, part] = np.einsum('nchwij,fcij->nfhw', wide[:, g * c:(g + 1) * c], w[part])
    return y


def problem(case, seed=0):
    n, c, f, kh, kw, ho, wo, stride, dilation, groups, block = case
    rng = np.random.default_rng(seed)
    h, width = (max(ho, 1) - 1) * stride + dilation * (kh - 1) + 1, (wo - 1) * stride + dilation * (kw - 1) + 1
    x = rng.standard_normal((n, c, h, width))
    w = rng.standard_normal((f, c // groups, kh, kw))
    dy = rng.standard_normal((n, f, ho, wo))
    return x, w, dy


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_forward(case, dtype):
    n, c, f, kh, kw, ho, wo, stride, dilation, groups, block = case
    x, w, dy = problem(case)
    y = spread(np.full((n, kernels.blocks(f), ho, wo, 16), np.nan, dtype))
    kernels.conv_forward(y, spread(kernels.to_blocked(x, block, dtype)), kernels.pack_filters(w, groups, block, dtype),
                         stride, dilation, groups, filters=f)
    tolerance = 1e-12 if dtype == 'float64' else 2e-5
    np.testing.assert_allclose(kernels.from_blocked(y, f), reference(x, w, ho, wo, stride, dilation, groups),
                               atol=tolerance * np.sqrt(c * kh * kw))
    assert not kernels.from_blocked(y, y.shape[1] * 16)[:, f:].any()


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_backward_is_the_adjoint(case, dtype):
    """<forward(x, w), dy> = <x, backward_data(dy)> = <w, backward_weights(dy)> for each unit of x and w at once, by comparing
    with the gradient of the reference, which is linear in x and in w."""
    n, c, f, kh, kw, ho, wo, stride, dilation, groups, block = case
    x, w, dy = problem(case)
    dx, dw = gradients(x, w, dy, stride, dilation, groups)
    dyb = kernels.to_blocked(dy, 16, dtype)
    xb, wb = kernels.to_blocked(x, block, dtype), kernels.pack_filters(w, groups, block, dtype)
    tolerance = 1e-12 if dtype == 'float64' else 2e-5

    got = spread(np.full_like(xb, np.nan))
    kernels.conv_backward_data(got, spread(dyb), wb, stride, dilation, groups, filters=f)
    np.testing.assert_allclose(kernels.from_blocked(got, c), dx, atol=tolerance * np.sqrt(f * kh * kw))
    assert not kernels.from_blocked(got, got.shape[1] * block)[:, c:].any()

    total = np.ones_like(wb)
    kernels.conv_backward_weights(total, spread(xb), spread(dyb), stride, dilation, groups, filters=f)
    assert np.all(total[kernels.pack_filters(np.ones_like(w), groups, block) == 0] == 1)
    np.testing.assert_allclose(kernels.unpack_filters(total, f, c // groups, groups), dw + 1,
                               atol=tolerance * max(1, n * ho * wo) ** .5)


def gradients(x, w, dy, stride, dilation, groups):
    n, f, ho, wo = dy.shape
    c, kh, kw = w.shape[1:]
    wide = windows(x, ho, wo, kh, kw, stride, dilation)
    dx, dw = np.zeros_like(x), np.empty_like(w)
    for g in range(groups):
        part, chans = slice(g * f // groups, (g + 1) * f // groups), slice(g * c, (g + 1) * c)
        dw[part] = np.einsum('nchwij,nfhw->fcij', wide[:, chans], dy[:, part])
        for i in range(kh):
            for j in range(kw):
                rows = i * dilation + stride * np.arange(ho)
                cols = j * dilation + stride * np.arange(wo)
                dx[:, chans, rows[:, None], cols] += np.einsum('nfhw,fc->nchw', dy[:, part], w[part, :, i, j])
    return dx, dw


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
@pytest.mark.parametrize('stride, dilation, kernel', [(1, 1, (3, 3)), (2, 1, (3, 3)), (1, 2, (3, 2)), (2, 1, (1, 1))])
@pytest.mark.parametrize('margins', [False, True])
@pytest.mark.parametrize('channels, filters, groups', [(20, 18, 1), (20, 20, 20), (32, 32, 2), (20, 30, 10)])
def test_backward_data_of_any_window(dtype, stride, dilation, kernel, margins, channels, filters, groups):
    """top, left and the size of dx select a window of an infinite plane that is zero where nothing reads."""
    (kh, kw), (ho, wo) = kernel, (4, 5)
    case = (2, channels, filters, kh, kw, ho, wo, stride, dilation, groups, 16)
    x, w, dy = problem(case)
    dx, _ = gradients(x, w, dy, stride, dilation, groups)
    plane = np.zeros((2, channels, dx.shape[2] + 20, dx.shape[3] + 20))
    plane[:, :, 10:-10, 10:-10] = dx
    mh, mw = (dilation * (kh - 1), dilation * (kw - 1)) if margins else (0, 0)
    framed = kernels.to_blocked(np.pad(dy, ((0, 0), (0, 0), (mh, mh), (mw, mw))), 16, dtype)
    wb = kernels.pack_filters(w, groups, 16, dtype)
    for top, left, height, width in [(0, 0, 3, 4), (-2, -3, dx.shape[2] + 4, dx.shape[3] + 5), (1, 2, 2, 2),
                                     (3, -1, 8, 1), (-5, 0, 2, 3), (0, 0, 0, 3)]:
        got = np.full((2, 2, height, width, 16), np.nan, dtype)
        kernels.conv_backward_data(got, framed, wb, stride, dilation, groups, (mh, mw), top, left, filters)
        want = plane[:, :, 10 + top:10 + top + height, 10 + left:10 + left + width]
        np.testing.assert_allclose(kernels.from_blocked(got, channels), want, atol=1e-12 if dtype == 'float64' else 1e-4)


def test_packing_round_trip():
    rng = np.random.default_rng(1)
    a = rng.standard_normal((2, 21, 3, 4))
    np.testing.assert_array_equal(kernels.from_blocked(kernels.to_blocked(a), 21), a)
    w = rng.standard_normal((21, 5, 3, 2))
    np.testing.assert_array_equal(kernels.unpack_filters(kernels.pack_filters(w, 1, 5), 21, 5), w)
    np.testing.assert_array_equal(kernels.unpack_filters(kernels.pack_filters(w, 3), 21, 5, 3), w)
