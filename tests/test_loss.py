"""Losses against a literal slow reading of Darknet's rules, finite differences, and cuts of the cells."""
from itertools import product

import numpy as np
import pytest

import darknet_reading
from mpi_ftp import boxes
from mpi_ftp.errors import CfgError, DataError, PlanError
from mpi_ftp.loss import STATS, RegionLoss, SoftmaxLoss, YoloLoss, prepare, summary
from mpi_ftp.region import NOTHING, Layout, Region

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


@pytest.mark.parametrize('softmax, rescore, bias_match, seen', [*product((0, 1), (0, 1), (0, 1), (0, 12799, 12800))])
def test_region_is_darknets(softmax, rescore, bias_match, seen):
    options = region_options(softmax=softmax, rescore=rescore, bias_match=bias_match)
    for seed in range(3):
        x, truths = head(seed), crowd(seed)
        reading = darknet_reading.region(x, truths, seen, ANCHORS, **options)
        _, dx, stats = agrees(region_loss(**options), reading, x, truths, seen)
        assert stats['truths'] == sum(map(len, truths)) and (reading.weight[:, :, 4] == 0).any()
        where = np.random.default_rng(seed).permutation(np.flatnonzero(reading.weight))[:60]
        frozen = differences(lambda moved: reading.value(moved.reshape(reading.x.shape)), x, where)
        assert np.allclose(dx.flat[where], frozen, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize('ignore, sure', [(.3, 1), (.3, .45), (.5, .2), (2, 2)])
@pytest.mark.parametrize('mask', [(2, 0, 1), (3,), (0, 1, 2, 3)])
def test_yolo_is_darknets(ignore, sure, mask):
    for seed in range(3):
        x, truths = head(seed, channels=len(mask) * (5 + CLASSES)), crowd(seed)
        reading = darknet_reading.yolo(x, truths, PIXELS, mask, NET[1:], ignore, sure)
        _, dx, _ = agrees(yolo_loss(mask, ignore_thresh=ignore, truth_thresh=sure), reading, x, truths, 0)
        where = np.random.default_rng(seed).permutation(np.flatnonzero(reading.weight))[:60]
        frozen = differences(lambda moved: reading.value(moved.reshape(reading.x.shape)), x, where)
        assert np.allclose(dx.flat[where], frozen, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize('loss', [region_loss(), region_loss(softmax=0), region_loss(bias_match=0), yolo_loss(ignore_thresh=.3),
                                  yolo_loss(truth_thresh=.4)])
def test_gradient_is_that_of_the_value(loss):
    x, truths = head(5, 1), crowd(6, 1, 12)
    cells = Region.whole(x.shape)
    _, dx, _ = loss(x, cells, truths, 0)
    where = np.concatenate([np.flatnonzero(dx)[::3], np.flatnonzero(dx == 0)[::40]])
    found = differences(lambda moved: loss(moved, cells, truths, 0)[0], x, where, 1e-6)
    assert np.allclose(dx.flat[where], found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('loss, read', [
    (region_loss(softmax=0), lambda x, t: darknet_reading.region(x, t, 99999, ANCHORS, **region_options(softmax=0))),
    (yolo_loss(), lambda x, t: darknet_reading.yolo(x, t, PIXELS, (2, 0, 1), NET[1:], .5, 1))])
def test_a_saturated_first_class_starts_the_classes_anew(loss, read):
    """A probability of exactly 1 leaves no gradient at class 0, and Darknet takes the box for one without classes."""
    x = head(0, 1)
    x.reshape(1, 3, -1, H, W)[:, :, 5] = 50
    truths = [np.array([[0, .5, .5, .3, .3], [2, .5, .5, .3, .3], [3, .5, .5, .3, .3]])]
    agrees(loss, read(x, truths), x, truths, 99999)
    x.reshape(1, 3, -1, H, W)[:, :, 5] = 2
    agrees(loss, read(x, truths), x, truths, 99999)


def test_of_equal_anchors_the_first_wins():
    x, truths = head(2), crowd(2)
    twins = [(2.5, 3.1), (1.2, .9), (2.5, 3.1)]
    loss = RegionLoss(text(dict(region_options(), anchors=twins, num=3, classes=CLASSES)), (27, H, W), NET)
    agrees(loss, darknet_reading.region(x, truths, 0, twins, **region_options()), x, truths, 0)
    twins = [(45, 60), (20, 14), (45, 60)]
    loss = YoloLoss(text(dict(anchors=twins, num=3, classes=CLASSES)), (27, H, W), NET)
    agrees(loss, darknet_reading.yolo(x, truths, twins, (0, 1, 2), NET[1:], .5, 1), x, truths, 0)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('loss', [region_loss(rescore=1), region_loss(softmax=0, bias_match=0), yolo_loss(truth_thresh=.5)])
def test_cuts_equal_the_whole(loss, dtype):
    x, truths = head(3, 3, dtype), crowd(4)
    whole = Region.whole(x.shape)
    value, dx, stats = loss(x, whole, truths, 100)
    found = loss.detections(x, whole, .4)
    for edges in (((0, 1, 3), (0, x.shape[1]), (0, 2, 3, 6), (0, 1, 6, 7)), ((0, 3), (0, x.shape[1]), (0, 0, 6), (0, 4, 7))):
        pieces, rows = [], []
        for box in Layout.cut(x.shape, edges, 20):
            part = x[tuple(map(slice, box.lo, box.hi))]
            piece = loss(part, box, truths, 100)
            assert np.array_equal(piece[1], dx[tuple(map(slice, box.lo, box.hi))])
            assert np.array_equal(loss.activate(part), loss.activate(x)[tuple(map(slice, box.lo, box.hi))])
            pieces.append(piece)
            rows.append(loss.detections(part, box, .4))
        assert sum(p[0] for p in pieces) == pytest.approx(value, rel=1e-13)
        for key in STATS:
            assert sum(p[2][key] for p in pieces) == pytest.approx(stats[key], rel=1e-13), key
        rows = np.concatenate(rows)
        assert np.array_equal(rows[np.lexsort(rows.T)], found[np.lexsort(found.T)])


@pytest.mark.parametrize('loss', [region_loss(rescore=1), yolo_loss()])
def test_float32_is_near_float64(loss):
    x, truths = head(8, 3, np.float32), crowd(8)
    value, dx, _ = loss(x, Region.whole(x.shape), truths, 0)
    exact, exact_dx, _ = loss(x.astype(np.float64), Region.whole(x.shape), truths, 0)
    assert dx.dtype == np.float32 and exact_dx.dtype == np.float64
    assert value == pytest.approx(exact, rel=1e-6) and np.abs(dx - exact_dx).max() <= 1e-6 * np.abs(exact_dx).max()


def test_dx_is_written_into_a_given_array():
    loss, x, truths = yolo_loss(), head(1), crowd(1)
    wanted = loss(x, Region.whole(x.shape), truths)[1]
    dx = np.full_like(x, np.nan)
    assert loss(x, Region.whole(x.shape), truths, 0, dx)[1] is dx and np.array_equal(dx, wanted)


def test_extreme_inputs_stay_finite():
    for loss in (region_loss(), region_loss(softmax=0), yolo_loss()):
        for dtype, size in ((np.float32, 60), (np.float64, 500)):
            x = np.sign(head(2, 2, dtype)) * dtype(size)
            x.reshape(2, 3, -1, H, W)[:, :, 2:4] = 0
            value, dx, _ = loss(x, Region.whole(x.shape), crowd(2, 2), 0)
            assert np.isfinite(value) and np.isfinite(dx).all()
        x[0, 4, 0, 0] = np.nan
        assert np.isnan(loss(x, Region.whole(x.shape), crowd(2, 2), 0)[0])


def test_no_truths_no_samples():
    loss, x = region_loss(), head(1)
    empty = [np.empty((0, 5))] * 3
    reading = darknet_reading.region(x, empty, 20000, ANCHORS, **region_options())
    _, _, stats = agrees(loss, reading, x, empty, 20000)
    averages = summary(stats)
    assert np.isnan(averages['iou']) and averages['count'] == 0 and 0 < averages['any_objectness'] < 1
    for nothing in (Region((1, 0, 2, 2), (1, 0, 2, 2)), NOTHING, Region((0, 0, 2, 2), (3, 27, 2, 5))):
        value, dx, stats = loss(np.empty(nothing.shape), nothing, crowd(1), 0)
        assert value == 0 and dx.shape == nothing.shape and not any(stats.values())


def test_truths_beyond_max_are_left_out_and_counted():
    x, truths = head(1, 1), [np.concatenate(crowd(3, 8))]
    loss, few = yolo_loss(), yolo_loss(max=5)
    value, _, stats = few(x, Region.whole(x.shape), truths)
    assert value == loss(x, Region.whole(x.shape), [truths[0][:5]])[0]
    assert len(truths[0]) > 5 and stats['dropped'] == len(truths[0]) - 5
    assert region_loss().rules.max == 30 and loss.rules.max == 90


@pytest.mark.parametrize('loss, softmax', [(region_loss(), True), (region_loss(softmax=0), False), (yolo_loss(), False)])
def test_activate_and_detections(loss, softmax):
    x = head(7, 2)
    y = darknet_reading.activated(x.reshape(2, 3, -1, H, W), softmax)
    assert np.allclose(loss.activate(x), y.reshape(x.shape), rtol=1e-14, atol=0)
    priors = [(w / W, h / H) for w, h in ANCHORS] if loss.kind == 'region' else [(PIXELS[m][0] / 160, PIXELS[m][1] / 96) for m in (2, 0, 1)]
    wanted = []
    for b, j, i, a in np.ndindex(2, H, W, 3):
        p = y[b, a, :, j, i]
        if p[4] > .6:
            scores = p[4] * p[5:]
            wanted.append([b + 4, (i + p[0]) / W, (j + p[1]) / H, np.exp(p[2]) * priors[a][0], np.exp(p[3]) * priors[a][1], p[4],
                           *np.where(scores > .6, scores, 0)])
    found = loss.detections(x, Region((4, 0, 0, 0), (6, *x.shape[1:])), .6)
    assert len(wanted) > 64 and np.allclose(found, wanted, rtol=1e-13, atol=0)
    assert loss.detections(x, Region.whole(x.shape), 1.).shape == (0, 6 + CLASSES)


def softmax_case(groups, temperature, shape=(12, 1, 1), n=4):
    rng = np.random.default_rng(groups)
    loss = SoftmaxLoss(text(dict(groups=groups, temperature=temperature)), shape)
    size = int(np.prod(shape)) // groups
    truths = [[int(t) for t in rng.integers(0, size, groups) + size * np.arange(groups)] for _ in range(n)]
    return loss, rng.normal(0, 3, (n, *shape)), [t[0] if groups == 1 else t[::-1] for t in truths]


@pytest.mark.parametrize('groups, temperature, shape', [(1, 1, (12, 1, 1)), (1, 2.5, (12, 1, 1)), (3, .5, (12, 1, 1)), (2, 1, (3, 2, 2))])
def test_softmax(groups, temperature, shape):
    loss, x, truths = softmax_case(groups, temperature, shape)
    cells = Region.whole(x.shape)
    value, dx, stats = loss(x, cells, truths)
    z = x.reshape(4, groups, -1)
    p = np.exp(z / temperature) / np.exp(z / temperature).sum(-1, keepdims=True)
    t = np.zeros((4, 12))
    for row, truth in zip(t, truths):
        row[truth] = 1
    assert np.allclose(dx.reshape(4, -1), p.reshape(4, -1) - t, rtol=0, atol=1e-14)
    assert np.allclose(loss.activate(x), p.reshape(x.shape), rtol=1e-13)
    assert stats['cost'] == pytest.approx(-(t * np.log(p.reshape(4, -1))).sum(), rel=1e-13)
    found = differences(lambda moved: loss(moved, cells, truths)[0], x, range(x.size), 1e-6)
    assert np.allclose(dx.ravel(), found, rtol=0, atol=1e-8)
    halves = [loss(x[a:b], Region((a, 0, 0, 0), (b, *shape)), truths) for a, b in ((0, 1), (1, 4))]
    assert np.array_equal(np.concatenate([h[1] for h in halves]), dx) and sum(h[0] for h in halves) == pytest.approx(value, rel=1e-14)
    assert loss(x.astype(np.float32) * 100, cells, truths)[1].dtype == np.float32
    assert loss(x[:0], Region((2, 0, 0, 0), (2, *shape)), truths)[0] == 0


def test_softmax_refuses():
    loss, x, _ = softmax_case(1, 1)
    for bad in (12, -1, [0, 1]):
        with pytest.raises(DataError, match='sample 0: truth'):
            loss(x, Region.whole(x.shape), [bad] * 4)
    with pytest.raises(PlanError, match='whole samples'):
        loss(x[:, :6], Region((0, 0, 0, 0), (4, 6, 1, 1)), [0] * 4)
    for options, why in ((dict(groups=5), 'divide'), (dict(tree='a.tree'), 'tree'), (dict(temperature=0), 'above 0'), (dict(spatial=1), 'spatial'),
                         (dict(noloss=1), 'noloss'), (dict(temprature=1), 'did you mean "temperature"')):
        with pytest.raises(CfgError, match=why):
            SoftmaxLoss(text(options), (12, 1, 1))


@pytest.mark.parametrize('change, why', [
    (dict(thrash=.5), 'did you mean "thresh"'), (dict(thresh='half'), 'thresh=half must be made of finite numbers'),
    (dict(thresh='1,2'), 'one number'), (dict(thresh='nan'), 'finite'), (dict(num='2.5'), 'whole numbers'), (dict(num=0), 'at least 1'), (dict(anchors='1,2,3'), '6 numbers above 0'),
    (dict(anchors='1,2,3,4,5,-6'), 'above 0'), (dict(classes=5), '30 channels, but the layer before it has 27'), (dict(coords=5), 'coords=5'),
    (dict(background=1), 'background=1'), (dict(tree='data/9k.tree'), 'tree=data/9k.tree'), (dict(map='m'), 'map=m')])
def test_region_refuses(change, why):
    good = text(dict(anchors=ANCHORS, num=3, classes=CLASSES, jitter=.2, random=1, absolute=1, log=1))
    RegionLoss(good, (27, H, W), NET)
    with pytest.raises(CfgError, match=why):
        RegionLoss({**good, **text(change)}, (27, H, W), NET)


@pytest.mark.parametrize('change, why', [
    (dict(mask='0,0,1'), 'different anchors'), (dict(mask='0,1,4'), 'from 0 to 3'), (dict(mask='x'), 'whole numbers'), (dict(map='m'), 'map=m'),
    (dict(mask='0,1'), '18 channels'), (dict(rescore=1), 'no key "rescore"')])
def test_yolo_refuses(change, why):
    good = text(dict(anchors=PIXELS, num=4, mask=(0, 1, 2), classes=CLASSES, jitter=.3, random=1))
    assert YoloLoss(good, (27, H, W), NET).mask == (0, 1, 2)
    with pytest.raises(CfgError, match=why):
        YoloLoss({**good, **text(change)}, (27, H, W), NET)


def test_darknets_defaults():
    loss = RegionLoss({}, (25, 3, 3), NET)
    assert loss.rules.classes == 20 and loss.rules.num == 1 and loss.anchors.tolist() == [[.5, .5]]
    loss = YoloLoss({}, (25, 3, 3), NET)
    assert loss.rules.truth_thresh == 1 and loss.rules.ignore_thresh == .5 and loss.mask == (0,)


@pytest.mark.parametrize('row', [[4, .5, .5, .1, .1], [-1, .5, .5, .1, .1], [0, 1, .5, .1, .1], [0, .5, 0, .1, .1], [0, .5, .5, 0, .1],
                                 [0, .5, np.nan, .1, .1]])
def test_bad_truths_are_refused(row):
    x = head(0)
    with pytest.raises(DataError, match='sample 1: truth'):
        region_loss()(x, Region.whole(x.shape), [np.array([[0, .5, .5, .1, .1]]), np.array([row]), np.empty((0, 5))], 0)


def test_prepared_losses_compile_nothing_more():
    from mpi_ftp import boxes_math, loss_math
    from mpi_ftp.region_loss import evaluate as evaluate_region
    from mpi_ftp.yolo_loss import evaluate as evaluate_yolo
    losses = region_loss(), region_loss(softmax=0), yolo_loss(), softmax_case(3, 1)[0]
    prepare(losses, np.float32)
    compiled = [evaluate_region, evaluate_yolo, loss_math.activate, loss_math.detect, boxes_math.suppress]
    before = [list(function.signatures) for function in compiled]
    x, truths = head(1, dtype=np.float32), crowd(1)
    for loss in losses[:3]:
        loss(x, Region.whole(x.shape), truths, np.int64(5))
        loss.activate(x)
        boxes.nms(loss.detections(x, Region.whole(x.shape), .3), .4)
    assert [list(function.signatures) for function in compiled] == before and all(before)


def test_cells_that_do_not_fit_are_refused():
    loss, x = yolo_loss(), head(0)
    with pytest.raises(PlanError, match='all 27 channels'):
        loss(x[:, :16], Region((0, 0, 0, 0), (3, 16, H, W)), crowd(0), 0)
    with pytest.raises(ValueError, match='whole mini-batch'):
        loss(x[1:], Region((1, 0, 0, 0), x.shape), crowd(0)[1:], 0)
    with pytest.raises(ValueError, match='not the array'):
        loss(x, Region((0, 0, 0, 0), (3, 27, H, W - 1)), crowd(0), 0)
    with pytest.raises(ValueError, match='beyond the head'):
        loss(x, Region((0, 0, 1, 0), (3, 27, H + 1, W)), crowd(0), 0)
