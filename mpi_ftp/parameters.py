"""The weights of one rank: one flat array each for weights, gradients and momentum; which ranks share them.

A filter bank is a tensor too: copied to the ranks that compute its channels, so its gradient is summed over exactly those.
"""
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from . import kernels
from .errors import PlanError
from .memory import Paged, Pages, aligned_zeros
from .tile import BLOCK

TRAINED = ('filters', 'bias', 'scale')
BUCKET = 1 << 20            # bytes: a sum begins when this much of the gradient is complete
SLICE = 2 << 20             # bytes of a tensor that are read, written or sent to be written at a time


@dataclass(frozen=True)
class Segment:
    """One tensor of one layer in the flat arrays."""
    layer: int
    name: str
    first: int
    last: int
    shape: tuple


def local_shape(layer, name, channels):
    """Blocked shape of the rows [first, last) of a layer's tensor."""
    rows = -(-(channels[1] - channels[0]) // BLOCK)
    if name != 'filters':
        return rows, BLOCK
    per_group = layer.in_shapes[0][0] // layer.groups
    window = layer.rows.size, layer.columns.size
    if layer.groups > 1:
        return (rows,) + window + (per_group, BLOCK)
    return (rows, -(-per_group // layer.block)) + window + (layer.block, BLOCK)


def cut_rows(first, last, shape, dtype):
    """Spans of rows of a tensor of `shape`, whole blocks of rows in up to SLICE bytes (one block where that is larger)."""
    blocks = max(1, SLICE // (BLOCK * prod(shape[1:]) * np.dtype(dtype).itemsize))
    return [(row, min(last, row + blocks * BLOCK)) for row in range(first, last, blocks * BLOCK)]


class Parameters:
    """Weights, gradients, momentum and running statistics of the channels that this rank computes.

    channels: {layer: (first, last)}; comms: {layer: ranks that share those channels}; sharing: {layer: every rank's channels, or None};
    paged: the weights live in a file, and what `release` names leaves memory until it is used again.
    """

    def __init__(self, network, channels, comms, sharing, dtype=np.float32, training=True, paged=False):
        self.network, self.channels, self.comms, self.dtype = network, channels, comms, np.dtype(dtype)
        self.sharing = sharing
        self.segments, size = [], 0
        for layer in network.layers:
            if layer.tensors and layer.index in channels:
                for name in TRAINED:
                    if any(name == n for n, _ in layer.tensors):
                        shape = local_shape(layer, name, channels[layer.index])
                        count = prod(shape)
                        self.segments.append(Segment(layer.index, name, size, size + count, shape))
                        size += count
        self.paged = Paged(size, dtype) if paged else None
        self.flat = self.paged.array if paged else aligned_zeros(size, dtype)
        count = size if training else 0
        self.gradient_pages = Pages(count * self.dtype.itemsize)
        self.grads = np.frombuffer(self.gradient_pages.map, dtype, count)
        self.momentum = aligned_zeros(count, dtype)
        self.statistics = {}
        for layer in network.layers:
            if layer.normalize and layer.index in channels:
                rows = local_shape(layer, 'mean', channels[layer.index])
                self.statistics[layer.index] = {'mean': np.zeros(rows, dtype), 'variance': np.zeros(rows, dtype)}
        self.buckets = self._buckets() if training else []

    @property
    def nbytes(self):
        return self.flat.nbytes + self.grads.nbytes + self.momentum.nbytes

    def state(self):
        """The arrays that a checkpoint keeps: weights, momentum and statistics."""
        return [self.flat, self.momentum, *(array for held in self.statistics.values() for array in held.values())]

    def views(self, layer, flat):
        """name -> blocked array of one layer inside a flat array."""
        return {s.name: flat[s.first:s.last].reshape(s.shape) for s in self.segments if s.layer == layer}

    def release(self, layers):
        """Let go of the weights of some layers, where they live in a file."""
        if self.paged:
            for s in self.segments:
                if s.layer in layers:
                    self.paged.release(s.first, s.last)

    def weights(self, layer):
        return {**self.views(layer, self.flat), **self.statistics.get(layer, {})}

    # plain tensors, rows [first, last) of which are this rank's

    def get(self, layer, name, flat=None, span=None):
        """Rows [first, last) of a tensor (default: all of this rank's) in their plain shape; first is a multiple of BLOCK."""
        spec = self.network.layers[layer]
        first, last = span or self.channels[layer]
        blocked = self._blocks(layer, name, first, last, flat)
        if name != 'filters':
            return blocked.reshape(-1)[:last - first].copy()
        plain = kernels.unpack_filters(blocked, last - first, spec.in_shapes[0][0] // spec.groups, spec.groups)
        return plain.reshape((last - first,) + tuple(dict(spec.tensors)['filters'][1:]))

    def set(self, layer, name, rows, flat=None, first=None):
        """Store rows of a tensor, given in their plain shape, from row `first` on (default: this rank's first; a multiple of BLOCK)."""
        spec = self.network.layers[layer]
        first = self.channels[layer][0] if first is None else first
        target = self._blocks(layer, name, first, first + len(rows), flat)
        if name != 'filters':
            target.reshape(-1)[:len(rows)] = rows
            return
        plain = np.asarray(rows, self.dtype).reshape(len(rows), -1, spec.rows.size, spec.columns.size)
        target[...] = kernels.pack_filters(plain, spec.groups, spec.block)

    def _blocks(self, layer, name, first, last, flat):
        """The view of the blocks that store rows [first, last)."""
        own = self.channels[layer][0]
        blocked = self.statistics[layer][name] if name in ('mean', 'variance') else self.views(layer, self.flat if flat is None else flat)[name]
        return blocked[(first - own) // BLOCK:-(-(last - own) // BLOCK)]

    def initialise(self, seed):
        """Darknet's start: filters normal with variance 2 / fan-in (a connected layer: uniform), scale 1, the rest 0.

        Each block of 16 filters has a generator of its own, so that a rank draws only its rows and any cut gives the same numbers.
        """
        for segment in self.segments:
            layer = self.network.layers[segment.layer]
            first, last = self.channels[segment.layer]
            if segment.name == 'scale':
                self.set(segment.layer, 'scale', np.ones(last - first))
            if segment.name != 'filters':
                continue
            shape = dict(layer.tensors)['filters'][1:]
            spread = np.sqrt(2 / np.prod(shape))
            for row in range(first, last, BLOCK):
                rng = np.random.default_rng([seed, segment.layer, row // BLOCK])
                draw = rng.uniform(-1, 1, (BLOCK,) + shape) if layer.kind == 'connected' else rng.standard_normal((BLOCK,) + shape)
                draw *= spread
                self.set(segment.layer, 'filters', draw[:min(BLOCK, last - row)], first=row)

    def held_by_ranks(self, world):
        """How much of the weights each rank holds, against one copy of them: a line on rank 0 of several, else None (collective)."""
        held, tensors = world.gather(self.flat.nbytes / (1 << 20)), [layer.tensors for layer in self.network.layers]
        if not held or world.size == 1:
            return None
        whole = sum(prod(shape) for layer in tensors for name, shape in layer if name in TRAINED) * self.dtype.itemsize / (1 << 20)
        return (f'weights of ranks {" ".join(f"{mine:.1f}" for mine in held)} MiB, as much again for gradients and for momentum; '
                f'{sum(held):.1f} MiB in all for one copy of {whole:.1f} MiB')

    # gradients

    def _buckets(self):
        """[(lowest layer, first, last, comm)] in the order of the backward pass.

        Where a bucket ends follows from whole tensors and from who shares what, so that all ranks end it at the same layer.
        """
        runs, size = [], 0
        for layer in reversed([layer for layer in self.network.layers if layer.tensors]):
            if not runs or size >= BUCKET or self.sharing[layer.index] != self.sharing[runs[-1][0]]:
                runs.append([])
                size = 0
            runs[-1].append(layer.index)
            size += self.dtype.itemsize * sum(prod(shape) for name, shape in layer.tensors if name in TRAINED)
        buckets = []
        for layers in runs:
            mine = [s for s in self.segments if s.layer in layers]
            if mine:
                buckets.append((layers[-1], mine[0].first, mine[-1].last, self.comms[layers[0]]))
        return buckets

    def release_gradients(self):
        """Give the memory of gradients back to the system until the next step: they are zeros."""
        self.gradient_pages.advise('MADV_DONTNEED')


def holders(network, plan, shares):
    """{layer: for each rank the output channels (first, last) whose weights it holds, None where it computes none}. shares: of each group, every rank's.
    Raises PlanError where ranks would share some of their filters, but not all: gradients are summed over those who hold the same ones."""
    found = {}
    for group, ranks in zip(plan.groups, shares):
        for index in range(group.start, group.stop):
            boxes = [share.computed[index] for share in ranks]
            whole = (0, network.layers[index].out_shape[0])
            found[index] = tuple(None if box.empty else (box.lo[1], box.hi[1]) if group.cut_along_channels else whole for box in boxes)
            for (_, end), (begin, _) in pairwise(sorted(set(filter(None, found[index])))) if network.layers[index].tensors else ():
                if begin < end:
                    raise PlanError(f'a group cut along filters may not hold {network.layers[index].name} and what shares its channels out otherwise')
    return found
