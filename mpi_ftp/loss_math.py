"""Loops that the detection losses share: activations of a head, decoded boxes, overlaps, detections. Arrays and numbers only.

A head (n, C, h, w) holds for each anchor a the planes a*(5+classes) + 0..3 for x, y, w, h, 4 for objectness, 5... for classes.
`top`, `left` place the array's first cell in the whole grid of H x W cells; `priors` are anchors as parts of the picture.

exp and softplus are polynomials written out here: a loop over a row of cells becomes SIMD code with them, and each cell gets the
same bits wherever it stands in the row, which a library's vector exp does not promise.
"""
import math

import numpy as np
from numba import types
from numba.extending import overload

from .boxes_math import iou, kernel

VALUE, COST, IOU, CLASS, OBJECT, _, R50, R75, TRUTHS, CELLS = range(10)     # places in `sums`: the value and loss_checks.STATS


def exp(v):
    """e**v, within 2 units in the last place; the exponent is clamped where the result would not be a normal number."""


@overload(exp)
def _exp(v):
    single = v == types.float32
    T, I = (np.float32, np.int32) if single else (np.float64, np.int64)
    low, high = (T(-87.3), T(88.3)) if single else (T(-708.3), T(709.0))
    per_octave, bias, shift = T(1 / math.log(2)), I(127 if single else 1023), I(23 if single else 52)
    octave = T(0.693359375) if single else T(0.693147180369123816490)           # ln 2 in two parts, the first short
    rest = T(-2.12194440e-4) if single else T(1.90821492927058770002e-10)
    c = tuple(T(1 / math.factorial(k)) for k in range(14))

    def exp32(v):
        v = low if v < low else high if v > high else v                         # a nan stays one
        k = np.rint(v * per_octave)
        r = v - k * octave - k * rest
        p = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * (c[5] + r * (c[6] + r * c[7]))))))
        return p * I((I(k) + bias) << shift).view(T)

    def exp64(v):
        v = low if v < low else high if v > high else v
        k = np.rint(v * per_octave)
        r = v - k * octave - k * rest
        p = c[7] + r * (c[8] + r * (c[9] + r * (c[10] + r * (c[11] + r * (c[12] + r * c[13])))))
        p = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * (c[5] + r * (c[6] + r * p))))))
        return p * I((I(k) + bias) << shift).view(T)
    return exp32 if single else exp64


def softplus(v):
    """log(1 + e**v) = -log(1 - logistic(v)), without overflow."""


@overload(softplus)
def _softplus(v):
    single = v == types.float32
    T, terms = (np.float32, 8) if single else (np.float64, 18)
    zero, two = T(0), T(2)
    c = tuple(T(1 / (2 * k + 1)) for k in range(18))

    def implementation(v):
        u = exp(-abs(v))                                    # in (0, 1]; log(1 + u) = 2 artanh(u / (2 + u))
        s = u / (two + u)
        q, p = s * s, c[terms - 1]
        for k in range(terms - 2, -1, -1):
            p = c[k] + q * p
        return (v if v > zero else zero) + two * s * p
    return implementation


def logistic(v):
    """1 / (1 + e**-v)."""


@overload(logistic)
def _logistic(v):
    one = np.float32(1) if v == types.float32 else np.float64(1)

    def implementation(v):
        return one / (one + exp(-v))
    return implementation


@kernel
def decode_row(boxes, planes, j, top, left, H, W, width, height):
    """boxes (5, w): cx, cy, w, h as parts of the picture and objectness of one anchor (`width`, `height`) in row j of `planes` (5+, h, w)."""
    one = planes.dtype.type(1)
    columns, rows, y0 = one * W, one * H, one * (top + j)
    for i in range(boxes.shape[1]):
        boxes[0, i] = (one * (left + i) + logistic(planes[0, j, i])) / columns
        boxes[1, i] = (y0 + logistic(planes[1, j, i])) / rows
        boxes[2, i] = exp(planes[2, j, i]) * width
        boxes[3, i] = exp(planes[3, j, i]) * height
        boxes[4, i] = logistic(planes[4, j, i])


