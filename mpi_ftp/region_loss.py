"""The loop of the [region] loss over the owned cells; its formula stands at loss.RegionLoss. Arrays and numbers only."""
import math

import numpy as np

from .boxes_math import iou, kernel
from .loss_math import (CELLS, CLASS, COST, IOU, OBJECT, R50, R75, TRUTHS, VALUE, decode_row, exp, logistic, mark_classes,
                        overlap_row, probabilities, softplus)


@kernel
def evaluate(dx, sums, lanes, x, top, left, H, W, priors, mask, truths, starts, pull, rules):
    """Writes dx (n, C, h, w); adds to sums, and to lanes (3, w) the value, cost and objectness that fast loops sum by column.

    x: the cells from row `top` and column `left` of the H x W grid; priors (num, 2): anchors as parts of the picture; truths
    (K, 5) float64, those of sample b in rows starts[b]...starts[b+1]-1; pull: boxes without truth learn their anchor.
    """
    n, _, h, w = x.shape
    T = x.dtype.type
    size, num = 5 + rules.classes, len(priors)
    boxes, best, which = np.empty((5, w), x.dtype), np.empty(w, x.dtype), np.empty(w, np.int64)
    matched = np.empty((num, h, w), np.int64)                    # the last truth of each box, or -1
    place = np.empty(len(truths), np.int64)                      # the box of each truth, as an index into matched.ravel(), or -1
    p, target = np.empty(rules.classes, x.dtype), np.empty(rules.classes, x.dtype)
    for b in range(n):
        first, end = starts[b], starts[b + 1]
        match(matched, place, x[b], top, left, H, W, priors, truths, first, end, rules)

        # every box: no object, unless it overlaps a truth; early in training its anchor is its target
        dx[b] = T(0)
        for a in range(num):
            z, dz = x[b, a * size:(a + 1) * size], dx[b, a * size:(a + 1) * size]
            for j in range(h):
                decode_row(boxes, z, j, top, left, H, W, priors[a, 0], priors[a, 1])
                overlap_row(best, which, boxes, truths, first, end)
                background_row(dz[4, j], lanes, boxes[4], best, matched[a, j], T(rules.thresh), T(rules.noobject_scale))
                if pull:
                    pull_row(dz, lanes, z, matched[a, j], j)

        # the boxes of truths, in the order of the truths; the last one of a box decides
        for t in range(first, end):
            if place[t] >= 0:
                a, j, i = place[t] // (h * w), place[t] // w % h, place[t] % w
                z, dz = x[b, a * size:(a + 1) * size, j, i], dx[b, a * size:(a + 1) * size, j, i]
                train_box(dz, sums, z, top + j, left + i, H, W, priors[a], truths, first, t, place, matched[a, j, i] == t,
                          p, target, rules)
    sums[CELLS] += n * num * h * w


@kernel
def match(matched, place, x, top, left, H, W, priors, truths, first, end, rules):
    """The box of each truth whose cell is ours: in that cell the anchor, or with bias_match=0 the predicted box, most like it."""
    T = x.dtype.type
    num, h, w = matched.shape
    size = 5 + rules.classes
    matched[:] = -1
    for t in range(first, end):
        j, i = int(truths[t, 2] * H) - top, int(truths[t, 1] * W) - left
        place[t] = -1
        if not (0 <= j < h and 0 <= i < w):
            continue
        best, chosen = T(0), 0
        for a in range(num):
            width, height = priors[a, 0], priors[a, 1]
            if not rules.bias_match:
                width *= exp(x[a * size + 2, j, i])
                height *= exp(x[a * size + 3, j, i])
            overlap = iou(T(0), T(0), width, height, T(0), T(0), T(truths[t, 3]), T(truths[t, 4]))
            if overlap > best:
                best, chosen = overlap, a
        matched[chosen, j, i] = t
        place[t] = (chosen * h + j) * w + i


@kernel
def background_row(dz, lanes, objectness, best, matched, thresh, scale):
    """Objectness of a row of boxes that have no truth and overlap none by more than `thresh`: towards 0."""
    zero, one = thresh - thresh, dz.dtype.type(1)
    for i in range(dz.size):
        p = objectness[i]
        delta = zero if best[i] > thresh or matched[i] >= 0 else scale * p
        dz[i] = delta * p * (one - p)
        lanes[0, i] += 0.5 * delta * p
        lanes[1, i] += delta * delta
        lanes[2, i] += p


@kernel
def pull_row(dz, lanes, z, matched, j):
    """Row j of boxes without truth: towards the middle of the cell and the size of the anchor, with weight .01."""
    T = z.dtype.type
    for e in range(4):
        for i in range(matched.size):
            v = z[e, j, i]
            p = logistic(v) if e < 2 else v
            off = p - T(0.5) if e < 2 else p
            off = T(0) if matched[i] >= 0 else off
            dz[e, j, i] = T(0.01) * off * (p * (T(1) - p) if e < 2 else T(1))
            lanes[0, i] += 0.005 * off * off
            lanes[1, i] += 0.0001 * off * off


@kernel
def train_box(dz, sums, z, row, column, H, W, prior, truths, first, t, place, last, p, target, rules):
    """Count the box z (5 + classes,) of truth t; if no later truth shares the box, write its gradient."""
    T = z.dtype.type
    x, y, w, h = truths[t, 1], truths[t, 2], truths[t, 3], truths[t, 4]
    overlap = iou((T(column) + logistic(z[0])) / T(W), (T(row) + logistic(z[1])) / T(H), exp(z[2]) * prior[0], exp(z[3]) * prior[1],
                  T(x), T(y), T(w), T(h))
    objectness, c = logistic(z[4]), int(truths[t, 0])
    log_total = probabilities(p, z[5:], rules.softmax)
    began = rules.softmax or mark_classes(target, p, truths, first, t, place, -1)
    sums[TRUTHS] += 1
    sums[IOU] += overlap
    sums[R50] += overlap > 0.5
    sums[R75] += overlap > 0.75
    sums[OBJECT] += objectness
    sums[CLASS] += p[c] if began else 0.0
    if not last:
        return

    # box
    scale = rules.coord_scale * (2 - w * h)
    for e, aim in enumerate((x * W - column, y * H - row, math.log(w / prior[0]), math.log(h / prior[1]))):
        q = logistic(z[e]) if e < 2 else z[e]
        delta = scale * (aim - q)
        dz[e] = -delta * q * (1 - q) if e < 2 else -delta
        sums[VALUE] += 0.5 * delta * (aim - q)
        sums[COST] += delta * delta

    # objectness
    aim = overlap if rules.rescore else T(1)
    delta = rules.object_scale * (aim - objectness)
    dz[4] = -delta * objectness * (1 - objectness)
    sums[VALUE] += 0.5 * delta * (aim - objectness)
    sums[COST] += delta * delta

    # classes
    for k in range(p.size):
        aim = T(k == c) if rules.softmax else target[k]
        delta = rules.class_scale * (aim - p[k])
        dz[5 + k] = -delta
        sums[COST] += delta * delta
        if not rules.softmax:
            sums[VALUE] += rules.class_scale * (softplus(z[5 + k]) - aim * z[5 + k])
    if rules.softmax:
        sums[VALUE] += rules.class_scale * (log_total - z[5 + c])
