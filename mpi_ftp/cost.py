"""What a plan costs: seconds of a training step from Regions and a Machine alone, part by part.

The step is a chain of stages, each as long as its slowest rank needs: layers of a group (batch norm and halos let no rank run ahead),
exchanges where they are not hidden, sums of gradients as far as they outlast the backward pass.
"""
from dataclasses import dataclass

import numpy as np

from .buffers import sources_of
from .extents import Extents, common, inside, sides, volume
from .network import PICTURE
from .region import Layout

ITEM = 4                    # bytes of a number
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
        self.curves, self.extents, self.layers = {}, {}, {}

    def price(self, plan):
        """The Price of a training step of a Plan."""
        rows = []
        for number, group in enumerate(plan.groups):
            row = self.group(group, lambda source: self.owned_outside(plan, source))
            rows.append(row)
        tail = {'gradient_sums': self.gradient_sums(plan, rows), 'optimizer': self.optimizer(plan)}
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
        row = dict.fromkeys(PARTS[:5], 0.0)
        for index in range(group.start, group.stop):
            forward, backward, norms = self.layer(extent, (group.stop, group.edges, group.cuts), index)
            row['forward'] += forward.max()
            row['backward'] += backward.max()
            row['norm_sums'] += norms
            if group.recompute:
                row['recompute'] += forward.max()
        self.exchanges(row, group, extent, owned)
        return row

    def layer(self, extent, key, index):
        """(forward seconds of each rank, backward seconds, seconds of batch norm's sums) of a layer."""
        key = key + (index,)
        if key not in self.layers:
            layer = self.network.layers[index]
            computed, back = sides(extent.computed[index]), sides(extent.differentiated[index])
            forward = self.passes(layer, computed, ('forward', 'finish'))
            first = all(source == PICTURE for source in layer.inputs)
            backward = self.passes(layer, back, ('unfinish', 'backward_data', 'backward_weights') if not first else ('unfinish', 'backward_weights'))
            norms = 0.0
            if layer.normalize and not self.frozen and self.ranks > 1:
                norms = 2 * self.machine.sum_seconds(layer.out_shape[0] * 16)
            self.layers[key] = forward * self.pace, backward * self.pace, norms
        return self.layers[key]

    def passes(self, layer, shape, names):
        """Seconds of some passes over boxes of sides (ranks, 4) of a layer's output."""
        n, c, h, w = shape.T
        total = np.zeros(self.ranks)
        if layer.is_head:
            return total + self.machine.head * n * h * w
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
        start, first = group.start, self.network.layers[group.start]
        machine, copied, row['halo_bytes'], row['messages'] = self.machine, np.zeros(self.ranks), 0, 0
        ways = []
        for source in sources_of(self.network, start, group.stop):
            shape = self.network.tensor_shape(source, self.batch)
            held = extent.held(start, source)
            if source == PICTURE:
                copied += volume(held) * ITEM * machine.copy
                continue
            mine = owned(source)
            if (held == mine).all():
                continue
            held = inside(held, shape)
            keeps = volume(common(held, mine))
            came = volume(held) - keeps
            copied += (volume(held) + keeps + came) * ITEM * machine.copy
            back = inside(extent.held(start, source, back=True), shape)
            returned = volume(back) - volume(common(back, mine))
            if came.any():
                ways.append((came, returned, max(1, int((volume(mine) > 0).sum())), self.peers(held, mine)))
        row['forward'] += float((copied * self.pace).max())
        row['backward'] += float((copied * self.pace).max())
        if ways:
            _, backward, _ = self.layer(extent, (group.stop, group.edges, group.cuts), start)
            forward, _, _ = self.layer(extent, (group.stop, group.edges, group.cuts), start)
            weights = self.passes(first, sides(extent.differentiated[start]), ('backward_weights',)) * self.pace if first.tensors else backward * 0
            self.add_ways(row, ways, float(np.median(forward)), float(np.median(weights)))
        for cut in group.cuts:
            if start <= cut < group.stop - 1:
                grown = volume(inside(extent.held(cut + 1, cut, back=True), self.network.tensor_shape(cut, self.batch)))
                came = np.maximum(0, grown - volume(extent.owned[cut]))
                row['exchange'] += self.wire(came, self.ranks, 2)

    def add_ways(self, row, ways, forward, weights):
        """Messages into a group and back, hidden behind its first layer where they leave a host."""
        hides = len(set(self.machine.hosts)) > 1
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
        latency, bandwidth = self.machine.link()
        packing = 2 * busiest * ITEM * self.machine.copy * self.machine.slowdown
        return latency + peers * self.machine.host_link[0] + busiest * ITEM / bandwidth + packing + 2 * self.machine.call

    def peers(self, held, mine):
        """Messages that the busiest rank receives."""
        busy = int(np.argmax(volume(held) - volume(common(held, mine))))
        if volume(held[busy:busy + 1])[0] == 0:
            return 0
        return int((volume(common(np.broadcast_to(held[busy], mine.shape), mine)) > 0).sum()) - 1

    # weights

    def held_weights(self, plan):
        """{layer: (numbers on the fullest rank, ranks that share them)}."""
        found = {}
        for group in plan.groups:
            extent = self.extent(group.stop, group.edges, group.cuts, group.start)
            parts = len(group.edges[1]) - 1
            for index in range(group.start, group.stop):
                layer = self.network.layers[index]
                if layer.tensors:
                    count = sum(int(np.prod(shape)) for name, shape in layer.tensors if name not in ('mean', 'variance'))
                    share, ranks = 1.0, self.ranks
                    if group.cut_along_channels:
                        share = sides(extent.computed[index])[:, 1].max() / layer.out_shape[0]
                        ranks = max(1, self.ranks // parts) if share < 1 else self.ranks
                    found[index] = count * share, ranks
        return found

    def gradient_sums(self, plan, rows):
        """Seconds for which sums of gradients outlast the backward pass; on one host they take the cores' time."""
        if self.ranks == 1:
            return 0.0
        held, clock, free, busy = self.held_weights(plan), 0.0, 0.0, 0.0
        waiting = 0
        for group, row in zip(reversed(plan.groups), reversed(rows)):
            layers = range(group.stop - 1, group.start - 1, -1)
            each = (row['backward'] + row['recompute'] + row['exchange'] / 2 + row['norm_sums'] / 2) / len(layers)
            for index in layers:
                clock += each
                if index in held:
                    waiting += held[index][0] * ITEM
                    ranks = held[index][1]
                    if waiting >= BUCKET or index == min(held):
                        took = self.machine.sum_seconds(waiting, ranks)
                        free, busy, waiting = max(free, clock) + took, busy + took, 0
        if len(set(self.machine.hosts)) == 1:
            return busy
        return max(0.0, free - clock)

    def optimizer(self, plan):
        """Seconds of the update and of clearing the gradients."""
        count = sum(numbers for numbers, _ in self.held_weights(plan).values())
        return float(count * (self.machine.sgd + ITEM * self.machine.copy / 2) * self.pace.max())

    def layout(self, plan, group):
        """The Layout of a group's output, for tables and pictures."""
        return Layout.cut(self.network.tensor_shape(group.last, self.batch), group.edges, self.ranks)
