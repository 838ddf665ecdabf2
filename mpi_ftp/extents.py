"""Regions of all ranks at once, as integer arrays: what a group computes and reads when its last output is cut along given edges.

A cut is a product of per-axis intervals and `needs` works on each axis alone, so one representative for each interval of each axis
tells the boxes of every rank: an 8 x 8 grid takes 16 walks through the layers, not 64.
"""
from itertools import product

import numpy as np

from .geometry import owned_layout, share
from .region import NOTHING, Layout, Region


class Extents:
    """Boxes (ranks, 4, 2) of the layers below a group's end: owned, computed, differentiated, and what each reads.

    They hold for every group [start, stop) with this `stop`, wherever it starts.
    """

    def __init__(self, network, stop, edges, batch, ranks, cuts=(), start=0):
        self.network, self.stop, self.edges, self.ranks = network, stop, edges, ranks
        self.start = start
        spans = [list(zip(e, e[1:])) for e in edges]
        self.cells = list(product(*(range(len(s)) for s in spans)))[:ranks]
        widest = tuple(max(range(len(s)), key=lambda i, s=s: s[i][1] - s[i][0]) for s in spans)
        cells = [widest[:axis] + (i,) + widest[axis + 1:] for axis in range(4) for i in range(len(spans[axis]))]
        layouts = self.owned_by(cells, spans, batch)
        self.axes = [axis for axis in range(4) for _ in spans[axis]]
        if any(region.empty for layout in layouts.values() for region in layout):       # an empty interval hides the others: ask for every rank
            self.axes, layouts = None, self.owned_by(self.cells, spans, batch)
        count = len(next(iter(layouts.values())))
        shares = [share(network, start, stop, {i: layouts[i][r] for i in layouts}, cuts, True) for r in range(count)]
        layers = network.layers
        self.owned, self.computed, self.differentiated, self.reads, self.reads_back = {}, {}, {}, {}, {}
        for i in range(start, stop):
            self.owned[i] = self.expand(layouts[i])
            self.computed[i] = self.expand([s.computed[i] for s in shares])
            self.differentiated[i] = self.expand([s.differentiated[i] for s in shares])
            for k in range(len(layers[i].inputs)):
                self.reads[i, k] = self.expand([layers[i].needs(s.computed[i])[k] for s in shares])
                self.reads_back[i, k] = self.expand([layers[i].needs(s.differentiated[i])[k] for s in shares])

    def owned_by(self, cells, spans, batch):
        """{layer: Layout} with one owner for each of some cells of the product of intervals."""
        last = self.stop - 1
        boxes = [Region(*zip(*(spans[axis][i] for axis, i in enumerate(cell)))) for cell in cells]
        whole = Layout(self.network.tensor_shape(last, batch), tuple(NOTHING if box.empty else box for box in boxes))
        return {index: owned_layout(self.network, last, whole, index) for index in range(self.start, self.stop)}

    def expand(self, regions):
        """Boxes of all ranks from those of the representatives."""
        boxes, used = np.zeros((self.ranks, 4, 2), int), len(self.cells)
        for axis in range(4):
            sides = [(r.lo[axis], r.hi[axis]) for n, r in enumerate(regions) if self.axes is None or self.axes[n] == axis]
            mine = range(used) if self.axes is None else [cell[axis] for cell in self.cells]
            boxes[:used, axis] = np.array(sides)[mine]
        boxes[(boxes[:, :, 1] <= boxes[:, :, 0]).any(1)] = 0
        return boxes

    def held(self, start, source, back=False):
        """What the group [start, stop) holds of a tensor from outside; back: of its gradient."""
        reads = self.reads_back if back else self.reads
        parts = [reads[i, k] for i in range(start, self.stop) for k, s in enumerate(self.network.layers[i].inputs) if s == source]
        return union(parts) if parts else np.zeros((self.ranks, 4, 2), int)


def union(parts):
    """The smallest boxes around all parts, rank by rank; empty parts do not count."""
    lo = np.full(parts[0].shape[:2], 1 << 40)
    hi = np.zeros(parts[0].shape[:2], int)
    for part in parts:
        there = (part[:, :, 1] > part[:, :, 0]).all(1)[:, None]
        lo = np.where(there, np.minimum(lo, part[:, :, 0]), lo)
        hi = np.where(there, np.maximum(hi, part[:, :, 1]), hi)
    lo = np.where(lo == 1 << 40, 0, lo)
    return np.stack([lo, hi], 2)


def inside(boxes, shape):
    """The boxes cut off at a tensor's edges."""
    size = np.array(shape)
    found = np.clip(boxes, 0, size[None, :, None])
    return found


def common(a, b):
    """The intersections."""
    return np.stack([np.maximum(a[:, :, 0], b[:, :, 0]), np.minimum(a[:, :, 1], b[:, :, 1])], 2)


def volume(boxes):
    """Numbers in each box."""
    return np.maximum(0, boxes[:, :, 1] - boxes[:, :, 0]).prod(1)


def sides(boxes):
    """(N, C, H, W) of each box."""
    return np.maximum(0, boxes[:, :, 1] - boxes[:, :, 0])
