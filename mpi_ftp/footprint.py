"""Peak bytes of each rank under a plan: what the run will allocate, asked of the same code that declares it.

The arena is packed by memory.pack from the very buffers of the run; the rest is counted from what parameters, exchanges, kernels and
the loader hold.
"""
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from . import kernels
from .layers.convolution import algorithms
from .memory import pack
from .network import PICTURE
from .parameters import SLICE, TRAINED, local_shape
from .region import NOTHING, Region
from .step_buffers import group_buffers
from .subtiles import part_shares
from .tile import BLOCK, storage_shape

LATER = 24 << 20            # what a process takes after its profile, whatever the network: index of the data set, libraries, odds and ends (19 to 23 measured)
MPI = 8 << 20               # of its own buffers and for sums of gradients (3 to 4), where there are other ranks
EVALUATION = 36 << 20       # detections and metrics (25 to 28 measured)
PLOTS = 34 << 20            # on rank 0, for the curves (31 measured)
PHASES = 'training', 'evaluation', 'saving'
STAYS = {'evaluation': 16 << 20, 'saving': 26 << 20}        # of what they took when they are over (11, 22)


@dataclass(frozen=True)
class Course:
    """How a run goes, as far as plans depend on it: evaluates a split; goes on when it has evaluated or saved; paged: its weights wait in a file, memory
    holds those of the group at work; ahead: mini-batches of pictures that wait; frozen: batch norm needs no sums; dtype: of tiles and
    weights (what steps take is predicted for float32)."""
    evaluates: bool = True
    goes_on: bool = True
    paged: bool = False
    ahead: int = 2
    frozen: bool = False
    dtype: str = 'float32'


