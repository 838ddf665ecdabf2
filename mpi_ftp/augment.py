"""From a stored picture to the pixels and boxes of a network's input: letterbox, resize, jitter, crop, flip, colours.

A `Draw` is the one random choice for a sample; it follows from (seed, epoch, sample) in integers, so that all ranks,
whatever their numpy, draw the same. Formulas: Darknet's data.c and image.c. Knows nothing of ranks or batches.
"""
import math
from dataclasses import dataclass, field

import numpy as np

from .chance import Chance, shuffled
from .errors import CfgError

ANYWHERE = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Options:
    """What may be drawn. `task` is 'detect' or 'classify'; without `augment` pictures are only fitted to the input.

    Ratios are of the input's width (Darknet's min_crop and max_crop divided by width); `angle` is in degrees;
    `aspect`, `saturation` and `exposure` are largest factors; `hue` is a fraction of the colour circle.
    """
    task: str = 'detect'
    augment: bool = True
    jitter: float = .2
    flip: bool = True
    hue: float = 0.
    saturation: float = 1.
    exposure: float = 1.
    angle: float = 0.
    aspect: float = 1.
    min_ratio: float = 1.
    max_ratio: float = 2.
    center: bool = False

    @staticmethod
    def from_cfg(net, head, augment=True):
        """Options from the sections of a .cfg: `net` a dict of [net], `head` one of [region] or [yolo], None where [softmax] classifies.

        Missing keys have Darknet's defaults.
        Raises CfgError for a value that is not a number in its range.
        """
        def number(section, key, default, lowest, highest=math.inf):
            try:
                value = float(section.get(key, default))
            except (TypeError, ValueError):
                value = math.nan
            if not lowest <= value <= highest:
                raise CfgError(f'{key}={section[key]}: expected a number from {lowest:g} to {highest:g}')
            return value

        width = number(net, 'width', 0, 1)
        low, high = number(net, 'min_crop', width, 1), number(net, 'max_crop', 2 * width, 1)
        return Options(
            task='classify' if head is None else 'detect', augment=augment,
            jitter=number(head or {}, 'jitter', .2, 0, .99),
            flip=bool(number(net, 'flip', 1, 0)),
            hue=number(net, 'hue', 0, 0), saturation=number(net, 'saturation', 1, 1e-6),
            exposure=number(net, 'exposure', 1, 1e-6), angle=number(net, 'angle', 0, 0),
            aspect=number(net, 'aspect', 1, 1e-6), min_ratio=number(net, 'min_ratio', low / width, 1e-6),
            max_ratio=number(net, 'max_ratio', high / width, 1e-6), center=bool(number(net, 'center', 0, 0)))


@dataclass(frozen=True)
class Draw:
    """How a sample becomes the input: where each pixel comes from, its colours, and where its boxes go.

    `affine`, `window`, `bounds`: see kernels/image.py, `sample`. A box edge at x (fraction of the picture) lands at
    x * scale[0] - shift[0] (fraction of the input), before the flip. order: of the boxes, a number (None: as they are).
    """
    affine: tuple
    window: tuple
    bounds: tuple = ANYWHERE
    fill: float = .5
    flip: bool = False
    hue: float = 0.
    saturation: float = 1.
    exposure: float = 1.
    scale: tuple = field(default=(1., 1.))
    shift: tuple = field(default=(0., 0.))
    order: int | None = None

    def boxes(self, boxes):
        """(k, 5) boxes of the picture as boxes of the input: clipped, dropped when under 0.001 wide or high.

        Darknet's correct_boxes and fill_truth_detection; its limit on the number of boxes is not copied.
        """
        lo, hi = boxes[:, 1:3] - boxes[:, 3:5] / 2, boxes[:, 1:3] + boxes[:, 3:5] / 2
        lo, hi = lo * self.scale - self.shift, hi * self.scale - self.shift
        if self.flip:
            lo[:, 0], hi[:, 0] = 1 - hi[:, 0], 1 - lo[:, 0]
        lo, hi = np.clip(lo, 0, 1), np.clip(hi, 0, 1)
        moved = np.concatenate([boxes[:, :1], (lo + hi) / 2, hi - lo], axis=1)
        return moved[(moved[:, 3] >= .001) & (moved[:, 4] >= .001)]

    def to_picture(self, boxes):
        """The inverse of `boxes` without clipping: rows [cx, cy, w, h] of the input as rows of the picture."""
        moved = np.array(boxes, np.float64).reshape(-1, 4)
        if self.flip:
            moved[:, 0] = 1 - moved[:, 0]
        moved[:, :2] = (moved[:, :2] + self.shift) / self.scale
        moved[:, 2:] = moved[:, 2:] / self.scale
        return moved


