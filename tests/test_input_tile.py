"""Any cut of a network's input gives the same bits, and reads little more of the picture than it shows."""
from dataclasses import replace

import numpy as np
import pytest

from input_tiles import CLASSIFY, DETECT, picture, tile, whole
from mpi_ftp.augment import centre_crop, draw, input_tile, letterbox, square_crop
from mpi_ftp.pictures import Loose
from mpi_ftp.region import Region


def draws(size, net):
    yield from (draw(3, 1, k, DETECT, size, net) for k in range(4))
    yield from (draw(3, 1, k, CLASSIFY, size, net) for k in range(4))
    yield from (letterbox(size, net), centre_crop(size, net), square_crop(size, net, flip=True, hue=.1))


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('size', [(480, 640), (50, 40), (200, 90)])
def test_any_cut_gives_the_same_bits(size, dtype):
    net = 353, 417
    image = picture(*size)
    rows, columns = [0, 1, 100, 101, 290, 353], [0, 210, 211, 417]
    for drawn in draws(size, net):
        full = tile(image, drawn, *net, dtype=dtype)
        assert full.min() >= 0 and full.max() <= 1 and full.std() > 0
        for y0, y1 in zip(rows, rows[1:]):
            for x0, x1 in zip(columns, columns[1:]):
                part = tile(image, drawn, *net, Region((0, 0, y0, x0), (1, 3, y1, x1)), dtype)
                assert np.array_equal(part, full[y0:y1, x0:x1])


def test_beyond_the_input_lies_zero_and_nothing_is_nothing():
    net, image = (35, 41), picture(30, 50)
    for drawn in draws((30, 50), net):
        full = tile(image, drawn, *net)
        around = tile(image, drawn, *net, Region((0, 0, -3, -2), (1, 3, 40, 50)))
        assert np.array_equal(around[3:38, 2:43], full)
        around[3:38, 2:43] = 0
        assert not around.any()
        for empty in (Region((0, 0, 5, 5), (1, 3, 5, 9)), Region((0, 0, 0, 7), (1, 3, 35, 7))):
            assert tile(image, drawn, *net, empty).size == 0
        assert not tile(image, drawn, *net, Region((0, 0, 50, 0), (1, 3, 60, 41))).any()


def test_an_output_of_any_stride():
    drawn, buffer = letterbox((30, 50), (20, 20)), np.zeros((20, 40, 3))
    input_tile(buffer[:, ::2], Loose([picture(30, 50)]), 0, drawn, whole(20, 20), 20, 20)
    assert np.array_equal(buffer[:, ::2], tile(picture(30, 50), drawn, 20, 20))


class Spy(Loose):
    """Notes what is read."""
    area = 0

    def read(self, i, y0, y1, x0, x1):
        self.area += (y1 - y0) * (x1 - x0)
        h, w = self.size(i)
        assert 0 <= y0 < y1 <= h and 0 <= x0 < x1 <= w
        return super().read(i, y0, y1, x0, x1)


def test_a_quarter_reads_about_a_quarter():
    size, net = (480, 640), (240, 320)
    for drawn in (letterbox(size, net), draw(1, 1, 1, DETECT, size, net), draw(1, 1, 1, replace(CLASSIFY, angle=0.), size, net)):
        areas = []
        for y, x in np.ndindex(2, 2):
            spy = Spy([picture(*size)])
            input_tile(np.empty((120, 160, 3)), spy, 0, drawn, Region((0, 0, 120 * y, 160 * x),
                       (1, 3, 120 * y + 120, 160 * x + 160)), *net)
            areas.append(spy.area)
        assert sum(areas) < 1.06 * 480 * 640 and max(areas) < 480 * 640


def test_a_tile_of_grey_reads_nothing():
    spy = Spy([picture(100, 10)])
    out = np.empty((20, 5, 3))
    input_tile(out, spy, 0, letterbox((100, 10), (20, 20)), Region((0, 0, 0, 0), (1, 3, 20, 5)), 20, 20)
    assert spy.area == 0 and (out == .5).all()
