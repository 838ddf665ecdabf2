"""Input tiles against a literal reading of Darknet's image.c, and the same bits under every cut."""
import math
from dataclasses import replace

import numpy as np
import pytest

from mpi_ftp.augment import Draw, Options, centre_crop, draw, input_tile, letterbox, square_crop, truths
from mpi_ftp.chance import Chance, shuffled
from mpi_ftp.errors import CfgError
from mpi_ftp.kernels.image import distort
from mpi_ftp.pictures import Loose
from mpi_ftp.region import Region

DETECT = Options(jitter=.3, hue=.1, saturation=1.5, exposure=1.5)
CLASSIFY = Options('classify', hue=.1, saturation=1.5, exposure=1.5, aspect=1.3, angle=15)


def picture(h, w, seed=0):
    return np.random.default_rng([seed, h, w]).integers(0, 256, (h, w, 3), dtype=np.uint8)


def whole(net_h, net_w):
    return Region((0, 0, 0, 0), (1, 3, net_h, net_w))


def tile(pixels, drawn, net_h, net_w, region=None, dtype=np.float64):
    region = region or whole(net_h, net_w)
    out = np.full((*region.shape[2:], 3), np.nan, dtype)
    input_tile(out, Loose([pixels]), 0, drawn, region, net_h, net_w)
    return out


# --- Darknet's functions, loop by loop -------------------------------------------------------------------------------

def pixel(image, x, y):
    h, w, _ = image.shape
    return image[y, x] if 0 <= x < w and 0 <= y < h else np.zeros(3)


def bilinear(image, x, y):
    ix, iy = math.floor(x), math.floor(y)
    dx, dy = x - ix, y - iy
    return ((1 - dy) * (1 - dx) * pixel(image, ix, iy) + dy * (1 - dx) * pixel(image, ix, iy + 1)
            + (1 - dy) * dx * pixel(image, ix + 1, iy) + dy * dx * pixel(image, ix + 1, iy + 1))


def resize_image(image, w, h):
    """First along the rows, then along the columns. (The last row is meant to be the last row: in float32 Darknet's
    own comes out black where row * scale rounds down.)"""
    im_h, im_w, _ = image.shape
    part, out = np.empty((im_h, w, 3)), np.empty((h, w, 3))
    for c in range(w):
        if c == w - 1 or im_w == 1:
            part[:, c] = image[:, -1]
        else:
            x = c * (im_w - 1) / (w - 1)
            part[:, c] = (1 - (x - int(x))) * image[:, int(x)] + (x - int(x)) * image[:, int(x) + 1]
    for r in range(h):
        if r == h - 1 or im_h == 1:
            out[r] = part[-1]
        else:
            y = r * (im_h - 1) / (h - 1)
            out[r] = (1 - (y - int(y))) * part[int(y)] + (y - int(y)) * part[int(y) + 1]
    return out


def letterbox_image(image, w, h):
    im_h, im_w, _ = image.shape
    new_w, new_h = (w, im_h * w // im_w) if w / im_w < h / im_h else (im_w * h // im_h, h)
    boxed = np.full((h, w, 3), .5)
    top, left = (h - new_h) // 2, (w - new_w) // 2
    boxed[top:top + new_h, left:left + new_w] = resize_image(image, new_w, new_h)
    return boxed


def place_image(image, w, h, dx, dy, canvas):
    for y in range(h):
        for x in range(w):
            if 0 <= x + dx < canvas.shape[1] and 0 <= y + dy < canvas.shape[0]:
                canvas[y + dy, x + dx] = bilinear(image, x / w * image.shape[1], y / h * image.shape[0])


def rotate_crop_image(image, rad, s, w, h, dx, dy, aspect):
    out, cx, cy = np.empty((h, w, 3)), image.shape[1] / 2, image.shape[0] / 2
    for y in range(h):
        for x in range(w):
            u, v = (x - w / 2) / s * aspect + dx / s * aspect, (y - h / 2) / s + dy / s
            out[y, x] = bilinear(image, math.cos(rad) * u - math.sin(rad) * v + cx,
                                 math.sin(rad) * u + math.cos(rad) * v + cy)
    return out


def distort_image(image, hue, saturation, exposure):
    out = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        r, g, b = image[place]
        v, delta = max(r, g, b), max(r, g, b) - min(r, g, b)
        h = s = 0.
        if delta:
            s = delta / v
            h = (g - b) / delta if r == v else 2 + (b - r) / delta if g == v else 4 + (r - g) / delta
            h = (h + 6 if h < 0 else h) / 6
        s, v, h = s * saturation, v * exposure, h + hue
        h = 6 * (h - 1 if h > 1 else h + 1 if h < 0 else h)
        index = math.floor(h)
        f = h - index
        p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
        rgb = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][index % 6]
        out[place] = np.clip(rgb, 0, 1)
    return out


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


