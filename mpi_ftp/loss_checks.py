"""What a loss refuses: wrong options of its cfg section, cells and truths that do not fit its head. Compiles and computes nothing."""
from typing import NamedTuple

import numpy as np

from .cfg import COMMON
from .errors import CfgError, DataError, PlanError, nearest

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


def known(options, kind, rules, more):
    """The options without keys that are read elsewhere. Raises CfgError for a key nobody reads."""
    keys = [*(rules._fields if rules else ()), *more]
    for key in options:
        if key not in keys and key not in ELSEWHERE:
            raise CfgError(f'[{kind}] has no key "{key}"{nearest(key, keys)}')
    return {key: str(value).strip() for key, value in options.items() if key in keys}


def read_rules(options, kind, rules):
    """RegionRules or YoloRules with the options that are given."""
    made = rules(**{key: number(options, kind, key, type(default), default) for key, default in rules._field_defaults.items()})
    for key in ('classes', 'num', 'max'):
        if getattr(made, key) < 1:
            raise CfgError(f'[{kind}] {key}={getattr(made, key)} must be at least 1')
    return made


def number(options, kind, key, convert, default):
    found = numbers(options, kind, key, convert)
    if found is None:
        return default
    if len(found) != 1:
        raise CfgError(f'[{kind}] {key}={options[key]} must be one number')
    return found[0]


def numbers(options, kind, key, convert):
    """The numbers of an option, separated by commas; None if it is not given."""
    if key not in options:
        return None
    try:
        found = tuple(convert(word) for word in options[key].rstrip(',').split(','))
        if np.isfinite(found).all():
            return found
    except ValueError:
        pass
    raise CfgError(f'[{kind}] {key}={options[key]} must be made of {"whole" if convert is int else "finite"} numbers')


def read_anchors(options, kind, num):
    """(num, 2) widths and heights; 0.5 each if none are given."""
    values = numbers(options, kind, 'anchors', float) or (0.5,) * (2 * num)
    if len(values) != 2 * num or not min(values) > 0:
        raise CfgError(f'[{kind}] anchors must be {2 * num} numbers above 0 (num={num} widths and heights), got {len(values)}')
    return np.array(values).reshape(num, 2)


def refuse(options, kind, *keys):
    for key in keys:
        if key in options:
            raise CfgError(f'[{kind}] {key}={options[key]} is not trained by this program')


def check_channels(kind, shape, anchors, classes):
    if shape[0] != anchors * (5 + classes):
        raise CfgError(f'[{kind}] reads {anchors} anchors x (4 + 1 + {classes} classes) = {anchors * (5 + classes)} channels, '
                       f'but the layer before it has {shape[0]}')


# ---- cells and truths


def check_cells(loss, x, cells):
    if x.shape != cells.shape and x.size + cells.size:
        raise ValueError(f'x {x.shape} is not the array of the cells {cells}')
    if x.size and loss.kind == 'softmax' and x.shape[1:] != loss.shape:
        raise PlanError(f'[softmax] needs whole samples {loss.shape} on one rank, got {cells}')
    if x.size and x.shape[1] != loss.shape[0]:
        raise PlanError(f'[{loss.kind}] needs all {loss.shape[0]} channels of a cell on one rank, got {cells}')
    if any(lo < 0 or hi > size for lo, hi, size in zip(cells.lo[1:], cells.hi[1:], loss.shape)):
        raise ValueError(f'the cells {cells} reach beyond the head {loss.shape}')


def of_cells(truths, cells):
    """The truths of the samples of `cells`, from those of the global mini-batch."""
    samples = truths[cells.lo[0]:cells.hi[0]]
    if len(samples) != cells.hi[0] - cells.lo[0]:
        raise ValueError(f'truths of {len(truths)} samples, but the cells are {cells}: truths must be those of the whole mini-batch')
    return samples


def check_truths(loss, rows, kept, first):
    wrong = ~((rows[:, 0] >= 0) & (rows[:, 0] < loss.rules.classes) & (rows[:, 1:] > 0).all(1) & (rows[:, 1:3] < 1).all(1)
              & np.isfinite(rows).all(1))
    if wrong.any():
        row = int(wrong.argmax())
        sample = int(np.searchsorted(np.cumsum([len(k) for k in kept]), row, 'right')) + first
        raise DataError(f'sample {sample}: truth {rows[row].tolist()} is not [class below {loss.rules.classes}, centre in (0, 1), '
                        'size above 0]')


def count_inside(loss, cells, truths):
    """How many of the truths have their cell among `cells`."""
    if not len(truths):
        return 0
    column = np.floor(np.asarray(truths)[:, 1] * loss.shape[2])
    row = np.floor(np.asarray(truths)[:, 2] * loss.shape[1])
    return int(((row >= cells.lo[2]) & (row < cells.hi[2]) & (column >= cells.lo[3]) & (column < cells.hi[3])).sum())
