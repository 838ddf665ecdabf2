"""Boxes and labels go the way of their pixels."""
from dataclasses import replace

import numpy as np
import pytest

from input_tiles import CLASSIFY, DETECT, picture, tile
from mpi_ftp.augment import Draw, Options, centre_crop, draw, letterbox, truths
from mpi_ftp.pictures import Loose


@pytest.mark.parametrize('seed', range(12))
def test_a_box_stays_around_its_thing(seed):
    """A white rectangle is found where its box says, within the pixel that whole-number placing costs."""
    h, w, net = 120, 160, (95, 131)
    image = np.zeros((h, w, 3), np.uint8)
    image[30:70, 50:110] = 255
    boxes = np.array([[2, 80 / w, 50 / h, 60 / w, 40 / h]])
    plain = replace(DETECT, hue=0., saturation=1., exposure=1.)
    for drawn in (draw(seed, 0, 0, plain, (h, w), net), letterbox((h, w), net), centre_crop((h, w), net)):
        white = np.argwhere(tile(image, drawn, *net)[..., 0] > .51)
        (top, left), (bottom, right) = white.min(0), white.max(0) + 1
        [[label, cx, cy, bw, bh]] = drawn.boxes(boxes)
        edges = np.array([cx - bw / 2, cx + bw / 2, cy - bh / 2, cy + bh / 2]) * [net[1], net[1], net[0], net[0]]
        assert label == 2 and np.abs(edges - [left, right, top, bottom]).max() < 2.1


def test_boxes_are_cut_at_the_edge_and_dropped_when_tiny():
    drawn = Draw((1,) * 6, (0, 0, 8, 8), scale=(2., 1.), shift=(1., 0.))       # the right half
    boxes = np.array([[0, .5, .5, .2, .2], [1, .2, .5, .2, .2], [2, .75, .5, .1, .0009], [3, .50005, .5, .0005, .5]])
    assert np.allclose(drawn.boxes(boxes), [[0, .1, .5, .2, .2]])
    assert np.allclose(replace(drawn, flip=True).boxes(boxes), [[0, .9, .5, .2, .2]])
    assert drawn.boxes(np.empty((0, 5))).shape == (0, 5)


@pytest.mark.parametrize('flip', [False, True])
def test_to_picture_undoes_boxes(flip):
    boxes = np.array([[0, .4, .5, .2, .3], [1, .6, .3, .1, .1]])
    for drawn in (replace(letterbox((48, 64), (50, 70)), flip=flip), replace(centre_crop((48, 64), (48, 60)), flip=flip)):
        assert np.allclose(drawn.to_picture(drawn.boxes(boxes)[:, 1:]), boxes[:, 1:])


@pytest.mark.parametrize('size, net', [((480, 640), (416, 416)), ((500, 300), (416, 416)), ((333, 517), (353, 417)), ((5, 4000), (96, 96)),
                                       ((416, 416), (416, 416))])
def test_letterbox_and_back(size, net):
    drawn, rng = letterbox(size, net), np.random.default_rng(4)
    rows = np.column_stack([np.zeros(5), rng.uniform(.3, .7, (5, 2)), rng.uniform(.1, .5, (5, 2))])
    assert np.allclose(drawn.to_picture(drawn.boxes(rows)[:, 1:]), rows[:, 1:], rtol=1e-12)
    # the corners of the whole picture are whole pixels of the network's
    [[_, *box]] = drawn.boxes(np.array([[0, .5, .5, 1, 1]]))
    x, y, w, h = np.array(box) * (net[1], net[0], net[1], net[0])
    left, top = x - w / 2, y - h / 2
    assert np.allclose([w, h, left, top], np.round([w, h, left, top]), rtol=0, atol=1e-9) and (round(h) == net[0] or round(w) == net[1])
    assert (round(left), round(top)) == ((net[1] - round(w)) // 2, (net[0] - round(h)) // 2)


def test_letterbox_by_hand():
    # 640x480 into 416x416: 416x312, 52 rows of grey above
    drawn = letterbox((480, 640), (416, 416))
    assert drawn.window == (52, 0, 364, 416)
    assert np.allclose(drawn.to_picture([[.5, (52 + 78) / 416, .25, 156 / 416]]), [[.5, .25, .25, .5]])


def test_truths_of_either_task():
    class Known(Loose):
        def boxes(self, i):
            return np.array([[1, .5, .5, .5, .5]])

        def label(self, i):
            return 7
    known, drawn = Known([picture(8, 8)]), letterbox((8, 8), (8, 8))
    assert truths(known, 0, drawn, CLASSIFY) == 7
    assert np.allclose(truths(known, 0, drawn, DETECT), [[1, .5, .5, .5, .5]])


def test_boxes_come_in_another_order_every_epoch():
    """A head looks at its first 30 or so: each box is among them some time, and every rank draws the same."""
    class Crowded(Loose):
        def boxes(self, i):
            return np.column_stack([np.arange(40), np.full((40, 2), .5), np.full((40, 2), .2)])
    known = Crowded([picture(8, 8)])

    def classes(epoch, options=Options(jitter=0)):
        return truths(known, 0, draw(1, epoch, 0, options, (8, 8), (8, 8)), options)[:, 0].astype(int).tolist()
    orders = [classes(epoch) for epoch in range(12)]
    assert all(sorted(order) == list(range(40)) for order in orders) and len(set(map(tuple, orders))) == 12 and classes(3) == orders[3]
    assert set().union(*(order[:30] for order in orders)) == set(range(40))
    assert classes(3, Options(augment=False)) == list(range(40))
