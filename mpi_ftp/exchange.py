"""Moves tiles from one layout to another. Forward copies; backward is the transpose: it adds.

Who sends which box to whom is decided in the constructor (box ∩ box is a box, so one message per peer), views and requests when tiles are first
given: a step gives the same ones again. A box without gaps in its tile leaves from there, and arrives there, without a copy.
"""
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from . import kernels
from .kernels.prepared import one_by_one
from .tile import outside, storage_shape
from .waiting import do_nothing


@dataclass
class Journey:
    """Messages between two tiles, and a call for all that is to be done before, meanwhile and after. arrays: of the tiles, kept so that nothing else comes
    to lie at their addresses."""
    arrays: tuple
    messages: object
    before: object      # fills what is sent
    meanwhile: object   # for what does not travel
    after: object       # empties what has arrived

    def start(self):
        self.before()
        self.messages.start()
        self.meanwhile()

    def finish(self, meanwhile):
        self.messages.wait('messages', meanwhile)
        self.after()


class Exchange:
    """owned layout -> held layout. `src` is a partition; `dst` may overlap and reach past the tensor (padding).

    half: what travels is rounded to half precision; what stays is not. One direction is under way at a time.
    """

    def __init__(self, comm, src, dst, pad_value=0.0, block=16, dtype=np.float32, tag=0, half=False):
        me = comm.rank
        self.comm, self.tag, self.half = comm, tag, half
        self.src, self.dst = src[me], dst[me]
        self.pad_value = pad_value
        self.keeps = self.src & self.dst                       # what does not travel
        self.padding = outside(self.dst, src.shape)
        self.sends = [(q, box) for q, r in enumerate(dst) if q != me and not (box := self.src & r).empty]
        self.receives = [(p, box) for p, r in enumerate(src) if p != me and not (box := self.dst & r).empty]
        self.out, self.into = ([kernels.message(size) if half else np.empty(size, dtype) for size in (prod(storage_shape(box, block)) for _, box in boxes)]
                               for boxes in (self.sends, self.receives))
        self.journeys, self.journey = {}, None                 # by direction and tiles; the one that was begun last

    @property
    def bytes_sent(self):
        return sum(a.nbytes for a in self.out)

    def start_forward(self, x, y):
        """Begin to fill y (held) from x (owned): own part and padding at once, the rest in `finish`."""
        self._start(self._there, x, y)

    def start_backward(self, dx, dy, add=False):
        """Begin to send the gradients of what was received back to the owners. `finish` writes dx (owned) = (or +=) the sum of all copies'
        gradients, in rank order so that it is reproducible. Where dx is a part of dy, its own gradients are there: then only with `add`."""
        self._start(self._back, dx, dy, add)

    def finish(self, meanwhile=do_nothing):
        """Wait for what was begun, and bring it to its place. meanwhile: what a patient rank looks after while it waits."""
        self.journey.finish(meanwhile)

    def poll(self):
        """Let what was begun progress."""
        if self.journey:
            self.journey.messages.poll()

    def forward(self, x, y):
        self.start_forward(x, y)
        self.finish()

    def backward(self, dx, dy, add=False):
        self.start_backward(dx, dy, add)
        self.finish()

    def _start(self, make, a, b, *options):
        key = make.__name__, id(a.array), id(b.array), *options
        if key not in self.journeys:
            self.journeys[key] = make(a, b, *options)
        self.journey = self.journeys[key]
        self.journey.start()

    def _there(self, x, y):
        """The Journey of tiles."""
        sends, before = self._leaving(self.sends, self.out, x)
        receives, after = [], []
        for (peer, box), buffer in zip(self.receives, self.into):
            if self._gapless(y[box]):
                buffer = y[box]
            else:
                after.append((y[box], buffer))
            receives.append((peer, buffer))
        meanwhile = [(y[self.keeps], x[self.keeps])] if not self._in_place(x, y) else []
        meanwhile += [(y[box], self.pad_value) for box in self.padding]
        return Journey((x.array, y.array), self.comm.messages(sends, receives, self.tag), before, kernels.move.ready(*meanwhile), self._unpack([], after))

    def _back(self, dx, dy, add):
        """The Journey of gradients."""
        sends, before = self._leaving(self.receives, self.into, dy)
        own = [] if add else [(dx.array, 0)]
        if not self._in_place(dx, dy):
            own.append((dx[self.keeps], dy[self.keeps], True))
        after = self._unpack(own, [(dx[box], buffer, True) for (_, box), buffer in zip(self.sends, self.out)])
        receives = [(peer, buffer) for (peer, _), buffer in zip(self.sends, self.out)]
        return Journey((dx.array, dy.array), self.comm.messages(sends, receives, self.tag), before, do_nothing, after)

    def _leaving(self, boxes, buffers, tile):
        """([(peer, array to send)], a call that fills the arrays); a box that goes to several peers is packed once."""
        sends, before, packed = [], [], {}
        for (peer, box), buffer in zip(boxes, buffers):
            if box not in packed:
                gapless = self._gapless(tile[box])
                packed[box] = tile[box] if gapless else buffer
                before += [] if gapless else [(buffer, tile[box])]
            sends.append((peer, packed[box]))
        return sends, partial(one_by_one, [kernels.narrow.ready(*each) for each in before]) if self.half else kernels.move.ready(*before)

    def _unpack(self, own, arrived):
        """A call that does moves on this rank, then brings what has arrived to its place."""
        if self.half:
            return partial(one_by_one, [kernels.move.ready(*own)] + [kernels.widen.ready(*each) for each in arrived])
        return kernels.move.ready(*own, *arrived)

    def _in_place(self, owned, held):
        """Whether what does not travel is in its place already: the owned tile is a part of the held one, or nothing is kept."""
        return self.keeps.empty or owned[self.keeps].ctypes.data == held[self.keeps].ctypes.data

    def _gapless(self, view):
        return view.flags.c_contiguous and not self.half