def draw(seed, epoch, sample, options, size, net_size):
    """The Draw of one sample. `size` (h, w) of the picture, `net_size` (h, w) of the input."""
    if not options.augment:
        return letterbox(size, net_size) if options.task == 'detect' else centre_crop(size, net_size)
    chance = Chance(seed, epoch, sample)
    colours = dict(hue=chance.uniform(-options.hue, options.hue), saturation=chance.factor(options.saturation),
                   exposure=chance.factor(options.exposure), flip=chance.coin() and options.flip)
    if options.task == 'detect':
        return _jittered(chance, options, size, net_size, {**colours, 'order': Chance(seed, epoch, sample, 1).integer(0, 2 ** 32)})
    if options.center:
        return square_crop(size, net_size, **colours)
    return _cropped(chance, options, size, net_size, colours)


def letterbox(size, net_size):
    """The whole picture, as large as fits, in the middle of grey (letterbox_image)."""
    (h, w), (net_h, net_w) = size, net_size
    if net_w / w < net_h / h:
        new_h, new_w = max(1, h * net_w // w), net_w
    else:
        new_h, new_w = net_h, max(1, w * net_h // h)
    top, left = (net_h - new_h) // 2, (net_w - new_w) // 2
    return Draw(_resized(h, w, new_h, new_w), (top, left, top + new_h, left + new_w), (0., 0., h - 1., w - 1.),
                scale=(new_w / net_w, new_h / net_h), shift=(-left / net_w, -top / net_h))


def centre_crop(size, net_size):
    """The middle of the picture resized until it just covers the input (resize_min, then crop_image)."""
    (h, w), (net_h, net_w) = size, net_size
    if w * net_h < h * net_w:
        new_h, new_w = h * net_w // w, net_w
    else:
        new_h, new_w = net_h, w * net_h // h
    top, left = (new_h - net_h) // 2, (new_w - net_w) // 2
    a, b, x0, d, e, y0 = _resized(h, w, new_h, new_w)
    return Draw((a, b, x0 + a * left, d, e, y0 + e * top), (0, 0, net_h, net_w), (0., 0., h - 1., w - 1.),
                scale=(new_w / net_w, new_h / net_h), shift=(left / net_w, top / net_h))


def square_crop(size, net_size, **colours):
    """The largest square in the picture's middle, resized to the input (center_crop_image)."""
    (h, w), (net_h, net_w) = size, net_size
    m = min(h, w)
    top, left = (h - m) // 2, (w - m) // 2
    a, b, x0, d, e, y0 = _resized(m, m, net_h, net_w)
    return Draw((a, b, x0 + left, d, e, y0 + top), (0, 0, net_h, net_w),
                (float(top), float(left), top + m - 1., left + m - 1.),
                scale=(w / m, h / m), shift=(left / m, top / m), **colours)


def _jittered(chance, options, size, net_size, colours):
    """Another aspect ratio, placed anywhere on grey (load_data_detection, place_image)."""
    (h, w), (net_h, net_w) = size, net_size
    dw, dh = options.jitter * w, options.jitter * h
    aspect = (w + chance.uniform(-dw, dw)) / (h + chance.uniform(-dh, dh))
    new_h, new_w = (net_h, net_h * aspect) if aspect < 1 else (net_w / aspect, net_w)
    dx, dy = chance.uniform(0, net_w - new_w), chance.uniform(0, net_h - new_h)
    # Pixels are placed with whole numbers, boxes with fractions, as in Darknet
    rows, columns, top, left = max(1, int(new_h)), max(1, int(new_w)), int(dy), int(dx)
    return Draw((w / columns, 0., 0., 0., h / rows, 0.), (top, left, top + rows, left + columns),
                scale=(new_w / net_w, new_h / net_h), shift=(-dx / net_w, -dy / net_h), **colours)


def _cropped(chance, options, size, net_size, colours):
    """A random crop at a random scale, aspect and angle (random_augment_args, rotate_crop_image).

    Darknet's inputs are square; here the side that the crop ratios refer to is the longer one.
    """
    (h, w), (net_h, net_w) = size, net_size
    side = max(net_h, net_w)
    aspect = chance.factor(options.aspect)
    pixels = chance.integer(int(options.min_ratio * side), int(options.max_ratio * side))
    s = max(1, pixels) / max(1, int(min(h, w * aspect)))
    angle = math.radians(chance.uniform(-options.angle, options.angle))
    dx, dy = (w * s / aspect - net_w) / 2, (h * s - net_h) / 2
    dx, dy = chance.uniform(-dx, dx), chance.uniform(-dy, dy)
    cos, sin = math.cos(angle), math.sin(angle)
    left, top = (dx - net_w / 2) / s * aspect, (dy - net_h / 2) / s
    affine = (cos * aspect / s, -sin / s, cos * left - sin * top + w / 2,
              sin * aspect / s, cos / s, sin * left + cos * top + h / 2)
    return Draw(affine, (0, 0, net_h, net_w), fill=0., **colours)


def _resized(h, w, new_h, new_w):
    """The affine map of resize_image: first and last pixels coincide."""
    return ((w - 1) / (new_w - 1) if new_w > 1 else 0., 0., 0. if new_w > 1 else w - 1.,
            0., (h - 1) / (new_h - 1) if new_h > 1 else 0., 0. if new_h > 1 else h - 1.)


def input_tile(out, pictures, i, draw, region, net_h, net_w):
    """Fills `out` (h, w, 3), float32 or float64, with the rows and columns of `region` of the net_h x net_w input.

    Values 0 ... 1; 0 outside the input. Reads just the part of picture i that these pixels sample.
    """
    from .kernels.image import distort, sample
    height, width = pictures.size(i)
    top, left, bottom, right = _source(draw, region, net_h, net_w, height, width)
    empty = top >= bottom or left >= right
    source = np.zeros((1, 1, 3), np.uint8) if empty else pictures.read(i, top, bottom, left, right)
    (_, _, y0, x0) = region.lo
    sample(out, source.astype(out.dtype), top, left, height, width, y0, x0, net_h, net_w, draw.flip,
           np.array(draw.affine, np.float64), np.array(draw.window, np.int64), np.array(draw.bounds, np.float64), draw.fill)
    if (draw.hue, draw.saturation, draw.exposure) != (0., 1., 1.):
        distort(out, draw.hue, draw.saturation, draw.exposure)


def truths(pictures, i, draw, options):
    """What the loss compares with: boxes (k, 5) of the input for a detector, the class number for a classifier.

    Boxes come in an order that is drawn (randomize_boxes): a head looks at its first `max` only, and the last one in a cell's anchor decides.
    """
    if options.task != 'detect':
        return pictures.label(i)
    boxes = draw.boxes(pictures.boxes(i))
    return boxes if draw.order is None else boxes[shuffled(len(boxes), draw.order, 0)]


def _source(draw, region, net_h, net_w, height, width):
    """Rows top ... bottom and columns left ... right of the picture that a region's samples read, one more around."""
    (_, _, y0, x0), (_, _, y1, x1) = region.lo, region.hi
    y0, y1, x0, x1 = max(y0, 0), min(y1, net_h), max(x0, 0), min(x1, net_w)
    if draw.flip:
        x0, x1 = net_w - x1, net_w - x0
    top, left, bottom, right = draw.window
    y0, y1, x0, x1 = max(y0, top) - top, min(y1, bottom) - top, max(x0, left) - left, min(x1, right) - left
    if y0 >= y1 or x0 >= x1:
        return 0, 0, 0, 0
    a, b, c, d, e, f = draw.affine
    corners = [(u, v) for u in (x0, x1 - 1) for v in (y0, y1 - 1)]
    ys, xs = [d * u + e * v + f for u, v in corners], [a * u + b * v + c for u, v in corners]
    low_y, low_x, high_y, high_x = draw.bounds

    def span(values, low, high, length):
        first, last = (min(max(value, low), high) for value in (min(values), max(values)))
        return min(length, max(0, math.floor(first) - 1)), max(0, min(length, math.floor(last) + 3))
    (top, bottom), (left, right) = span(ys, low_y, high_y, height), span(xs, low_x, high_x, width)
    return top, left, bottom, right