class Footprint:
    """Bytes of every rank under one plan: `parts(rank)` of the phase that takes most, `total(rank)`.

    Between training, evaluation and saving the tiles go back to the system, so that their peaks do not add up. course: of the run; known: a dict of what
    footprints of other plans of the same network have found out about groups.
    """

    def __init__(self, network, plan, machine, training=True, course=Course(), known=None):
        self.network, self.plan, self.machine, self.training, self.course = network, plan, machine, training, course
        self.dtype = np.dtype(course.dtype)
        self.layouts, self.known = plan.layouts(network), {} if known is None else known
        self.shares = self.shares_of(training)
        self.evaluated = self.shares_of(False) if training else self.shares
        self.kept, self.asked, self.works = {}, {}, {}

    def shares_of(self, training):
        return [self.once(replace(group, parts=(1, 1)), training, lambda group=group: [self.plan.share(self.network, self.layouts, group, rank, training)
                                                                                       for rank in range(self.plan.ranks)]) for group in self.plan.groups]

    def part_shares(self, network, group, layouts, rank, training=True):
        return self.once(group, (rank, training), lambda: part_shares(network, group, layouts, rank, training))

    def once(self, group, about, find):
        """What find() gives, which follows from how a group is cut, the order of ranks and `about`."""
        key = replace(group, recompute=False, early=True), self.plan.order, self.plan.ranks, about
        if key not in self.known:
            self.known[key] = find()
        return self.known[key]

    def total(self, rank):
        """The most bytes that a rank ever has in use: under the plan, or when the machine was measured before."""
        return max(sum(self.parts(rank).values()), self.machine.peak)

    def worst(self):
        """(bytes, rank) of the fullest rank."""
        return self.fullest([0] * self.plan.ranks, self.different())

    def over(self, memory):
        """(bytes, rank) of the rank that exceeds its budget by most, negative where all fit. memory: bytes of each rank."""
        return self.fullest(memory, self.different(memory))

    def fullest(self, memory, ranks):
        """(bytes, rank) of the first of some ranks that exceeds `memory` by most."""
        rank = max(ranks, key=lambda rank: self.total(rank) - memory[rank])
        return self.total(rank) - memory[rank], rank

    def heaviest(self):
        """The rank that stores most, which is mostly the fullest."""
        return max(range(self.plan.ranks), key=lambda rank: sum(region.size for shares in self.shares for region in shares[rank].held.values()))

    def different(self, memory=None):
        """Ranks to look at: on many ranks, those with the largest shares of the first and of the last group, and those with the least memory."""
        ranks = range(self.plan.ranks)
        if len(ranks) <= 16:
            return ranks
        sizes = {rank: (sum(r.size for g in self.shares for r in g[rank].held.values()), sum(g[rank].held[max(g[rank].held)].size for g in self.shares))
                 for rank in ranks}
        poorest = sorted(ranks, key=lambda r: (memory[r], -sizes[r][0]))[:4] if memory else []
        return sorted({0, *sorted(ranks, key=lambda r: -sizes[r][0])[:6], *sorted(ranks, key=lambda r: -sizes[r][1])[:2], *poorest})

    def parts(self, rank):
        """{part: bytes} of one rank in the phase that takes most."""
        if rank not in self.kept:
            phases = [self.phase(rank, name) for name in self.phases()]
            self.kept[rank] = max(phases, key=lambda parts: sum(parts.values()))
        return self.kept[rank]

    def phases(self):
        """Names of what the run does one after the other."""
        return [name for name in (PHASES if self.training else PHASES[1:2]) if name != 'evaluation' or self.course.evaluates or not self.training]

    def phase(self, rank, name):
        """{part: bytes} of one rank while it trains, evaluates, or saves and draws."""
        tiles = self.slices() if name == 'saving' else self.arena(rank, name == 'training')
        takes = {'evaluation': EVALUATION * (self.training and self.course.evaluates), 'saving': PLOTS * (self.training and rank == 0)}
        stays = sum(min(STAYS[other], nbytes) for other, nbytes in takes.items() if other != name and (self.course.goes_on or name == 'saving'))
        later = LATER + MPI * (self.plan.ranks > 1) + takes.get(name, 0) + stays
        pictures, messages = self.pictures(rank, self.course.ahead), self.messages(rank, self.training)
        if self.training and name == 'evaluation':          # what trains stays beside it
            pictures, messages = pictures + self.pictures(rank, 2), messages + self.messages(rank, False)
        workspace = self.workspace(rank)
        if name == 'saving':
            pictures, workspace = pictures * self.course.goes_on, 0
        return {'tiles': tiles, 'parameters': self.parameters(rank, name), 'messages': messages, 'workspace': workspace, 'pictures': pictures,
                'process': self.machine.base + later}

    def arena(self, rank, training):
        shares = self.shares if training else self.evaluated
        groups = group_buffers(self.network, self.plan, self.layouts, shares, rank, self.dtype, training, self.part_shares)
        return pack([buffer for group in groups for buffer in group.declare()])[1]

    def channels(self, rank):
        """{layer: (first, last)} of the filters that a rank holds."""
        found = {}
        for group, shares in zip(self.plan.groups, self.shares):
            for index in range(group.start, group.stop):
                layer, box = self.network.layers[index], shares[rank].computed[index]
                if layer.tensors and not box.empty:
                    found[index] = (box.lo[1], box.hi[1]) if group.cut_along_channels else (0, layer.out_shape[0])
        return found

    def weights(self, rank, group=None):
        """Numbers of trained weights that a rank holds, in all or of one group."""
        return sum(prod(local_shape(self.network.layers[index], name, span)) for index, span in self.channels(rank).items()
                   for name, _ in self.network.layers[index].tensors if name in TRAINED and (group is None or group.start <= index < group.stop))

    def parameters(self, rank, name='training'):
        """Weights, and momentum and gradients where they are trained; between iterations gradients take nothing."""
        if self.course.paged:
            return max(self.weights(rank, group) for group in self.plan.groups) * self.dtype.itemsize
        return ((3 if name == 'training' else 2) if self.training else 1) * self.weights(rank) * self.dtype.itemsize

    def slices(self):
        """A slice of a tensor on its way to a file: stored, in plain order and as received."""
        rows = max((prod(shape[1:]) for layer in self.network.layers for _, shape in layer.tensors), default=0)
        return 3 * max(SLICE, BLOCK * rows * self.dtype.itemsize)

    def messages(self, rank, training):
        """Buffers of all exchanges: those into a group, those back where they are others, and those at backward cuts."""
        if training not in self.asked:
            self.asked[training] = list(self.exchanged(training))
        return sum(buffered(rank, owned, wanted, block) for owned, wanted, block in self.asked[training]) * self.dtype.itemsize

    def exchanged(self, training):
        """(boxes that ranks own, boxes that they want, channels to a block) of every exchange: see `corners`."""
        for group, shares in zip(self.plan.groups, self.shares if training else self.evaluated):
            for source in sorted({source for share in shares for source in share.held if PICTURE < source < group.start}):
                inside = corners([Region.whole(self.network.tensor_shape(source, self.plan.batch))])
                owned, block = corners(self.layouts[source]), self.network.block(source)
                held, back = (within(corners([getattr(s, name).get(source, NOTHING) for s in shares]), inside) for name in ('held', 'gradient'))
                yield owned, held, block
                if training and not np.array_equal(back, held):
                    yield owned, back, block
            for cut in group.cuts if training else ():
                yield corners(self.layouts[cut]), corners([s.gradient[cut] for s in shares]), self.network.block(cut)

    def workspace(self, rank):
        """The largest scratch memory of a kernel, as the kernels tell it."""
        whole, own = 0, 0
        for group, shares in zip(self.plan.groups, self.shares):
            parts = self.part_shares(self.network, group, self.layouts, rank, self.training) if group.parted else [shares[rank]]
            for index in range(group.start, group.stop):
                layer = self.network.layers[index]
                for part in parts if layer.tensors else ():
                    if not part.computed[index].empty:
                        a, b = self.scratch(layer, part.computed[index].shape)
                        whole, own = max(whole, a), max(own, b)
        return whole + own * self.machine.threads

    def scratch(self, layer, shape):
        if (layer.index, shape) not in self.works:
            self.works[layer.index, shape] = scratch(layer, shape) if self.dtype == np.float32 else (0, 0)
        return self.works[layer.index, shape]

    def pictures(self, rank, ahead):
        """Tiles of the picture: the one at work, one in the making, and what a loader has prepared."""
        boxes = [shares[rank].held.get(PICTURE, NOTHING) for shares in self.shares]
        return (2 + ahead) * max(prod(storage_shape(box, self.network.shape[0])) for box in boxes) * self.dtype.itemsize


