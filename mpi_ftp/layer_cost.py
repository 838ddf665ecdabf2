"""What the layers inside groups cost: seconds of every pass on the slowest rank, seconds of sums over ranks, bytes kept for the backward pass.

Works on Extents, for many groups at once; knows no messages between groups.
"""
from math import prod

import numpy as np

from .buffers import Needs, follower
from .extents import cells, clip, lengths, most
from .network import PICTURE

ITEM = 4                    # bytes of a number
HIDDEN, SHOWN = 0.8, 0.1    # of a layer's time that messages can hide behind; of a message's time that never hides
APART = 0.07                # of a rank's time: what ranks that are alike wait for each other, as now one is slower, now another; measured by `accuracy`
PIECES = 5                  # in which a layer is taken that begins early: bands of its core and rims, see group.py
AGAIN = 2 / 3               # of a layer's finish: the moments are known
SUMMED = 'forward', 'backward', 'norm_sums', 'again', 'weights', 'sums', 'held', 'tape'


class LayerCosts:
    """Prices layers of one network for `ranks` ranks of a Machine. frozen: batch norm needs no sums; training: not only a forward pass."""

    def __init__(self, network, machine, ranks, frozen=False, training=True):
        self.network, self.machine, self.ranks, self.frozen, self.training = network, machine, ranks, frozen, training
        self.pace = np.resize(np.array(machine.speeds, float), ranks) * machine.slowdown * (1 + APART * (ranks > 1))
        self.even = len(set(self.pace.tolist())) == 1
        self.one_host = len(set(machine.hosts)) == 1
        self.curves = {}
        self.counts = {layer.index: sum(prod(shape) for name, shape in layer.tensors if name not in ('mean', 'variance')) for layer in network.layers}

    def sums(self, extents):
        """{part: of layers [start, stop), an array (rows, starts)}: seconds forward, backward, of norm_sums, to compute `again`, for the steps of
        `weights` and the `sums` of their gradients; bytes of weights `held` and of `tape`. Beside them, not summed, what messages can hide behind: `ahead`, `behind`,
        and what it costs to take a layer in `pieces`, so that they hide."""
        found = {part: np.zeros((len(extents.stops), len(self.network) + 1)) for part in (*SUMMED, 'ahead', 'behind', 'pieces')}
        wanted = {}
        for index in reversed(range(extents.start, max(extents.stops))):
            live, pool = extents.stops > index, follower(self.network, index)
            for part, value in self.layer(extents, self.network.layers[index], wanted).items():
                found[part][:, index] = np.where(live, value, 0.0)
            if pool and pool.index < max(extents.stops) and index not in extents.cuts:
                for part, value in self.pooled(extents, self.network.layers[index], pool, found).items():
                    found[part][:, index] += np.where(extents.stops > pool.index, value, 0.0)
        if not self.training:
            found['tape'] = np.diff(np.maximum.accumulate(found['tape'][:, ::-1], 1), prepend=0.0)[:, ::-1]        # summed below: the largest from each start on
        for part in SUMMED:
            found[part] = found[part][:, ::-1].cumsum(1)[:, ::-1]
        return found

    def layer(self, extents, layer, wanted):
        """{part: arrays (rows,)} of one layer. wanted: {later layer: rows in which a recomputation needs its z}."""
        index, forward = layer.index, self.sides(extents.computed[layer.index])
        found = {'forward': self.slowest(self.passes(layer, forward, ('forward', 'finish')) + self.machine.call)}
        found['held'], ranks = self.held_weights(extents, layer)
        if self.training:
            back = self.sides(extents.differentiated[index])
            passes = self.passes(layer, back, ('unfinish', 'backward_weights')) + self.gradients(layer, extents, back)
            found['backward'] = self.slowest(passes + 2 * self.machine.call + self.additions(layer, extents))
            found['again'] = self.again(layer, extents, forward, wanted)
            if layer.tensors:
                found['weights'] = self.update(found['held'])
                found['sums'] = each(lambda count, ranks: self.machine.sum_seconds(count * ITEM * self.machine.gradients, int(ranks)), found['held'], ranks)
            kept = any(Needs.input_again(self.network.layers[r]) for r in self.network.readers[index]) + Needs.z_again(layer)
            found['tape'] = kept * ITEM * prod(most(extents.computed[index]))
        else:                               # a forward pass keeps nothing: what a layer works on
            found['tape'] = working_set(extents, layer)
        found['held'] = found['held'] * ITEM * (3 if self.training else 1)
        if not self.one_host:
            typical = [side.mean(1)[:, None] for side in lengths(extents.computed[index])]
            found['ahead'] = self.passes(layer, typical, ('forward', 'finish'))[:, 0] * self.pace.mean()
            found['pieces'] = self.pieces(layer, typical[1][:, 0])
            if layer.tensors and self.training:
                found['behind'] = self.passes(layer, typical, ('backward_weights',))[:, 0] * self.pace.mean()
        if self.training and layer.normalize and not self.frozen and self.ranks > 1:
            found['norm_sums'] = self.norm_sums(layer, self.workers(extents) // extents.parts[1], found.get('behind', 0.0))
        return found

    def norm_sums(self, layer, ranks, behind):
        """Seconds of batch norm's sums over so many ranks, forward and backward. The latter travel while gradients of weights are taken, of the layer after: about as long as
        those of this one, `behind`."""
        if ranks <= 1:
            return 0.0
        each = self.machine.sum_seconds(layer.out_shape[0] * 16, ranks) + self.machine.meeting
        return each + np.maximum(SHOWN * each, each - HIDDEN * behind)

    def pieces(self, layer, filters):
        """Seconds that so many filters' forward pass takes longer in pieces, each of which reads them."""
        curve = None if layer.is_head else self.curve(layer, 'forward')
        fixed = curve.fixed * filters / layer.out_shape[0] if curve else 0.0
        return (PIECES - 1) * (fixed + self.machine.call) * self.pace.mean()

    def gradients(self, layer, extents, sides, sides_of=None):
        """Seconds for the gradients of a layer's inputs. sides: of what it differentiates; sides_of(boxes): how they were taken from its boxes."""
        if all(source == PICTURE for source in layer.inputs):
            return 0.0
        curve = self.curve(layer, 'backward_data')
        if layer.is_head or curve is None or not curve.layer.tiled_gradient:
            return self.passes(layer, sides, ('backward_data',))
        _, _, h, w = (sides_of or self.sides)(clip(extents.reads_back[layer.index, 0], self.network.tensor_shape(layer.inputs[0], extents.batch)))
        return curve(sides[0] * curve.layer.pixels(h, w)) * (sides[1] / layer.out_shape[0])

    def pooled(self, extents, layer, pool, found):
        """{part: arrays (rows,)} that are spared, negative, where norm, activation and pool are one pass. It stands with the layer, so that groups which
        begin at the pool pay for the pool in full."""
        if self.curve(layer, 'finish_pooled') is None:
            return {}
        computed = self.sides(extents.computed[layer.index])
        finish = self.slowest(self.passes(layer, computed, ('finish_pooled',))) - self.slowest(self.passes(layer, computed, ('finish',)))
        spared = {'forward': finish - found['forward'][:, pool.index] + self.machine.call * self.pace.max()}
        if self.training:
            back = self.sides(extents.differentiated[layer.index])
            unfinish = self.slowest(self.passes(layer, back, ('unfinish_pooled',))) - self.slowest(self.passes(layer, back, ('unfinish',)))
            spared['backward'] = unfinish - found['backward'][:, pool.index] + self.machine.call * self.pace.max()
            spared['again'] = np.where(found['again'][:, pool.index] > 0, AGAIN * finish - found['again'][:, pool.index], 0.0)
            spared['tape'] = -ITEM * prod(most(extents.computed[layer.index]))
        return spared

    def sides(self, boxes):
        """N, C, H, W of boxes, arrays (rows, ranks at work): where all ranks are alike, of the largest box alone."""
        if self.even:
            return [side[:, None] for side in most(boxes)]
        sides = lengths(boxes)
        return [side[:, i] for side, i in zip(sides, cells(tuple(side.shape[1] for side in sides)))]

    def slowest(self, seconds):
        """Of arrays (rows, ranks at work)."""
        return seconds.max(1) * self.pace[0] if self.even else (seconds * self.pace[:seconds.shape[1]]).max(1)

    def passes(self, layer, sides, names):
        """Seconds of some passes over boxes of a layer's output."""
        n, c, h, w = sides
        if layer.is_head:
            return self.machine.head * n * h * w * (len(names) / 2)
        total = np.zeros(n.shape)
        for name in names:
            curve = self.curve(layer, name)
            if curve is not None:
                total = total + curve(n * curve.layer.pixels(h, w)) * (c / layer.out_shape[0])
        return total

    def curve(self, layer, name):
        if (layer.index, name) not in self.curves:
            self.curves[layer.index, name] = self.machine.curve(layer, name)
        return self.curves[layer.index, name]

    def again(self, layer, extents, sides, wanted):
        """Seconds to compute a layer again; what the backward pass does not read is left out, see buffers.py."""
        y = np.zeros(len(extents.stops), bool)
        for r in self.network.readers[layer.index]:
            if r in wanted:
                y |= (extents.stops > r) & (wanted[r] | Needs.input_again(self.network.layers[r]))
        wanted[layer.index] = z = y | Needs.z_again(layer)
        seconds = self.passes(layer, sides, ('forward',)) * z[:, None] + AGAIN * self.passes(layer, sides, ('finish',)) * y[:, None]
        return self.slowest(seconds)

    def additions(self, layer, extents):
        """Seconds to clear and to add gradients of inputs that several layers read."""
        shared = [k for k, source in enumerate(layer.inputs) if source != PICTURE and len(self.network.readers[source]) > 1]
        return sum(prod(self.sides(extents.reads_back[layer.index, k])) for k in shared) * ITEM * (self.machine.copy / 2 + self.machine.add) if shared else 0.0

    def held_weights(self, extents, layer):
        """(numbers of a layer's weights on the fullest rank, ranks that share them): arrays (rows,)."""
        parts, whole, workers = extents.parts[1], np.ones(len(extents.stops)), self.workers(extents)
        if parts == 1 or not layer.tensors:
            return self.counts[layer.index] * whole, workers * whole
        share = most(extents.computed[layer.index])[1] / layer.out_shape[0]
        return self.counts[layer.index] * share, np.where(share < 1, max(1, workers // parts), workers)

    def workers(self, extents):
        """Ranks that have a tile: the others hold no weights and send nothing."""
        return min(self.ranks, prod(extents.parts))

    def update(self, count):
        """Seconds of the optimizer's step of so many weights."""
        return count * self.machine.sgd * self.pace.max()


def each(function, *arrays):
    """A function of numbers on arrays of few different ones."""
    known = {}
    return np.array([known[key] if key in known else known.setdefault(key, function(*key)) for key in zip(*(array.tolist() for array in arrays))])


def working_set(extents, layer):
    """Bytes of a layer's output and inputs."""
    return ITEM * (prod(most(extents.computed[layer.index])) + sum(prod(most(extents.reads[layer.index, k])) for k in range(len(layer.inputs))))