@kernel
def overlap_row(best, which, boxes, truths, first, last):
    """best (w,): largest IoU of each box with truths first...last-1, rows [class, cx, cy, w, h]; which (w,): that truth, or -1."""
    T = boxes.dtype.type
    best[:] = T(0)
    which[:] = -1
    for t in range(first, last):
        x, y, w, h = T(truths[t, 1]), T(truths[t, 2]), T(truths[t, 3]), T(truths[t, 4])
        for i in range(best.size):
            overlap = iou(boxes[0, i], boxes[1, i], boxes[2, i], boxes[3, i], x, y, w, h)
            better = overlap > best[i]
            best[i] = overlap if better else best[i]
            which[i] = t if better else which[i]


@kernel
def activate(y, x, softmax):
    """y (k, 5 + classes, cells): Darknet's output for k anchors' inputs x; logistic but for w and h; classes softmax if wanted."""
    anchors, size, cells = x.shape
    top, total = np.empty(cells, x.dtype), np.empty(cells, x.dtype)
    for a in range(anchors):
        for e in range(5 if softmax else size):
            for i in range(cells):
                y[a, e, i] = x[a, e, i] if e == 2 or e == 3 else logistic(x[a, e, i])
        if not softmax:
            continue
        for i in range(cells):
            top[i], total[i] = x[a, 5, i], 0
        for e in range(6, size):
            for i in range(cells):
                top[i] = x[a, e, i] if x[a, e, i] > top[i] else top[i]
        for e in range(5, size):
            for i in range(cells):
                y[a, e, i] = exp(x[a, e, i] - top[i])
                total[i] += y[a, e, i]
        for e in range(5, size):
            for i in range(cells):
                y[a, e, i] /= total[i]


@kernel
def detect(rows, x, sample, top, left, H, W, priors, softmax, thresh):
    """Rows [sample, cx, cy, w, h, objectness, scores] of the boxes whose objectness exceeds thresh, by sample, row, column, anchor.

    Returns how many there are; fills `rows` (capacity, 6 + classes) as far as it reaches.
    """
    n, channels, h, w = x.shape
    one, size, count = x.dtype.type(1), channels // len(priors), 0
    p = np.empty(size - 5, x.dtype)
    for b in range(n):
        for j in range(h):
            for i in range(w):
                for a in range(len(priors)):
                    z = x[b, a * size:(a + 1) * size, j, i]
                    objectness = logistic(z[4])
                    if not objectness > thresh:
                        continue
                    if count < len(rows):
                        rows[count, 0] = sample + b
                        rows[count, 1] = (one * (left + i) + logistic(z[0])) / (one * W)
                        rows[count, 2] = (one * (top + j) + logistic(z[1])) / (one * H)
                        rows[count, 3] = exp(z[2]) * priors[a, 0]
                        rows[count, 4] = exp(z[3]) * priors[a, 1]
                        rows[count, 5] = objectness
                        probabilities(p, z[5:], softmax)
                        for k in range(p.size):
                            score = objectness * p[k]
                            rows[count, 6 + k] = score if score > thresh else 0
                    count += 1
    return count


@kernel
def probabilities(p, x, softmax):
    """p (classes,): class probabilities from the first len(p) of x. Returns log sum exp of them if softmax, else 0."""
    zero = p.dtype.type(0)
    if not softmax:
        for k in range(p.size):
            p[k] = logistic(x[k])
        return zero
    top, total = x[0], zero
    for k in range(p.size):
        top = max(top, x[k])
    for k in range(p.size):
        p[k] = exp(x[k] - top)
        total += p[k]
    for k in range(p.size):
        p[k] /= total
    return top + math.log(total)


@kernel
def mark_classes(target, p, truths, first, t, place, forced):
    """target (classes,): 1 at the classes of the truths up to t that share t's box, logistic classes. True if t began it anew.

    Darknet lets a later truth add its class to those of an earlier one, which it tells by a class gradient that is not 0
    at class 0. `forced` is a truth that came before them all, or -1.
    """
    fresh = True
    for s in range(first - 1, t + 1):
        if s < first and forced < 0 or s >= first and place[s] != place[t]:
            continue
        fresh = fresh or target[0] == p[0]
        if fresh:
            target[:] = 0
        target[int(truths[forced if s < first else s, 0])] = 1
        began, fresh = fresh, False
    return began
