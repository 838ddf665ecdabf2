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

    A call does all; where a rank takes a tile in parts, each has `sums`, one of them settles their total, then each is applied.
    pool: size of the max-pool that follows in the same pass, whose output y then is.
    """

    def __init__(self, layer, state, y, z, computed, owned, pool=1):
        self.layer, self.state, self.pool = layer, state, pool
        self.part = rows(computed, state)
        self.views = None if computed.empty or not state.present else (y[shrunk(computed, pool)], z[computed])
        self.owned = None if owned.empty or not state.present else (z[owned], rows(owned, state))
        self.channels = computed.shape[1]

    def __call__(self, again=False):
        """again: the moments are known."""
        if self.layer.normalize and self.state.live and not again:
            self.settle(self.sums())
        self.apply()

    def sums(self):
        """Sums of z and z² over owned pixels (float64), shifted by the running mean so that nothing cancels."""
        sums = np.zeros((2,) + self.state.coefficients)
        if self.owned:
            z, part = self.owned
            rolling = self.state.weights['mean'][part]
            mine = np.zeros((2,) + rolling.shape)
            kernels.moments(mine, z, rolling)
            sums[:, part] = mine
        return sums

    def settle(self, sums):
        """Mean and biased variance of the whole output from every rank's sums; the running statistics follow them."""
        state = self.state
        if not state.present:
            return
        state.reduce(sums)
        offset = sums[0] / state.pixels
        mean, variance = state.weights['mean'] + offset, np.maximum(sums[1] / state.pixels - offset * offset, 0)
        set_coefficients(state, mean, variance, state.weights['scale'], state.weights['bias'])
        keep_statistics(state, mean, variance)

    def apply(self):
        layer, state, weights = self.layer, self.state, self.state.weights
        if not self.views:
            return
        if not layer.normalize:
            set_coefficients(state, bias=weights.get('bias'))
        elif not state.live:
            set_coefficients(state, weights['mean'], weights['variance'], weights['scale'], weights['bias'], EPSILON_RUNNING)
        y, z = self.views
        coefficients = state.saved['scale'][self.part], state.saved['shift'][self.part], layer.activation
        if self.pool > 1:
            kernels.normalize_activate_maxpool(y, z, *coefficients, self.pool)
        else:
            kernels.normalize_activate(y, z, *coefficients)
        if layer.activation == 'logistic':
            clear_padded_lanes(y, self.channels)


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

    A call does all; where a rank takes a tile in parts, each has `sums`, one of them settles their total, then each is applied.
    pool: size of the max-pool that follows in the same pass, of whose output dy then is the gradient.
    """

    def __init__(self, layer, state, dz, dy, z, region, owned, pool=1):
        self.layer, self.state, self.pool = layer, state, pool
        z = dy if z is None else z              # linear without norm: z does not matter and was not kept
        self.corrected = layer.normalize and state.live
        boxes = [(owned, True)] + [(box, False) for box in region.minus(owned)] if self.corrected else [(region, False)]
        self.parts = [(dz[box], dy[shrunk(box, pool)], z[box], rows(box, state), corrected) for box, corrected in boxes if not box.empty]
        self.whole = None if region.empty else (dy[shrunk(region, pool)], z[region], rows(region, state))
        self.zero = np.zeros(state.coefficients, state.dtype)
        self.options = (layer.activation,) + (pool,) * (pool > 1)

    def __call__(self):
        self.settle(self.sums())
        self.apply()

    def sums(self):
        """Sums over `region` (float64) of the gradient before the activation, plain and times the normalised z."""
        state, sums = self.state, np.zeros((2,) + self.state.coefficients)
        if self.whole and state.present:
            dy, z, part = self.whole
            saved = state.saved
            mine = np.zeros((2,) + saved['scale'][part].shape)
            reduce = kernels.maxpool_activate_backward_reduce if self.pool > 1 else kernels.activate_backward_reduce
            reduce(mine, dy, z, saved['scale'][part], saved['shift'][part], saved['mean'][part], saved['istd'][part], *self.options)
            sums[:, part] = mine
        return sums

    def settle(self, sums):
        """Gradients of gamma and beta; with live moments, what every owned pixel's dz is corrected by."""
        state, saved = self.state, self.state.saved
        if not state.present:
            return
        for name, total in (('bias', sums[0]), ('scale', sums[1])):
            if name in state.grads:
                state.grads[name] += total
        if self.corrected:
            state.reduce(sums)
            weight = np.asarray(saved['scale'], np.float64) / state.pixels
            slope = -weight * sums[1] * saved['istd']
            saved['b'], saved['c'] = (np.ascontiguousarray(v, state.dtype) for v in (slope, -weight * sums[0] - slope * saved['mean']))

    def apply(self):
        saved = self.state.saved
        if not self.state.present:
            return
        backward = kernels.maxpool_activate_backward if self.pool > 1 else kernels.activate_backward
        for dz, dy, z, part, corrected in self.parts:
            b, c = (saved['b'], saved['c']) if corrected else (self.zero, self.zero)
            backward(dz, dy, z, saved['scale'][part], saved['shift'][part], saved['scale'][part], b[part], c[part], *self.options)
