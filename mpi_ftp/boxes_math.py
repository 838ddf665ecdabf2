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
def suppress(scores, order, boxes, thresh):
    """Set to 0, class by class, the scores (k, classes) of boxes (k, 4) that overlap one of higher score by more than thresh.

    order (k, classes): the rows of each class by falling score.
    """
    near, alive = np.empty((4, len(order)), boxes.dtype), np.empty(len(order), np.bool_)
    for c in range(scores.shape[1]):
        count = 0                                       # gather what has a score, so that the inner loop runs as SIMD code
        while count < len(order) and scores[order[count, c], c] > 0:
            for e in range(4):
                near[e, count] = boxes[order[count, c], e]
            alive[count] = True
            count += 1
        for i in range(count):
            if alive[i]:
                for k in range(i + 1, count):
                    far = not iou(near[0, i], near[1, i], near[2, i], near[3, i], near[0, k], near[1, k], near[2, k], near[3, k]) > thresh
                    alive[k] &= far
        for i in range(count):
            if not alive[i]:
                scores[order[i, c], c] = 0


@kernel
def match_detections(outcome, found, truths, groups, ignored, thresholds, voc):
    """outcome (thresholds, detections): 1 a hit, 0 a false alarm, -1 not counted.

    Rows of `groups` [first, end, truth_first, truth_end] are the detections and truths of one class in one picture: boxes `found`
    (k, 4) by falling score, `truths` (m, 4) by `ignored`: 0, 1 for difficult ones, 2 for crowds, of which a detection overlaps its part inside. VOC: it
    goes to the truth of largest IoU and is a false alarm if that is taken. COCO: it goes to the free one of largest IoU, an ignored one, and under both
    rules a crowd, only if there is no other.
    """
    for g in range(len(groups)):
        first, end, truth_first, truth_end = groups[g]
        overlaps = np.empty((end - first, truth_end - truth_first))
        for d in range(first, end):
            for t in range(truth_first, truth_end):
                overlap = iou(found[d, 0], found[d, 1], found[d, 2], found[d, 3], truths[t, 0], truths[t, 1], truths[t, 2], truths[t, 3])
                if ignored[t] == 2:
                    area = found[d, 2] * found[d, 3]
                    overlap = overlap / (1 + overlap) * (area + truths[t, 2] * truths[t, 3]) / area
                overlaps[d - first, t - truth_first] = overlap
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
                    if chosen >= 0 and ignored[t] > voc and not ignored[chosen]:
                        break
                    best, chosen = overlap, t
                outcome[k, d] = 0
                if chosen >= 0:
                    outcome[k, d] = -1 if ignored[chosen] else not taken[chosen - truth_first]
                    taken[chosen - truth_first] = True
