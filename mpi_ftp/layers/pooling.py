"""Max-pool with Darknet's padding rule, and the global average pool."""
import math

from .. import kernels
from ..region import NOTHING
from .base import Layer, stride_scale
from .window import Window


class MaxPool(Layer):
    """The largest of each window; ties go to the first in row-major order, on every rank alike."""
    kind = 'maxpool'
    keeps_block = True
    pad_value = -math.inf
    halo_free = False

    def __init__(self, index, source, in_shape, size, stride, padding, section=None):
        channels, h, w = in_shape
        # Darknet puts padding // 2 pixels before and the rest after
        self.window = Window(size, stride, padding // 2)
        out = (channels, self.window.outputs(h, padding), self.window.outputs(w, padding))
        super().__init__(index, [source], [in_shape], out, section)

    def scale(self, in_scale):
        return stride_scale(in_scale, self.window.stride)

    def needs(self, region):
        if region.empty:
            return [NOTHING]
        for axis in (2, 3):
            region = region.replace(axis, *self.window.needs(region.lo[axis], region.hi[axis]))
        return [region]

    def flops(self, region):
        return region.size * self.window.size ** 2

    def ready_forward(self, y, xs, state):
        return kernels.maxpool_forward.ready(y, xs[0], self.window.size, self.window.stride)

    def ready_backward_data(self, dxs, dy, xs, origins, state):
        return kernels.maxpool_backward.ready(dxs[0], dy, xs[0], self.window.size, self.window.stride)


class AveragePool(Layer):
    """The mean of each channel's whole map."""
    kind = 'avgpool'
    keeps_block = True
    halo_free = False

    def __init__(self, index, source, in_shape, section=None):
        super().__init__(index, [source], [in_shape], (in_shape[0], 1, 1), section)

    def scale(self, in_scale):
        return stride_scale(in_scale, max(1, self.in_shapes[0][1]))

    def needs(self, region):
        if region.empty:
            return [NOTHING]
        _, h, w = self.in_shapes[0]
        return [region.replace(2, 0, h).replace(3, 0, w)]

    def flops(self, region):
        _, h, w = self.in_shapes[0]
        return region.size * h * w

    def forward(self, y, xs, state):
        kernels.avgpool_forward(y, xs[0])

    def backward_data(self, dxs, dy, xs, origins, state):
        kernels.avgpool_backward(dxs[0], dy)


def maxpool_from_section(index, source, in_shape, section):
    stride = section.int('stride', 1, least=1)
    size = section.int('size', stride, least=1)
    return MaxPool(index, source, in_shape, size, stride, section.int('padding', size - 1, least=0), section)
