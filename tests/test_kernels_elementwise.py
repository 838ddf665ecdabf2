"""Norms, activations, pools, copies and the update rule against numpy; derivatives against finite differences."""
import subprocess
import sys

import numpy as np
import pytest

from mpi_ftp import kernels

FORMULA = {
    'linear': lambda u: u,
    'leaky': lambda u: np.where(u > 0, u, 0.1 * u),
    'relu': lambda u: np.maximum(u, 0),
    'logistic': lambda u: 1 / (1 + np.exp(-u)),
    'mish': lambda u: u * np.tanh(np.log1p(np.exp(u))),
    'swish': lambda u: u / (1 + np.exp(-u)),
}
DTYPES = pytest.mark.parametrize('dtype', ['float64', 'float32'])
SHAPES = pytest.mark.parametrize('shape', [(2, 2, 3, 5, 16), (1, 1, 1, 1, 16), (1, 3, 4, 37, 16), (2, 1, 0, 3, 16)])


def near(dtype):
    return dict(rtol=1e-12, atol=1e-12) if dtype == 'float64' else dict(rtol=2e-5, atol=2e-5)


def view(shape, dtype, rng=None):
    """A view with gaps along N, CB, H and W, filled with normal numbers."""
    n, cb, h, w, b = shape
    big = np.full((n + 1, cb + 1, h + 2, w + 3, b), np.nan, dtype)
    part = big[:n, 1:, 1:h + 1, 2:w + 2]
    if rng:
        part[:] = rng.standard_normal(shape)
    return part


def channels(cb, dtype, rng, count):
    return [rng.standard_normal((cb, 16)).astype(dtype) for _ in range(count)]


def wide(a):
    """(CB, 16) against (N, CB, H, W, 16), in float64."""
    return a.astype(float)[:, None, None]


def test_names():
    assert set(kernels.ACTIVATIONS) == set(FORMULA)
    with pytest.raises(AttributeError):
        kernels.no_such_kernel


def test_import_costs_nothing():
    code = 'import sys, mpi_ftp.kernels; sys.exit("numba" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


@DTYPES
@SHAPES
def test_moments(dtype, shape):
    rng = np.random.default_rng(0)
    x, (shift,) = view(shape, dtype, rng), channels(shape[1], dtype, rng, 1)
    sums = np.full((2, shape[1], 16), np.nan)
    kernels.moments(sums, x, shift)
    gap = x.astype(float) - wide(shift)
    np.testing.assert_allclose(sums, [gap.sum((0, 2, 3)), (gap ** 2).sum((0, 2, 3))], **near(dtype))


@DTYPES
@SHAPES
@pytest.mark.parametrize('activation', FORMULA)
def test_activation(dtype, shape, activation):
    rng = np.random.default_rng(1)
    z, dy, y, dz = (view(shape, dtype, rng) for _ in range(4))
    z *= 5
    scale, shift, mean, istd, a, b, c = channels(shape[1], dtype, rng, 7)
    u = z.astype(float) * wide(scale) + wide(shift)
    act = FORMULA[activation]
    kernels.normalize_activate(y, z, scale, shift, activation)
    np.testing.assert_allclose(y, act(u), **near(dtype))

    # the derivative by central differences; the points next to a kink are left out
    step = 1e-5
    slope = (act(u + step) - act(u - step)) / (2 * step)
    dy[np.abs(u) < 1e-4] = 0
    da = dy * slope
    loose = dict(rtol=1e-7, atol=1e-7) if dtype == 'float64' else near(dtype)
    sums = np.full((2, shape[1], 16), np.nan)
    kernels.activate_backward_reduce(sums, dy, z, scale, shift, mean, istd, activation)
    xhat = (z - wide(mean)) * wide(istd)
    size = np.sqrt(max(1, shape[0] * shape[2] * shape[3])) * 10
    np.testing.assert_allclose(sums, [da.sum((0, 2, 3)), (da * xhat).sum((0, 2, 3))], rtol=1e-5,
                               atol=size * loose['atol'])
    kernels.activate_backward(dz, dy, z, scale, shift, a, b, c, activation)
    want = wide(a) * da + wide(b) * z + wide(c)
    np.testing.assert_allclose(dz, want, **loose)

    # in place
    kernels.activate_backward(dy, dy, z, scale, shift, a, b, c, activation)
    np.testing.assert_array_equal(dy, dz)
    kernels.normalize_activate(z, z, scale, shift, activation)
    np.testing.assert_array_equal(z, y)


