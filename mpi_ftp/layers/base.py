"""What every layer offers, and the run-time state its local maths works with.

A layer is geometry beside maths. Geometry: `out_shape`, `needs(region)`, `flops(region)`, `pad_value`. Maths, on views of tiles
whose regions were chosen with that geometry ("valid" windows only), outputs first:

    forward(z, xs, state)                     any box of the output from the boxes of the inputs it needs
    backward_data(dxs, dz, xs, origins, state)  gradient of the inputs (None: not wanted)
    backward_weights(dz, xs, state)           adds to the gradient of the filters, where a layer has such

A step makes the same calls with the same views again and again: it has them from ready_forward, ready_backward_data and ready_backward_weights, which
take these arguments and return a function without any. A layer that can decide something beforehand has only these.

Where `two_phase`, norm.Finish (y from z) follows forward and norm.Unfinish (dz from dy) precedes the backward calls; elsewhere z is y.
A layer knows nothing of ranks: sums over ranks go through `state.reduce`.
"""
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial


class Layer:
    """A layer of the network; `inputs` are indices of earlier layers, -1 being the picture."""
    kind = ''
    pad_value = 0.0         # what this layer wants to read outside the tensor
    two_phase = False       # writes z first, then y = finish(z)
    normalize = False       # has batch norm
    is_head = False         # ends in a loss
    keeps_block = False     # stores its output in blocks of as many channels as its input
    sums_channels = False   # an output is a sum over all channels of the input: ready_forward takes, ready_backward_data makes them in parts, see kernels.convolution
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

    def ready_forward(self, z, xs, state):
        return partial(self.forward, z, xs, state)

    def ready_backward_data(self, dxs, dz, xs, origins, state):
        return partial(self.backward_data, dxs, dz, xs, origins, state)


@dataclass
class State:
    """What one layer works with on one rank.

    present: whether this rank computes any channel of the layer; channels: which, [first, last); coefficients: blocked shape of one number for each of them;
    weights, grads: name -> blocked array; live: batch norm takes its moments from the batch, else from the running statistics;
    reduce(sums): adds an array over all ranks that compute these channels, in place; begin_reduce(sums) only starts to and
    returns a function that waits; pixels: N*H*W of the whole output; boxes: (output box, boxes it reads) of the call at hand; key: of this iteration's random numbers;
    algorithm: pass -> options of the convolution kernel.
    """
    present: bool
    channels: tuple
    coefficients: tuple
    dtype: object
    weights: dict
    grads: dict
    training: bool = False
    live: bool = False
    reduce: object = None
    begin_reduce: object = None
    pixels: int = 0
    key: int = 0
    boxes: tuple = ()
    saved: dict = field(default_factory=dict)
    algorithm: dict = field(default_factory=dict)


def stride_scale(in_scale, stride):
    return Fraction(in_scale) * stride
