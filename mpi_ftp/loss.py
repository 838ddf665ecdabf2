"""The losses of Darknet's heads [region], [yolo] and [softmax]: options, checks and calls; the loops are in *_loss.py.

A loss is built from the options of its cfg section and the head's shape, and is evaluated on the cells one rank owns: rows,
columns and samples may be cut, channels may not. Every number depends on global coordinates alone, so any cut gives the same
gradient, cell for cell. Nothing here knows of ranks; numba is imported when a loss is first evaluated.

    value, dx, stats = loss(x, cells, truths, seen)

`x` (n, C, h, w) is the head's input on the Region `cells`, `truths` all truths of the global mini-batch, `seen` the number of
pictures trained on so far, this mini-batch included (Darknet's net.seen). `dx`, minus the delta of Darknet, is the exact gradient
of `value` (summed over samples, not averaged) when assignments, box targets and rescored IoUs are held fixed; each class states
the formula. `stats` holds sums that may be added over ranks; `summary(stats)` makes Darknet's averages of them.
"""
from typing import NamedTuple

import numpy as np

from .cfg import COMMON
from .errors import CfgError, DataError, PlanError, nearest
from .region import Region

STATS = ('cost', 'iou', 'class', 'objectness', 'any_objectness', 'recall50', 'recall75', 'truths', 'cells', 'dropped')
ELSEWHERE = ('jitter', 'random', *COMMON.split())          # keys that the data or any layer may read


class RegionRules(NamedTuple):
    """Numbers of a [region] section, with Darknet's defaults."""
    classes: int = 20
    num: int = 1
    max: int = 30
    thresh: float = 0.5
    coord_scale: float = 1.0
    object_scale: float = 1.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    softmax: int = 0
    rescore: int = 0
    bias_match: int = 0


class YoloRules(NamedTuple):
    """Numbers of a [yolo] section, with Darknet's defaults."""
    classes: int = 20
    num: int = 1
    max: int = 90
    ignore_thresh: float = 0.5
    truth_thresh: float = 1.0


class RegionLoss:
    """YOLOv2's loss. With p = logistic(x) where Darknet applies it (x, y, objectness; classes unless softmax=1):

    value = sum of  s/2 (t - p)^2           for x and y,      s = coord_scale (2 - w h) in the cell and anchor of a truth
                    s/2 (t - x)^2           for w and h,          .01 elsewhere while seen < 12800 (pull to the anchor)
                    object_scale/2 (t - p)^2     objectness of a truth's anchor, t = 1, or its IoU if rescore=1
                    noobject_scale/2 p^2         other objectness, unless the box overlaps a truth by more than thresh
                    class_scale CE(t, p)         classes of a truth's anchor: softmax, or binary if softmax=0.

    Of several truths in one anchor of a cell the last sets box, objectness and softmax; logistic classes keep all of them.
    Options: raw strings of the section; `shape` (C, H, W) of the head; `net_shape` (C, H, W) of the picture.
    Raises CfgError for unknown keys, values of the wrong kind, and what is not trained: coords other than 4, background, tree, map.
    """

    kind = 'region'
    unused = 'log sqrt classfix absolute mask_scale'.split()       # read by Darknet, without effect on this layer

    def __init__(self, options, shape, net_shape):
        self.shape, self.net_shape = tuple(shape), tuple(net_shape)
        options = _known(options, self.kind, RegionRules, 'anchors coords background tree map'.split() + self.unused)
        self.rules = _rules(options, self.kind, RegionRules)
        for key, wanted in (('coords', 4), ('background', 0)):
            if _number(options, self.kind, key, int, wanted) != wanted:
                raise CfgError(f'[{self.kind}] {key}={options[key]} is not trained by this program, only {key}={wanted}')
        _refuse(options, self.kind, 'tree', 'map')
        self.anchors = _anchors(options, self.kind, self.rules.num)           # in cells
        self.mask = tuple(range(self.rules.num))
        _check_channels(self.kind, self.shape, self.rules.num, self.rules.classes)

    @property
    def priors(self):
        """(num, 2) widths and heights of the anchors as parts of the network's picture."""
        _, height, width = self.shape
        return self.anchors / (width, height)

    def __call__(self, x, cells, truths, seen, dx=None):
        from .region_loss import evaluate
        return _evaluate(self, evaluate, x, cells, truths, dx, int(seen) < 12800)

    def activate(self, x):
        """Darknet's output of the layer for its input `x` (n, C, h, w), a new array."""
        return _activate(self, x, bool(self.rules.softmax))

    def detections(self, x, cells, thresh=0.005):
        """(k, 6 + classes) rows [sample, cx, cy, w, h, objectness, scores] of all anchors whose objectness exceeds `thresh`.

        Boxes are parts of the network's picture. A score is objectness * class probability, or 0 if not above `thresh`, as
        Darknet's `prob`. Rows go by sample, row, column, anchor.
        """
        return _detections(self, x, cells, thresh, bool(self.rules.softmax))


