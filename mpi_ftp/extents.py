"""Regions of all ranks at once, as integer arrays: what groups compute and read when the output of each is cut along given edges.

A cut is a product of per-axis intervals and `needs` works on each axis alone, so intervals are walked through the layers axis by axis, those of
many groups in one array: neither the number of ranks nor that of groups counts in Python.
"""
from functools import lru_cache
from math import prod

import numpy as np

from .region import Region
from .tile import BLOCK

FAR = 1 << 28               # an empty interval is [FAR, -FAR): the smallest interval around it and another one is the other one

CODE = 1 << 30


class Extents:
    """Intervals of the layers below the groups' ends: owned, computed, differentiated, and what each layer reads of each input.

    One row for each of `stops`, whose outputs are cut along `edges`, into equally many parts each. A box is a tuple of arrays (2, rows, parts), lows and
    highs, for N, C, H and W. Rows hold for every group [start, stop) wherever it starts; they are empty at layers from their stop on.
    """

    def __init__(self, network, stops, edges, batch, cuts=(), start=0, training=True):
        self.network, self.batch, self.training, self.cuts = network, batch, training, cuts
        self.stops, self.start = np.array(stops), start
        self.parts = tuple(len(e) - 1 for e in edges[0])
        self.row = {stop: row for row, stop in enumerate(stops)}
        self.edges = [np.array([e[axis] for e in edges]) for axis in range(4)]
        self.scales = [np.array([[getattr(network.scales[i], part) for i in range(-1, len(network))]]) for part in ('numerator', 'denominator')]
        self.owned = {index: self.owned_of(index) for index in range(start, max(stops))}
        self.computed, self.reads = {}, {}
        self.differentiated, self.reads_back = {}, {}
        self.walk(cuts)
        if training:
            self.walk_back(cuts)

    def owned_of(self, index):
        """The cuts carried back to a layer's output, as geometry.owned_layout does."""
        last, boxes = self.stops - 1, []
        live, end = (last >= index)[:, None], (last == index)[:, None]
        shape, (above, below) = self.network.tensor_shape(index, self.batch), (s[0] for s in self.scales)
        up, down = (above[last + 1] * below[index + 1])[:, None], (below[last + 1] * above[index + 1])[:, None]
        for axis, edges in enumerate(self.edges):
            size, whole = shape[axis], edges[:, -1:]
            if axis == 0:
                carried = edges
            elif axis == 1:
                carried = np.minimum(size, edges * size // whole // BLOCK * BLOCK)
            else:
                carried = np.minimum(size, edges * up // down)
            carried = np.where(end, edges, np.where(edges >= whole, size, carried)) if axis else edges
            boxes.append(tidy(np.where(live, np.stack([carried[:, :-1], carried[:, 1:]]), EMPTY)))
        return tuple(boxes)

    def exported(self, index):
        """Rows whose group ends in, or hands on, a layer's output."""
        readers = self.network.readers[index]
        return self.stops <= (max(readers) if readers else FAR)

    def walk(self, cuts):
        """Forward regions, from the last layer to the first: see geometry.share."""
        held = {}
        for index in reversed(range(self.start, max(self.stops))):
            layer, shape = self.network.layers[index], self.network.tensor_shape(index, self.batch)
            wanted, owned = held.get(index), self.owned[index]
            real = clip(wanted, shape) if wanted else None
            everywhere = layer.is_head or index in cuts or (self.training and layer.normalize)
            real = union(real, owned if everywhere or real is None else only(owned, self.exported(index)))
            self.computed[index] = real
            held[index] = union(wanted, real)
            for k, (source, box) in enumerate(zip(layer.inputs, reads(layer, real))):
                self.reads[index, k] = box
                held[source] = union(held.get(source), box)

    def walk_back(self, cuts):
        """Regions whose gradient is carried back: see geometry._walk_back."""
        gradient = {}
        for index in reversed(range(self.start, max(self.stops))):
            layer, shape = self.network.layers[index], self.network.tensor_shape(index, self.batch)
            arriving, owned = gradient.get(index), self.owned[index]
            if index in cuts or layer.is_head:
                real = owned
            else:
                real = clip(arriving, shape) if arriving else None
                real = union(real, owned if layer.normalize or real is None else only(owned, self.exported(index)))
            self.differentiated[index] = real
            for k, (source, box) in enumerate(zip(layer.inputs, reads(layer, real))):
                self.reads_back[index, k] = box
                inside = box if layer.pad_value else clip(box, self.network.tensor_shape(source, self.batch))
                gradient[source] = union(gradient.get(source), inside)

    def held(self, start, source, back=False):
        """What the groups [start, stop) hold of a tensor from outside (None: nothing); back: of its gradient."""
        found, table = None, self.reads_back if back else self.reads
        for i in self.network.readers[source]:
            if start <= i and (i, 0) in table:
                for k, other in enumerate(self.network.layers[i].inputs):
                    if other == source:
                        found = union(found, table[i, k])
        return found

    def one(self, boxes, stop):
        """The row of one group's end."""
        row = self.row[stop]
        return tuple(axis[:, row:row + 1] for axis in boxes)


EMPTY = np.array([FAR, -FAR])[:, None, None]


def tidy(axis):
    """Intervals with every empty one written alike."""
    empty = axis[1] <= axis[0]
    if empty.any():
        axis[:] = np.where(empty, EMPTY, axis)
    return axis


def union(a, b):
    """The smallest boxes around both; None is nothing."""
    if a is None or b is None:
        return a or b
    return tuple(np.stack([np.minimum(x[0], y[0]), np.maximum(x[1], y[1])]) for x, y in zip(a, b))


def only(boxes, rows):
    """The boxes of some rows, the others empty."""
    return tuple(np.where(rows[:, None], axis, EMPTY) for axis in boxes)


def clip(boxes, shape):
    """The part inside a tensor."""
    return tuple(tidy(np.stack([np.maximum(axis[0], 0), np.minimum(axis[1], size)])) for axis, size in zip(boxes, shape))


class Span(Region):
    """A Region with arrays for numbers, to ask a layer what many intervals need at once."""
    __slots__ = ()
    empty = False


def reads(layer, boxes):
    """What a layer reads of each input to compute `boxes`."""
    n, c, h, w = boxes
    channels, high, wide = layer.out_shape
    of_channels = each(layer, 1, c)
    if layer.kind == 'reorg':               # its rows are numbered by channel: no arithmetic on intervals tells
        rows, columns = each(layer, 2, h), each(layer, 3, w)
    else:
        found = layer.needs(Span((0, 0, h[0], w[0]), (1, channels, h[1], w[1])))
        rows, columns = ([whole_of(axis, box.lo[a], box.hi[a]) for box in found] for a, axis in ((2, h), (3, w)))
    return [(n, of_channels[k], rows[k], columns[k]) for k in range(len(layer.inputs))]


def whole_of(axis, lo, hi):
    """Intervals [lo, hi) for those of `axis` that are not empty."""
    found = np.empty_like(axis)
    found[0], found[1] = lo, hi
    empty = axis[1] <= axis[0]
    if empty.any():
        found[:] = np.where(empty, EMPTY, found)
    return found


def each(layer, axis, intervals):
    """What a layer reads of each input along one axis, asked once for each interval that is different."""
    if axis == 1 and layer.tensors and layer.groups == 1:
        return [whole_of(intervals, 0, layer.in_shapes[0][0])]
    codes, places = np.unique(intervals[0] * CODE + intervals[1], return_inverse=True)
    found = np.array([asked(layer, axis, int(lo), int(hi)) for lo, hi in zip((codes + FAR) // CODE, (codes + FAR) % CODE - FAR)])
    return list(found[places.ravel()].reshape(*intervals.shape[1:], len(layer.inputs), 2).transpose(2, 3, 0, 1))


@lru_cache(maxsize=1 << 16)
def asked(layer, axis, lo, hi):
    """[(low, high)] along one axis of the inputs that the outputs [lo, hi) need, whole along the others."""
    if hi <= lo:
        return [(FAR, -FAR)] * len(layer.inputs)
    boxes = layer.needs(Region.whole((1,) + tuple(layer.out_shape)).replace(axis, lo, hi))
    return [(FAR, -FAR) if box.empty else (box.lo[axis], box.hi[axis]) for box in boxes]


# sizes

def lengths(boxes):
    """Sides of the intervals along N, C, H, W: arrays (rows, parts)."""
    return tuple(np.maximum(axis[1] - axis[0], 0) for axis in boxes)


def most(boxes):
    """The largest side along each axis: arrays (rows,)."""
    return tuple(side.max(1) for side in lengths(boxes))


def product(sides):
    """Numbers in the box of every cell: (rows, cells), from four arrays (rows, parts)."""
    found = sides[0]
    for side in sides[1:]:
        found = (found[:, :, None] * side[:, None, :]).reshape(len(found), -1)
    return found


@lru_cache(maxsize=None)
def cells(parts):
    """The interval of each cell along each axis, W running fastest."""
    return np.unravel_index(np.arange(prod(parts)), parts)


