"""Boxes in centre form (cx, cy, w, h): non-maximum suppression, rows of detections, what lies inside the picture. Arrays only."""
import numpy as np


def nms(rows, thresh=0.45):
    """Non-maximum suppression per class, as Darknet's do_nms_sort: a copy of `rows` with the scores of suppressed boxes set to 0.

    `rows` (k, 6 + classes) [sample, cx, cy, w, h, objectness, scores] as a loss's `detections` returns them, of any number of
    samples. In each sample and class, from the highest score down, a box takes the score from every later one that it overlaps
    by more than `thresh`; equal scores go by the order of the rows.
    """
    from .boxes_math import suppress
    rows = np.array(rows)
    for sample in np.unique(rows[:, 0]):
        chosen = np.flatnonzero(rows[:, 0] == sample)
        boxes, scores = rows[chosen, 1:5], rows[chosen, 6:]
        suppress(scores, np.argsort(-scores, axis=0, kind='stable'), boxes, rows.dtype.type(thresh))
        rows[chosen, 6:] = scores
    return rows


def flatten(rows):
    """(k, 7) rows [sample, class, score, cx, cy, w, h], one for each score above 0, by sample and falling score."""
    rows = np.asarray(rows)
    which, classes = np.nonzero(rows[:, 6:] > 0)
    flat = np.column_stack([rows[which, 0], classes.astype(rows.dtype), rows[which, 6 + classes], rows[which, 1:5]])
    return flat[np.lexsort((-flat[:, 2], flat[:, 0]))]


def clip(boxes):
    """The parts of boxes (..., 4) inside the picture 0...1, as Darknet writes its results; width or height 0 where nothing is inside."""
    boxes = np.array(boxes)
    low, high = (np.clip(boxes[..., :2] + sign * boxes[..., 2:] / 2, 0, 1) for sign in (-1, 1))
    boxes[..., :2], boxes[..., 2:] = (low + high) / 2, high - low
    return boxes