def test_distort_as_darknet_computed_it():
    """Numbers printed by Darknet's own distort_image(hue .1, saturation 1.5, exposure .7), compiled from its source."""
    colours = np.array([[[.9, .2, .1], [.1, .8, .3], [.2, .3, .7], [.5, .5, .5], [0, 0, 0], [1, 1, 0]]])
    expected = [[.63, .399, 0], [0, .56, .476], [.175, 0, .49], [.35, .35, .35], [0, 0, 0], [.07, .7, 0]]
    out = colours.copy()
    distort(out, .1, 1.5, .7)
    assert np.allclose(out[0], expected, atol=1e-6)
    assert np.allclose(distort_image(colours, .1, 1.5, .7)[0], expected, atol=1e-6)


@pytest.mark.parametrize('hue, saturation, exposure', [(.1, 1.5, .7), (-.3, .5, 1.4), (.5, 1, 1), (0, 1, 1)])
def test_distort(hue, saturation, exposure):
    image = np.concatenate([np.random.default_rng(0).random((30, 20, 3)), picture(30, 5) / 255, np.full((30, 1, 3), .5)], 1)
    out = image.copy()
    distort(out, hue, saturation, exposure)
    assert np.allclose(out, distort_image(image, hue, saturation, exposure), atol=1e-12)
    assert out.min() >= 0 and out.max() <= 1


# --- any cut gives the same bits -------------------------------------------------------------------------------------

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


# --- boxes -----------------------------------------------------------------------------------------------------------

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


# --- chance ----------------------------------------------------------------------------------------------------------

def test_chance_is_the_same_everywhere():
    """Frozen numbers: a resumed run, or a rank with another numpy, must draw the same."""
    chance = Chance(1, 2, 3)
    assert [round(chance.uniform(0, 1), 12) for _ in range(3)] == [0.071663707638, 0.863331714605, 0.357189756829]
    assert shuffled(10, 5, 0).tolist() == [9, 7, 2, 4, 5, 0, 6, 1, 8, 3]


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


@pytest.mark.parametrize('count', [1, 2, 17, 1000])
def test_shuffled_is_a_permutation(count):
    orders = [shuffled(count, seed, epoch).tolist() for seed in range(2) for epoch in range(2)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    if count > 10:
        assert len(set(map(tuple, orders))) == 4


# --- options ---------------------------------------------------------------------------------------------------------

def test_options_from_a_cfg():
    net = {'width': '448', 'height': '448', 'hue': '.1', 'saturation': .75, 'exposure': '.75', 'aspect': '.75',
           'angle': '7', 'max_crop': '512'}
    options = Options.from_cfg(net, {'jitter': '.3'})
    assert options == Options('detect', True, .3, True, .1, .75, .75, 7., .75, 1., 512 / 448)
    assert Options.from_cfg(net, {}).task == 'classify'
    assert Options.from_cfg({'width': 64}, {}, augment=False) == Options('classify', augment=False)
    with pytest.raises(CfgError, match='hue=red: expected a number'):
        Options.from_cfg({**net, 'hue': 'red'}, {})
    with pytest.raises(CfgError, match='jitter=1.5: expected a number from 0 to 0.99'):
        Options.from_cfg(net, {'jitter': '1.5'})


def test_without_augmentation_nothing_is_drawn():
    plain = replace(DETECT, augment=False)
    assert draw(1, 2, 3, plain, (48, 64), (32, 32)) == letterbox((48, 64), (32, 32))
    assert draw(1, 2, 3, replace(plain, task='classify'), (48, 64), (32, 32)) == centre_crop((48, 64), (32, 32))
    assert draw(1, 2, 3, replace(CLASSIFY, center=True), (48, 64), (32, 32)).affine == square_crop((48, 64), (32, 32)).affine
