"""The [softmax] loss of classifiers, in plain numpy: a few thousand numbers at most."""
import numpy as np

from .errors import CfgError, DataError
from .loss_checks import STATS, check_cells, known, number, of_cells, refuse


class SoftmaxLoss:
    """Softmax over each of `groups` equal parts of the C*H*W inputs at a temperature T, and cross-entropy with one true class each.

    value = -T sum log p(true class), so that the gradient is Darknet's p - t; Darknet prints value / T, which is stats['cost'].
    `truths`: for each sample of the mini-batch its class, or with groups > 1 one class of every group, counted over all inputs.
    Raises CfgError for unknown keys, wrong values, `tree`, `spatial`, `noloss`.
    """

    kind = 'softmax'

    def __init__(self, options, shape, net_shape=None):
        self.shape = tuple(shape)
        options = known(options, self.kind, None, 'groups temperature tree spatial noloss'.split())
        self.groups = number(options, self.kind, 'groups', int, 1)
        self.temperature = number(options, self.kind, 'temperature', float, 1.0)
        refuse(options, self.kind, 'tree')
        for key in ('spatial', 'noloss'):
            if number(options, self.kind, key, int, 0):
                raise CfgError(f'[softmax] {key}={options[key]} is not trained by this program, only {key}=0')
        self.inputs = int(np.prod(self.shape))
        if self.groups < 1 or self.inputs % self.groups:
            raise CfgError(f'[softmax] groups={self.groups} must divide its {self.inputs} inputs')
        if not self.temperature > 0:
            raise CfgError(f'[softmax] temperature={self.temperature:g} must be above 0')

    def activate(self, x):
        """Probabilities (n, C, H, W) for the inputs `x` of whole samples."""
        z = self._grouped(x) / x.dtype.type(self.temperature)
        e = np.exp(z - z.max(axis=2, keepdims=True))
        return (e / e.sum(axis=2, keepdims=True)).reshape(x.shape)

    def __call__(self, x, cells, truths, seen=0, dx=None):
        check_cells(self, x, cells)
        dx = np.empty_like(x) if dx is None else dx
        if not x.size:
            return 0.0, dx, dict.fromkeys(STATS, 0.0)
        targets = self._targets(of_cells(truths, cells), cells.lo[0])
        sample, group = np.arange(len(x))[:, None], np.arange(self.groups)

        p = self._grouped(self.activate(x))
        probability = p[sample, group, targets]
        p[sample, group, targets] -= 1
        dx[...] = p.reshape(x.shape)

        z = self._grouped(x).astype(np.float64) / self.temperature
        top = z.max(axis=2)
        cost = float((top + np.log(np.exp(z - top[..., None]).sum(axis=2)) - z[sample, group, targets]).sum())
        stats = {**dict.fromkeys(STATS, 0.0), 'cost': cost, 'class': float(probability.sum()), 'truths': float(targets.size)}
        return cost * self.temperature, dx, stats

    def _grouped(self, x):
        return x.reshape(len(x), self.groups, self.inputs // self.groups)

    def _targets(self, truths, first):
        """(n, groups) true classes, each counted from the first of its group."""
        size = self.inputs // self.groups
        targets = np.empty((len(truths), self.groups), np.int64)
        for sample, (row, truth) in enumerate(zip(targets, truths), first):
            row[...] = np.sort(np.atleast_1d(truth)) if np.size(truth) == self.groups else -1
            if (row // size != np.arange(self.groups)).any():
                what = f'a class below {size}' if self.groups == 1 else f'one class of each of {self.groups} groups of {size}'
                raise DataError(f'sample {sample}: truth {truth} is not {what}')
        return targets % size
