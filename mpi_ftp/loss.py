"""The losses of Darknet's heads [region], [yolo] and [softmax]: what they mean and how they are called.

Options and refusals are in loss_checks, the loops over cells in region_loss, yolo_loss and loss_math, softmax in softmax_loss.

A loss is built from the options of its cfg section and the head's shape, and is evaluated on the cells one rank owns: rows,
columns and samples may be cut, channels may not. Every number depends on global coordinates alone, so any cut gives the same
gradient, cell for cell. Nothing here knows of ranks; numba is imported when a loss is first evaluated.

    value, dx, stats = loss(x, cells, truths, seen)

`x` (n, C, h, w) is the head's input on the Region `cells`, `truths` all truths of the global mini-batch, `seen` the number of
pictures trained on so far, this mini-batch included (Darknet's net.seen). `dx`, minus the delta of Darknet, is the exact gradient
of `value` (summed over samples, not averaged) when assignments, box targets and rescored IoUs are held fixed; each class states
the formula. `stats` holds sums that may be added over ranks; `summary(stats)` makes Darknet's averages of them.
"""
import numpy as np

from .cfg import IGNORED
from .errors import CfgError
from .loss_checks import (STATS, RegionRules, YoloRules, check_cells, check_channels, check_truths, count_inside, known, number, numbers,
                          of_cells, read_anchors, read_rules, refuse)
from .region import Region
from .softmax_loss import SoftmaxLoss

__all__ = 'RegionLoss', 'YoloLoss', 'SoftmaxLoss', 'prepare', 'summary', 'STATS'


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

    def __init__(self, options, shape, net_shape):
        self.shape, self.net_shape = tuple(shape), tuple(net_shape)
        options = known(options, self.kind, RegionRules, [*'anchors coords background tree map'.split(), *IGNORED[self.kind]])
        self.rules = read_rules(options, self.kind, RegionRules)
        for key, wanted in (('coords', 4), ('background', 0)):
            if number(options, self.kind, key, int, wanted) != wanted:
                raise CfgError(f'[{self.kind}] {key}={options[key]} is not trained by this program, only {key}={wanted}')
        refuse(options, self.kind, 'tree', 'map')
        self.anchors = read_anchors(options, self.kind, self.rules.num)           # in cells
        self.mask = tuple(range(self.rules.num))
        check_channels(self.kind, self.shape, self.rules.num, self.rules.classes)

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
        options = known(options, self.kind, YoloRules, 'anchors mask map'.split())
        self.rules = read_rules(options, self.kind, YoloRules)
        refuse(options, self.kind, 'map')
        self.anchors = read_anchors(options, self.kind, self.rules.num)           # all of them, in pixels
        self.mask = numbers(options, self.kind, 'mask', int) or tuple(range(self.rules.num))
        if len(set(self.mask)) < len(self.mask) or not all(0 <= m < self.rules.num for m in self.mask):
            raise CfgError(f'[yolo] mask={options["mask"]} must name different anchors from 0 to {self.rules.num - 1}')
        check_channels(self.kind, self.shape, len(self.mask), self.rules.classes)

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


def prepare(losses, dtype=np.float32):
    """Compile, or load from the disk cache, all that training with `losses` and finding their boxes need.

    Called by one process before the others, it saves them from compiling the same loops all at once.
    """
    from .boxes import nms
    from .metrics import evaluate
    for loss in losses:
        cell = Region((0, 0, 0, 0), (1, *(loss.shape if loss.kind == 'softmax' else (loss.shape[0], 1, 1))))
        x = np.zeros(cell.shape, dtype)
        loss(x, cell, [range(0, loss.inputs, loss.inputs // loss.groups) if loss.kind == 'softmax' else np.empty((0, 5))], 0)
        if loss.kind != 'softmax':
            loss.activate(x)
            nms(loss.detections(x, cell, 0.0))
            evaluate(np.zeros((1, 7)), np.zeros((1, 6)), [''])          # else the compiler comes back to memory in the midst of a run


def summary(stats):
    """Averages as Darknet prints them, from sums over ranks; nan where there is nothing to average."""
    def ratio(key, count):
        return stats[key] / stats[count] if stats[count] else float('nan')
    return {'iou': ratio('iou', 'truths'), 'class': ratio('class', 'truths'), 'objectness': ratio('objectness', 'truths'),
            'any_objectness': ratio('any_objectness', 'cells'), 'recall50': ratio('recall50', 'truths'),
            'recall75': ratio('recall75', 'truths'), 'count': int(stats['truths'])}


# ---- evaluation on owned cells


def _evaluate(loss, kernel, x, cells, truths, dx, pull):
    check_cells(loss, x, cells)
    x = np.ascontiguousarray(x)
    dx = np.empty_like(x) if dx is None else dx
    if not (dx.flags.c_contiguous and dx.shape == x.shape and dx.dtype == x.dtype):
        raise ValueError('dx must be a contiguous array of the shape and dtype of x')
    samples = of_cells(truths, cells)
    kept = [np.asarray(t, np.float64).reshape(-1, 5)[:loss.rules.max] for t in samples]
    rows = np.concatenate(kept) if kept else np.empty((0, 5))
    check_truths(loss, rows, kept, cells.lo[0])
    starts = np.cumsum([0] + [len(k) for k in kept])
    sums, lanes = np.zeros(1 + len(STATS)), np.zeros((3, max(x.shape[-1], 1)))
    if x.size:
        kernel(dx, sums, lanes, x, cells.lo[2], cells.lo[3], loss.shape[1], loss.shape[2], loss.priors.astype(x.dtype),
               np.array(loss.mask), rows, starts, pull, loss.rules)
        sums[[0, 1 + STATS.index('cost'), 1 + STATS.index('any_objectness')]] += lanes.sum(axis=1)
    stats = dict(zip(STATS, sums[1:].tolist()))
    stats['dropped'] = float(sum(count_inside(loss, cells, t[loss.rules.max:]) for t in samples))
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
    check_cells(loss, x, cells)
    rows = np.empty((0, 6 + loss.rules.classes), x.dtype)
    if x.size:
        args = (np.ascontiguousarray(x), cells.lo[0], cells.lo[2], cells.lo[3], loss.shape[1], loss.shape[2],
                loss.priors[list(loss.mask)].astype(x.dtype), softmax, x.dtype.type(thresh))
        rows = np.empty((detect(rows, *args), rows.shape[1]), x.dtype)
        detect(rows, *args)
    return rows
