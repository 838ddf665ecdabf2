"""Peak bytes of each rank under a plan: what the run will allocate, asked of the same code that declares it.

The arena is packed by memory.pack from the very buffers of the run; the rest is counted from what parameters, exchanges, kernels and
the loader hold.
"""
from math import prod

import numpy as np

from . import kernels
from .layers.convolution import algorithms
from .memory import pack
from .network import PICTURE
from .parameters import SLICE, TRAINED, local_shape
from .region import NOTHING
from .step_buffers import group_buffers
from .tile import BLOCK, storage_shape

ITEM = 4
AHEAD = 4                   # tiles of the picture: the one at work, two prepared, one in the making
LATER = 60 << 20            # what a run loads after its profile: reading and decoding, losses, evaluation, MPI's buffers (50 to 55 MiB measured)
PLOTS = 40 << 20            # on rank 0, for the curves (30 to 36 MiB measured)


class Footprint:
    """Bytes of every rank under one plan: `parts(rank)`, `total(rank)`. Evaluation beside training is included where it peaks."""

    def __init__(self, network, plan, machine, training=True):
        self.network, self.plan, self.machine, self.training = network, plan, machine, training
        self.layouts = plan.layouts(network)
        self.shares = self.shares_of(training)
        self.evaluated = self.shares_of(False) if training else None
        self.kept = {}

    def shares_of(self, training):
        return [[self.plan.share(self.network, self.layouts, g, rank, training) for rank in range(self.plan.ranks)] for g in self.plan.groups]

    def total(self, rank):
        return sum(self.parts(rank).values())

    def worst(self):
        """(bytes, rank) of the fullest rank."""
        return max((self.total(rank), -rank) for rank in self.different())[0], max(self.different(), key=self.total)

    def different(self):
        """Ranks to look at: on many ranks, those with the largest shares of the first and of the last group."""
        ranks = range(self.plan.ranks)
        if len(ranks) <= 16:
            return ranks
        sizes = {rank: (sum(r.size for g in self.shares for r in g[rank].held.values()), sum(g[rank].held[max(g[rank].held)].size for g in self.shares))
                 for rank in ranks}
        return sorted({0, *sorted(ranks, key=lambda r: -sizes[r][0])[:6], *sorted(ranks, key=lambda r: -sizes[r][1])[:2]})

    def parts(self, rank):
        """{part: bytes} of one rank."""
        if rank not in self.kept:
            arena = self.arena(rank, self.shares, self.training)
            if self.training:                               # a model for evaluation lives beside that for training
                arena += self.arena(rank, self.evaluated, False)
            self.kept[rank] = {'tiles': arena, 'parameters': self.parameters(rank), 'messages': self.messages(rank),
                               'workspace': self.workspace(rank), 'pictures': self.pictures(rank), 'process': self.machine.base + LATER + (PLOTS if rank == 0 and self.training else 0)}
        return self.kept[rank]

    def arena(self, rank, shares, training):
        groups = group_buffers(self.network, self.plan, self.layouts, shares, rank, np.dtype(np.float32), training)
        return pack([buffer for group in groups for buffer in group.declare()])[1]

    def channels(self, rank):
        """{layer: (first, last)} of the filters that a rank holds."""
        found = {}
        for group, shares in zip(self.plan.groups, self.shares):
            for index in range(group.start, group.stop):
                layer, box = self.network.layers[index], shares[rank].computed[index]
                if layer.tensors and not (group.cut_along_channels and box.empty):
                    found[index] = (box.lo[1], box.hi[1]) if group.cut_along_channels else (0, layer.out_shape[0])
        return found

    def weights(self, rank):
        """Numbers of trained weights that a rank holds."""
        return sum(prod(local_shape(self.network.layers[index], name, span)) for index, span in self.channels(rank).items()
                   for name, _ in self.network.layers[index].tensors if name in TRAINED)

    def parameters(self, rank):
        """Weights, gradients and momentum, and a slice on its way to or from a file (stored, in plain order and as received)."""
        copies = 3 if self.training else 1
        rows = max((prod(shape[1:]) for layer in self.network.layers for _, shape in layer.tensors), default=0)
        return copies * self.weights(rank) * ITEM + 3 * max(SLICE, BLOCK * rows * ITEM)

    def messages(self, rank):
        """Buffers of all exchanges, both ways."""
        total = 0
        for group, shares in zip(self.plan.groups, self.shares):
            for source in shares[rank].held:
                if PICTURE < source < group.start:
                    owned, block = self.layouts[source], self.network.block(source)
                    for dst, mine in ((s.held.get(source, NOTHING), owned[q]) for q, s in ((rank, shares[rank]),)):
                        total += sum(_bytes(mine_box, block) for p, r in enumerate(owned) if p != rank and not (mine_box := dst & r).empty)
                    total += sum(_bytes(box, block) for q, s in enumerate(shares)
                                 if q != rank and not (box := owned[rank] & s.held.get(source, NOTHING)).empty)
        return int(total * (1.5 if self.training else 1))

    def workspace(self, rank):
        """The largest scratch memory of a kernel, as the kernels tell it."""
        whole, own = 0, 0
        for group, shares in zip(self.plan.groups, self.shares):
            for index in range(group.start, group.stop):
                layer = self.network.layers[index]
                if layer.tensors and not shares[rank].computed[index].empty:
                    a, b = scratch(layer, shares[rank].computed[index])
                    whole, own = max(whole, a), max(own, b)
        return whole + own * self.machine.threads

    def pictures(self, rank):
        """Tiles of the picture that the loader holds, twice while evaluating."""
        boxes = [shares[rank].held.get(PICTURE, NOTHING) for shares in self.shares]
        return AHEAD * max(_bytes(box, self.network.shape[0]) for box in boxes) * (2 if self.training else 1)


def _bytes(box, block):
    return prod(storage_shape(box, block)) * ITEM


def scratch(layer, box):
    """(bytes shared by threads, bytes of each thread) that a convolution's kernels work in, all passes."""
    n, _, h, w = box.shape
    window = layer.rows.size, layer.columns.size
    passes = {pass_: options['algorithm'] for pass_, options in algorithms(layer, np.float32).items()
              if pass_ != 'backward_data' or layer.inputs[0] >= 0}
    takes = [kernels.workspace_bytes(pass_, algorithm, layer.in_shapes[0][0], layer.filters, window, n, h, w) for pass_, algorithm in passes.items()]
    return tuple(map(max, zip(*takes)))
