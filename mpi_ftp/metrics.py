"""How good detections and classifications are: average precision as VOC and COCO define it, top-1 and top-5. Plain arrays in, frozen results out."""
from dataclasses import dataclass

import numpy as np

COCO_THRESHOLDS = np.linspace(.5, .95, 10)
MOST = 100                                          # detections of a class in a picture that COCO looks at


@dataclass(frozen=True)
class Precision:
    """Average precision of detections; nan for a class without truths, which no mean counts.

    ap50: (classes,) area under the VOC curve of precision over recall at IoU 0.5 (all points). coco: (10, classes) COCO's 101-point
    AP at IoU 0.5, 0.55 ... 0.95. truths (without ignored ones) and detections: (classes,) counts.
    """
    names: tuple
    ap50: np.ndarray
    coco: np.ndarray
    truths: np.ndarray
    detections: np.ndarray

    @property
    def map50(self):
        """mAP@0.5, the mean of ap50 over classes."""
        return _mean(self.ap50)

    @property
    def map50_95(self):
        """mAP@[.5:.95], the mean of coco over thresholds and classes."""
        return _mean(self.coco)

    def as_dict(self):
        """Ready for JSON; nan becomes None."""
        return {'mAP50': _json(self.map50), 'mAP50_95': _json(self.map50_95), 'mAP75': _json(_mean(self.coco[5])),
                'truths': int(self.truths.sum()), 'detections': int(self.detections.sum()),
                'classes': [{'name': name, 'AP50': _json(self.ap50[c]), 'AP50_95': _json(_mean(self.coco[:, c])),
                             'truths': int(self.truths[c]), 'detections': int(self.detections[c])} for c, name in enumerate(self.names)]}

    def table(self, title='Average precision'):
        """A rich table, one line a class and one for the mean."""
        from rich.table import Table
        table = Table('class', title=title)
        for head in ('truths', 'detections', 'AP@0.5', 'AP@[.5:.95]'):
            table.add_column(head, justify='right')
        for c, name in enumerate(self.names):
            table.add_row(name, str(self.truths[c]), str(self.detections[c]), _percent(self.ap50[c]), _percent(_mean(self.coco[:, c])))
        table.add_section()
        table.add_row('mean', str(self.truths.sum()), str(self.detections.sum()), _percent(self.map50), _percent(self.map50_95), style='bold')
        return table


def evaluate(detections, truths, names, ignored=None):
    """The Precision of detections against truths.

    detections: (k, 7) rows [picture, class, score, cx, cy, w, h], as `boxes.flatten` gives them; truths: (m, 6) rows [picture, class,
    cx, cy, w, h], in the same units; names: of all classes; ignored: (m,) 1 for difficult truths, 2 for crowds: neither to be found nor false alarms.
    A hit has an IoU of at least the threshold; an ignored truth may be met any number of times. Equal scores go by picture, then row.
    """
    from .boxes_math import match_detections
    found, truths = np.asarray(detections, np.float64).reshape(-1, 7), np.asarray(truths, np.float64).reshape(-1, 6)
    ignored = np.zeros(len(truths), np.int8) if ignored is None else np.asarray(ignored, np.int8)
    found = found[np.lexsort((-found[:, 2], found[:, 0], found[:, 1]))]              # by class, picture, falling score
    order = np.lexsort((ignored, truths[:, 0], truths[:, 1]))
    truths, ignored = truths[order], ignored[order]
    groups, rank = _groups(found[:, [1, 0]], truths[:, [1, 0]])
    counts = np.bincount(truths[ignored == 0, 1].astype(int), minlength=len(names))

    def outcomes(thresholds, voc):
        outcome = np.empty((len(thresholds), len(found)), np.int8)
        match_detections(outcome, np.ascontiguousarray(found[:, 3:]), np.ascontiguousarray(truths[:, 2:]), groups, ignored, thresholds, voc)
        return outcome

    voc, coco = outcomes(np.array([.5]), True), outcomes(COCO_THRESHOLDS, False)
    coco[:, rank >= MOST] = -1
    ap50, coco_ap = np.full(len(names), np.nan), np.full((len(COCO_THRESHOLDS), len(names)), np.nan)
    for c in np.flatnonzero(counts):
        rows = np.flatnonzero(found[:, 1] == c)
        rows = rows[np.argsort(-found[rows, 2], kind='stable')]
        ap50[c] = area(*curve(voc[0, rows], counts[c]))
        coco_ap[:, c] = [points(*curve(outcome[rows], counts[c])) for outcome in coco]
    return Precision(tuple(names), ap50, coco_ap, counts, np.bincount(found[:, 1].astype(int), minlength=len(names)))


