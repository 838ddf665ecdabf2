"""Bias or batch norm, then the activation: the second phase of a convolution, a connected layer or a shortcut.

Batch norm is exact over all ranks: the moments are sums over owned pixels, each counted once; its backward sums run over all copies of
a pixel on all ranks (each copy carries a part of the gradient) and the correction is added on owned pixels only.

    y = act(gamma (z - mean) / sqrt(var + 1e-5) + beta)          Ioffe & Szegedy 2015, biased variance
    rolling = 0.99 rolling + 0.01 current                        Darknet; the variance kept is the unbiased one

With running statistics 1e-6 stands for 1e-5: Darknet's own weights were made with it, and some of their variances are that small.
"""
import numpy as np

from .. import kernels
from ..region import Region
from ..tile import BLOCK, clear_padded_lanes

EPSILON = 1e-5
EPSILON_RUNNING = 1e-6
KEEP = 0.99                 # of the running statistics at each step


def rows(box, state):
    """The channel blocks of `box` among those of this rank."""
    first = state.channels[0]
    return slice((box.lo[1] - first) // BLOCK, -(-(box.hi[1] - first) // BLOCK))


def shrunk(box, size):
    """The windows of `size` pixels that tile a box, as a box."""
    return Region(box.lo[:2] + tuple(v // size for v in box.lo[2:]), box.hi[:2] + tuple(v // size for v in box.hi[2:]))


class Finish:
    """y = act(norm(z)) on the tiles' box `computed`; `owned`: the pixels this rank counts. Views are taken once.

    pool: size of the max-pool that follows in the same pass, whose output y then is.
    """

    def __init__(self, layer, state, y, z, computed, owned, pool=1):
        self.layer, self.state, self.pool = layer, state, pool
        self.part = rows(computed, state)
        self.views = None if computed.empty or not state.present else (y[shrunk(computed, pool)], z[computed])
        self.owned = None if owned.empty or not state.present else (z[owned], rows(owned, state))
        self.channels = computed.shape[1]

    def __call__(self, again=False):
        """again: a recomputation, in which the moments are known."""
        layer, state, weights = self.layer, self.state, self.state.weights
        if not state.present:
            return
        if not layer.normalize:
            set_coefficients(state, bias=weights.get('bias'))
        elif not state.live:
            set_coefficients(state, weights['mean'], weights['variance'], weights['scale'], weights['bias'], EPSILON_RUNNING)
        elif not again:
            mean, variance = moments(self.owned, state)
            set_coefficients(state, mean, variance, weights['scale'], weights['bias'])
            keep_statistics(state, mean, variance)
        if self.views:
            y, z = self.views
            coefficients = state.saved['scale'][self.part], state.saved['shift'][self.part], layer.activation
            if self.pool > 1:
                kernels.normalize_activate_maxpool(y, z, *coefficients, self.pool)
            else:
                kernels.normalize_activate(y, z, *coefficients)
            if layer.activation == 'logistic':
                clear_padded_lanes(y, self.channels)


def moments(owned, state):
    """Mean and biased variance over the whole output, shifted by the running mean so that nothing cancels.

    owned: (view, its channel blocks) of the pixels that this rank counts, or None.
    """
    rolling = state.weights['mean']
    sums = np.zeros((2,) + rolling.shape)
    if owned:
        z, part = owned
        mine = np.zeros((2,) + rolling[part].shape)
        kernels.moments(mine, z, rolling[part])
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


class Unfinish:
    """Gradient of z, and of gamma and beta, from that of y, on the tiles' box `region`; `owned`: its part that this rank counts.

    pool: size of the max-pool that follows, of whose output dy then is the gradient.
    """

    def __init__(self, layer, state, dz, dy, z, region, owned, pool=1):
        self.layer, self.state, self.pool = layer, state, pool
        z = dy if z is None else z              # linear without norm: z does not matter and was not kept
        self.corrected = layer.normalize and state.live
        boxes = [(owned, True)] + [(box, False) for box in region.minus(owned)] if self.corrected else [(region, False)]
        self.parts = [(dz[box], dy[shrunk(box, pool)], z[box], rows(box, state), corrected) for box, corrected in boxes if not box.empty]
        self.whole = None if region.empty else (dy[shrunk(region, pool)], z[region], rows(region, state))
        self.zero = np.zeros(state.coefficients, state.dtype)

    def __call__(self):
        state, options = self.state, (self.layer.activation,) + (self.pool,) * (self.pool > 1)
        if not state.present:
            return
        reduce, backward = ((kernels.maxpool_activate_backward_reduce, kernels.maxpool_activate_backward) if self.pool > 1 else
                            (kernels.activate_backward_reduce, kernels.activate_backward))
        saved, sums = state.saved, np.zeros((2,) + state.coefficients)
        if self.whole:
            dy, z, part = self.whole
            mine = np.zeros((2,) + saved['scale'][part].shape)
            reduce(mine, dy, z, saved['scale'][part], saved['shift'][part], saved['mean'][part], saved['istd'][part], *options)
            sums[:, part] = mine
        for name, total in (('bias', sums[0]), ('scale', sums[1])):
            if name in state.grads:
                state.grads[name] += total
        b = c = self.zero
        if self.corrected:
            state.reduce(sums)
            weight = np.asarray(saved['scale'], np.float64) / state.pixels
            slope = -weight * sums[1] * saved['istd']
            b, c = (np.ascontiguousarray(v, state.dtype) for v in (slope, -weight * sums[0] - slope * saved['mean']))
        for dz, dy, z, part, corrected in self.parts:
            backward(dz, dy, z, saved['scale'][part], saved['shift'][part], saved['scale'][part],
                     (b if corrected else self.zero)[part], (c if corrected else self.zero)[part], *options)
