"""What a plan costs: seconds of a training step from Regions and a Machine alone, part by part.

The step is a chain of stages, each as long as its slowest rank needs: layers of a group (batch norm and halos let no rank run ahead),
exchanges where they are not hidden, sums of gradients as far as they outlast the backward pass.
"""
from dataclasses import dataclass
from math import prod

import numpy as np

from .buffers import Needs, sources_of
from .extents import Extents, common, inside, sides, volume
from .network import PICTURE

ITEM = 4                    # bytes of a number
AGAIN = 2 / 3               # of a layer's finish: the moments are known
BUCKET = 1 << 20            # bytes of gradient summed at a time
PARTS = 'forward', 'backward', 'recompute', 'exchange', 'norm_sums', 'gradient_sums', 'optimizer'


@dataclass(frozen=True)
class Price:
    """Seconds of a step: in all, by part, and by group (a dict of parts for each, with the bytes that the busiest rank receives)."""
    seconds: float
    parts: dict
    groups: list

    def to_json(self):
        return {'seconds': self.seconds, 'parts': self.parts, 'groups': self.groups}


class CostModel:
    """Prices plans for one network, batch and number of ranks on a Machine. frozen: batch norm needs no sums."""

    def __init__(self, network, machine, batch, ranks, frozen=False):
        self.network, self.machine = network, machine.placed(ranks)
        self.batch, self.ranks, self.frozen = batch, ranks, frozen
        self.pace = np.resize(np.array(self.machine.speeds, float), ranks) * self.machine.slowdown
        self.curves, self.extents, self.layers, self.sums, self.entries, self.counts, self.steps, self.hides = ({} for _ in range(8))
        self.one_host = len(set(self.machine.hosts)) == 1

    def price(self, plan):
        """The Price of a training step of a Plan."""
        rows = []
        for number, group in enumerate(plan.groups):
            row = self.group(group, lambda source: self.owned_outside(plan, source))
            rows.append(row)
        tail = self.after(plan, rows)
        parts = {part: sum(row.get(part, 0.0) for row in rows) + tail.get(part, 0.0) for part in PARTS}
        return Price(sum(parts.values()), parts, rows)

    def owned_outside(self, plan, source):
        """(boxes, whether they are cut on edges of the group that made the tensor) of an earlier group's output."""
        group = next(g for g in plan.groups if g.start <= source < g.stop)
        return self.extent(group.stop, group.edges, group.cuts, group.start).owned[source]

    def extent(self, stop, edges, cuts=(), start=0):
        """Extents; those without backward cuts serve every start."""
        key = (stop, edges) if not cuts else (stop, edges, cuts, start)
        if key not in self.extents:
            self.extents[key] = Extents(self.network, stop, edges, self.batch, self.ranks, cuts, start if cuts else 0)
        return self.extents[key]

    def group(self, group, owned):
        """Seconds of one group by part. owned(source): boxes of a tensor made by an earlier group."""
        extent = self.extent(group.stop, group.edges, group.cuts, group.start)
        inner = self.inner(group)
        row = {part: float(inner[part][group.start]) for part in ('forward', 'backward', 'norm_sums')}
        row['recompute'], row['exchange'] = float(inner['again'][group.start]) if group.recompute else 0.0, 0.0
        self.exchanges(row, group, extent, owned)
        return row

    def inner(self, group):
        """{part: seconds of layers [i, stop) at i}, `weights` seconds and `held` bytes of their weights, `tape` bytes kept for the backward pass."""
        key = (group.stop, group.edges) if not group.cuts else (group.stop, group.edges, group.cuts, group.start)
        if key not in self.sums:
            extent, size = self.extent(group.stop, group.edges, group.cuts, group.start), group.stop + 1
            found = {part: np.zeros(size) for part in ('forward', 'backward', 'norm_sums', 'again', 'weights', 'held', 'tape')}
            wanted = {}
            for index in reversed(range(extent.start, group.stop)):
                forward, backward, norms = self.layer(extent, (group.stop, group.edges, group.cuts), index)
                layer, seconds, held = self.network.layers[index], 0.0, 0
                if layer.tensors:
                    count, ranks = self.held_weights(group, extent, index)
                    held = 3 * ITEM * count
                    seconds = self.update(count) + (1.0 if self.one_host else 0.5) * self.machine.sum_seconds(count * ITEM, ranks)
                kept = any(Needs.input_again(self.network.layers[r]) for r in self.network.readers[index]) + Needs.z_again(layer)
                kept *= ITEM * int(volume(extent.computed[index]).max())
                for part, value in zip(found, (forward.max(), backward.max(), norms, self.again(layer, extent, wanted), seconds, held, kept)):
                    found[part][index] = found[part][index + 1] + value
            self.sums[key] = {part: values.tolist() for part, values in found.items()}
        return self.sums[key]

    def again(self, layer, extent, wanted):
        """Seconds to compute a layer again; wanted: {later layer: whether its z is}, see buffers.py: what the backward pass does not read is left out."""
        readers = [self.network.layers[r] for r in self.network.readers[layer.index] if r < extent.stop]
        y = any(Needs.input_again(reader) or wanted[reader.index] for reader in readers)
        wanted[layer.index] = z = y or Needs.z_again(layer)
        shape = sides(extent.computed[layer.index])
        seconds = self.passes(layer, shape, ('forward',) * z) + AGAIN * self.passes(layer, shape, ('finish',) * y)
        return float((seconds * self.pace).max())

    def layer(self, extent, key, index):
        """(forward seconds of each rank, backward seconds, seconds of batch norm's sums) of a layer."""
        key = key + (index,)
        if key not in self.layers:
            layer = self.network.layers[index]
            computed, back = sides(extent.computed[index]), sides(extent.differentiated[index])
            forward = self.passes(layer, computed, ('forward', 'finish'))
            first = all(source == PICTURE for source in layer.inputs)
            backward = self.passes(layer, back, ('unfinish', 'backward_data', 'backward_weights') if not first else ('unfinish', 'backward_weights'))
            forward, backward = forward + self.machine.call, backward + 2 * self.machine.call + self.additions(layer, extent)
            norms = 0.0
            if layer.normalize and not self.frozen and self.ranks > 1:
                norms = 2 * self.machine.sum_seconds(layer.out_shape[0] * 16)
            self.layers[key] = forward * self.pace, backward * self.pace, norms
        return self.layers[key]

    def additions(self, layer, extent):
        """Seconds to clear and to add gradients of inputs that several layers read."""
        shared = [k for k, source in enumerate(layer.inputs) if source != PICTURE and len(self.network.readers[source]) > 1]
        return sum(volume(extent.reads_back[layer.index, k]) for k in shared) * ITEM * (self.machine.copy / 2 + self.machine.add) if shared else 0.0

    def passes(self, layer, shape, names):
        """Seconds of some passes over boxes of sides (ranks, 4) of a layer's output."""
        n, c, h, w = shape.T
        total = np.zeros(self.ranks)
        if layer.is_head:
            return total + self.machine.head * n * h * w * len(names) / 2
        for name in names:
            key = layer.index, name
            if key not in self.curves:
                self.curves[key] = self.machine.curve(layer, name)
            if self.curves[key] is not None:
                curve = self.curves[key]
                total += curve(n * curve.layer.pixels(h, w)) * c / layer.out_shape[0]
        return total

    # messages

    def exchanges(self, row, group, extent, owned):
        """Add what entering and leaving a group costs."""
        start, machine = group.start, self.machine
        row['halo_bytes'], row['messages'], copied, ways = 0, 0, 0.0, []
        for source, held, back, sizes, sizes_back, stored in self.entry(group, extent):
            if source == PICTURE:
                copied = copied + sizes * ITEM * machine.copy
                continue
            mine = owned(source)
            if stored is mine or (stored == mine).all():
                continue
            keeps = volume(common(held, mine))
            came = sizes - keeps
            copied = copied + (sizes + keeps + came) * (ITEM * machine.copy)
            if came.any():
                returned = sizes_back - volume(common(back, mine))
                ways.append((came, returned, max(1, int((volume(mine) > 0).sum())), self.peers(held, sizes - keeps, mine)))
        if np.any(copied):
            busiest = float((copied * self.pace).max())
            row['forward'] += busiest
            row['backward'] += busiest if ways else 0.0
        if ways:
            forward, weights = self.first(group, extent)
            self.add_ways(row, ways, forward, weights)
        for cut in group.cuts:
            if start <= cut < group.stop - 1:
                grown = volume(inside(extent.held(cut + 1, cut, back=True), self.network.tensor_shape(cut, self.batch)))
                came = np.maximum(0, grown - volume(extent.owned[cut]))
                row['exchange'] += self.wire(came, self.ranks, 2)

    def entry(self, group, extent):
        """[(source, held boxes inside the tensor, those of its gradient, their sizes, held boxes with padding)] of a group."""
        key = group.start, group.stop, group.edges, group.cuts
        if key not in self.entries:
            found = []
            for source in sources_of(self.network, group.start, group.stop):
                shape, stored = self.network.tensor_shape(source, self.batch), extent.held(group.start, source)
                held, back = inside(stored, shape), inside(extent.held(group.start, source, back=True), shape)
                found.append((source, held, back, volume(held), volume(back), stored))
            self.entries[key] = found
        return self.entries[key]

    def first(self, group, extent):
        """Typical seconds of a group's first layer forward and of its weight gradient: what messages can hide behind."""
        if self.one_host:
            return 0.0, 0.0
        layer = self.network.layers[group.start]
        key = group.stop, group.edges, group.cuts, group.start
        if key not in self.hides:
            forward, _, _ = self.layer(extent, key[:3], group.start)
            weights = self.passes(layer, sides(extent.differentiated[group.start]), ('backward_weights',)) * self.pace if layer.tensors else np.zeros(1)
            self.hides[key] = float(forward.mean()), float(weights.mean())
        return self.hides[key]

    def add_ways(self, row, ways, forward, weights):
        """Messages into a group and back, hidden behind its first layer where they leave a host."""
        hides = not self.one_host
        there = sum(self.wire(came, owners, peers) for came, _, owners, peers in ways)
        back = sum(self.wire(returned, owners, peers) for _, returned, owners, peers in ways)
        row['exchange'] += max(there - 0.8 * forward * hides, there * 0.1) + max(back - 0.8 * weights * hides, back * 0.1)
        row['halo_bytes'] = int(sum(came.max() for came, *_ in ways)) * ITEM
        row['messages'] = int(max(peers for *_, peers in ways))

    def wire(self, came, owners, peers):
        """Seconds until the busiest rank has sent and received; came: numbers that each rank receives."""
        busiest = max(int(came.max()), int(came.sum()) // max(1, owners))
        if not busiest:
            return 0.0
        latency, bandwidth = self.machine.link
        packing = 2 * busiest * ITEM * self.machine.copy * self.machine.slowdown
        return latency + peers * self.machine.host_link[0] + busiest * ITEM / bandwidth + packing + 2 * self.machine.call

    def peers(self, held, came, mine):
        """Messages that the busiest rank receives."""
        busy = int(np.argmax(came))
        return int((volume(common(held[busy][None], mine)) > 0).sum()) - (volume(common(held[busy:busy + 1], mine[busy:busy + 1])) > 0).item()

    # weights

    def held_weights(self, group, extent, index):
        """(numbers of a layer's weights on the fullest rank, ranks that share them)."""
        if index not in self.counts:
            self.counts[index] = sum(prod(shape) for name, shape in self.network.layers[index].tensors if name not in ('mean', 'variance'))
        share, ranks = 1.0, self.ranks
        if group.cut_along_channels:
            share = sides(extent.computed[index])[:, 1].max() / self.network.layers[index].out_shape[0]
            ranks = max(1, self.ranks // (len(group.edges[1]) - 1)) if share < 1 else self.ranks
        return self.counts[index] * share, ranks

    def update(self, count):
        """Seconds of the optimizer's step and of clearing so many gradients."""
        return float(count * (self.machine.sgd + ITEM * self.machine.copy / 2) * self.pace.max())

    def after(self, plan, rows):
        """{part: seconds} of what is left when the backward pass ends: sums of gradients that outlast it (on one host they take the
        cores' time), and the optimizer."""
        clock, free, busy, waiting, total = 0.0, 0.0, 0.0, 0, 0
        weighted = [layer.index for layer in self.network.layers if layer.tensors]
        for group, row in zip(reversed(plan.groups), reversed(rows)):
            extent = self.extent(group.stop, group.edges, group.cuts, group.start)
            each = (row['backward'] + row['recompute'] + row['exchange'] / 2 + row['norm_sums'] / 2) / (group.stop - group.start)
            for index in reversed(range(group.start, group.stop)):
                clock += each
                if self.network.layers[index].tensors:
                    count, ranks = self.held_weights(group, extent, index)
                    total, waiting = total + count, waiting + count * ITEM
                    if waiting >= BUCKET or index == weighted[0]:
                        took = self.machine.sum_seconds(waiting, ranks)
                        free, busy, waiting = max(free, clock) + took, busy + took, 0
        return {'gradient_sums': busy if self.one_host else max(0.0, free - clock), 'optimizer': self.update(total)}