class YoloLoss:
    """YOLOv3's loss. With p = logistic(x) for x, y, objectness and classes, and binary CE(t, p) = -t log p - (1-t) log(1-p):

    value = sum of  (2 - w h) CE(t, p)       for x and y,   s/2 (t - x)^2 with s = 2 - w h for w and h,
                                                            in the cell of a truth, at its best anchor if `mask` names it
                    CE(1, p), CE(t, p)       objectness and classes there
                    CE(0, p)                 other objectness, unless the box overlaps a truth by more than ignore_thresh;
                                             above truth_thresh the box is trained towards that truth like a matched one.

    Anchors are in pixels of the network's picture. Several truths in one anchor: as for RegionLoss, classes keep all of them.
    Raises CfgError as RegionLoss does; refuses `map`.
    """

    kind = 'yolo'

    def __init__(self, options, shape, net_shape):
        self.shape, self.net_shape = tuple(shape), tuple(net_shape)
        options = _known(options, self.kind, YoloRules, 'anchors mask map'.split())
        self.rules = _rules(options, self.kind, YoloRules)
        _refuse(options, self.kind, 'map')
        self.anchors = _anchors(options, self.kind, self.rules.num)           # all of them, in pixels
        self.mask = _list(options, self.kind, 'mask', int) or tuple(range(self.rules.num))
        if len(set(self.mask)) < len(self.mask) or not all(0 <= m < self.rules.num for m in self.mask):
            raise CfgError(f'[yolo] mask={options["mask"]} must name different anchors from 0 to {self.rules.num - 1}')
        _check_channels(self.kind, self.shape, len(self.mask), self.rules.classes)

    @property
    def priors(self):
        """(num, 2) widths and heights of all anchors as parts of the network's picture."""
        _, height, width = self.net_shape
        return self.anchors / (width, height)

    def __call__(self, x, cells, truths, seen=0, dx=None):
        from .yolo_loss import evaluate
        return _evaluate(self, evaluate, x, cells, truths, dx, False)

    def activate(self, x):
        """Darknet's output of the layer for its input `x` (n, C, h, w), a new array."""
        return _activate(self, x, False)

    def detections(self, x, cells, thresh=0.005):
        """Rows [sample, cx, cy, w, h, objectness, scores] as of RegionLoss.detections."""
        return _detections(self, x, cells, thresh, False)


class SoftmaxLoss:
    """Softmax over each of `groups` equal parts of the C*H*W inputs at a temperature T, and cross-entropy with one true class each.

    value = -T sum log p(true class), so that the gradient is Darknet's p - t; Darknet prints value / T, which is stats['cost'].
    `truths`: for each sample of the mini-batch its class, or with groups > 1 one class of every group, counted over all inputs.
    Raises CfgError for unknown keys, wrong values, `tree`, `spatial`, `noloss`.
    """

    kind = 'softmax'

    def __init__(self, options, shape, net_shape=None):
        self.shape = tuple(shape)
        options = _known(options, self.kind, None, 'groups temperature tree spatial noloss'.split())
        self.groups = _number(options, self.kind, 'groups', int, 1)
        self.temperature = _number(options, self.kind, 'temperature', float, 1.0)
        _refuse(options, self.kind, 'tree')
        for key in ('spatial', 'noloss'):
            if _number(options, self.kind, key, int, 0):
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
        _check_cells(self, x, cells)
        dx = np.empty_like(x) if dx is None else dx
        if not x.size:
            return 0.0, dx, dict.fromkeys(STATS, 0.0)
        targets = self._targets(truths[cells.lo[0]:cells.lo[0] + len(x)], cells.lo[0])
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


