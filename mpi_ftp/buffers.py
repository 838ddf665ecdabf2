"""The tiles of one group on one rank: what forward writes and backward reads, and for how long each must live.

Built before step 0: every view that a step uses exists afterwards, so that running a layer decides nothing.
"""
from dataclasses import dataclass
from functools import cached_property

from .geometry import exported, gradient_box
from .memory import Buffer
from .network import PICTURE
from .region import Region
from .tile import Tile, storage_shape


@dataclass(frozen=True)
class Clock:
    """Positions of the events of a step: forward of each layer, again where a group recomputes, backward; `arrival`: the first event at
    which a layer's group may bring gradients to the outputs it read."""
    forward: dict
    again: dict
    backward: dict
    arrival: dict

    @staticmethod
    def of(plan, training):
        forward, again, backward, arrival, now = {}, {}, {}, {}, 0
        for group in plan.groups:
            for index in range(group.start, group.stop):
                forward[index] = now = now + 1
        for group in reversed(plan.groups if training else ()):
            for index in range(group.start, group.stop) if group.again else ():
                again[index] = now = now + 1
            for index in reversed(range(group.start, group.stop)):
                backward[index] = now = now + 1
                arrival[index] = again[group.start] if group.parted else now
        return Clock(forward, again, backward, arrival)

    @property
    def end_of_forward(self):
        return max(self.forward.values())


class Needs:
    """Which layers read their inputs again in the backward pass."""

    @staticmethod
    def input_again(layer):
        return bool(layer.tensors) or layer.kind == 'maxpool'

    @staticmethod
    def z_again(layer):
        """A linear layer without norm needs no z to differentiate."""
        return layer.two_phase and (layer.normalize or layer.activation != 'linear')


def sources_of(network, start, stop):
    """Tensors from outside that layers [start, stop) read, in the order of first reading."""
    found = []
    for index in range(start, stop):
        found += [s for s in network.layers[index].inputs if s < start and s not in found]
    return found


def pad_values(network, share, start, stop):
    """{tensor: pad value of its tile}. A tensor has at most one reader that reads past it, the layer behind it: others have no windows."""
    values = {}
    for index in range(start, stop):
        layer = network.layers[index]
        for source, need in zip(layer.inputs, layer.needs(share.computed[index])):
            if need not in Region.whole((need.hi[0],) + tuple(network.channels_shape(source))):
                values[source] = layer.pad_value
    return values


def follower(network, index):
    """The max-pool whose windows tile what a layer gives, and which alone reads it; None where there is none such."""
    readers = network.readers[index]
    pool = network.layers[readers[0]] if len(readers) == 1 else None
    if pool is None or pool.kind != 'maxpool' or not Needs.z_again(network.layers[index]):
        return None
    if not pool.window.size == pool.window.stride > 1 or pool.window.pad:
        return None
    return pool


def pooled(network, group, share, training):
    """{layer: the max-pool after it} where norm, activation and pool are one pass, so that what the layer gives, and its gradient, is never stored.

    The pool must be the only reader, in the same group, of windows that tile what this rank computes and differentiates.
    """
    found = {}
    for index in range(group.start, group.stop - 1):
        pool = follower(network, index)
        if pool and pool.index < group.stop and index not in group.cuts and tiles(pool, index, share, training):
            found[index] = pool.index
    return found


def tiles(pool, index, share, training):
    """Whether the windows of a pool tile all that a rank computes of layer `index`, owns of it and differentiates."""
    if not pool.needs(share.computed[pool.index])[0] == share.computed[index] == share.held[index]:
        return False
    if not training:
        return True
    region, size = share.differentiated[index], pool.window.size
    sides = [v for box in (region, share.owned[index] & region) for corner in (box.lo, box.hi) for v in corner[2:]]
    return pool.needs(share.differentiated[pool.index])[0] == region and not any(v % size for v in sides)


