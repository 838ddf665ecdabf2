"""Convolutional and connected layers (a connected layer is a convolution whose filter is as large as its input)."""
import numpy as np

from .. import kernels
from ..errors import CfgError
from ..region import NOTHING, Region
from ..tile import BLOCK
from .base import Layer, stride_scale
from .window import Window

ACTIVATIONS = ('linear', 'leaky', 'relu', 'logistic', 'mish', 'swish')


class Convolution(Layer):
    """`filters` windows over all channels (of their group), bias or batch norm, activation."""
    kind = 'convolutional'
    two_phase = True
    halo_free = False

    def __init__(self, index, source, in_shape, filters, rows, columns, groups=1, activation='linear', normalize=False, section=None):
        channels, h, w = in_shape
        self.rows, self.columns, self.groups = rows, columns, groups
        self.filters, self.activation, self.normalize = filters, activation, normalize
        out = (filters, rows.outputs(h, 2 * rows.pad), columns.outputs(w, 2 * columns.pad))
        super().__init__(index, [source], [in_shape], out, section)
        if channels % groups or filters % groups:
            raise CfgError(f'{self.name}: {channels} channels and {filters} filters do not divide into groups={groups}')
        self.block = BLOCK          # channels to a storage block of the input; the network knows better where that is the picture

    @property
    def tensors(self):
        channels = self.in_shapes[0][0] // self.groups
        vectors = ['bias'] + ['scale', 'mean', 'variance'] * self.normalize
        return [(name, (self.filters,)) for name in vectors] + [
            ('filters', (self.filters, channels, self.rows.size, self.columns.size))]

    def scale(self, in_scale):
        return stride_scale(in_scale, self.rows.stride)

    def needs(self, region):
        if region.empty:
            return [NOTHING]
        (n0, c0, y0, x0), (n1, c1, y1, x1) = region.lo, region.hi
        (top, bottom), (left, right) = self.rows.needs(y0, y1), self.columns.needs(x0, x1)
        first, last = self.group_channels(c0, c1)
        return [Region((n0, first, top, left), (n1, last, bottom, right))]

    def group_channels(self, c0, c1):
        """The input channels that output channels [c0, c1) read."""
        channels = self.in_shapes[0][0]
        if self.groups == 1:
            return 0, channels
        per_in, per_out = channels // self.groups, self.filters // self.groups
        first, last = c0 // per_out * per_in, -(-c1 // per_out) * per_in
        return first // BLOCK * BLOCK, min(channels, -(-last // BLOCK) * BLOCK)

    def local_groups(self, state):
        c0, c1 = state.channels
        groups = self.groups * (c1 - c0) // self.filters
        if groups * self.filters != self.groups * (c1 - c0) or self.group_channels(c0, c1)[0] != c0 * self.in_shapes[0][0] // self.filters:
            raise CfgError(f'{self.name}: a cut along C at filters {c0} to {c1} splits a group of filters')
        return groups

    def flops(self, region):
        taps = self.rows.size * self.columns.size * self.in_shapes[0][0] // self.groups
        return 2 * region.size * taps

    @property
    def margin(self):
        """Zeros around dz that let its gradient kernel run without tests at the edge."""
        if self.rows.stride != 1 or self.columns.stride != 1:
            return 0, 0
        return self.rows.extent - 1, self.columns.extent - 1

    def options(self, state, pass_):
        grouped = {'groups': self.local_groups(state), 'filters': state.channels[1] - state.channels[0]} if self.groups > 1 else {}
        return {'dilation': self.rows.dilation, **grouped, **state.algorithm.get(pass_, {})}

    @property
    def sums_channels(self):
        return self.groups == 1

    def ready_forward(self, z, xs, state, **part):
        """part: `taken` and `add`, where the input comes in instalments."""
        return kernels.conv_forward.ready(z, xs[0], state.weights['filters'], self.rows.stride, **self.options(state, 'forward'), **part)

    def ready_backward_data(self, dxs, dz, xs, origins, state, **part):
        """dz carries `margin` zeros on each side; origins: where dx begins, from the first pixel that dz's first output reads; part: `made`, where
        gradients leave in instalments."""
        top, left = origins[0]
        return kernels.conv_backward_data.ready(dxs[0], dz, state.weights['filters'], self.rows.stride, margin=self.margin, top=top, left=left,
                                                **self.options(state, 'backward_data'), **part)

    def ready_backward_weights(self, dz, xs, state):
        return kernels.conv_backward_weights.ready(state.grads['filters'], xs[0], dz, self.rows.stride, **self.options(state, 'backward_weights'))


class Connected(Convolution):
    """Every output reads the whole input."""
    kind = 'connected'

    def __init__(self, index, source, in_shape, outputs, activation='linear', normalize=False, section=None):
        _, h, w = in_shape
        super().__init__(index, source, in_shape, outputs, Window(h), Window(w), 1, activation, normalize, section)

    @property
    def tensors(self):
        vectors = [(name, (self.filters,)) for name in ['scale', 'mean', 'variance'] * self.normalize]
        channels, h, w = self.in_shapes[0]
        return [('bias', (self.filters,)), ('filters', (self.filters, channels * h * w))] + vectors

    def scale(self, in_scale):
        return stride_scale(in_scale, max(1, self.rows.size))


def from_section(index, source, in_shape, section):
    """A convolutional layer from its .cfg section, with Darknet's defaults."""
    size, stride, dilation = (section.int(key, 1, least=1) for key in ('size', 'stride', 'dilation'))
    pad = size // 2 if section.flag('pad') else section.int('padding', 0, least=0)
    window = Window(size, stride, dilation * pad, dilation)         # Darknet's padding counts taps
    return Convolution(index, source, in_shape, section.int('filters', 1, least=1), window, window, section.int('groups', 1, least=1),
                       section.choice('activation', ACTIVATIONS, 'logistic'), section.flag('batch_normalize'), section)


def connected_from_section(index, source, in_shape, section):
    return Connected(index, source, in_shape, section.int('output', 1, least=1), section.choice('activation', ACTIVATIONS, 'logistic'),
                     section.flag('batch_normalize'), section)


def algorithms(layer, dtype):
    """{pass: kernel options} of a convolution, the same for every tile of the layer so that results do not depend on the grid."""
    if not layer.tensors or dtype != np.float32:
        return {}
    _, h, w = layer.out_shape
    window = layer.rows.size, layer.columns.size
    return {pass_: {'algorithm': kernels.choose(pass_, layer.in_shapes[0][0], layer.filters, window, layer.rows.stride, h, w,
                                                layer.rows.dilation, layer.groups)}
            for pass_ in ('forward', 'backward_data', 'backward_weights')}
