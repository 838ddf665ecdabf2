"""Norm, activation and max-pool in one pass against the same one after the other."""
import numpy as np
import pytest

from mpi_ftp import kernels

DTYPES = pytest.mark.parametrize('dtype', ['float64', 'float32'])
SHAPES = pytest.mark.parametrize('shape', [(2, 2, 3, 5, 16), (1, 1, 1, 1, 16), (1, 3, 2, 19, 16), (1, 1, 0, 3, 16)])
SIZES = pytest.mark.parametrize('size', [1, 2, 3])


def gaps(shape, dtype, rng):
    """A view with gaps along N, CB, H and W, filled with few different numbers so that there are ties."""
    n, cb, h, w, b = shape
    big = np.full((n + 1, cb + 1, h + 2, w + 3, b), np.nan, dtype)
    part = big[:n, 1:, 1:h + 1, 2:w + 2]
    part[:] = rng.integers(-3, 4, shape) / 2
    return part


@DTYPES
@SHAPES
@SIZES
@pytest.mark.parametrize('activation', ['linear', 'leaky', 'relu', 'mish'])
def test_one_pass_equals_two(dtype, shape, size, activation):
    rng = np.random.default_rng(3)
    n, cb, h, w, b = shape
    full = n, cb, h * size, w * size, b
    z, y, dy, dz, want_dz = (gaps(full, dtype, rng) for _ in range(5))
    p, want_p, dp = (gaps(shape, dtype, rng) for _ in range(3))
    dp[...] = rng.standard_normal(shape)
    scale, shift, mean, istd, a_, b_, c_ = (rng.standard_normal((cb, 16)).astype(dtype) for _ in range(7))

    kernels.normalize_activate(y, z, scale, shift, activation)
    kernels.maxpool_forward(want_p, y, size, size)
    kernels.normalize_activate_maxpool(p, z, scale, shift, activation, size)
    np.testing.assert_array_equal(p, want_p)

    sums, want_sums = np.full((2, cb, 16), np.nan), np.full((2, cb, 16), np.nan)
    kernels.maxpool_backward(dy, dp, y, size, size)
    kernels.activate_backward_reduce(want_sums, dy, z, scale, shift, mean, istd, activation)
    kernels.maxpool_activate_backward_reduce(sums, dp, z, scale, shift, mean, istd, activation, size)
    near = dict(rtol=1e-12, atol=1e-12) if dtype == 'float64' else dict(rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sums, want_sums, **near)

    kernels.activate_backward(want_dz, dy, z, scale, shift, a_, b_, c_, activation)
    kernels.maxpool_activate_backward(dz, dp, z, scale, shift, a_, b_, c_, activation, size)
    np.testing.assert_array_equal(dz, want_dz)
    kernels.maxpool_activate_backward(z, dp, z, scale, shift, a_, b_, c_, activation, size)
    np.testing.assert_array_equal(z, want_dz)


@DTYPES
def test_large_arrays_are_written_past_the_caches(dtype):
    rng = np.random.default_rng(4)
    z, dz, want = (np.empty((1, 1, 300, 300, 16), dtype) for _ in range(3))
    z[...], dp = rng.standard_normal(z.shape), rng.standard_normal((1, 1, 150, 150, 16)).astype(dtype)
    one, zero = np.ones((1, 16), dtype), np.zeros((1, 16), dtype)
    kernels.maxpool_activate_backward(dz, dp, z, one, zero, one, zero, zero, 'leaky', 2)
    kernels.maxpool_backward(want, dp, z, 2, 2)             # where the largest is
    np.testing.assert_array_equal(dz != 0, want != 0)


@DTYPES
def test_a_nan_wins(dtype):
    z, p = np.zeros((1, 1, 2, 4, 16), dtype), np.empty((1, 1, 1, 2, 16), dtype)
    z[0, 0, 0, 1], z[0, 0, 1, 2] = np.nan, np.nan
    kernels.normalize_activate_maxpool(p, z, np.ones((1, 16), dtype), np.zeros((1, 16), dtype), 'leaky', 2)
    assert np.isnan(p).all()


def test_windows_must_tile():
    z, p = np.zeros((1, 1, 5, 4, 16), np.float32), np.zeros((1, 1, 2, 2, 16), np.float32)
    with pytest.raises(ValueError, match='do not tile'):
        kernels.normalize_activate_maxpool(p, z, np.ones((1, 16), np.float32), np.zeros((1, 16), np.float32), 'leaky', 2)
