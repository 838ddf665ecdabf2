"""Batch norm's numbers of each channel against numpy."""
import numpy as np
import pytest

from mpi_ftp import kernels


@pytest.mark.parametrize('dtype, near', [('float64', 1e-12), ('float32', 1e-5)])
def test_moments_are_those_of_the_numbers(dtype, near):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((50, 2, 16)) * 3 + 5
    scale, shift, mean, istd = (np.full((2, 16), np.nan, dtype) for _ in range(4))
    gamma, beta, rolling_mean, rolling_variance = (rng.random((2, 16)).astype(dtype) for _ in range(4))
    before = rolling_mean.astype(float), rolling_variance.astype(float)
    sums = np.array([(z - before[0]).sum(0), ((z - before[0]) ** 2).sum(0)])
    kernels.fold_moments(scale, shift, mean, istd, sums, gamma, beta, rolling_mean, rolling_variance, 50, .9, 1e-5)
    np.testing.assert_allclose(mean, z.mean(0), rtol=near)
    np.testing.assert_allclose(istd, 1 / np.sqrt(z.var(0) + 1e-5), rtol=near)
    np.testing.assert_allclose(z * scale + shift, (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) * gamma + beta, rtol=near, atol=near * 10)
    np.testing.assert_allclose(rolling_mean, .9 * before[0] + .1 * z.mean(0), rtol=near)
    np.testing.assert_allclose(rolling_variance, .9 * before[1] + .1 * z.var(0, ddof=1), rtol=near)


@pytest.mark.parametrize('dtype, near', [('float64', 1e-9), ('float32', 1e-4)])
def test_correction_makes_the_gradient_blind_to_shift_and_scale(dtype, near):
    """dz of a live norm sums to nothing over the pixels, plain and times z."""
    rng = np.random.default_rng(1)
    z, da = rng.standard_normal((2, 40, 1, 16))
    mean, istd, scale = z.mean(0).astype(dtype), (1 / z.std(0)).astype(dtype), rng.random((1, 16)).astype(dtype)
    slope, level = np.full((1, 16), np.nan, dtype), np.full((1, 16), np.nan, dtype)
    sums = np.array([da.sum(0), (da * (z - z.mean(0)) / z.std(0)).sum(0)])
    kernels.correct_moments(slope, level, sums, scale, istd, mean, 40)
    dz = scale * da + slope * z + level
    np.testing.assert_allclose(dz.sum(0), 0, atol=near)
    np.testing.assert_allclose((dz * z).sum(0), 0, atol=near)


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_sums_are_added(dtype):
    dst, sums = np.arange(48).reshape(3, 16).astype(dtype), np.full((2, 3, 16), .25)
    kernels.add_sums(dst, sums[1])
    np.testing.assert_array_equal(dst, np.arange(48).reshape(3, 16) + .25)


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
def test_terms_are_added_in_their_order(dtype):
    """Bit for bit, whatever the total held before."""
    terms = np.random.default_rng(2).standard_normal((5, 33)).astype(dtype)
    total = np.full(33, np.nan, dtype)
    kernels.add_terms(total, terms)
    want = terms[0].copy()
    for term in terms[1:]:
        want += term
    np.testing.assert_array_equal(total, want)