def corners(regions):
    """Boxes as an array (2, boxes, 4): lows and highs along N, C, H, W."""
    return np.array([[r.lo for r in regions], [r.hi for r in regions]])


def within(boxes, others):
    """Intersections of boxes; empty ones are all zeros."""
    lo, hi = np.maximum(boxes[0], others[0]), np.minimum(boxes[1], others[1])
    return np.stack([lo, hi]) * (lo < hi).all(1)[:, None]


def buffered(rank, owned, wanted, block):
    """Numbers that a rank sends and receives when each rank wants a box of a tensor that others own."""
    sides = [np.diff(within(boxes, other[:, rank:rank + 1]), axis=0)[0] for boxes, other in ((owned, wanted), (wanted, owned))]
    sides = np.delete(np.stack(sides), rank, axis=1)
    sides[:, :, 1] = -(-sides[:, :, 1] // block) * block
    return int(sides.prod(2).sum())


def scratch(layer, shape):
    """(bytes shared by threads, bytes of each thread) that a convolution's kernels work in, all passes, for a box (N, C, H, W) of its output."""
    n, _, h, w = shape
    window = layer.rows.size, layer.columns.size
    passes = {pass_: options['algorithm'] for pass_, options in algorithms(layer, np.float32).items()
              if pass_ != 'backward_data' or layer.inputs[0] >= 0}
    takes = [kernels.workspace_bytes(pass_, algorithm, layer.in_shapes[0][0], layer.filters, window, n, h, w) for pass_, algorithm in passes.items()]
    return tuple(map(max, zip(*takes)))
