"""The loop of the [yolo] loss over the owned cells; its formula stands at loss.YoloLoss. Arrays and numbers only."""
import math

import numpy as np

from .boxes_math import iou, kernel
from .loss_math import (CELLS, CLASS, COST, IOU, OBJECT, R50, R75, TRUTHS, VALUE, decode_row, logistic, mark_classes,
                        overlap_row, probabilities, softplus)


@kernel
def evaluate(dx, sums, lanes, x, top, left, H, W, priors, mask, truths, starts, pull, rules):
    """Writes dx (n, C, h, w), adds to sums and lanes; arguments as of region_loss.evaluate.

    mask: the anchors of this head, as indices into priors (num, 2); pull: not used here.
    """
    n, _, h, w = x.shape
    T = x.dtype.type
    size, num = 5 + rules.classes, len(mask)
    boxes, best, which = np.empty((5, w), x.dtype), np.empty(w, x.dtype), np.empty(w, np.int64)
    matched = np.empty((num, h, w), np.int64)                    # the last truth of each box, or -1
    place = np.empty(len(truths), np.int64)                      # the box of each truth, as an index into matched.ravel(), or -1
    p, target = np.empty(rules.classes, x.dtype), np.empty(rules.classes, x.dtype)
    sure = T(rules.truth_thresh)
    for b in range(n):
        first, end = starts[b], starts[b + 1]
        match(matched, place, top, left, H, W, priors, mask, truths, first, end)

        # every box: no object, unless it overlaps a truth; those that overlap one very well are trained towards it
        dx[b] = T(0)
        for a in range(num):
            z, dz, prior = x[b, a * size:(a + 1) * size], dx[b, a * size:(a + 1) * size], priors[mask[a]]
            for j in range(h):
                decode_row(boxes, z, j, top, left, H, W, prior[0], prior[1])
                overlap_row(best, which, boxes, truths, first, end)
                background_row(dz[4, j], lanes, z[4, j], boxes[4], best, matched[a, j], min(T(rules.ignore_thresh), sure))
                for i in range(w):
                    if best[i] > sure and matched[a, j, i] < 0:
                        target[:] = 0
                        target[int(truths[which[i], 0])] = 1
                        probabilities(p, z[5:, j, i], False)
                        train_box(dz[:, j, i], sums, z[:, j, i], top + j, left + i, H, W, prior, truths[which[i]], p, target)

        # the boxes of truths, in the order of the truths; the last one of a box decides
        for t in range(first, end):
            if place[t] >= 0:
                a, j, i = place[t] // (h * w), place[t] // w % h, place[t] % w
                z, dz, prior = x[b, a * size:(a + 1) * size, j, i], dx[b, a * size:(a + 1) * size, j, i], priors[mask[a]]
                decode_row(boxes[:, :1], x[b, a * size:, j:j + 1, i:i + 1], 0, top + j, left + i, H, W, prior[0], prior[1])
                overlap_row(best[:1], which[:1], boxes[:, :1], truths, first, end)
                probabilities(p, z[5:], False)
                mark_classes(target, p, truths, first, t, place, which[0] if best[0] > sure else -1)
                overlap_row(best[:1], which[:1], boxes[:, :1], truths, t, t + 1)
                sums[TRUTHS] += 1
                sums[IOU] += best[0]
                sums[R50] += best[0] > 0.5
                sums[R75] += best[0] > 0.75
                sums[OBJECT] += boxes[4, 0]
                sums[CLASS] += p[int(truths[t, 0])]
                if matched[a, j, i] == t:
                    train_box(dz, sums, z, top + j, left + i, H, W, prior, truths[t], p, target)
    sums[CELLS] += n * num * h * w


@kernel
def match(matched, place, top, left, H, W, priors, mask, truths, first, end):
    """The box of each truth whose cell is ours and whose best anchor is in `mask`."""
    T = priors.dtype.type
    _, h, w = matched.shape
    matched[:] = -1
    for t in range(first, end):
        j, i = int(truths[t, 2] * H) - top, int(truths[t, 1] * W) - left
        place[t] = -1
        if not (0 <= j < h and 0 <= i < w):
            continue
        best, chosen = T(0), 0
        for a in range(len(priors)):
            overlap = iou(T(0), T(0), priors[a, 0], priors[a, 1], T(0), T(0), T(truths[t, 3]), T(truths[t, 4]))
            if overlap > best:
                best, chosen = overlap, a
        for a in range(len(mask)):
            if mask[a] == chosen:
                matched[a, j, i] = t
                place[t] = (a * h + j) * w + i


@kernel
def background_row(dz, lanes, z, objectness, best, matched, thresh):
    """Objectness of a row of boxes that have no truth and overlap none by more than `thresh`: towards 0."""
    zero = thresh - thresh
    for i in range(dz.size):
        p, value = objectness[i], softplus(z[i])
        busy = best[i] > thresh or matched[i] >= 0
        delta = zero if busy else p
        dz[i] = delta
        lanes[0, i] += zero if busy else value
        lanes[1, i] += delta * delta
        lanes[2, i] += p


@kernel
def train_box(dz, sums, z, row, column, H, W, prior, truth, p, target):
    """Write the gradient of the box z (5 + classes,) towards a truth; p, target: its classes."""
    x, y, w, h = truth[1], truth[2], truth[3], truth[4]
    scale = 2 - w * h
    for e, aim in enumerate((x * W - column, y * H - row, math.log(w / prior[0]), math.log(h / prior[1]))):
        delta = scale * (aim - (logistic(z[e]) if e < 2 else z[e]))
        dz[e] = -delta
        sums[VALUE] += scale * (softplus(z[e]) - aim * z[e]) if e < 2 else 0.5 * delta * (aim - z[e])
        sums[COST] += delta * delta
    for e in range(4, z.size):
        aim, q = (z.dtype.type(1), logistic(z[e])) if e == 4 else (target[e - 5], p[e - 5])
        dz[e] = q - aim
        sums[VALUE] += softplus(z[e]) - aim * z[e]
        sums[COST] += (q - aim) * (q - aim)