@pytest.mark.parametrize('activation', FORMULA)
@DTYPES
def test_activation_at_the_ends(activation, dtype):
    """Large arguments, even infinite ones, give neither overflow nor NaN; a NaN stays one."""
    z = np.zeros((1, 1, 1, 11, 16), dtype)
    z[0, 0, 0, :, :] = np.array([-np.inf, -3e38, -1e20, -1e4, -100, 100, 1e4, 1e20, 3e38, np.inf, np.nan])[:, None]
    one, zero = np.ones((1, 16), dtype), np.zeros((1, 16), dtype)
    y, sums = np.empty_like(z), np.empty((2, 1, 16))
    kernels.normalize_activate(y, z, one, zero, activation)
    below, above = {'linear': (1, 1), 'leaky': (0.1, 1), 'relu': (0, 1), 'logistic': (0, 0)}.get(activation, (0, 1))
    want = [v * below if below else 0 for v in z[0, 0, 0, :5, 0]] + [v * above if above else 1 for v in z[0, 0, 0, 5:10, 0]]
    np.testing.assert_allclose(y[0, 0, 0, :10], np.repeat(want, 16).reshape(10, 16), rtol=1e-6, atol=1e-30)
    assert np.isnan(y[0, 0, 0, 10]).all()
    for at in range(10):
        kernels.activate_backward_reduce(sums, np.ones_like(z[:, :, :, :1]), z[:, :, :, at:at + 1], one, zero, zero, one, activation)
        np.testing.assert_allclose(sums[0], below if at < 5 else above, rtol=1e-6, atol=1e-6)


@DTYPES
@pytest.mark.parametrize('size, stride', [(2, 2), (2, 1), (3, 2), (3, 1), (1, 1), (5, 3), (2, 3), (13, 1)])
@pytest.mark.parametrize('shape', [(2, 2, 3, 5, 16), (1, 1, 1, 1, 16), (1, 1, 2, 40, 16), (1, 2, 0, 4, 16), (1, 1, 2, 3, 3)])
def test_maxpool(dtype, size, stride, shape):
    rng = np.random.default_rng(2)
    n, cb, ho, wo, block = shape
    h, w = max(0, (ho - 1) * stride + size), (wo - 1) * stride + size
    x = view((n, cb, h, w, block), dtype)
    x[:] = rng.integers(-2, 3, x.shape)             # many ties
    x[:, :, :1] = -np.inf                           # padding
    dy, y, dx = view(shape, dtype, rng), view(shape, dtype), view(x.shape, dtype)
    kernels.maxpool_forward(y, x, size, stride)
    kernels.maxpool_backward(dx, dy, x, size, stride)
    want, grad = np.empty(shape), np.zeros(x.shape)
    for n_, b, i, j, c in np.ndindex(*shape):
        window = x[n_, b, i * stride:i * stride + size, j * stride:j * stride + size, c]
        want[n_, b, i, j, c] = window.max()
        p, q = np.unravel_index(window.argmax(), window.shape)
        grad[n_, b, i * stride + p, j * stride + q, c] += dy[n_, b, i, j, c]
    np.testing.assert_array_equal(y, want)
    np.testing.assert_allclose(dx, grad, **near(dtype))


def test_maxpool_keeps_nan():
    x = np.zeros((1, 1, 2, 4, 16), np.float32)
    x[0, 0, 0, 1], x[0, 0, 1, 2] = np.nan, np.nan
    y = np.empty((1, 1, 1, 2, 16), np.float32)
    kernels.maxpool_forward(y, x, 2, 2)
    assert np.isnan(y).all()


