"""Moves tiles from one layout to another. Forward copies; backward is the transpose: it adds.

Everything is decided in the constructor: who sends which box to whom (box ∩ box is a box, so one message per peer), buffers, requests.
"""
from math import prod

import numpy as np

from . import kernels
from .half import message, narrow, widen
from .tile import outside, storage_shape


class Exchange:
    """owned layout -> held layout. `src` is a partition; `dst` may overlap and reach past the tensor (padding).

    half: what travels is rounded to half precision; what stays is not.
    """

    def __init__(self, comm, src, dst, pad_value=0.0, block=16, dtype=np.float32, tag=0, half=False):
        me = comm.rank
        self.src, self.dst = src[me], dst[me]
        self.pad_value = pad_value
        self.keeps = self.src & self.dst                       # what does not travel
        self.padding = outside(self.dst, src.shape)
        self.sends = [(q, box) for q, r in enumerate(dst) if q != me and not (box := self.src & r).empty]
        self.receives = [(p, box) for p, r in enumerate(src) if p != me and not (box := self.dst & r).empty]
        self.identity = all(a == b for a, b in zip(src, dst))
        self.pack, self.unpack = (narrow, widen) if half else (kernels.pack, kernels.unpack)
        self.out, self.into = ([message(size) if half else np.empty(size, dtype) for size in (prod(storage_shape(box, block)) for _, box in boxes)]
                               for boxes in (self.sends, self.receives))
        sends, receives = ([(peer, a) for (peer, _), a in zip(boxes, arrays)]
                           for boxes, arrays in ((self.sends, self.out), (self.receives, self.into)))
        self.there = comm.messages(sends, receives, tag)
        self.back = comm.messages(receives, sends, tag)

    @property
    def bytes_sent(self):
        return sum(a.nbytes for a in self.out)

    def start_forward(self, x, y):
        """Begin to fill y (held) from x (owned): own part and padding at once, the rest in finish_forward."""
        for (_, box), buffer in zip(self.sends, self.out):
            self.pack(buffer, x[box])
        self.there.start()
        if not self.keeps.empty:
            y[self.keeps][...] = x[self.keeps]
        for box in self.padding:
            y[box][...] = self.pad_value

    def finish_forward(self, y):
        self.there.wait()
        for (_, box), buffer in zip(self.receives, self.into):
            self.unpack(y[box], buffer)

    def start_backward(self, dy):
        """Begin to send the gradients of what was received back to the owners."""
        for (_, box), buffer in zip(self.receives, self.into):
            self.pack(buffer, dy[box])
        self.back.start()

    def finish_backward(self, dx, dy, add=False):
        """dx (owned) = (or +=) the sum of all copies' gradients, in rank order so that it is reproducible."""
        self.back.wait()
        if not add:
            dx.array[...] = 0
        if not self.keeps.empty:
            kernels.add(dx[self.keeps], dy[self.keeps])
        for (_, box), buffer in zip(self.sends, self.out):
            self.unpack(dx[box], buffer, add=True)

    def poll(self, forward=True):
        (self.there if forward else self.back).poll()

    def forward(self, x, y):
        self.start_forward(x, y)
        self.finish_forward(y)

    def backward(self, dx, dy, add=False):
        self.start_backward(dy)
        self.finish_backward(dx, dy, add)
