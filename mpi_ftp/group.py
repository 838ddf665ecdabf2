"""Runs consecutive layers on one rank's tiles, with no halo exchange inside: forward, and backward with or without recomputing.

The constructor builds every view but those of exchanges, which follow in the first step; forward and backward only walk them.
"""
from functools import partial

import numpy as np

from .backward import BackwardPass
from .exchange import Exchange
from .instalments import Instalments, parted, sums_over
from .network import PICTURE
from .region import NOTHING, Layout
from .tape import Tape


class GroupRun:
    """One group on one rank. `states`: {layer: State}; `model` offers comm, dtype, parameters and the tiles of other groups."""

    def __init__(self, model, plan, layouts, shares, buffers, arena):
        self.model, self.plan, self.network, self.states = model, plan, model.network, model.states
        self.share, self.layers, self.buffers = shares[model.comm.rank], range(plan.start, plan.stop), buffers
        self.training = model.training
        self.exchanges = {}
        for source in buffers.sources:
            if source != PICTURE:
                self.exchanges[source] = self.way_there(source, layouts[source], [s.held.get(source, NOTHING) for s in shares])
        self.arrivals = [each for each in self.exchanges.values() if isinstance(each, Instalments)]       # of the first layer's input, if they come so
        self.returns = {source: self.way_back(source, exchange, layouts, shares) for source, exchange in self.exchanges.items()} if self.training else {}
        self.d = {}
        self.build(layouts, shares, arena)

    def way_there(self, source, layout, held):
        """The exchange that brings an input: in instalments where others own what the first layer sums over, and have to send it to another host."""
        start, model = self.plan.start, self.model
        dst = Layout(layout.shape, tuple(held))
        about = self.buffers.pads.get(source, 0.0), self.network.block(source), model.dtype
        apart = not self.plan.parted and sums_over(self.network.layers[start], source) and any(map(model.overlaps, range(model.comm.size)))
        parts = parted(layout, held) if apart else []
        found = [Exchange(model.comm, src, dst, *about, model.next_tag(), model.half_halos) for src in ([src for src, _ in parts] or [layout])]
        return Instalments(found, [taken for _, taken in parts]) if parts else found[0]

    def build(self, layouts, shares, arena):
        """Tiles and views of all that a step does here."""
        self.core = NOTHING if self.arrivals else self.interior()
        self.tape = Tape(self, self.share, self.buffers, arena, 0, self.aliases())
        self.tiles = self.tape.tiles
        if self.training:
            again = {s: self.tiles[s] for s in self.buffers.sources}
            tape = Tape(self, self.share, self.buffers, arena, 1, again, lazy=True) if self.plan.recompute else self.tape
            cut = {index: self.cut_at(index, layouts, shares, arena) for index in self.plan.cuts}
            self.back = BackwardPass(self, self.share, self.buffers, arena, tape, self.model.arrived, self.direct(), cut, self.waits_twice())
            self.d = self.back.d

    def waits_twice(self):
        """Whether gradients return to another host, after which a layer before asks for sums: a part of the work is kept to be done meanwhile."""
        return any(self.model.overlaps(peer) and self.model.asks_for_sums(source) for source, exchange in self.returns.items()
                   if source not in self.buffers.direct for peer, _ in exchange.receives + exchange.sends)

    def aliases(self):
        """Inputs that are read where another group wrote them."""
        return {source: self.model.owned_tile(source) for source in self.buffers.aliased}

    def direct(self):
        """Gradients of inputs that are written where another group reads them."""
        return {source: self.model.home[source].d[source] for source in self.buffers.direct}

    def cut_at(self, index, layouts, shares, arena):
        """Exchange and tile that sum the copies of an inner gradient."""
        dst = Layout(layouts[index].shape, tuple(s.gradient[index] for s in shares))
        return Exchange(self.model.comm, layouts[index], dst, 0.0, self.network.block(index), self.model.dtype,
                        self.model.next_tag(), self.model.half_halos), self.buffers.tile(arena, ('cut', index))

    def travels(self):
        """(exchange, whether forwards) of all messages of a step."""
        back = [*self.returns.values(), *(exchange for exchange, _ in self.back.cut.values())] if self.training else []
        return [(exchange, True) for exchange in self.exchanges.values()] + [(exchange, False) for exchange in back]

    # forward

    def interior(self):
        """The part of the first layer that is computed before halos arrive; NOTHING where nothing travels, or the plan says that this does not pay."""
        first = self.plan.start
        awaited = {peer for s in self.network.layers[first].inputs if s in self.exchanges for peer, _ in self.exchanges[s].receives}
        if not self.plan.early or self.network.layers[first].is_head or not any(self.model.overlaps(peer) for peer in awaited):
            return NOTHING
        box = self.share.computed[first]
        for axis in (2, 3):
            for lo_side in (True, False):
                while not box.empty and not self.available(first, box, axis, lo_side):
                    box = box.replace(axis, box.lo[axis] + lo_side, box.hi[axis] - (not lo_side))
        box = self.aligned(box)
        return NOTHING if box.empty or not self.available(first, box) else box

    def aligned(self, box):
        """The part of a core whose edges are those of the tiles that Winograd takes of the whole: else what is taken in pieces is more than the whole."""
        first = self.plan.start
        tile, whole = tile_of(self.states[first]), self.share.computed[first]
        for axis in (2, 3):
            lo, hi, begin = box.lo[axis], box.hi[axis], whole.lo[axis]
            lo = begin - (begin - lo) // tile * tile
            box = box.replace(axis, lo, hi if hi == whole.hi[axis] else max(lo, begin + (hi - begin) // tile * tile))
        return box

    def available(self, index, box, axis=None, lo_side=True):
        """Whether what `box` reads is owned here (or padding), on one side of one axis or on all."""
        for source, need in zip(self.network.layers[index].inputs, self.network.layers[index].needs(box)):
            if source in self.exchanges:
                inside, mine = need & self.model.whole(source), self.exchanges[source].keeps
                if axis is None and inside not in mine:
                    return False
                if axis is not None and not (inside.lo[axis] >= mine.lo[axis] if lo_side else inside.hi[axis] <= mine.hi[axis]):
                    return False
        return True

    def pieces(self, index, computed, turn):
        """[(box, part of the input)]: how a layer's computed region is taken: whole, in core and rims where halos are under way, in parts of the input where
        that comes in instalments."""
        if index == self.plan.start and turn == 0 and self.arrivals:
            return [(computed, {'taken': taken, 'add': k > 0}) for k, taken in enumerate(self.arrivals[0].taken)]
        if index == self.plan.start and turn == 0 and not self.core.empty:
            return [(box, {}) for box in self.bands() + computed.minus(self.core)]
        return [(computed, {})]

    def bands(self):
        """The core in a few bands of rows, so that messages can progress between them."""
        return bands(self.core, tile_of(self.states[self.plan.start])) if not self.core.empty else []

    def start_inputs(self, picture):
        """Send for the halos of inputs, and take this group's part of the picture's Tile."""
        for source, exchange in self.exchanges.items():
            if source not in self.buffers.aliased:
                exchange.start_forward(self.model.owned_tile(source), self.tiles[source])
        if PICTURE in self.tiles:
            held = self.tiles[PICTURE]
            inside = held.region & picture.region
            if not inside.empty:
                held[inside][...] = picture[inside]
            for box in held.region.minus(inside):
                held[box][...] = self.buffers.pads.get(PICTURE, 0.0)

    def finish_inputs(self):
        for source, exchange in self.exchanges.items():
            if source not in self.buffers.aliased:
                exchange.finish(self.model.poll)

    def forward(self, picture=None):
        """picture: the Tile of the mini-batch's part that this rank reads."""
        tape, first = self.tape, self.plan.start
        self.start_inputs(picture)
        ready = len(self.bands())
        for use in tape.uses[first][:ready]:
            tape.compute(first, [use])
            for exchange in self.exchanges.values():
                exchange.poll()
        for arrival in self.arrivals:
            for use in tape.uses[first][:-1]:
                arrival.finish_next(self.model.poll)
                tape.compute(first, [use])
                ready += 1
        self.finish_inputs()
        for index in self.layers:
            if self.network.layers[index].is_head:
                self.model.at_head(index, self.share.owned[index], tape.source(index, 0), tape.tiles[index])
                continue
            tape.compute(index, tape.uses[index][ready if index == first else 0:])
            tape.finish(index)
            self.model.poll()
            self.watch(index, tape)

    def watch(self, index, tape):
        """Tell the model, where it looks for them, of numbers that are not finite."""
        if self.model.watched is None:
            return
        after = tape.pools.get(index, index)           # what the layer gives may exist only as the output of its pool
        seen = [tape.z[index][tape.share.computed[index]], tape.tiles[after][tape.share.computed[after]]]
        if not all(np.isfinite(view).all() for view in seen):
            self.model.watched.append(index)

    # backward

    def way_back(self, source, exchange, layouts, shares):
        """The exchange that returns gradients: the same one, unless backward cuts left less to return."""
        whole = self.model.whole(source)
        if all(s.gradient.get(source, NOTHING) & whole == s.held.get(source, NOTHING) & whole for s in shares):
            return exchange
        dst = Layout(layouts[source].shape, tuple(s.gradient.get(source, NOTHING) for s in shares))
        return Exchange(self.model.comm, layouts[source], dst, 0.0, self.network.block(source), self.model.dtype, self.model.next_tag(),
                        self.model.half_halos)

    def backward(self):
        """Gradients of weights are taken while sums of batch norm and messages travel, those of the first layer in two pieces where both follow."""
        back, model, start = self.back, self.model, self.plan.start
        if self.plan.recompute:
            model.catch_up()
            back.tape.forward()
        back.begin()
        for index in back.steps:
            back.unfinish(index, meanwhile=model.catch_up)
            sent = self.send_in_parts() if index == start else set()
            if not sent:
                back.data(index)
            model.poll()
            if index > start:
                model.later(index, partial(back.weights, index))
        self.send_gradients(back.touched, sent)
        back.weights(start, 0)
        self.receive_gradients()
        model.arrived.update(back.touched.intersection(self.buffers.direct))
        model.later(start, partial(back.weights, start, 1))

    def returned_parts(self, index):
        """[channels of a layer's input whose gradients leave together]: all, unless they came in instalments."""
        back = [each for each in self.returns.values() if isinstance(each, Instalments)] if index == self.plan.start else []
        return [{'made': taken, 'again': k > 0} for k, taken in enumerate(back[0].taken)] if back else [{}]

    def send_in_parts(self):
        """Take the gradients of the first layer's input, and send those of some channels while others are computed; the set of what was so sent."""
        start, (source, *_) = self.plan.start, self.network.layers[self.plan.start].inputs
        count = len(self.back.steps[start].data)
        for k in range(count if count > 1 else 0):
            self.back.data(start, k)
            self.returns[source].return_part(k, self.model.gradient_tile(source), self.d[source], add=True)
        return {source} if count > 1 else set()

    def send_gradients(self, touched, sent=()):
        for source, exchange in self.returns.items():
            if source in self.buffers.direct or source in sent:
                continue
            if source not in touched:
                self.d[source].array[...] = 0
            exchange.start_backward(self.model.gradient_tile(source), self.d[source], add=True)

    def receive_gradients(self):
        for source, exchange in self.returns.items():
            if source not in self.buffers.direct:
                self.model.receive_gradient(source, exchange)


def tile_of(state):
    """Output rows, and columns, that a layer's forward kernel takes at a time."""
    algorithm = state.algorithm.get('forward', {}).get('algorithm', '')
    return int(algorithm[-1]) if algorithm.startswith('winograd') else 1


def bands(box, tile=1, count=3):
    """The box in a few bands of rows, whole tiles each but the last."""
    rows = -(-(box.hi[2] - box.lo[2]) // tile)
    edges = [min(box.hi[2], box.lo[2] + rows * i // count * tile) for i in range(count)] + [box.hi[2]]
    return [box.replace(2, a, b) for a, b in zip(edges, edges[1:]) if a < b]
