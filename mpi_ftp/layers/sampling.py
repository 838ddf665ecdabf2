"""Layers that draw random numbers in training: dropout and crop. The draw comes from (key, global position), alike on every rank."""
from .. import kernels
from ..chance import Chance
from ..errors import CfgError
from ..region import NOTHING
from ..tile import clear_padded_lanes
from .base import Layer


class Dropout(Layer):
    """Each number survives with 1 - probability and is scaled up; the identity outside training."""
    kind = 'dropout'
    keeps_block = True

    def __init__(self, index, source, in_shape, probability, section=None):
        self.probability = probability
        super().__init__(index, [source], [in_shape], in_shape, section)

    def apply(self, y, x, state):
        if not state.training:
            y[...] = x
            return
        kernels.dropout(y, x, state.key, self.probability, *state.boxes[0].lo, *self.out_shape)

    def forward(self, y, xs, state):
        self.apply(y, xs[0], state)

    def backward_data(self, dxs, dy, xs, origins, state):
        self.apply(dxs[0], dy, state)


class Crop(Layer):
    """A random window of the input in training (its centre otherwise), mirrored at random; values go from [0, 1] to [-1, 1].

    As in Darknet one draw serves the whole mini-batch. The window moves, so `needs` covers every place it can take.
    """
    kind = 'crop'
    keeps_block = True
    halo_free = False

    def __init__(self, index, source, in_shape, height, width, flip, adjust, section=None):
        channels, h, w = in_shape
        if height > h or width > w:
            raise CfgError(f'layer {index} [crop] wants {width}x{height} of a {w}x{h} input')
        self.flip, self.adjust = flip, adjust
        self.slack = (h - height, w - width)
        super().__init__(index, [source], [in_shape], (channels, height, width), section)

    def needs(self, region):
        if region.empty:
            return [NOTHING]
        region = region.replace(2, region.lo[2], region.hi[2] + self.slack[0])
        if self.flip:
            return [region.replace(3, 0, self.in_shapes[0][2])]
        return [region.replace(3, region.lo[3], region.hi[3] + self.slack[1])]

    def source(self, x, state):
        """The view of x that this draw reads, in the output's order."""
        out, (need,) = state.boxes
        top, left, mirrored = self.slack[0] // 2, self.slack[1] // 2, False
        if state.training:
            chance = Chance(state.key)
            top, left = chance.integer(0, self.slack[0]), chance.integer(0, self.slack[1])
            mirrored = self.flip and chance.coin()
        rows = x[:, :, top:top + out.shape[2]]
        if not mirrored:
            first = left + out.lo[3] - need.lo[3]
            return rows[:, :, :, first:first + out.shape[3]]
        first = self.in_shapes[0][2] - left - out.hi[3]
        return rows[:, :, :, first:first + out.shape[3]][:, :, :, ::-1]

    def forward(self, y, xs, state):
        x = self.source(xs[0], state)
        y[...] = 2 * x - 1 if self.adjust else x
        clear_padded_lanes(y, state.boxes[0].shape[1])

    def backward_data(self, dxs, dy, xs, origins, state):
        dxs[0][...] = 0
        self.source(dxs[0], state)[...] = 2 * dy if self.adjust else dy


def dropout_from_section(index, source, in_shape, section):
    probability = section.float('probability', .5, least=0)
    if probability >= 1:
        raise section.error('probability', 'expected a number below 1')
    return Dropout(index, source, in_shape, probability, section)


def crop_from_section(index, source, in_shape, section):
    if section.float('angle', 0):
        raise CfgError(f'layer {index} [crop]: angle is not supported')
    return Crop(index, source, in_shape, section.int('crop_height', 1, least=1), section.int('crop_width', 1, least=1), section.flag('flip'),
                not section.int('noadjust', 0), section)
