"""Layers that move or join tensors: route, shortcut, reorg, upsample."""
from functools import lru_cache

import numpy as np

from .. import kernels
from ..errors import CfgError
from ..region import NOTHING, Region
from ..tile import BLOCK, clear_padded_lanes
from .base import Layer, stride_scale
from .convolution import ACTIVATIONS


def blocks_around(c0, c1, channels):
    """The smallest range of whole channel blocks around [c0, c1)."""
    return c0 // BLOCK * BLOCK, min(channels, -(-c1 // BLOCK) * BLOCK)


class Route(Layer):
    """The channels of several layers one after the other; of each, the part `group` of `groups` equal parts."""
    kind = 'route'

    def __init__(self, index, sources, in_shapes, groups=1, group=0, section=None):
        if len({s[1:] for s in in_shapes}) > 1:
            sizes = ', '.join('x'.join(map(str, s)) for s in in_shapes)
            raise CfgError(f'layer {index} [route] joins tensors of unlike height or width (C x H x W: {sizes})')
        if any(s[0] % groups for s in in_shapes) or not 0 <= group < groups:
            raise CfgError(f'layer {index} [route]: groups={groups} group_id={group} do not fit its inputs')
        self.spans, total = [], 0                # for each input: first channel there, first channel here, count
        for shape in in_shapes:
            count = shape[0] // groups
            self.spans.append((count * group, total, count))
            total += count
        super().__init__(index, sources, in_shapes, (total,) + tuple(in_shapes[0][1:]), section)

    def needs(self, region):
        boxes = []
        for (there, here, count), shape in zip(self.spans, self.in_shapes):
            c0, c1 = max(region.lo[1], here), min(region.hi[1], here + count)
            if region.empty or c0 >= c1:
                boxes.append(NOTHING)
            else:
                boxes.append(region.replace(1, *blocks_around(c0 - here + there, c1 - here + there, shape[0])))
        return boxes

    def copies(self, state):
        """(input, first channel in its view, first channel in this view, count) for the channels of the box at hand."""
        c0, c1 = state.boxes[0].lo[1], state.boxes[0].hi[1]
        for k, ((there, here, count), shape) in enumerate(zip(self.spans, self.in_shapes)):
            a, b = max(c0, here), min(c1, here + count)
            if a < b:
                first = blocks_around(a - here + there, b - here + there, shape[0])[0]
                yield k, a - here + there - first, a - c0, b - a

    def forward(self, y, xs, state):
        for k, there, here, count in self.copies(state):
            kernels.copy_channels(y, here, xs[k], there, count)
        clear_padded_lanes(y, state.boxes[0].shape[1])

    def backward_data(self, dxs, dy, xs, origins, state):
        for dx in dxs:
            if dx is not None:
                dx[...] = 0
        for k, there, here, count in self.copies(state):
            if dxs[k] is not None:
                kernels.copy_channels(dxs[k], there, dy, here, count)