def curve(outcome, truths):
    """(recall, precision) after each counted detection; outcome: 1 hit, 0 false alarm, -1 not counted, by falling score."""
    hits = np.cumsum(outcome[outcome >= 0])
    return hits / truths, hits / np.arange(1, len(hits) + 1)


def area(recall, precision):
    """Area under the falling envelope of precision over recall (VOC since 2010)."""
    return float((np.diff(recall, prepend=0) * _envelope(precision)).sum())


def points(recall, precision):
    """Mean of that envelope at recall 0, 0.01, ... 1 (COCO)."""
    where = np.searchsorted(recall, np.linspace(0, 1, 101), side='left')
    return float(np.append(_envelope(precision), 0.0)[where].mean())


def _envelope(precision):
    """At each point the best precision from there on."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _groups(found, truths):
    """Rows [first, end, truth_first, truth_end] of equal keys in two sorted lists of keys (k, 2), and each detection's rank in its group."""
    if not len(found):
        return np.empty((0, 4), np.int64), np.empty(0, np.int64)
    first = np.flatnonzero(np.append(True, (found[1:] != found[:-1]).any(1)))
    end = np.append(first[1:], len(found))
    both = np.concatenate([found, truths])
    _, code = np.unique(both, axis=0, return_inverse=True)          # unique sorts by class, then picture, as the lists are
    keys, of_truths = code.reshape(-1)[:len(found)][first], code.reshape(-1)[len(found):]
    groups = np.column_stack([first, end, np.searchsorted(of_truths, keys, 'left'), np.searchsorted(of_truths, keys, 'right')])
    return groups, np.arange(len(found)) - np.repeat(first, end - first)


@dataclass(frozen=True)
class Accuracy:
    """How many of `count` samples have their true class first, or among the five first. Adds over parts of a split."""
    count: int = 0
    top1: int = 0
    top5: int = 0

    def __add__(self, other):
        return Accuracy(self.count + other.count, self.top1 + other.top1, self.top5 + other.top5)

    def as_dict(self):
        """Ready for JSON: fractions, None where there are no samples."""
        return {'top1': self.top1 / self.count if self.count else None, 'top5': self.top5 / self.count if self.count else None,
                'count': self.count}

    def table(self, title='Accuracy'):
        """A rich table of one line."""
        from rich.table import Table
        table = Table('samples', 'top 1', 'top 5', title=title)
        table.add_row(str(self.count), *(_percent(part / self.count if self.count else np.nan) for part in (self.top1, self.top5)))
        return table


def accuracy(scores, labels):
    """The Accuracy of scores (n, classes), any increasing function of probability, for true classes (n,). Of equal scores the first class leads."""
    scores, labels = np.asarray(scores).reshape(len(labels), -1), np.asarray(labels, int)
    own = scores[np.arange(len(labels)), labels][:, None]
    ahead = (scores > own) | (scores == own) & (np.arange(scores.shape[1]) < labels[:, None]) | np.isnan(scores)
    rank = ahead.sum(1) + scores.shape[1] * np.isnan(own[:, 0])
    return Accuracy(len(labels), int((rank < 1).sum()), int((rank < 5).sum()))


def _mean(values):
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')


def _json(value):
    return None if np.isnan(value) else float(value)


def _percent(value):
    return '-' if np.isnan(value) else f'{100 * value:.1f} %'
