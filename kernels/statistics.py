"""Batch norm's numbers of each channel, from sums over pixels: small arrays (CB, 16), in one call each. Sums are float64. And the sum of such arrays."""
import numpy as np

from .jit import kernel


@kernel('c2 c2 c2 c2 d3 c2 c2 c2 c2 s s s')
def fold_moments(scale, shift, mean, istd, sums, gamma, beta, rolling_mean, rolling_variance, pixels, keep, epsilon):
    """Moments of `pixels` numbers a channel from sums of z - rolling_mean and of its square; with them norm is z * scale + shift.

    The variance is the biased one. rolling = keep * rolling + (1 - keep) * moment, of the variance the unbiased one.
    """
    for b in range(scale.shape[0]):
        for lane in range(scale.shape[1]):
            offset = sums[0, b, lane] / pixels
            m = rolling_mean[b, lane] + offset
            v = max(sums[1, b, lane] / pixels - offset * offset, 0.0)
            i = 1 / np.sqrt(v + epsilon)
            s = gamma[b, lane] * i
            mean[b, lane], istd[b, lane], scale[b, lane], shift[b, lane] = m, i, s, beta[b, lane] - m * s
            rolling_mean[b, lane] = keep * rolling_mean[b, lane] + (1 - keep) * m
            rolling_variance[b, lane] = keep * rolling_variance[b, lane] + (1 - keep) * v * (pixels / max(1.0, pixels - 1))


@kernel('c2 d2')
def add_sums(dst, sums):
    """dst += sums."""
    for b in range(dst.shape[0]):
        for lane in range(dst.shape[1]):
            dst[b, lane] += sums[b, lane]


@kernel('c1 c2')
def add_terms(total, terms):
    """total = the sum of the rows of terms, in their order."""
    for i in range(total.size):
        total[i] = terms[0, i]
    for k in range(1, terms.shape[0]):
        for i in range(total.size):
            total[i] += terms[k, i]


@kernel('c2 c2 d3 c2 c2 c2 s')
def correct_moments(slope, level, sums, scale, istd, mean, pixels):
    """What live moments add to dz: slope * z + level, from sums of da and of da * (z - mean) * istd over all pixels."""
    for b in range(scale.shape[0]):
        for lane in range(scale.shape[1]):
            weight = np.float64(scale[b, lane]) / pixels
            s = -weight * sums[1, b, lane] * istd[b, lane]
            slope[b, lane], level[b, lane] = s, -weight * sums[0, b, lane] - s * mean[b, lane]
