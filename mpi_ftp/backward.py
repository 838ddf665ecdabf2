"""The backward pass of one share of a group: gradients from its outputs to its inputs and weights, through views built before step 0."""
from dataclasses import dataclass

from . import kernels
from .buffers import Needs, with_margin
from .geometry import gradient_box
from .layers import norm
from .network import PICTURE
from .tile import Tile
from .waiting import do_nothing


@dataclass
class Target:
    """Where a layer's gradient of one input goes.

    zero: makes those views of the gradient tile zero that must be before, as this layer does not write them, or adds to them; add: adds `into` to what is in
    the tile, None where the layer writes there itself.
    """
    source: int
    box: object
    into: object
    zero: object
    add: object
    origin: tuple


@dataclass
class Step:
    """The backward pass of one layer: regions, views, and the calls on them. clear: makes the margins of dz zero; data: take the gradients of inputs, each
    that of some channels; pieces: take the gradient of weights, each that of a part of the region."""
    region: object
    boxes: tuple
    clear: object
    unfinish: object
    targets: list
    data: list
    pieces: list


class BackwardPass:
    """Walks a tape's layers in reverse, as `steps` lists them: a pool in one pass with the layer before has none of its own.

    `d`: {tensor: Tile of its gradient}; `touched`: tensors whose tile holds something of this step;
    arrived: tensors that got gradients from other groups (a set that the model keeps); given: gradient tiles that are there already;
    cut: {layer: (Exchange, Tile)} where copies of an inner gradient are summed; twice: take the gradient of the first layer's weights in two pieces.
    """

    def __init__(self, run, share, buffers, arena, tape, arrived, given=None, cut=None, twice=False):
        self.run, self.share, self.tape, self.arrived, self.cut = run, share, tape, arrived, cut or {}
        self.d = dict(given or {})
        for key in buffers.regions:
            if key[0] == 'd':
                self.d[key[-1]] = buffers.tile(arena, key)
        self.touched = set()
        self.pooled, self.twice = buffers.pooled, twice
        self.steps = {index: self._step(index, buffers, arena) for index in reversed(run.layers) if index not in tape.pooled}

    def _step(self, index, buffers, arena):
        """Everything that the backward pass of one layer touches."""
        layer, region, state = self.run.network.layers[index], self.share.differentiated[index], self.run.states[index]
        needs = tuple(layer.needs(region))
        tiles = [self.tape.source(index, k) for k in range(len(needs))]        # None where a recomputation leaves it out
        xs = [t and t[need] for t, need in zip(tiles, needs)]
        after = self.pooled.get(index, index)          # whose gradient comes in: its own, or that of the pool in the same pass
        dy = None if layer.is_head else self.cut[after][1] if after in self.cut else self.d[after]
        dz, unfinish, clear = dy, None, do_nothing
        if layer.two_phase:
            dz = buffers.tile(arena, ('dz', index)) if ('dz', index) in buffers.regions else self.tape.z[index]       # dz in place of z
            clear = kernels.move.ready(*((dz[box], 0) for box in with_margin(layer, region).minus(region)))
            z = self.tape.z.get(index) if Needs.z_again(layer) else None       # else it is the output's tile, which others may use by now
            unfinish = norm.Unfinish(layer, state, dz, dy, z, region, self.share.owned[index] & region,
                                     self.run.network.layers[after].window.size if after != index else 1)
        targets = []
        for k, source in enumerate(layer.inputs):
            box = gradient_box(self.run.network, layer, source, needs[k])
            if source == PICTURE or box.empty:
                targets.append(None)
                continue
            adds = ('add', index, k) in buffers.regions
            view = self.d[source][box]
            into = buffers.tile(arena, ('add', index, k)).array if adds else view
            origin = (box.lo[2] - needs[k].lo[2], box.lo[3] - needs[k].lo[3])
            left = [self.d[source].region] if adds else self.d[source].region.minus(box)
            zero = kernels.move.ready(*((self.d[source][each], 0) for each in left))
            add = kernels.add.ready(view, into) if adds else None
            targets.append(Target(source, box, into, zero, add, origin))
        pieces, data = [], []
        if layer.tensors and not region.empty:
            for piece in halves(region) if self.twice and index == self.run.plan.start else [region]:
                pieces.append(layer.ready_backward_weights(dz[piece], [tile and tile[need] for tile, need in zip(tiles, layer.needs(piece))], state))
        if any(targets) and not layer.is_head and not region.empty:
            dxs, origins = [t and t.into for t in targets], [t and t.origin for t in targets]
            channels = self.run.returned_parts(index) if not any(t.add for t in targets if t) else [{}]
            data = [layer.ready_backward_data(dxs, dz[with_margin(layer, region)], xs, origins, state, **part) for part in channels]
        return Step(region, (region, needs), clear, unfinish, [t for t in targets if t], data, pieces)

    def begin(self, touched=()):
        """A new pass, in which `touched` tensors already hold gradients."""
        self.touched = set(touched)

    def unfinish(self, index, settled=False, meanwhile=do_nothing):
        """The gradient of a layer's z from that of its output; settled: sums over its pixels are taken, or not asked for. meanwhile: called while
        messages travel, and before anything is written where layers behind may still read."""
        step = self.steps[index]
        if not self.run.network.layers[index].is_head:
            self.complete(self.pooled.get(index, index), meanwhile)
        if step.unfinish:
            step.unfinish.apply() if settled else step.unfinish(meanwhile)
        meanwhile()
        step.clear()

    def sums(self, index):
        """This share's sums for the gradient of a layer's z."""
        self.complete(self.pooled.get(index, index))
        return self.steps[index].unfinish.sums()

    def complete(self, index, meanwhile=do_nothing):
        """Bring the gradient of a layer's output together: zero where nobody read it, summed over copies where the pass is cut."""
        if index not in self.touched and index not in self.arrived:
            meanwhile()
            self.d[index].array[...] = 0
        self.arrived.discard(index)
        if index in self.cut:
            exchange, owned = self.cut[index]
            exchange.start_backward(owned, self.d[index])
            meanwhile()
            exchange.finish(self.run.model.poll)

    def data(self, index, part=None):
        """The gradients of a layer's inputs; only those of some channels, where the step has parts and they are asked for one after the other."""
        layer, state, step = self.run.network.layers[index], self.run.states[index], self.steps[index]
        if step.region.empty:
            return
        state.boxes = step.boxes
        for target in [] if part else step.targets:
            there = target.source in self.touched or target.source in self.run.layers and target.source in self.arrived
            if not there:
                target.zero()
        if layer.is_head:
            for target in step.targets:
                Tile(target.box, target.into).set_plain(target.box, self.run.model.seeds[index])
        for work in step.data[part:][:1] if part is not None else step.data:
            work()
        for target in step.targets:
            if target.add:
                target.add()
            self.touched.add(target.source)

    def weights(self, index, piece=None):
        """The gradients of a layer's weights: in all, or of its first piece or its second."""
        pieces = self.steps[index].pieces
        for work in pieces if piece is None else pieces[piece:piece + 1]:
            work()


def halves(region, rows=4):
    """A region in two: samples, else whole multiples of rows as Winograd takes them; one where it is too small for two."""
    axis, unit = (0, 1) if region.shape[0] > 1 else (2, rows)
    middle = region.lo[axis] + -(-region.shape[axis] // 2 // unit) * unit if not region.empty else 0
    if region.empty or not region.lo[axis] < middle < region.hi[axis]:
        return [region]
    return [region.replace(axis, region.lo[axis], middle), region.replace(axis, middle, region.hi[axis])]
