"""Darknet's region and yolo rules read literally into slow numpy: a target and a weight for every number of a head's output."""
from dataclasses import dataclass, field

import numpy as np


def logistic(x):
    return 1 / (1 + np.exp(-x))


def overlap(a, b):
    """IoU of two boxes (cx, cy, w, h)."""
    sides = [min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2) - max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2) for k in (0, 1)]
    shared = 0 if min(sides) < 0 else sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


@dataclass
class Reading:
    """x, output, target, weight: (n, anchors, 5 + classes, H, W). Darknet's delta is weight * (target - output)."""
    x: np.ndarray
    output: np.ndarray
    softmax: bool
    squared: tuple                 # entries with a squared error behind the logistic
    target: np.ndarray = None
    weight: np.ndarray = None
    stats: dict = field(default_factory=lambda: dict.fromkeys(
        'iou class objectness any_objectness recall50 recall75 truths cells'.split(), 0.0))

    def __post_init__(self):
        self.target, self.weight = np.zeros_like(self.x), np.zeros_like(self.x)

    def aim(self, index, target, weight=1.0):
        self.target[index], self.weight[index] = target, weight

    @property
    def delta(self):
        return self.weight * (self.target - self.output)

    @property
    def dx(self):
        """Minus delta, through the logistic where Darknet's backward pass multiplies by its gradient."""
        slope = np.ones_like(self.output)
        for entry in self.squared:
            slope[:, :, entry] = self.output[:, :, entry] * (1 - self.output[:, :, entry])
        return -self.delta * slope

    def value(self, x):
        """The loss at x with all targets and weights as they are."""
        p = activated(x, self.softmax)
        total = 0.5 * self.weight * (self.target - p) ** 2
        cross = [e for e in range(x.shape[2]) if e not in self.squared and e not in (2, 3)]
        binary = np.logaddexp(0, x) - self.target * x
        total[:, :, cross] = (self.weight * binary)[:, :, cross]
        if self.softmax:
            total[:, :, 5:] = -self.weight[:, :, 5:] * self.target[:, :, 5:] * np.log(p[:, :, 5:])
        return total.sum()

    def box(self, b, a, j, i, priors):
        """The predicted box."""
        H, W = self.x.shape[3:]
        x, y, w, h = self.output[b, a, :4, j, i]
        return (i + x) / W, (j + y) / H, np.exp(w) * priors[a][0], np.exp(h) * priors[a][1]

    def aim_box(self, b, a, j, i, truth, priors, weight):
        H, W = self.x.shape[3:]
        x, y, w, h = truth
        for e, target in enumerate((x * W - i, y * H - j, np.log(w / priors[a][0]), np.log(h / priors[a][1]))):
            self.aim((b, a, e, j, i), target, weight)
        return overlap(self.box(b, a, j, i, priors), truth)

    def aim_classes(self, b, a, j, i, c, weight, add):
        """True if all classes were set, False if just class c was added to those of an earlier truth."""
        if add and self.delta[b, a, 5, j, i] != 0:
            self.aim((b, a, 5 + c, j, i), 1, weight)
            return False
        self.aim((b, a, slice(5, None), j, i), np.eye(self.x.shape[2] - 5)[c], weight)
        return True

    def count(self, iou, objectness, p):
        for key, value in (('iou', iou), ('recall50', iou > .5), ('recall75', iou > .75), ('objectness', objectness), ('class', p),
                           ('truths', 1)):
            self.stats[key] += value


def activated(x, softmax):
    y = x.copy()
    for e in (0, 1, 4) if softmax else (0, 1, 4, *range(5, x.shape[2])):
        y[:, :, e] = logistic(x[:, :, e])
    if softmax:
        e = np.exp(x[:, :, 5:] - x[:, :, 5:].max(2, keepdims=True))
        y[:, :, 5:] = e / e.sum(2, keepdims=True)
    return y


def region(x, truths, seen, anchors, thresh, coord_scale, object_scale, noobject_scale, class_scale, softmax, rescore, bias_match):
    """anchors: (num, 2) in cells; truths: per sample rows [class, cx, cy, w, h]."""
    n, _, H, W = x.shape
    num = len(anchors)
    x = x.reshape(n, num, -1, H, W)
    r = Reading(x, activated(x, softmax), bool(softmax), (0, 1, 4))
    priors = [(w / W, h / H) for w, h in anchors]
    for b in range(n):
        for j, i, a in np.ndindex(H, W, num):
            best = max((overlap(r.box(b, a, j, i, priors), t[1:]) for t in truths[b]), default=0)
            r.stats['any_objectness'] += r.output[b, a, 4, j, i]
            r.stats['cells'] += 1
            r.aim((b, a, 4, j, i), 0, 0 if best > thresh else noobject_scale)
            if seen < 12800:
                r.aim_box(b, a, j, i, ((i + .5) / W, (j + .5) / H, *priors[a]), priors, .01)
        for c, cx, cy, w, h in truths[b]:
            c, i, j = int(c), int(cx * W), int(cy * H)
            sizes = priors if bias_match else [r.box(b, a, j, i, priors)[2:] for a in range(num)]
            a = int(np.argmax([overlap((0, 0, *size), (0, 0, w, h)) for size in sizes]))
            iou = r.aim_box(b, a, j, i, (cx, cy, w, h), priors, coord_scale * (2 - w * h))
            r.aim((b, a, 4, j, i), iou if rescore else 1, object_scale)
            p = r.output[b, a, 5 + c, j, i]
            r.count(iou, r.output[b, a, 4, j, i], p if r.aim_classes(b, a, j, i, c, class_scale, not softmax) else 0)
    return r


def yolo(x, truths, anchors, mask, net_size, ignore_thresh, truth_thresh):
    """anchors: (total, 2) in pixels of the picture of net_size (height, width)."""
    n, _, H, W = x.shape
    x = x.reshape(n, len(mask), -1, H, W)
    r = Reading(x, activated(x, False), False, ())
    every = [(w / net_size[1], h / net_size[0]) for w, h in anchors]
    priors = [every[m] for m in mask]
    for b in range(n):
        for j, i, a in np.ndindex(H, W, len(mask)):
            overlaps = [overlap(r.box(b, a, j, i, priors), t[1:]) for t in truths[b]]
            best = max(overlaps, default=0)
            r.stats['any_objectness'] += r.output[b, a, 4, j, i]
            r.stats['cells'] += 1
            r.aim((b, a, 4, j, i), 0, 0 if best > ignore_thresh else 1)
            if best > truth_thresh:
                c, cx, cy, w, h = truths[b][int(np.argmax(overlaps))]
                r.aim((b, a, 4, j, i), 1)
                r.aim_classes(b, a, j, i, int(c), 1, True)
                r.aim_box(b, a, j, i, (cx, cy, w, h), priors, 2 - w * h)
        for c, cx, cy, w, h in truths[b]:
            c, i, j = int(c), int(cx * W), int(cy * H)
            best = int(np.argmax([overlap((0, 0, *size), (0, 0, w, h)) for size in every]))
            if best in mask:
                a = mask.index(best)
                iou = r.aim_box(b, a, j, i, (cx, cy, w, h), priors, 2 - w * h)
                r.aim((b, a, 4, j, i), 1)
                r.aim_classes(b, a, j, i, c, 1, True)
                r.count(iou, r.output[b, a, 4, j, i], r.output[b, a, 5 + c, j, i])
    return r
