"""The forward pass of one share of a group into a set of tiles; every view that a step uses is built before step 0."""
from dataclasses import dataclass

from . import kernels
from .layers import norm


@dataclass
class Use:
    """A layer applied to one box: (box, boxes it reads), and the call on its views; None where there is nothing to compute."""
    boxes: tuple
    work: object


class Tape:
    """Forward of a group's share into one set of tiles. `turn` 0 is the step's forward pass, 1 the recomputation."""

    def __init__(self, run, share, buffers, arena, turn, given, lazy=False):
        """given: {tensor: Tile} of outputs that are there already; lazy: skip layers whose result nobody reads in the backward pass."""
        self.run, self.share, self.turn = run, share, turn
        self.tiles, self.z, self.uses, self.finishes, self.fills = dict(given), {}, {}, {}, {}
        start = run.plan.start
        for source in buffers.sources:
            if source not in given:
                self.tiles[source] = buffers.tile(arena, ('in', start, source))
        self.pools = buffers.pooled
        self.pooled = set(self.pools.values())             # written by the finish of the layer before
        self.wanted = buffers.wanted_again if lazy else {index: (True, True) for index in run.layers}
        for index in run.layers:
            for tiles, key in ((self.tiles, ('y', index, turn)), (self.z, ('z', index, turn))):
                if key in buffers.regions:
                    tiles[index] = buffers.tile(arena, key)
            self.z.setdefault(index, self.tiles.get(index))
        for index in run.layers:
            z, y = self.wanted[index]
            computed = share.computed[index]
            self.uses[index] = [self.use(index, box, **part) for box, part in run.pieces(index, computed, turn)] if z and index not in self.pooled else []
            if y and run.network.layers[index].two_phase:
                pool = buffers.pooled.get(index)
                size = run.network.layers[pool].window.size if pool else 1
                self.finishes[index] = norm.Finish(run.network.layers[index], run.states[index], self.tiles[pool or index], self.z[index], computed,
                                                   share.owned[index] & computed, size)
            padding = share.held[index].minus(computed) if y and index in buffers.pads else []
            self.fills[index] = kernels.move.ready(*((self.tiles[index][box], buffers.pads[index]) for box in padding))

    def source(self, index, k):
        """The tile that input k of a layer is read from; None where a recomputation left it out."""
        return self.tiles.get(self.run.network.layers[index].inputs[k])

    def use(self, index, box, **part):
        """part: of the input, where it is taken in instalments."""
        layer = self.run.network.layers[index]
        needs = tuple(layer.needs(box))
        xs, out = [self.source(index, k)[need] for k, need in enumerate(needs)], self.z[index][box]
        work = layer.ready_forward(out, xs, self.run.states[index], **part) if out.size and not layer.is_head else None
        return Use((box, needs), work)

    def compute(self, index, uses):
        for use in uses:
            if use.work:
                self.run.states[index].boxes = use.boxes
                use.work()

    def finish(self, index, again=False):
        """Norm and activation where the layer has them, then the padding that readers expect."""
        if index in self.finishes:
            self.finishes[index](again)
        self.fills[index]()

    def forward(self, last=None, after=None):
        """All layers, their moments being known; only up to z of layer `last`, or only what follows z of layer `after`."""
        for index in self.run.layers:
            z, y = self.wanted[index]
            if z and after is None and not self.run.network.layers[index].is_head:
                self.compute(index, self.uses[index])
            if index == last:
                return
            if y and (after is None or index == after):
                self.finish(index, again=True)
            self.run.watch(index, self)
