"""Bias or batch norm, then the activation: the second phase of a convolution, a connected layer or a shortcut.

Batch norm is exact over all ranks: the moments are sums over owned pixels, each counted once; its backward sums run over all copies of
a pixel on all ranks (each copy carries a part of the gradient) and the correction is added on owned pixels only.

    y = act(gamma (z - mean) / sqrt(var + 1e-5) + beta)          Ioffe & Szegedy 2015, biased variance
    rolling = 0.99 rolling + 0.01 current                        Darknet; the variance kept is the unbiased one
"""
import numpy as np

from .. import kernels

EPSILON = 1e-5
KEEP = 0.99                 # of the running statistics at each step


def finish(layer, y, z, owned, state, again=False):
    """y = act(norm(z)). `owned` is the view of z whose pixels this rank counts; `again`: a recomputation, moments are known."""
    if not layer.normalize:
        set_coefficients(state, z, bias=state.weights.get('bias'))
    elif not state.training or state.frozen:
        set_coefficients(state, z, state.weights['mean'], state.weights['variance'], state.weights['scale'], state.weights['bias'])
    elif not again:
        mean, variance = moments(owned, state)
        set_coefficients(state, z, mean, variance, state.weights['scale'], state.weights['bias'])
        keep_statistics(state, mean, variance)
    saved = state.saved
    if y.size:
        kernels.normalize_activate(y, z, saved['scale'], saved['shift'], layer.activation)


def moments(owned, state):
    """Mean and biased variance over the whole output, shifted by the running mean so that nothing cancels."""
    rolling = state.weights['mean']
    shift = np.asarray(rolling, np.float64)
    sums = np.zeros((2,) + rolling.shape)
    if owned.size:
        kernels.moments(sums, owned, rolling)
    state.reduce(sums)
    offset = sums[0] / state.pixels
    return shift + offset, np.maximum(sums[1] / state.pixels - offset * offset, 0)


def keep_statistics(state, mean, variance):
    unbiased = variance * (state.pixels / max(1, state.pixels - 1))
    for name, value in (('mean', mean), ('variance', unbiased)):
        kept = state.weights[name]
        kept *= KEEP
        kept += (1 - KEEP) * value


def set_coefficients(state, z, mean=None, variance=None, gamma=None, bias=None):
    """Fold norm and bias into z * scale + shift; the coefficients stay with the state for the backward pass."""
    shape, dtype = (z.shape[1], z.shape[-1]), z.dtype
    if mean is None:
        mean, istd, gamma = np.zeros(shape), np.ones(shape), np.ones(shape)
    else:
        shape = mean.shape
        istd = 1 / np.sqrt(np.asarray(variance, np.float64) + EPSILON)
    bias = np.zeros(shape) if bias is None else bias
    scale = gamma * istd
    coefficients = {'mean': mean, 'istd': istd, 'scale': scale, 'shift': bias - mean * scale}
    state.saved.update({name: np.ascontiguousarray(value, dtype) for name, value in coefficients.items()})


def unfinish(layer, dz_owned, dz_rest, dy_owned, dy_rest, whole, z_owned, z_rest, state):
    """Gradient of z, and of gamma and beta, from that of y.

    whole: (dy, z) views of all pixels this rank differentiates; *_owned: views of the owned part; *_rest: lists of views of the
    remaining copies.
    """
    saved, act = state.saved, layer.activation
    dy, z = whole
    shape = saved['scale'].shape
    sums = np.zeros((2,) + shape)
    if dy.size:
        kernels.activate_backward_reduce(sums, dy, z, saved['scale'], saved['shift'], saved['mean'], saved['istd'], act)
    for name, part in (('bias', sums[0]), ('scale', sums[1])):
        if name in state.grads:
            state.grads[name] += part
    dtype = z.dtype
    a, zero = saved['scale'], np.zeros(shape, dtype)
    b = c = zero
    if layer.normalize and state.training and not state.frozen:
        state.reduce(sums)
        weight = np.asarray(a, np.float64) / state.pixels
        slope = -weight * sums[1] * saved['istd']
        b, c = (np.ascontiguousarray(v, dtype) for v in (slope, -weight * sums[0] - slope * saved['mean']))
    for dz_part, dy_part, z_part, b_part, c_part in [(dz_owned, dy_owned, z_owned, b, c)] + \
            [(p, q, r, zero, zero) for p, q, r in zip(dz_rest, dy_rest, z_rest)]:
        if dz_part.size:
            kernels.activate_backward(dz_part, dy_part, z_part, saved['scale'], saved['shift'], a, b_part, c_part, act)
