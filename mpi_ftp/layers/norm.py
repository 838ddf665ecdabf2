"""Bias or batch norm, then the activation: the second phase of a convolution, a connected layer or a shortcut.

Batch norm is exact over all ranks: the moments are sums over owned pixels, each counted once; its backward sums run over all copies of
a pixel on all ranks (each copy carries a part of the gradient) and the correction is added on owned pixels only.

    y = act(gamma (z - mean) / sqrt(var + 1e-5) + beta)          Ioffe & Szegedy 2015, biased variance
    rolling = 0.99 rolling + 0.01 current                        Darknet; the variance kept is the unbiased one

With running statistics 1e-6 stands for 1e-5: Darknet's own weights were made with it, and some of their variances are that small.
"""
import numpy as np

from .. import kernels
from ..tile import BLOCK, clear_padded_lanes

EPSILON = 1e-5
EPSILON_RUNNING = 1e-6
KEEP = 0.99                 # of the running statistics at each step


def rows(box, state):
    """The channel blocks of `box` among those of this rank."""
    first = state.channels[0]
    return slice((box.lo[1] - first) // BLOCK, -(-(box.hi[1] - first) // BLOCK))


def finish(layer, y, z, computed, owned, state, again=False):
    """y = act(norm(z)) on the tiles' box `computed`; `owned`: the pixels this rank counts; `again`: a recomputation, moments are known."""
    weights = state.weights
    if not state.present:
        return
    if not layer.normalize:
        set_coefficients(state, bias=weights.get('bias'))
    elif not state.live:
        set_coefficients(state, weights['mean'], weights['variance'], weights['scale'], weights['bias'], EPSILON_RUNNING)
    elif not again:
        mean, variance = moments(z, owned, state)
        set_coefficients(state, mean, variance, weights['scale'], weights['bias'])
        keep_statistics(state, mean, variance)
    if not computed.empty:
        saved, part = state.saved, rows(computed, state)
        kernels.normalize_activate(y[computed], z[computed], saved['scale'][part], saved['shift'][part], layer.activation)
        if layer.activation == 'logistic':
            clear_padded_lanes(y[computed], computed.shape[1])


def moments(z, owned, state):
    """Mean and biased variance over the whole output, shifted by the running mean so that nothing cancels."""
    rolling = state.weights['mean']
    sums = np.zeros((2,) + rolling.shape)
    if not owned.empty:
        part = rows(owned, state)
        mine = np.zeros((2,) + rolling[part].shape)
        kernels.moments(mine, z[owned], rolling[part])
        sums[:, part] = mine
    state.reduce(sums)
    offset = sums[0] / state.pixels
    return rolling + offset, np.maximum(sums[1] / state.pixels - offset * offset, 0)


def keep_statistics(state, mean, variance):
    unbiased = variance * (state.pixels / max(1, state.pixels - 1))
    for name, value in (('mean', mean), ('variance', unbiased)):
        kept = state.weights[name]
        kept *= KEEP
        kept += (1 - KEEP) * value


def set_coefficients(state, mean=None, variance=None, gamma=None, bias=None, epsilon=EPSILON):
    """Fold norm and bias into z * scale + shift; the coefficients stay with the state for the backward pass."""
    shape = state.coefficients
    bias = np.zeros(shape) if bias is None else bias
    if mean is None:
        mean, istd, gamma = np.zeros(shape), np.ones(shape), 1.0
    else:
        istd = 1 / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    scale = gamma * istd
    coefficients = {'mean': mean, 'istd': istd, 'scale': scale, 'shift': bias - mean * scale}
    state.saved.update({name: np.ascontiguousarray(value, state.dtype) for name, value in coefficients.items()})


def unfinish(layer, dz, dy, z, region, owned, state):
    """Gradient of z, and of gamma and beta, from that of y, on the tiles' box `region`; `owned`: its part that this rank counts."""
    if not state.present:
        return
    saved, act = state.saved, layer.activation
    z = dy if z is None else z              # linear without norm: z does not matter and was not kept
    sums = np.zeros((2,) + state.coefficients)
    if not region.empty:
        part = rows(region, state)
        mine = np.zeros((2,) + saved['scale'][part].shape)
        kernels.activate_backward_reduce(mine, dy[region], z[region], saved['scale'][part], saved['shift'][part],
                                         saved['mean'][part], saved['istd'][part], act)
        sums[:, part] = mine
    for name, total in (('bias', sums[0]), ('scale', sums[1])):
        if name in state.grads:
            state.grads[name] += total
    b = c = np.zeros(state.coefficients, state.dtype)
    if layer.normalize and state.live:
        state.reduce(sums)
        weight = np.asarray(saved['scale'], np.float64) / state.pixels
        slope = -weight * sums[1] * saved['istd']
        b, c = (np.ascontiguousarray(v, state.dtype) for v in (slope, -weight * sums[0] - slope * saved['mean']))
        parts = [(owned, b, c)] + [(box, 0 * b, 0 * c) for box in region.minus(owned)]
    else:
        parts = [(region, b, c)]
    for box, b, c in parts:
        if not box.empty:
            part = rows(box, state)
            kernels.activate_backward(dz[box], dy[box], z[box], saved['scale'][part], saved['shift'][part],
                                      saved['scale'][part], b[part], c[part], act)
