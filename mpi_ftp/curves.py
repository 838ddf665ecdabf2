"""Measured times of layers: seconds of one pass against the number of output pixels, one curve for each class of layers.

A class is what a kernel's speed depends on: kind, channels, window, activation. Classes that were not measured borrow the curve of the
nearest one, scaled by the arithmetic (convolutions) or the memory traffic (the rest) of a pixel.
"""
from dataclasses import dataclass
from functools import cached_property
from math import log

import numpy as np

from .tile import BLOCK

NARROW = 4                                                          # columns that cost as much as fewer
CONVOLUTION = 'forward', 'backward_data', 'backward_weights'        # passes that are arithmetic where a layer has filters


@dataclass(frozen=True)
class Class:
    """A class of layers. `size` and `stride` are the window's (rows); `algorithm` is that of the forward pass of a convolution."""
    kind: str
    inputs: int
    outputs: int
    size: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = ''
    normalize: bool = False
    algorithm: str = ''
    first: bool = False

    @property
    def filters(self):
        return self.kind in ('convolutional', 'connected')

    def pixels(self, rows, columns):
        """Output pixels of a tile as a kernel sees them: Winograd's short tiles cost more than they hold, narrow columns leave vector registers empty."""
        if self.algorithm.startswith('winograd'):
            m = int(self.algorithm[-1])
            tall, wide = (n // m * m + (n % m + 2 * (n % m > 0)) * m / (m + 2) for n in map(np.asarray, (rows, columns)))
            return tall * wide
        return rows * np.maximum(columns, NARROW * (np.asarray(columns) > 0)) if self.filters else rows * columns

    @property
    def tiled_gradient(self):
        """Whether a kernel takes the gradient of the input in tiles of its own: its cost follows from the input's pixels."""
        return self.algorithm.startswith('winograd')

    def weight(self, pass_):
        """Relative cost of an output pixel: multiplications, or channels moved."""
        blocks = -(-self.outputs // BLOCK) * BLOCK
        if self.filters and pass_ in CONVOLUTION:
            inputs = self.inputs if self.first else -(-self.inputs // BLOCK) * BLOCK
            return inputs * blocks * self.size ** 2 / self.groups
        return blocks

    def distance(self, other, pass_):
        """How unlike another class is, for borrowing its curve."""
        if self.filters != other.filters:
            return 1000
        arithmetic = self.filters and pass_ in CONVOLUTION
        unlike = 0 if self.kind == other.kind else 30
        if arithmetic:
            unlike += 8 * (self.size != other.size) + 4 * (self.stride != other.stride) + 20 * (self.first != other.first)
            unlike += 40 * ((self.groups > 1) != (other.groups > 1)) + 10 * (self.algorithm != other.algorithm)
            unlike += abs(log(max(1, self.inputs) / max(1, other.inputs)))
        else:
            unlike += 5 * (self.activation != other.activation) + 5 * (self.normalize != other.normalize)
        return unlike + abs(log(self.outputs / other.outputs))


@dataclass(frozen=True)
class Curve:
    """Seconds of one pass of a class of layers at some numbers of output pixels (N * H * W), increasing."""
    layer: Class
    pass_: str
    pixels: tuple
    seconds: tuple

    @cached_property
    def arrays(self):
        return np.array(self.pixels, float), np.array(self.seconds, float)

    def __call__(self, pixels):
        """Seconds for arrays of pixel counts: linear between the measured points and beyond the last, the fixed cost before the first."""
        x, y = self.arrays
        inside = np.interp(pixels, x, y)
        if len(x) > 1:
            slope = max(0.0, (y[-1] - y[-2]) / (x[-1] - x[-2]))
            low = max(0.0, (y[1] - y[0]) / (x[1] - x[0]))
        else:
            slope = low = y[-1] / x[-1]
        beyond = np.maximum(0, np.asarray(pixels) - x[-1]) * slope
        before = np.maximum(0, x[0] - np.asarray(pixels)) * low
        return np.where(np.asarray(pixels) > 0, np.maximum(inside + beyond - before, 0.3 * y[0]), 0.0)

    @property
    def fixed(self):
        """Seconds that a call takes however few its pixels are: what reading and transforming filters costs."""
        return max(0.0, float(2 * self(self.pixels[0]) - self(2 * self.pixels[0])))

    def scaled(self, factor):
        return Curve(self.layer, self.pass_, self.pixels, tuple(s * factor for s in self.seconds))

    def to_json(self):
        return {**self.layer.__dict__, 'pass': self.pass_, 'pixels': list(self.pixels), 'seconds': list(self.seconds)}

    @staticmethod
    def from_json(record):
        fields = {name: record[name] for name in Class.__dataclass_fields__}
        return Curve(Class(**fields), record['pass'], tuple(record['pixels']), tuple(record['seconds']))


def class_of(layer):
    """The Class of a network's layer."""
    shape = layer.in_shapes[0]
    inputs, outputs, first = sum(s[0] for s in layer.in_shapes), layer.out_shape[0], layer.inputs[0] < 0
    if layer.kind in ('convolutional', 'connected'):
        from .layers.convolution import algorithms
        algorithm = algorithms(layer, np.float32)['forward']['algorithm']
        return Class(layer.kind, shape[0], outputs, layer.rows.size, layer.rows.stride, layer.groups, layer.activation, layer.normalize,
                     algorithm, first)
    if layer.kind == 'maxpool':
        return Class(layer.kind, inputs, outputs, layer.window.size, layer.window.stride, first=first)
    if layer.kind == 'shortcut':
        return Class(layer.kind, inputs, outputs, 1, layer.stride, activation=layer.activation, first=first)
    return Class(layer.kind, inputs, outputs, 1, getattr(layer, 'stride', 1), first=first)


def find(curves, layer, pass_):
    """The curve of a class, else the scaled one of the nearest class; None where no class has such a pass."""
    known = [c for c in curves if c.pass_ == pass_]
    for curve in known:
        if curve.layer == layer:
            return curve
    if not known:
        return None
    near = min(known, key=lambda c: layer.distance(c.layer, pass_))
    return near.scaled(layer.weight(pass_) / near.layer.weight(pass_))
