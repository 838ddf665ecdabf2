"""Each kind of draw against a literal reading of Darknet's image.c; what draws depend on; options of a .cfg."""
import math
from dataclasses import replace

import numpy as np
import pytest

from darknet_image import distort_image, letterbox_image, place_image, resize_image, rotate_crop_image
from input_tiles import CLASSIFY, DETECT, picture, tile
from mpi_ftp.augment import Options, centre_crop, draw, letterbox, square_crop
from mpi_ftp.chance import Chance
from mpi_ftp.errors import CfgError

SIZES = [((20, 31), (16, 16)), ((9, 7), (24, 16)), ((40, 40), (13, 29))]


@pytest.mark.parametrize('size, net', SIZES + [((1, 5), (8, 8)), ((5, 1), (9, 9)), ((64, 3), (64, 20))])
def test_letterbox(size, net):
    image = picture(*size)
    ours = tile(image, letterbox(size, net), *net)
    assert np.allclose(ours, letterbox_image(image / 255, net[1], net[0]), atol=1e-12)


def test_letterbox_of_a_sliver_shows_it():
    """A picture so thin that Darknet's whole-number size would be 0 keeps one column of pixels."""
    ours = tile(np.full((100, 2, 3), 255, np.uint8), letterbox((100, 2), (20, 20)), 20, 20)
    assert (ours == 1).all(2).sum() == 20 and (ours == .5).all(2).sum() == 380


@pytest.mark.parametrize('size', [(20, 31), (40, 17), (16, 16), (9, 12)])
def test_centre_crop(size):
    h, w = size
    image = picture(h, w)
    new_w, new_h = (16, h * 16 // w) if w < h else (w * 16 // h, 16)
    resized = resize_image(image / 255, new_w, new_h)
    top, left = (new_h - 16) // 2, (new_w - 16) // 2
    assert np.allclose(tile(image, centre_crop(size, (16, 16)), 16, 16), resized[top:top + 16, left:left + 16], atol=1e-12)


@pytest.mark.parametrize('size', [(20, 31), (40, 17), (16, 16)])
def test_square_crop(size):
    h, w = size
    m = min(size)
    image = picture(h, w)
    part = image[(h - m) // 2:(h - m) // 2 + m, (w - m) // 2:(w - m) // 2 + m]
    assert np.allclose(tile(image, square_crop(size, (24, 18)), 24, 18), resize_image(part / 255, 18, 24), atol=1e-12)


@pytest.mark.parametrize('size, net', SIZES)
@pytest.mark.parametrize('seed', range(4))
def test_detector_draw(size, net, seed):
    """load_data_detection with the same random numbers."""
    (h, w), (net_h, net_w) = size, net
    chance = Chance(seed, 2, 5)
    hue, saturation, exposure = chance.uniform(-.1, .1), chance.factor(1.5), chance.factor(1.5)
    flip = chance.coin()
    dw, dh = .3 * w, .3 * h
    aspect = (w + chance.uniform(-dw, dw)) / (h + chance.uniform(-dh, dh))
    nw, nh = (net_h * aspect, net_h) if aspect < 1 else (net_w, net_w / aspect)
    dx, dy = chance.uniform(0, net_w - nw), chance.uniform(0, net_h - nh)
    canvas = np.full((net_h, net_w, 3), .5)
    place_image(picture(h, w) / 255, int(nw), int(nh), int(dx), int(dy), canvas)
    canvas = distort_image(canvas, hue, saturation, exposure)
    drawn = draw(seed, 2, 5, DETECT, size, net)
    assert np.allclose(tile(picture(h, w), drawn, *net), canvas[:, ::-1] if flip else canvas, atol=1e-9)
    assert drawn.flip == flip and drawn.scale == (nw / net_w, nh / net_h)


@pytest.mark.parametrize('seed', range(6))
def test_classifier_draw(seed):
    """random_augment_args and rotate_crop_image with the same random numbers."""
    (h, w), side = [(20, 31), (40, 17)][seed % 2], 16
    chance = Chance(seed, 0, 9)
    hue, saturation, exposure = chance.uniform(-.1, .1), chance.factor(1.5), chance.factor(1.5)
    flip, aspect, r = chance.coin(), chance.factor(1.3), chance.integer(side, 2 * side)
    s, rad = r / int(min(h, w * aspect)), math.radians(chance.uniform(-15, 15))
    dx, dy = (w * s / aspect - side) / 2, (h * s - side) / 2
    dx, dy = chance.uniform(-dx, dx), chance.uniform(-dy, dy)
    crop = rotate_crop_image(picture(h, w) / 255, rad, s, side, side, dx, dy, aspect)
    crop = distort_image(crop[:, ::-1] if flip else crop, hue, saturation, exposure)
    assert np.allclose(tile(picture(h, w), draw(seed, 0, 9, CLASSIFY, (h, w), (side, side)), side, side), crop, atol=1e-9)


def test_draws_differ_by_each_key():
    seen = {repr(draw(*keys, DETECT, (480, 640), (416, 416))) for keys in
            [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (2 ** 63, 0, 0)]}
    assert len(seen) == 6
    assert draw(4, 5, 6, DETECT, (9, 9), (8, 8)) == draw(4, 5, 6, DETECT, (9, 9), (8, 8))


def test_draws_cover_their_ranges():
    drawn = [draw(0, 0, k, DETECT, (480, 640), (416, 416)) for k in range(2000)]
    hues, exposures = [d.hue for d in drawn], [d.exposure for d in drawn]
    assert -.1 <= min(hues) < -.099 and .099 < max(hues) <= .1 and abs(np.mean(hues)) < .005
    assert 1 / 1.5 <= min(exposures) < .67 and 1.49 < max(exposures) <= 1.5
    assert abs(np.mean([e > 1 for e in exposures]) - .5) < .05 and abs(np.mean([d.flip for d in drawn]) - .5) < .05
    stretch = [d.scale[0] / d.scale[1] / (640 / 480) for d in drawn]
    assert .7 / 1.3 <= min(stretch) < .56 and 1.78 < max(stretch) <= 1.3 / .7
    assert not any(d.flip for d in (draw(0, 0, k, replace(DETECT, flip=False), (9, 9), (8, 8)) for k in range(50)))


def test_options_from_a_cfg():
    net = {'width': '448', 'height': '448', 'hue': '.1', 'saturation': .75, 'exposure': '.75', 'aspect': '.75',
           'angle': '7', 'max_crop': '512'}
    options = Options.from_cfg(net, {'jitter': '.3'})
    assert options == Options('detect', True, .3, True, .1, .75, .75, 7., .75, 1., 512 / 448)
    assert Options.from_cfg(net, None).task == 'classify' and Options.from_cfg(net, {}).task == 'detect'
    assert Options.from_cfg({'width': 64}, None, augment=False) == Options('classify', augment=False)
    with pytest.raises(CfgError, match='hue=red: expected a number'):
        Options.from_cfg({**net, 'hue': 'red'}, {})
    with pytest.raises(CfgError, match='jitter=1.5: expected a number from 0 to 0.99'):
        Options.from_cfg(net, {'jitter': '1.5'})


def test_without_augmentation_nothing_is_drawn():
    plain = replace(DETECT, augment=False)
    assert draw(1, 2, 3, plain, (48, 64), (32, 32)) == letterbox((48, 64), (32, 32))
    assert draw(1, 2, 3, replace(plain, task='classify'), (48, 64), (32, 32)) == centre_crop((48, 64), (32, 32))
    assert draw(1, 2, 3, replace(CLASSIFY, center=True), (48, 64), (32, 32)).affine == square_crop((48, 64), (32, 32)).affine
