"""A group that a rank takes in parts, one after the other: see subtiles.py for the idea, step_buffers.py for its memory."""
from .backward import BackwardPass
from .group import GroupRun
from .region import NOTHING
from .tape import Tape


class Part:
    """One part's views: forward, forward again, backward."""

    def __init__(self, run, buffers, arena):
        self.tape = Tape(run, buffers.share, buffers, arena, 0, run.tiles)
        if not run.training:
            return
        self.again = Tape(run, buffers.share, buffers, arena, 1, {s: run.tiles[s] for s in buffers.sources}, lazy=True)
        given = {index: tile for index, tile in run.d.items() if index in buffers.sources or index in run.buffers.last_only}
        self.back = BackwardPass(run, buffers.share, buffers, arena, self.again, set(), given)
        self.ready = set(run.d)                 # gradients that are there before the part's first layer
        # what other groups brought, on owned pixels; a copy that parts share would be counted for each
        owned = [(index, buffers.share.owned[index]) for index in run.buffers.exports if index not in given]
        self.seeds = [(self.back.d[index].array, self.back.d[index][box], run.d[index][box]) for index, box in owned]

    def begin_backward(self):
        """Compute again; take the gradients of what others read."""
        self.again.forward()
        for whole, view, brought in self.seeds:
            whole[...] = 0
            view[...] = brought
        self.back.begin(self.ready)


class PartedRun(GroupRun):
    """A GroupRun whose inner tiles are as large as a part."""

    def build(self, layouts, shares, arena):
        start, buffers = self.plan.start, self.buffers
        self.core = NOTHING
        self.tiles = self.aliases()
        for source in buffers.sources:
            if source not in self.tiles:
                self.tiles[source] = buffers.tile(arena, ('in', start, source))
        self.tiles.update({index: buffers.tile(arena, ('y', index, 0)) for index in buffers.exports})
        if self.training:
            self.d = {index: buffers.tile(arena, ('dy', index)) for index in buffers.exports}
            self.d.update({source: buffers.tile(arena, ('d', start, source)) for source in self.returns if source not in buffers.direct})
            self.d.update(self.direct())
        # layers whose moments all parts make together
        self.live = [index for index in self.layers if self.network.layers[index].normalize and self.states[index].live]
        self.parts = [Part(self, part, arena) for part in buffers.parts]

    def forward(self, picture=None):
        self.start_inputs(picture)
        self.finish_inputs()
        for index in self.live:
            sums = 0
            for part in self.parts:
                part.tape.forward(last=index)
                sums = sums + part.tape.finishes[index].sums()
            self.parts[0].tape.finishes[index].settle(sums)
        after = self.plan.last if self.plan.last in self.live else None         # z stands where the group's output will
        for part in self.parts:
            part.tape.forward(after=after)

    def backward(self):
        self.model.catch_up()
        for index in self.buffers.exports:
            if index not in self.model.arrived:
                self.d[index].array[...] = 0
            self.model.arrived.discard(index)
        for index in reversed(self.live):
            sums = 0
            for part in self.parts:
                sums = sums + self.sums_of(part, index)
            self.parts[0].back.steps[index].unfinish.settle(sums)
        for source in self.returns:
            self.d[source].array[...] = 0
        for part in self.parts:
            part.begin_backward()
            for index in part.back.steps:
                part.back.unfinish(index, settled=index in self.live)
                part.back.data(index)
                part.back.weights(index)
            self.model.poll()
        self.send_gradients(self.d)
        self.receive_gradients()
        self.model.arrived.update(self.buffers.direct)
        for index in reversed(self.layers):
            self.model.differentiated(index)

    def sums_of(self, part, live):
        """A part's share of what corrects the gradient of a live layer's z. Gradients of inputs and weights wait for the last walk."""
        part.begin_backward()
        for index in (index for index in part.back.steps if index > live):
            part.back.unfinish(index, settled=True)
            part.back.data(index)
        return part.back.sums(live)
