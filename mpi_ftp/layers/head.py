"""Layers that end in a loss: region, yolo and softmax. Their outputs are Darknet's; the gradient of their input comes from the loss."""
from ..region import NOTHING
from .base import Layer


class Head(Layer):
    """`activation` (set by the model) maps the plain input of some cells to Darknet's layer output."""
    is_head = True

    def __init__(self, kind, index, source, in_shape, section=None):
        self.kind = kind
        super().__init__(index, [source], [in_shape], in_shape, section)

    def needs(self, region):
        """A cell's numbers depend on all channels of that cell; a softmax on its whole sample."""
        if region.empty:
            return [NOTHING]
        channels, h, w = self.in_shapes[0]
        region = region.replace(1, 0, channels)
        return [region.replace(2, 0, h).replace(3, 0, w)] if self.kind == 'softmax' else [region]
