"""What holds for every head: gradients, cuts of the cells, precision, detections, defaults, refused truths and cells."""
import numpy as np
import pytest

import darknet_reading
from heads import (ANCHORS, CLASSES, NET, PIXELS, H, W, agrees, crowd, differences, head, region_loss, region_options, softmax_case, text,
                   yolo_loss)
from mpi_ftp import boxes
from mpi_ftp.errors import DataError, PlanError
from mpi_ftp.loss import STATS, RegionLoss, YoloLoss, prepare
from mpi_ftp.region import Layout, Region


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
