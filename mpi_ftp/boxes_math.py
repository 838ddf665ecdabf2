"""Loops over boxes, and the decorator of the loops of losses and boxes. Arrays and numbers only."""
from pathlib import Path

import numpy as np
from numba import njit

FILES = 'boxes_math.py', 'loss_math.py', 'region_loss.py', 'yolo_loss.py'


def kernel(function):
    """Compile at first use, keep on disk, release the GIL; a division by zero gives nan or inf without a branch, as in numpy.

    numba takes what it kept for new as long as the function's own file is unchanged; ours call each other across FILES.
    """
    made = njit(cache=True, nogil=True, error_model='numpy')(function)
    stats = [Path(__file__).with_name(name).stat() for name in FILES]
    made._cache._cache_file._source_stamp = tuple((s.st_mtime_ns, s.st_size) for s in stats)
    return made


@kernel
def iou(ax, ay, aw, ah, bx, by, bw, bh):
    """Overlap over union of two boxes in centre form; 0 when they are apart, nan when both are empty."""
    half = type(ax)(0.5)
    width = min(ax + aw * half, bx + bw * half) - max(ax - aw * half, bx - bw * half)
    height = min(ay + ah * half, by + bh * half) - max(ay - ah * half, by - bh * half)
    shared = width * height if width >= 0 and height >= 0 else type(ax)(0)
    return shared / (aw * ah + bw * bh - shared)


@kernel
def suppress(scores, boxes, thresh):
    """Set to 0, class by class, the scores (k, classes) of boxes (k, 4) that overlap one of higher score by more than thresh."""
    for c in range(scores.shape[1]):
        found = np.flatnonzero(scores[:, c])
        order = found[np.argsort(-scores[found, c], kind='mergesort')]          # stable: equal scores keep the order of rows
        for i, a in enumerate(order):
            if scores[a, c] == 0:
                continue
            for b in order[i + 1:]:
                if iou(boxes[a, 0], boxes[a, 1], boxes[a, 2], boxes[a, 3], boxes[b, 0], boxes[b, 1], boxes[b, 2], boxes[b, 3]) > thresh:
                    scores[b, c] = 0
