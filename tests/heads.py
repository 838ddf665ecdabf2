"""What the tests of losses share: small heads, their losses and truths, comparison with a literal reading, finite differences."""
import numpy as np
import pytest

from mpi_ftp.loss import RegionLoss, SoftmaxLoss, YoloLoss
from mpi_ftp.region import Region

NET = (3, 96, 160)
H, W, CLASSES = 6, 7, 4
ANCHORS = [(1.2, 0.9), (2.5, 3.1), (4.4, 1.7)]
PIXELS = [(20, 14), (45, 60), (90, 31), (8, 30)]


def text(options):
    return {key: ','.join(map(str, np.ravel(value))) if isinstance(value, (list, tuple)) else str(value) for key, value in options.items()}


def region_options(**changes):
    options = dict(thresh=.35, coord_scale=1.5, object_scale=5., noobject_scale=.7, class_scale=1.3, softmax=1, rescore=0, bias_match=1)
    return {**options, **changes}


def region_loss(**changes):
    options = region_options(**changes)
    return RegionLoss(text(dict(options, anchors=ANCHORS, num=3, classes=CLASSES, coords=4)), (3 * (5 + CLASSES), H, W), NET)


def yolo_loss(mask=(2, 0, 1), **changes):
    return YoloLoss(text(dict(anchors=PIXELS, num=4, mask=mask, classes=CLASSES, **changes)), (len(mask) * (5 + CLASSES), H, W), NET)


def softmax_case(groups, temperature, shape=(12, 1, 1), n=4):
    rng = np.random.default_rng(groups)
    loss = SoftmaxLoss(text(dict(groups=groups, temperature=temperature)), shape)
    size = int(np.prod(shape)) // groups
    truths = [[int(t) for t in rng.integers(0, size, groups) + size * np.arange(groups)] for _ in range(n)]
    return loss, rng.normal(0, 3, (n, *shape)), [t[0] if groups == 1 else t[::-1] for t in truths]


def head(seed, n=3, dtype=np.float64, channels=3 * (5 + CLASSES)):
    return np.random.default_rng(seed).normal(0, 1.3, (n, channels, H, W)).astype(dtype)


def crowd(seed, n=3, most=9):
    """Truths, of which several share a cell, some twice with the same shape."""
    rng = np.random.default_rng(seed)
    samples = []
    for k in rng.integers(0, most, n):
        rows = np.column_stack([rng.integers(0, CLASSES, k), rng.uniform(.02, .98, (k, 2)), rng.uniform(.03, .7, (k, 2))])
        twins = rows[:k // 2].copy()
        twins[:, 0] = rng.integers(0, CLASSES, k // 2)
        twins[:, 1:3] = (np.floor(twins[:, 1:3] * (W, H)) + rng.uniform(.1, .9, (k // 2, 2))) / (W, H)
        samples.append(np.concatenate([rows, twins]))
    return samples


def agrees(loss, reading, x, truths, seen):
    value, dx, stats = loss(x, Region.whole(x.shape), truths, seen)
    assert np.abs(dx - reading.dx.reshape(x.shape)).max() <= 1e-13 * np.abs(dx).max()
    assert value == pytest.approx(reading.value(reading.x), rel=1e-13)
    assert stats['cost'] == pytest.approx((reading.delta ** 2).sum(), rel=1e-13)
    for key, wanted in reading.stats.items():
        assert stats[key] == pytest.approx(wanted, rel=1e-13), key
    return value, dx, stats


def slopes_agree(reading, x, dx, seed):
    """dx against finite differences of the reading's value, its targets and weights frozen, at some of the numbers that count."""
    where = np.random.default_rng(seed).permutation(np.flatnonzero(reading.weight))[:60]
    frozen = differences(lambda moved: reading.value(moved.reshape(reading.x.shape)), x, where)
    assert np.allclose(dx.flat[where], frozen, rtol=1e-7, atol=1e-8)


def differences(value, x, where, step=1e-5):
    """Central differences of value(x) at the flat indices `where`."""
    found = []
    for k in where:
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved.flat[k] += sign * step
            ends.append(value(moved))
        found.append((ends[0] - ends[1]) / (2 * step))
    return np.array(found)