def prepare(losses, dtype=np.float32):
    """Compile, or load from the disk cache, all that training with `losses` and finding their boxes need.

    Called by one process before the others, it saves them from compiling the same loops all at once.
    """
    from .boxes import nms
    for loss in losses:
        cell = Region((0, 0, 0, 0), (1, *(loss.shape if loss.kind == 'softmax' else (loss.shape[0], 1, 1))))
        x = np.zeros(cell.shape, dtype)
        loss(x, cell, [range(0, loss.inputs, loss.inputs // loss.groups) if loss.kind == 'softmax' else np.empty((0, 5))], 0)
        if loss.kind != 'softmax':
            loss.activate(x)
            nms(loss.detections(x, cell, 0.0))


def summary(stats):
    """Averages as Darknet prints them, from sums over ranks; nan where there is nothing to average."""
    def ratio(key, count):
        return stats[key] / stats[count] if stats[count] else float('nan')
    return {'iou': ratio('iou', 'truths'), 'class': ratio('class', 'truths'), 'objectness': ratio('objectness', 'truths'),
            'any_objectness': ratio('any_objectness', 'cells'), 'recall50': ratio('recall50', 'truths'),
            'recall75': ratio('recall75', 'truths'), 'count': int(stats['truths'])}


# ---- evaluation on owned cells


def _evaluate(loss, kernel, x, cells, truths, dx, pull):
    _check_cells(loss, x, cells)
    x = np.ascontiguousarray(x)
    dx = np.empty_like(x) if dx is None else dx
    if not (dx.flags.c_contiguous and dx.shape == x.shape and dx.dtype == x.dtype):
        raise ValueError('dx must be a contiguous array of the shape and dtype of x')
    samples = truths[cells.lo[0]:cells.lo[0] + len(x)]
    kept = [np.asarray(t, np.float64).reshape(-1, 5)[:loss.rules.max] for t in samples]
    rows = np.concatenate(kept) if kept else np.empty((0, 5))
    _check_truths(loss, rows, kept, cells.lo[0])
    starts = np.cumsum([0] + [len(k) for k in kept])
    sums, lanes = np.zeros(1 + len(STATS)), np.zeros((3, max(x.shape[-1], 1)))
    if x.size:
        kernel(dx, sums, lanes, x, cells.lo[2], cells.lo[3], loss.shape[1], loss.shape[2], loss.priors.astype(x.dtype),
               np.array(loss.mask), rows, starts, pull, loss.rules)
        sums[[0, 1 + STATS.index('cost'), 1 + STATS.index('any_objectness')]] += lanes.sum(axis=1)
    stats = dict(zip(STATS, sums[1:].tolist()))
    stats['dropped'] = float(sum(_inside(loss, cells, t[loss.rules.max:]) for t in samples))
    return float(sums[0]), dx, stats


def _activate(loss, x, softmax):
    from .loss_math import activate
    x = np.ascontiguousarray(x)
    n, channels, h, w = x.shape
    y, flat = np.empty_like(x), (n * len(loss.mask), channels // len(loss.mask), h * w)
    activate(y.reshape(flat), x.reshape(flat), softmax)
    return y


def _detections(loss, x, cells, thresh, softmax):
    from .loss_math import detect
    _check_cells(loss, x, cells)
    rows = np.empty((0, 6 + loss.rules.classes), x.dtype)
    if x.size:
        args = (np.ascontiguousarray(x), cells.lo[0], cells.lo[2], cells.lo[3], loss.shape[1], loss.shape[2],
                loss.priors[list(loss.mask)].astype(x.dtype), softmax, x.dtype.type(thresh))
        rows = np.empty((detect(rows, *args), rows.shape[1]), x.dtype)
        detect(rows, *args)
    return rows


def _check_cells(loss, x, cells):
    if x.shape != cells.shape and x.size + cells.size:
        raise ValueError(f'x {x.shape} is not the array of the cells {cells}')
    if x.size and loss.kind == 'softmax' and x.shape[1:] != loss.shape:
        raise PlanError(f'[softmax] needs whole samples {loss.shape} on one rank, got {cells}')
    if x.size and x.shape[1] != loss.shape[0]:
        raise PlanError(f'[{loss.kind}] needs all {loss.shape[0]} channels of a cell on one rank, got {cells}')
    if any(lo < 0 or hi > size for lo, hi, size in zip(cells.lo[1:], cells.hi[1:], loss.shape)):
        raise ValueError(f'the cells {cells} reach beyond the head {loss.shape}')


def _check_truths(loss, rows, kept, first):
    wrong = ~((rows[:, 0] >= 0) & (rows[:, 0] < loss.rules.classes) & (rows[:, 1:] > 0).all(1) & (rows[:, 1:3] < 1).all(1)
              & np.isfinite(rows).all(1))
    if wrong.any():
        row = int(wrong.argmax())
        sample = int(np.searchsorted(np.cumsum([len(k) for k in kept]), row, 'right')) + first
        raise DataError(f'sample {sample}: truth {rows[row].tolist()} is not [class below {loss.rules.classes}, centre in (0, 1), '
                        'size above 0]')


def _inside(loss, cells, truths):
    """How many of the truths have their cell among `cells`."""
    if not len(truths):
        return 0
    column = np.floor(np.asarray(truths)[:, 1] * loss.shape[2])
    row = np.floor(np.asarray(truths)[:, 2] * loss.shape[1])
    return int(((row >= cells.lo[2]) & (row < cells.hi[2]) & (column >= cells.lo[3]) & (column < cells.hi[3])).sum())


# ---- options of a cfg section


def _known(options, kind, rules, more):
    """The options without keys that are read elsewhere. Raises CfgError for a key nobody reads."""
    known = [*(rules._fields if rules else ()), *more]
    for key in options:
        if key not in known and key not in ELSEWHERE:
            raise CfgError(f'[{kind}] has no key "{key}"{nearest(key, known)}')
    return {key: str(value).strip() for key, value in options.items() if key in known}


def _rules(options, kind, rules):
    made = rules(**{key: _number(options, kind, key, type(default), default) for key, default in rules._field_defaults.items()})
    for key in ('classes', 'num', 'max'):
        if getattr(made, key) < 1:
            raise CfgError(f'[{kind}] {key}={getattr(made, key)} must be at least 1')
    return made


def _number(options, kind, key, convert, default):
    numbers = _list(options, kind, key, convert)
    if numbers is None:
        return default
    if len(numbers) != 1:
        raise CfgError(f'[{kind}] {key}={options[key]} must be one number')
    return numbers[0]


def _list(options, kind, key, convert):
    if key not in options:
        return None
    try:
        return tuple(convert(word) for word in options[key].rstrip(',').split(','))
    except ValueError:
        what = 'whole numbers' if convert is int else 'numbers'
        raise CfgError(f'[{kind}] {key}={options[key]} must be made of {what}') from None


def _anchors(options, kind, num):
    values = _list(options, kind, 'anchors', float) or (0.5,) * (2 * num)
    if len(values) != 2 * num or not all(v > 0 and np.isfinite(v) for v in values):
        raise CfgError(f'[{kind}] anchors must be {2 * num} numbers above 0 (num={num} widths and heights), got {len(values)}')
    return np.array(values).reshape(num, 2)


def _refuse(options, kind, *keys):
    for key in keys:
        if key in options:
            raise CfgError(f'[{kind}] {key}={options[key]} is not trained by this program')


def _check_channels(kind, shape, anchors, classes):
    if shape[0] != anchors * (5 + classes):
        raise CfgError(f'[{kind}] reads {anchors} anchors x (4 + 1 + {classes} classes) = {anchors * (5 + classes)} channels, '
                       f'but the layer before it has {shape[0]}')
