"""What every layer offers, and the run-time state its local maths works with.

A layer is geometry beside maths. Geometry: `out_shape`, `needs(region)`, `flops(region)`, `pad_value`. Maths, on views of tiles
whose regions were chosen with that geometry ("valid" windows only), outputs first:

    forward(z, xs, state)                     any box of the output from the boxes of the inputs it needs
    finish(y, z, owned, state)                only where `two_phase`: norm and activation, once z is whole
    unfinish(dz, dy, z, owned, state)         the transpose of finish: gradient of z, and of bias and scale
    backward_data(dxs, dy, xs, boxes, state)  gradient of the inputs
    backward_weights(dy, xs, state)           adds to the gradient of the filters

For a layer that is not two-phase z is y, and dz is dy. A layer knows nothing of ranks: sums over ranks go through `state.reduce`.
"""
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np


class Layer:
    """A layer of the network; `inputs` are indices of earlier layers, -1 being the picture."""
    kind = ''
    pad_value = 0.0         # what this layer wants to read outside the tensor
    two_phase = False       # writes z first, then y = finish(z)
    normalize = False       # has batch norm
    is_head = False         # ends in a loss
    halo_free = True        # needs(region) is `region` along H and W: margins never arise

    def __init__(self, index, inputs, in_shapes, out_shape, section=None):
        self.index, self.inputs = index, tuple(inputs)
        self.in_shapes, self.out_shape, self.section = tuple(in_shapes), tuple(out_shape), section

    @property
    def name(self):
        return f'layer {self.index} [{self.kind}]'

    @property
    def tensors(self):
        """[(name, plain shape)] of the layer's weights in the order of a Darknet .weights file."""
        return []

    def scale(self, in_scale):
        """Input-picture pixels per output pixel, from that of the first input."""
        return in_scale

    def needs(self, region):
        """For each input, the Region that the outputs in `region` read; may reach past the tensor."""
        return [region for _ in self.inputs]

    def flops(self, region):
        """Floating-point operations to compute `region` forward."""
        return region.size

    def finish(self, y, z, owned, state):
        raise NotImplementedError

    def unfinish(self, dz, dy, z, owned, state):
        raise NotImplementedError

    def backward_weights(self, dy, xs, state):
        """Layers without filters have nothing to add."""


@dataclass
class State:
    """What one layer works with on one rank.

    weights, grads: name -> blocked array of this rank's channels [first, last); frozen: running statistics are used and kept;
    reduce(sums): adds an array over all ranks that compute these channels, in place; pixels: N*H*W of the whole output.
    """
    weights: dict = field(default_factory=dict)
    grads: dict = field(default_factory=dict)
    channels: tuple = (0, 0)
    training: bool = False
    frozen: bool = False
    reduce: object = None
    pixels: int = 0
    key: int = 0                 # of this iteration's random numbers
    saved: dict = field(default_factory=dict)
    algorithm: dict = field(default_factory=dict)   # pass -> convolution algorithm


@dataclass(frozen=True)
class Box:
    """One use of a layer: the output region, the regions of its inputs that are read, and the part of those inside the tensor."""
    out: object
    needs: tuple
    inside: tuple


def stride_scale(in_scale, stride):
    return Fraction(in_scale) * stride


def per_channel(values, dtype):
    """Coefficients as the kernels take them."""
    return np.ascontiguousarray(values, dtype=dtype)
