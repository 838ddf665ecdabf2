"""Runs consecutive layers on one rank's tiles, with no halo exchange inside: forward, and backward with or without recomputing.

The constructor builds every view; forward and backward only walk them.
"""
import numpy as np

from . import kernels
from .buffers import with_margin
from .exchange import Exchange
from .geometry import gradient_box
from .layers import norm
from .network import PICTURE
from .region import NOTHING, Layout
from .tape import Tape, Use
from .tile import Tile


class GroupRun:
    """One group on one rank. `states`: {layer: State}; `model` offers comm, dtype, parameters and the tiles of other groups."""

    def __init__(self, model, plan, layouts, shares, buffers, arena):
        self.model, self.plan, self.network, self.states = model, plan, model.network, model.states
        self.share, self.layers, self.buffers = shares[model.comm.rank], range(plan.start, plan.stop), buffers
        self.training = model.training
        self.exchanges = {}
        for source in buffers.sources:
            if source != PICTURE:
                dst = Layout(layouts[source].shape, tuple(s.held.get(source, NOTHING) for s in shares))
                self.exchanges[source] = Exchange(model.comm, layouts[source], dst, buffers.pads.get(source, 0.0),
                                                  model.network.block(source), model.dtype, model.next_tag())
        aliases = {source: model.owned_tile(source) for source in buffers.aliased}
        self.core = self.interior(layouts)
        self.tape = Tape(self, buffers, arena, 0, aliases, lazy=False)
        if self.training:
            again = {s: self.tape.tiles[s] for s in buffers.sources}
            self.back = Tape(self, buffers, arena, 1, again, lazy=True) if plan.recompute else self.tape
            self._build_backward(layouts, shares, arena)

    # forward

    def interior(self, layouts):
        """The part of the first layer that can be computed before halos arrive; NOTHING where nothing travels."""
        first = self.plan.start
        sources = [s for s in self.network.layers[first].inputs if s in self.exchanges]
        if self.network.layers[first].is_head or not self.model.overlap or not any(self.exchanges[s].receives for s in sources):
            return NOTHING
        box = self.share.computed[first]
        for axis in (2, 3):
            for lo_side in (True, False):
                while not box.empty and not self.available(first, box, axis, lo_side):
                    box = box.replace(axis, box.lo[axis] + lo_side, box.hi[axis] - (not lo_side))
        return NOTHING if box.empty or not self.available(first, box) else box

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

    def boxes(self, index, turn):
        """How a layer's computed region is taken: whole, or core and rims where halos are under way."""
        whole = self.share.computed[index]
        if index == self.plan.start and turn == 0 and not self.core.empty:
            return bands(self.core) + whole.minus(self.core)
        return [whole]

    def forward(self, picture=None):
        """picture: the Tile of the mini-batch's part that this rank reads."""
        tape = self.tape
        for source, exchange in self.exchanges.items():
            if source not in self.buffers.aliased:
                exchange.start_forward(self.model.owned_tile(source), tape.tiles[source])
        if PICTURE in tape.tiles:
            held = tape.tiles[PICTURE]
            inside = held.region & picture.region
            held[inside][...] = picture[inside]
            for box in held.region.minus(inside):
                held[box][...] = self.buffers.pads.get(PICTURE, 0.0)
        first = self.plan.start
        ready = len(bands(self.core)) if not self.core.empty else 0
        for use in tape.uses[first][:ready]:
            tape.compute(first, [use])
            for exchange in self.exchanges.values():
                exchange.poll()
        for source, exchange in self.exchanges.items():
            if source not in self.buffers.aliased:
                exchange.finish_forward(tape.tiles[source])
        for index in self.layers:
            if self.network.layers[index].is_head:
                self.model.at_head(index, self.share.owned[index], tape.source(index, 0), tape.tiles[index])
                continue
            tape.compute(index, tape.uses[index][ready if index == first else 0:])
            tape.finish(index)
            if self.model.watched is not None and not np.isfinite(tape.tiles[index][self.share.computed[index]]).all():
                self.model.watched.append(index)

    # backward

    def _build_backward(self, layouts, shares, arena):
        tile, regions = self.buffers.tile, self.buffers.regions
        self.d = {key[-1]: tile(arena, key) for key in regions if key[0] == 'd'}
        self.dz, self.cut, self.steps = {}, {}, {}
        self.returns = {source: self.way_back(source, exchange, layouts, shares) for source, exchange in self.exchanges.items()}
        for index in reversed(self.layers):
            layer, region = self.network.layers[index], self.share.differentiated[index]
            if index in self.plan.cuts:
                dst = Layout(layouts[index].shape, tuple(s.gradient[index] for s in shares))
                self.cut[index] = (Exchange(self.model.comm, layouts[index], dst, 0.0, self.network.block(index), self.model.dtype,
                                            self.model.next_tag()), tile(arena, ('cut', index)))
            if layer.two_phase:
                self.dz[index] = tile(arena, ('dz', index))
            needs = layer.needs(region)
            tiles = [self.back.source(index, k) for k in range(len(needs))]        # None where a recomputation leaves it out
            use = Use(None, [t and t[need] for t, need in zip(tiles, needs)], (region, tuple(needs)))
            targets = []
            for k, source in enumerate(layer.inputs):
                box = gradient_box(self.network, layer, source, needs[k])
                if source == PICTURE or box.empty:
                    targets.append(None)
                    continue
                target = self.d[source]
                adds = ('add', index, k) in regions
                into = tile(arena, ('add', index, k)).array if adds else target[box]
                clear = not adds and box != target.region
                origin = (box.lo[2] - needs[k].lo[2], box.lo[3] - needs[k].lo[3])
                targets.append((source, box, into, adds, clear, origin))
            self.steps[index] = (use, targets)

    def way_back(self, source, exchange, layouts, shares):
        """The exchange that returns gradients: the same one, unless backward cuts left less to return."""
        whole = self.model.whole(source)
        if all(s.gradient.get(source, NOTHING) & whole == s.held.get(source, NOTHING) & whole for s in shares):
            return exchange
        dst = Layout(layouts[source].shape, tuple(s.gradient.get(source, NOTHING) for s in shares))
        return Exchange(self.model.comm, layouts[source], dst, 0.0, self.network.block(source), self.model.dtype, self.model.next_tag())

    def backward(self):
        if self.plan.recompute:
            self.back.forward(again=True)
        model, touched = self.model, set()
        for index in reversed(self.layers):
            layer, state = self.network.layers[index], self.states[index]
            use, targets = self.steps[index]
            region = use.boxes[0]
            state.boxes = use.boxes
            dy = self.gradient_of(index, touched) if not layer.is_head else None
            if layer.two_phase:
                dz = self.unfinish(index, region, dy)
            else:
                dz = dy
            if not region.empty:
                self.backward_data(index, layer, state, use, targets, dz, region, touched)
            if index == self.plan.start:
                self.send_gradients(touched)
            if layer.tensors and not region.empty:
                layer.backward_weights(dz[region], use.xs, state)
            if index == self.plan.start:
                self.receive_gradients()
            model.differentiated(index)

    def gradient_of(self, index, touched):
        """The complete gradient tile of a layer's output."""
        d = self.d[index]
        if index not in touched and index not in self.model.arrived:
            d.array[...] = 0
        self.model.arrived.discard(index)
        if index not in self.cut:
            return d
        exchange, owned = self.cut[index]
        exchange.backward(owned, d)
        return owned

    def unfinish(self, index, region, dy):
        """dz with its margin of zeros."""
        layer, state, dz, z = self.network.layers[index], self.states[index], self.dz[index], self.back.z[index]
        for box in dz.region.minus(region):
            dz[box][...] = 0
        norm.unfinish(layer, dz, dy, z, region, self.share.owned[index] & region, state)
        return dz

    def backward_data(self, index, layer, state, use, targets, dz, region, touched):
        for target in targets:
            if target:
                source, box, into, adds, clear, origin = target
                if (clear or adds) and source not in touched and source not in self.model.arrived:
                    self.d[source].array[...] = 0
        dxs = [t and t[2] for t in targets]
        if layer.is_head:
            seed = self.model.seeds[index]
            for target in targets:
                if target:
                    Tile(target[1], target[2]).set_plain(target[1], seed)
        elif any(dx is not None for dx in dxs):
            whole = dz[with_margin(layer, region)] if layer.two_phase else dz[region]
            layer.backward_data(dxs, whole, use.xs, [t and t[5] for t in targets], state)
        for target in targets:
            if target:
                source, box, into, adds, clear, origin = target
                if adds:
                    kernels.add(self.d[source][box], into)
                touched.add(source)

    def send_gradients(self, touched):
        for source, exchange in self.returns.items():
            if source not in touched:
                self.d[source].array[...] = 0
            exchange.start_backward(self.d[source])

    def receive_gradients(self):
        for source, exchange in self.returns.items():
            self.model.receive_gradient(source, exchange, self.d[source])


def bands(box, count=3):
    """The box in a few bands of rows, so that messages can progress between them."""
    rows = box.hi[2] - box.lo[2]
    edges = [box.lo[2] + rows * i // count for i in range(count + 1)]
    return [box.replace(2, a, b) for a, b in zip(edges, edges[1:]) if a < b]