class GroupBuffers:
    """Declares the buffers of one group with their lifetimes, and hands out tiles once the arena is packed."""
    outside = frozenset()       # keys of tiles that are somebody else's

    def __init__(self, network, group, share, clock, dtype, training, aliased, export_end, direct=()):
        """aliased: sources whose owned tile is read in place; export_end: {layer: last event at which other groups read its tile};
        direct: sources whose gradient is written where the layer that made them reads it.
        inside: {key: (GroupBuffers, key)} of tiles that are a part of another group's; guests: {key: (first, last)} of such parts of tiles here."""
        self.network, self.group, self.share, self.clock = network, group, share, clock
        self.dtype, self.training, self.aliased, self.export_end, self.direct = dtype, training, aliased, export_end, direct
        self.keep = training and not group.again
        self.layers = range(group.start, group.stop)
        self.sources = sources_of(network, group.start, group.stop)
        self.pads = pad_values(network, share, group.start, group.stop)
        self.pooled = pooled(network, group, share, training)
        self.regions, self.inside, self.guests = {}, {}, {}

    @cached_property
    def wanted_again(self):
        """{layer: (compute z, compute y)} in a recomputation: what nobody reads in the backward pass is left out."""
        wanted = {}
        for index in reversed(self.layers):
            layers = [self.network.layers[r] for r in self.readers(index)]
            if index in self.pooled:
                wanted[index] = True, wanted[self.pooled[index]][1]
                continue
            y = any(Needs.input_again(reader) or wanted[reader.index][0] for reader in layers)
            wanted[index] = (y or Needs.z_again(self.network.layers[index]), y)
        return wanted

    def z_region(self, layer):
        """Room for z, and in its place for dz with the margin that the gradient kernel wants."""
        return self.share.computed[layer.index] | with_margin(layer, self.share.differentiated[layer.index])

    def readers(self, index):
        return [r for r in self.network.readers[index] if self.group.start <= r < self.group.stop]

    def nbytes(self, index, region):
        n, b, h, w, lanes = storage_shape(region, self.network.block(index))
        return n * b * h * w * lanes * self.dtype.itemsize

    def declare(self):
        """The list of Buffers. Asked of the groups in their order: one whose tiles lie inside a later one's tells that how long they live."""
        buffers = []

        def add(key, index, region, first, last):
            if key in self.outside:
                return
            self.regions[key] = (index, region)
            if key in self.inside:
                host, place = self.inside[key]
                host.guests[place] = first, last
                return
            begun, done = self.guests.get(key, (first, last))
            buffers.append(Buffer(key, self.nbytes(index, region), min(first, begun), max(last, done)))

        self._declare_forward(add)
        if self.training:
            self._declare_backward(add)
        return buffers

    def _declare_forward(self, add):
        f, r, b = self.clock.forward, self.clock.again, self.clock.backward
        start, share = self.group.start, self.share
        before = {pool: index for index, pool in self.pooled.items()}          # whose finish writes the pool's output
        for source in self.sources:
            if source not in self.aliased:
                last = b[start] if self.training else max(f[i] for i in self.readers(source))
                add(('in', start, source), source, share.held[source], f[start], last)
        for index in self.layers:
            layer, readers = self.network.layers[index], self.readers(index)
            again = [i for i in readers if Needs.input_again(self.network.layers[i])]
            ends = [f[index], self.export_end.get(index, 0)] + [f[i] for i in readers]
            if index not in self.pooled:
                add(('y', index, 0), index, share.held[index], f[before.get(index, index)], max(ends + [b[i] for i in again if self.keep]))
            elif not self.keep:                                 # nothing but z, for a moment
                add(('y', index, 0), index, share.held[index], f[index], f[index])
            if self.keep and Needs.z_again(layer):
                add(('z', index, 0), index, self.z_region(layer), f[index], b[index])
            if self.training and self.group.again:
                z, y = self.wanted_again[index]
                if y and index not in self.pooled:
                    add(('y', index, 1), index, share.held[index], r[before.get(index, index)], max([r[index]] + [r[i] for i in readers] + [b[i] for i in again]))
                if z and Needs.z_again(layer):
                    add(('z', index, 1), index, self.z_region(layer), r[index], b[index])

    def _declare_backward(self, add):
        b, share, network = self.clock.backward, self.share, self.network
        before = {pool: index for index, pool in self.pooled.items()}
        for index in self.layers:
            layer = network.layers[index]
            if layer.is_head:
                self._declare_inputs(add, index)
                continue
            arrivals = [b[i] for i in self.readers(index)] + [self.export_arrival(index)] * exported(network, self.group.stop, index)
            if index not in self.pooled:
                add(('d', index), index, share.gradient[index], min(arrivals + [b[index]]), b[before.get(index, index)])
            if index in self.group.cuts:
                add(('cut', index), index, share.owned[index], b[index], b[before.get(index, index)])
            if layer.two_phase and not Needs.z_again(layer):
                add(('dz', index), index, with_margin(layer, share.differentiated[index]), b[index], b[index])
            if index not in before:
                self._declare_inputs(add, index)
        for source in self.sources:
            if source != PICTURE and source not in self.direct:
                add(('d', self.group.start, source), source, share.gradient[source], min(b[i] for i in self.readers(source)), b[self.group.start])

    def _declare_inputs(self, add, index):
        """Room for a gradient that is added to one already there."""
        layer, seen = self.network.layers[index], []
        for k, source in enumerate(layer.inputs):
            if source != PICTURE and (source in seen or self.readers(source)[-1] != index or self.read_outside(source)):
                box = gradient_box(self.network, layer, source, layer.needs(self.share.differentiated[index])[k])
                add(('add', index, k), source, box, self.clock.backward[index], self.clock.backward[index])
            seen.append(source)

    def read_outside(self, source):
        return source >= self.group.start and exported(self.network, self.group.stop, source)

    def export_arrival(self, index):
        """The first event at which another group brings a gradient."""
        groups = [r for r in self.network.readers[index] if r >= self.group.stop]
        return min((self.clock.arrival[r] for r in groups), default=self.clock.backward[index])

    def tile(self, arena, key):
        """The Tile of a declared buffer."""
        index, region = self.regions[key]
        if key in self.inside:
            host, place = self.inside[key]
            return Tile(region, host.tile(arena, place)[region])
        return Tile(region, arena.array(key, storage_shape(region, self.network.block(index)), self.dtype))


def with_margin(layer, region):
    """dz with the zeros around it that the gradient kernel wants."""
    down, right = getattr(layer, 'margin', (0, 0))
    if region.empty:
        return region
    region = region.replace(2, region.lo[2] - down, region.hi[2] + down)
    return region.replace(3, region.lo[3] - right, region.hi[3] + right)