class Shortcut(Layer):
    """act(x + other), as Darknet adds them: over the channels both have, `other` sampled where it is larger."""
    kind = 'shortcut'

    def __init__(self, index, sources, in_shapes, activation='linear', section=None):
        (_, h, w), (_, other_h, other_w) = in_shapes
        self.stride = max(1, other_h // h)
        if (other_h // h, other_w // w) != (self.stride, self.stride):
            raise CfgError(f'layer {index} [shortcut] adds a {other_h}x{other_w} map to a {h}x{w} one: expected the same size or a whole multiple')
        self.activation, self.two_phase = activation, activation != 'linear'
        super().__init__(index, sources, in_shapes, in_shapes[0], section)

    def needs(self, region):
        if region.empty:
            return [NOTHING, NOTHING]
        other = region
        if self.stride > 1:
            for axis in (2, 3):
                other = other.replace(axis, region.lo[axis] * self.stride, (region.hi[axis] - 1) * self.stride + 1)
        channels = self.in_shapes[1][0]
        if region.lo[1] >= channels:
            return [region, NOTHING]
        return [region, other.replace(1, region.lo[1], min(channels, region.hi[1]))]

    def forward(self, z, xs, state):
        x, other = xs
        z[...] = x
        if not other.size:
            return
        if self.stride > 1:
            other = np.ascontiguousarray(other[:, :, ::self.stride, ::self.stride])       # kernels want whole rows
        if self.in_shapes[0][0] == self.in_shapes[1][0]:
            kernels.add(z, other)
        else:
            kernels.copy_channels(z, 0, other, 0, state.boxes[1][1].shape[1], add=True)

    def backward_data(self, dxs, dz, xs, origins, state):
        dx, dother = dxs
        if dx is not None:
            dx[...] = dz
        if dother is not None and dother.size:
            dother[...] = 0
            blocks = min(dz.shape[1], dother.shape[1])
            dother[:, :blocks, ::self.stride, ::self.stride] = dz[:, :blocks]
            clear_padded_lanes(dother, state.boxes[1][1].shape[1])


class Reorg(Layer):
    """Darknet's space-to-depth, with the numbering of Darknet's code (not a plain space-to-depth)."""
    kind = 'reorg'
    halo_free = False

    def __init__(self, index, source, in_shape, stride, section=None):
        channels, h, w = in_shape
        if h % stride or w % stride or channels % (stride * stride):
            raise CfgError(f'layer {index} [reorg]: a {channels}x{h}x{w} tensor does not divide by stride={stride} (channels by its square)')
        self.stride = stride
        self.shape = (channels, h, w)
        super().__init__(index, [source], [in_shape], (channels * stride * stride, h // stride, w // stride), section)

    def scale(self, in_scale):
        return stride_scale(in_scale, self.stride)

    def needs(self, region):
        if region.empty:
            return [NOTHING]
        (n0, c0, y0, x0), (n1, c1, y1, x1) = region.lo, region.hi
        a, b, top, bottom, left, right = reorg_bounds(c0, c1, y0, y1, x0, x1, *self.shape, self.stride)
        first, last = blocks_around(a, b, self.shape[0])
        return [Region((n0, first, top, left), (n1, last, bottom, right))]

    def forward(self, y, xs, state):
        out, (source,) = state.boxes
        kernels.reorg_forward(y, xs[0], *out.lo[1:], *source.lo[1:], out.shape[1], *self.shape, self.stride)
        clear_padded_lanes(y, out.shape[1])

    def backward_data(self, dxs, dy, xs, origins, state):
        out, (source,) = state.boxes
        kernels.reorg_backward(dxs[0], dy, *out.lo[1:], *source.lo[1:], out.shape[1], *self.shape, self.stride)


@lru_cache(maxsize=None)
def reorg_bounds(c0, c1, y0, y1, x0, x1, channels, height, width, stride):
    """The box of input pixels that an output box reads, as (c0, c1, y0, y1, x0, x1); see kernels/rearrange.py for the numbering."""
    c, y, x = np.ix_(np.arange(c0, c1), np.arange(y0, y1), np.arange(x0, x1))
    linear = x + (width // stride) * (y + (height // stride) * c)
    i, j, k = linear % width, linear // width % height, linear // (width * height)
    maps = channels // (stride * stride)
    part = k // maps
    source = i * stride + part % stride + width * stride * (j * stride + part // stride + height * stride * (k % maps))
    found = source // (width * height), source // width % height, source % width
    return tuple(int(v) for axis in found for v in (axis.min(), axis.max() + 1))


class Upsample(Layer):
    """Each pixel repeated `stride` times along H and W."""
    kind = 'upsample'
    keeps_block = True
    halo_free = False

    def __init__(self, index, source, in_shape, stride, section=None):
        channels, h, w = in_shape
        self.stride = stride
        super().__init__(index, [source], [in_shape], (channels, h * stride, w * stride), section)

    def scale(self, in_scale):
        return in_scale / self.stride

    def needs(self, region):
        if region.empty:
            return [NOTHING]
        for axis in (2, 3):
            region = region.replace(axis, region.lo[axis] // self.stride, -(-region.hi[axis] // self.stride))
        return [region]

    def forward(self, y, xs, state):
        out, _ = state.boxes
        kernels.upsample_forward(y, xs[0], self.stride, out.lo[2], out.lo[3])

    def backward_data(self, dxs, dy, xs, origins, state):
        out, _ = state.boxes
        kernels.upsample_backward(dxs[0], dy, self.stride, out.lo[2], out.lo[3])


def shortcut_from_section(index, sources, in_shapes, section):
    for key in ('alpha', 'beta'):
        if section.float(key, 1) != 1:
            raise CfgError(f'layer {index} [shortcut]: {key} other than 1 is not supported')
    return Shortcut(index, sources, in_shapes, section.choice('activation', ACTIVATIONS, 'linear'), section)


def reorg_from_section(index, source, in_shape, section):
    for key in ('reverse', 'flatten', 'extra'):
        if section.int(key, 0):
            raise CfgError(f'layer {index} [reorg]: {key} is not supported')
    return Reorg(index, source, in_shape, section.int('stride', 1, least=1), section)


def upsample_from_section(index, source, in_shape, section):
    stride = section.int('stride', 2)
    if stride < 1 or section.float('scale', 1) != 1:
        raise CfgError(f'layer {index} [upsample]: expected stride >= 1 and scale 1')
    return Upsample(index, source, in_shape, stride, section)
