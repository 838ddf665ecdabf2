"""What groups cost that a rank takes in parts, one after the other: every pass of every part, as often as subtiles.walks says.

Works on Extents of the parts: each is a rank of its own as far as geometry goes.
"""
from math import prod

import numpy as np

from .buffers import Needs
from .extents import Extents, cells, lengths, most
from .layer_cost import AGAIN, ITEM, working_set
from .region import balanced


def in_parts(edges, parts):
    """Cut points along N, C, H, W with every tile cut into (rows, columns) parts, as subtiles.part_shares does."""
    return edges[:2] + tuple(tuple(dict.fromkeys([0, *(lo + cut for lo, hi in zip(e, e[1:]) for cut in balanced(hi - lo, count))])) if count > 1 else e
                             for e, count in zip(edges[2:], parts))


def fits(edges, parts):
    """Whether every tile has as many rows and columns as parts."""
    return all(hi - lo >= count for e, count in zip(edges[2:], parts) for lo, hi in zip(e, e[1:]))


class PartCosts:
    """Sums over layers [start, stop) of groups taken in parts, arrays (rows, starts): seconds `forward`, `backward`, `again`; bytes of `tape` of a part.

    costs: LayerCosts; edges: of the whole tiles, one for each of `stops`.
    """

    def __init__(self, costs, stops, edges, batch, parts, start=0):
        self.costs, self.network = costs, costs.network
        self.extents = Extents(self.network, stops, [in_parts(e, parts) for e in edges], batch, start=start, training=costs.training)
        self.stops, self.places = self.extents.stops, tuple(len(e) - 1 for e in edges[0])
        self.parts = parts
        self.sums = self.summed()

    def summed(self):
        """See subtiles.walks: with C[i] live norms before layer i, a pass that runs once for each norm from i on runs C[stop] - C[i] times."""
        count, live = len(self.network), self.costs.training and not self.costs.frozen
        layers = {name: np.zeros((len(self.stops), count + 1)) for name in ('z', 'y', 'gradient', 'filters', 'tape')}
        for index in range(self.extents.start, max(self.stops)):
            for name, value in self.layer(self.network.layers[index]).items():
                layers[name][:, index] = np.where(self.stops > index, value, 0.0)
        norms = np.array([live and layer.normalize for layer in self.network.layers] + [False])
        before = np.concatenate([[0], norms.cumsum()])[:count + 2]
        upto, places = before[self.stops][:, None], np.arange(count + 1)[None]
        ends = norms[self.stops - 1][:, None]
        forward = layers['z'] * (1 - ends + upto - before[places]) + layers['y'] * (1 - (ends & (places < self.stops[:, None] - 1)) + upto - before[places + 1])
        tape = total(layers['tape']) if self.costs.training else np.maximum.accumulate(layers['tape'][:, ::-1], 1)[:, ::-1]
        found = {'forward': total(forward), 'tape': tape}
        if self.costs.training:
            found['again'] = total(layers['z'] + AGAIN * layers['y']) * (1 + upto - before[places])
            found['backward'] = total(layers['gradient'] * (1 + before[places])) - before[places] * total(layers['gradient']) + total(layers['filters'])
        return found

    def layer(self, layer):
        """Seconds of one layer's passes over all parts of the slowest rank."""
        costs, extents, call = self.costs, self.extents, self.costs.machine.call
        forward = self.sides(extents.computed[layer.index])
        found = {'z': self.slowest(costs.passes(layer, forward, ('forward',)) + call), 'y': self.slowest(costs.passes(layer, forward, ('finish',)))}
        if costs.training:
            back = self.sides(extents.differentiated[layer.index])
            found['gradient'] = self.slowest(costs.passes(layer, back, ('unfinish',)) + costs.gradients(layer, extents, back, self.sides) + 2 * call)
            found['filters'] = self.slowest(costs.passes(layer, back, ('backward_weights',)))
            kept = any(Needs.input_again(self.network.layers[r]) for r in self.network.readers[layer.index]) + Needs.z_again(layer)
            found['tape'] = kept * ITEM * prod(most(extents.computed[layer.index]))
        else:
            found['tape'] = working_set(extents, layer)
        return found

    def sides(self, boxes):
        """N, C, H, W of the boxes of every part: arrays (rows, parts of all ranks)."""
        return [side[:, i] for side, i in zip(lengths(boxes), cells(self.extents.parts))]

    def slowest(self, seconds):
        """Of arrays (rows, parts of all ranks), with the parts of each rank added up."""
        n, c, h, w = self.places
        rows, columns = self.extents.parts[2] // h, self.extents.parts[3] // w
        of_ranks = np.broadcast_to(seconds, (len(self.stops), prod(self.extents.parts))).reshape(-1, n, c, h, rows, w, columns).sum((4, 6)).reshape(len(self.stops), -1)
        return (of_ranks * self.costs.pace[:of_ranks.shape[1]]).max(1)


def total(values):
    """Sums over layers from each start on."""
    return values[:, ::-1].cumsum(1)[:, ::-1]
