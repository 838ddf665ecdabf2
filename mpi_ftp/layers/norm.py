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
        self.views = self.owned = None
        self.total, self.channels = np.zeros((2,) + state.coefficients), computed.shape[1]
        if not state.present:
            return
        saved = saved_arrays(state)
        if not computed.empty:
            part = rows(computed, state)
            self.views = y[shrunk(computed, pool)], z[computed], saved['scale'][part], saved['shift'][part]
        if layer.normalize and not owned.empty:
            part = rows(owned, state)
            self.owned = z[owned], state.weights['mean'][part], part

    def __call__(self, again=False):
        """again: the moments are known."""
        if self.layer.normalize and self.state.live and not again:
            self.settle(self.sums())
        self.apply()

    def sums(self):
        """Sums of z and z² over owned pixels (float64), shifted by the running mean so that nothing cancels."""
        if not self.owned:
            self.total[...] = 0
            return self.total
        z, rolling, part = self.owned
        return filled(self.total, part, kernels.moments, z, rolling)

    def settle(self, sums):
        """Mean and biased variance of the whole output from every rank's sums; the running statistics follow them."""
        state, saved, weights = self.state, self.state.saved, self.state.weights
        if not state.present:
            return
        state.reduce(sums)
        kernels.fold_moments(saved['scale'], saved['shift'], saved['mean'], saved['istd'], sums, weights['scale'], weights['bias'],
                             weights['mean'], weights['variance'], state.pixels, KEEP, EPSILON)

    def apply(self):
        layer, state, weights = self.layer, self.state, self.state.weights
        if not self.views:
            return
        if not layer.normalize:
            set_coefficients(state, bias=weights.get('bias'))
        elif not state.live:
            set_coefficients(state, weights['mean'], weights['variance'], weights['scale'], weights['bias'])
        y, z, scale, shift = self.views
        if self.pool > 1:
            kernels.normalize_activate_maxpool(y, z, scale, shift, layer.activation, self.pool)
        else:
            kernels.normalize_activate(y, z, scale, shift, layer.activation)
        if layer.activation == 'logistic':
            clear_padded_lanes(y, self.channels)


def filled(total, part, kernel, *arguments):
    """`total` with the sums that a kernel writes for the channel blocks `part`, and zeros for the others."""
    if part == slice(0, total.shape[1]):
        kernel(total, *arguments)
        return total
    total[...] = 0
    mine = np.zeros((2,) + total[0, part].shape)
    kernel(mine, *arguments)
    total[:, part] = mine
    return total


def saved_arrays(state):
    """The coefficients of each channel that stay with the state from forward to backward: made once, written in each step."""
    for name in ('mean', 'istd', 'scale', 'shift', 'slope', 'level', 'zero'):
        state.saved.setdefault(name, np.zeros(state.coefficients, state.dtype))
    return state.saved


def set_coefficients(state, mean=None, variance=None, gamma=None, bias=None):
    """Fold norm by running statistics, and bias, into z * scale + shift."""
    saved = state.saved
    istd = 1.0 if mean is None else 1 / np.sqrt(np.asarray(variance, np.float64) + EPSILON_RUNNING)
    scale, mean = istd if gamma is None else gamma * istd, 0.0 if mean is None else mean
    shift = (0.0 if bias is None else bias) - mean * scale
    for name, value in (('mean', mean), ('istd', istd), ('scale', scale), ('shift', shift)):
        saved[name][...] = value


class Unfinish:
    """Gradient of z, and of gamma and beta, from that of y, on the tiles' box `region`; `owned`: its part that this rank counts.

    A call does all; where a rank takes a tile in parts, each has `sums`, one of them settles their total, then each is applied.
    pool: size of the max-pool that follows in the same pass, of whose output dy then is the gradient.
    """

    def __init__(self, layer, state, dz, dy, z, region, owned, pool=1):
        self.layer, self.state, self.pool = layer, state, pool
        z = dy if z is None else z              # linear without norm: z does not matter and was not kept
        self.corrected, self.under_way = layer.normalize and state.live, None
        boxes = [(owned, True)] + [(box, False) for box in region.minus(owned)] if self.corrected else [(region, False)]
        self.total, self.parts, self.whole = np.zeros((2,) + state.coefficients), [], None
        if state.present:
            saved = saved_arrays(state)
            for box, corrected in boxes:
                if not box.empty:
                    names = ('scale', 'shift', 'scale') + (('slope', 'level') if corrected else ('zero', 'zero'))
                    self.parts.append((dz[box], dy[shrunk(box, pool)], z[box], *(saved[name][rows(box, state)] for name in names)))
            if not region.empty:
                part = rows(region, state)
                self.whole = (part, dy[shrunk(region, pool)], z[region], *(saved[name][part] for name in ('scale', 'shift', 'mean', 'istd')))
        self.options = (layer.activation,) + (pool,) * (pool > 1)

    def __call__(self, meanwhile=None):
        """meanwhile: called while the sums travel."""
        self.begin(self.sums())
        if meanwhile:
            meanwhile()
        self.finish()
        self.apply()

    def sums(self):
        """Sums over `region` (float64) of the gradient before the activation, plain and times the normalised z."""
        if not self.whole:
            self.total[...] = 0
            return self.total
        reduce = kernels.maxpool_activate_backward_reduce if self.pool > 1 else kernels.activate_backward_reduce
        return filled(self.total, self.whole[0], reduce, *self.whole[1:], *self.options)

    def settle(self, sums):
        """Gradients of gamma and beta; with live moments, what every owned pixel's dz is corrected by."""
        self.begin(sums)
        self.finish()

    def begin(self, sums):
        """Take the gradients of gamma and beta, and send this rank's sums."""
        state = self.state
        if not state.present:
            return
        for name, total in (('bias', sums[0]), ('scale', sums[1])):
            if name in state.grads:
                state.grads[name] += total
        if self.corrected:
            self.under_way = sums, state.begin_reduce(sums)

    def finish(self):
        """Wait for the sums of all ranks."""
        if self.under_way:
            (sums, wait), self.under_way, state, saved = self.under_way, None, self.state, self.state.saved
            wait()
            kernels.correct_moments(saved['slope'], saved['level'], sums, saved['scale'], saved['istd'], saved['mean'], state.pixels)

    def apply(self):
        backward = kernels.maxpool_activate_backward if self.pool > 1 else kernels.activate_backward
        for views in self.parts:
            backward(*views, *self.options)
