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


@kernel
def match_detections(outcome, found, truths, groups, ignored, thresholds, voc):
    """outcome (thresholds, detections): 1 a hit, 0 a false alarm, -1 not counted.

    Rows of `groups` [first, end, truth_first, truth_end] are the detections and truths of one class in one picture: boxes `found`
    (k, 4) by falling score, `truths` (m, 4) with the `ignored` ones last. VOC: a detection goes to the truth of largest IoU and is
    a false alarm if that is taken. COCO: it goes to the free one of largest IoU, an ignored one only if there is no other.
    """
    for g in range(len(groups)):
        first, end, truth_first, truth_end = groups[g]
        overlaps = np.empty((end - first, truth_end - truth_first))
        for d in range(first, end):
            for t in range(truth_first, truth_end):
                overlaps[d - first, t - truth_first] = iou(found[d, 0], found[d, 1], found[d, 2], found[d, 3],
                                                           truths[t, 0], truths[t, 1], truths[t, 2], truths[t, 3])
        for k in range(thresholds.size):
            taken = np.zeros(truth_end - truth_first, np.bool_)
            for d in range(first, end):
                best, chosen = thresholds[k], -1
                for t in range(truth_first, truth_end):
                    overlap = overlaps[d - first, t - truth_first]
                    if not overlap >= best or voc and chosen >= 0 and overlap == best:
                        continue
                    if not voc and taken[t - truth_first] and not ignored[t]:
                        continue
                    if not voc and chosen >= 0 and ignored[t] and not ignored[chosen]:
                        break
                    best, chosen = overlap, t
                outcome[k, d] = 0
                if chosen >= 0:
                    outcome[k, d] = -1 if ignored[chosen] else not taken[chosen - truth_first]
                    taken[chosen - truth_first] = True
