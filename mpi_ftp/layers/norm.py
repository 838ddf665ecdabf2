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
        self.layer, self.state = layer, state
        self.moments = self.work = None
        self.total, self.channels = np.zeros((2,) + state.coefficients), computed.shape[1]
        if not state.present:
            return
        saved = saved_arrays(state)
        if not computed.empty:
            part = rows(computed, state)
            self.y, views = y[shrunk(computed, pool)], (z[computed], saved['scale'][part], saved['shift'][part], layer.activation)
            self.work = (kernels.normalize_activate_maxpool.ready(self.y, *views, pool) if pool > 1 else
                         kernels.normalize_activate.ready(self.y, *views))
        if layer.normalize and not owned.empty:
            part = rows(owned, state)
            self.moments = filled(self.total, part, kernels.moments, z[owned], state.weights['mean'][part])

    def __call__(self, again=False):
        """again: the moments are known."""
        if self.layer.normalize and self.state.live and not again:
            self.settle(self.sums())
        self.apply()

    def sums(self):
        """Sums of z and z² over owned pixels (float64), shifted by the running mean so that nothing cancels."""
        if self.moments:
            self.moments()
        else:
            self.total[...] = 0
        return self.total

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
        if not self.work:
            return
        if not layer.normalize:
            set_coefficients(state, bias=weights.get('bias'))
        elif not state.live:
            set_coefficients(state, weights['mean'], weights['variance'], weights['scale'], weights['bias'])
        self.work()
        if layer.activation == 'logistic':
            clear_padded_lanes(self.y, self.channels)


def filled(total, part, kernel, *arguments):
    """A function that fills `total` with the sums that a kernel writes for the channel blocks `part`, and zeros for the others."""
    if part == slice(0, total.shape[1]):
        return kernel.ready(total, *arguments)
    mine = np.zeros((2,) + total[0, part].shape)
    work = kernel.ready(mine, *arguments)

    def fill():
        total[...] = 0
        work()
        total[:, part] = mine
    return fill


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
        self.layer, self.state = layer, state
        z = dy if z is None else z              # linear without norm: z does not matter and was not kept
        self.corrected, self.under_way = layer.normalize and state.live, None
        boxes = [(owned, True)] + [(box, False) for box in region.minus(owned)] if self.corrected else [(region, False)]
        self.total, self.parts, self.reduce = np.zeros((2,) + state.coefficients), [], None
        options = (layer.activation,) + (pool,) * (pool > 1)
        backward = kernels.maxpool_activate_backward if pool > 1 else kernels.activate_backward
        reduce = kernels.maxpool_activate_backward_reduce if pool > 1 else kernels.activate_backward_reduce
        if state.present:
            saved = saved_arrays(state)
            for box, corrected in boxes:
                if not box.empty:
                    names = ('scale', 'shift', 'scale') + (('slope', 'level') if corrected else ('zero', 'zero'))
                    self.parts.append(backward.ready(dz[box], dy[shrunk(box, pool)], z[box], *(saved[name][rows(box, state)] for name in names), *options))
            if not region.empty:
                part = rows(region, state)
                arguments = dy[shrunk(region, pool)], z[region], *(saved[name][part] for name in ('scale', 'shift', 'mean', 'istd')), *options
                self.reduce = filled(self.total, part, reduce, *arguments)

    def __call__(self, meanwhile=None):
        """meanwhile: called while the sums travel."""
        self.begin(self.sums())
        if meanwhile:
            meanwhile()
        self.finish()
        self.apply()

    def sums(self):
        """Sums over `region` (float64) of the gradient before the activation, plain and times the normalised z."""
        if self.reduce:
            self.reduce()
        else:
            self.total[...] = 0
        return self.total

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
                kernels.add_sums(state.grads[name], total)
        if self.corrected:
            self.under_way = sums, state.begin_reduce(sums)

    def finish(self):
        """Wait for the sums of all ranks."""
        if self.under_way:
            (sums, wait), self.under_way, state, saved = self.under_way, None, self.state, self.state.saved
            wait()
            kernels.correct_moments(saved['slope'], saved['level'], sums, saved['scale'], saved['istd'], saved['mean'], state.pixels)

    def apply(self):
        for work in self.parts:
            work()