@DTYPES
def test_avgpool(dtype):
    rng = np.random.default_rng(3)
    x, dx = view((2, 2, 3, 5, 16), dtype, rng), view((2, 2, 3, 5, 16), dtype)
    y, dy = view((2, 2, 1, 1, 16), dtype), view((2, 2, 1, 1, 16), dtype, rng)
    kernels.avgpool_forward(y, x)
    kernels.avgpool_backward(dx, dy)
    np.testing.assert_allclose(y, x.astype(float).mean((2, 3), keepdims=True), **near(dtype))
    np.testing.assert_allclose(dx, np.broadcast_to(dy / 15, dx.shape), **near(dtype))


@DTYPES
@pytest.mark.parametrize('dst_c, src_c, count', [(0, 0, 32), (3, 19, 20), (16, 0, 5), (31, 2, 1), (5, 5, 0)])
@pytest.mark.parametrize('add', [False, True])
def test_copy_channels(dtype, dst_c, src_c, count, add):
    rng = np.random.default_rng(4)
    dst, src = view((2, 3, 2, 3, 16), dtype, rng), view((2, 3, 2, 3, 16), dtype, rng)
    want = kernels.from_blocked(dst, 48).copy()
    part = kernels.from_blocked(src, 48)[:, src_c:src_c + count]
    want[:, dst_c:dst_c + count] = part + (want[:, dst_c:dst_c + count] if add else 0)
    kernels.copy_channels(dst, dst_c, src, src_c, count, add)
    np.testing.assert_array_equal(kernels.from_blocked(dst, 48), want)


@DTYPES
@SHAPES
def test_add_and_move(dtype, shape):
    """To a buffer and back, added, and numbers to boxes, in one call and one after the other; nothing beside them changes."""
    rng = np.random.default_rng(5)
    a, b = view(shape, dtype, rng), view(shape, dtype, rng)
    before = a.copy()
    flat = np.full(a.size + 3, 7, dtype)
    kernels.move((flat, a))
    np.testing.assert_array_equal(flat[:a.size], a.ravel())
    assert (flat[a.size:] == 7).all()
    kernels.move((b, flat), (b, a, True), (b, flat, True))
    np.testing.assert_array_equal(b, a + a + a)
    kernels.add(a, b)
    np.testing.assert_array_equal(a, before + b)
    h, w = a.shape[2] // 2, a.shape[3] // 2
    want = b.copy()
    want[:, :, h:, w:], want[:, 1:] = -np.inf, 3
    work = kernels.move.ready((b[:, :, h:, w:], -np.inf), (b[:, 1:], 3), (b[:0], 5))
    work()
    np.testing.assert_array_equal(b, want)
    b[...] = before
    work()
    assert (b[:, 1:] == 3).all() and (b[:, :1, h:, w:] == -np.inf).all()
    np.testing.assert_array_equal(b[:, :1, :h], before[:, :1, :h])
    kernels.move()


@DTYPES
@pytest.mark.parametrize('size', [0, 1, 37])
def test_sgd(dtype, size):
    """Two parts, one with decay, and numbers around them that stay as they are."""
    rng = np.random.default_rng(6)
    w, v, g = (rng.standard_normal(2 * size + 5).astype(dtype) for _ in range(3))
    one, two = slice(1, 1 + size), slice(3 + size, 3 + 2 * size)
    before = [array.copy() for array in (w, v, g)]
    speeds = [0.9 * v[part] + g[part] + pull * w[part] for part, pull in ((one, 0.0005), (two, 0))]
    weights = [w[part] - 0.01 * speed for part, speed in zip((one, two), speeds)]
    kernels.sgd(w, v, g, np.array([[part.start, part.stop, part is one] for part in (one, two)]))(0.01, 0.9, 0.0005)
    for part, speed, weight in zip((one, two), speeds, weights):
        np.testing.assert_allclose(v[part], speed, **near(dtype))
        np.testing.assert_allclose(w[part], weight, **near(dtype))
        assert not g[part].any()
    for array, old in zip((w, v, g), before):
        array[one] = old[one]
        array[two] = old[two]
        np.testing.assert_array_equal(array, old)
