"""Boxes and labels go the way of their pixels."""
from dataclasses import replace

import numpy as np
import pytest

from input_tiles import CLASSIFY, DETECT, picture, tile
from mpi_ftp.augment import Draw, centre_crop, draw, letterbox, truths
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


def test_truths_of_either_task():
    class Known(Loose):
        def boxes(self, i):
            return np.array([[1, .5, .5, .5, .5]])

        def label(self, i):
            return 7
    known, drawn = Known([picture(8, 8)]), letterbox((8, 8), (8, 8))
    assert truths(known, 0, drawn, CLASSIFY) == 7
    assert np.allclose(truths(known, 0, drawn, DETECT), [[1, .5, .5, .5, .5]])
