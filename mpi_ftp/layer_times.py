"""Measures the curves of a network's layers on this machine: every distinct class of layers, at a few tile sizes, every pass.

The layer's own methods run on tiles as in a step, so that what Python costs is in the figures.
"""
import time
from math import prod

import numpy as np

from . import kernels
from .buffers import follower
from .curves import Curve, class_of
from .layers import norm
from .layers.base import State
from .layers.convolution import algorithms
from .parameters import TRAINED, local_shape
from .region import Region
from .tile import BLOCK, Tile, storage_shape

LIMIT = 4e9                 # floating-point operations of the largest tile that is timed
REPEATS = 4
ROOM = 96 << 20             # bytes of all tiles of a layer while it is timed
SPARE_ROOM = 8 << 20        # the same where ranks compute together
SPARE = 1 / 32              # of the room: weights that small are kept from one repetition to the next, all together at most 8 times that
COLD = 2 << 20              # bytes that are touched before each pass over memory: in a step, others have used the caches meanwhile


def sample_sizes(network, layer, ranks, batch, room):
    """[(samples, rows, columns)] of the output tiles to time, largest first: about a rank's share of the mini-batch, parts of it, a few rows."""
    _, h, w = layer.out_shape
    rows = max(1, min(h, round(h / max(1, ranks ** .5))))
    columns = max(1, min(w, round(w / max(1, ranks ** .5))))
    row = layer.flops(Region.whole((1,) + tuple(layer.out_shape))) / (h * w) * columns / LIMIT
    samples = max(1, min(batch, int(1 / (row * rows)) if row else batch))
    most = max(1, min(rows, int(1 / row) if row else rows))
    while samples > 1 and nbytes(network, layer, samples, most, columns) > room:
        samples -= 1
    while most > 1 and nbytes(network, layer, 1, most, columns) > room:
        most = max(1, int(most * .9))
    after = follower(network, layer.index)
    unit = after.window.size if after else 1            # whole windows of the pool in the same pass

    def whole(*sides):
        return [max(1, side // unit) * unit for side in sides]
    sizes = [(samples, *whole(most, columns)), (1, *whole(most, columns)), (1, *whole(-(-most // 2), -(-columns // 2))),
             (1, *whole(min(most, 2), min(columns, 8)))]
    return list(dict.fromkeys(sizes))


def nbytes(network, layer, samples, rows, columns):
    """Bytes of all tiles that timing one output tile takes."""
    box = Region((0, 0, 0, 0), (samples, layer.out_shape[0], rows, columns))
    out = prod(storage_shape(framed(layer, box), network.block(layer.index)))
    ins = sum(prod(storage_shape(need, network.block(source))) for need, source in zip(layer.needs(box), layer.inputs))
    back = any(source >= 0 for source in layer.inputs)
    return 4 * (out * (4 if layer.two_phase else 1) + ins * (1 + back))


def framed(layer, box):
    """A box with the margin that the gradient kernel wants around it."""
    down, right = getattr(layer, 'margin', (0, 0))
    return Region((*box.lo[:2], box.lo[2] - down, box.lo[3] - right), (*box.hi[:2], box.hi[2] + down, box.hi[3] + right))


def times(network, ranks=1, batch=1, seconds=2.0, room=ROOM, progress=lambda share: None):
    """[Curve] of the network's layers, stopping with what is known after about `seconds` seconds. room: bytes for tiles; progress: called with the
    share of the time that is over."""
    begun, busy, found, benches, pool, kept = time.perf_counter(), time.process_time(), {}, {}, Pool(room), 0
    layers = {}
    for layer in sorted(network.layers, key=lambda layer: follower(network, layer.index) is None):      # those before a pool show more passes
        if not layer.is_head:
            layers.setdefault(class_of(layer), layer)
    for turn in range(REPEATS):
        for kind, layer in layers.items():
            spent = max(time.process_time() - busy, (time.perf_counter() - begun) / 2)      # on a busy machine, wait for a fair share
            if spent > seconds and turn:
                break
            progress(min(1.0, max(spent / seconds, turn / REPEATS)))
            bench = benches.get(kind) or Bench(network, layer, pool)
            if kind not in benches and bench.nbytes < SPARE * room and kept < 8 * SPARE * room:
                benches[kind], kept = bench, kept + 2 * bench.nbytes
            sizes = sample_sizes(network, layer, ranks, batch, room)
            for size in sizes if spent < seconds else sizes[1:] if spent < 2 * seconds else sizes[-1:]:      # something of every class
                for pass_, took in bench.run(*size).items():
                    sides = gradient_sides(layer, *size[1:]) if pass_ == 'backward_data' else size[1:]
                    found.setdefault((kind, pass_, size[0] * int(kind.pixels(*sides))), []).append(took)
    curves = {}
    for (kind, pass_, pixels), samples in sorted(found.items(), key=lambda item: item[0][2]):
        curves.setdefault((kind, pass_), []).append((pixels, typical(samples)))
    return [Curve(kind, pass_, *map(tuple, zip(*points))) for (kind, pass_), points in curves.items()]


def gradient_sides(layer, rows, columns):
    """Rows and columns by which the gradient of a layer's input counts, for a tile of so many output rows and columns."""
    if not class_of(layer).tiled_gradient:
        return rows, columns
    return layer.needs(Region.whole((1, layer.out_shape[0], rows, columns)))[0].shape[2:]


def typical(samples):
    """Of repeated times: the least where a thread's own time is told, the lower median where threads wait for each other, as they will in a step."""
    return min(samples) if kernels.get_threads() == 1 else sorted(samples)[(len(samples) - 1) // 2]


def work(network, batch, ranks, seconds_=.002):
    """(function of about so many seconds, what it takes, how many times it does the same): the forward pass of the layer with most arithmetic."""
    layer = max((each for each in network.layers if each.tensors), key=lambda each: each.flops(Region.whole((1,) + tuple(each.out_shape))))
    bench = Bench(network, layer, Pool(SPARE_ROOM))
    rows = sample_sizes(network, layer, ranks, batch, SPARE_ROOM)[0][1:]
    once = min(bench.run(1, *rows)['forward'] for _ in range(3))
    box = Region((0, 0, 0, 0), (1, layer.out_shape[0], *rows))
    bench.pool.used = 0
    xs = [bench.pool.tile(need, network.block(source)).array for need, source in zip(layer.needs(box), layer.inputs)]
    forward = layer.ready_forward(bench.pool.tile(box, network.block(layer.index)).array, xs, bench.state)
    times_ = max(1, round(seconds_ / once))

    def run():
        for _ in range(times_):
            forward()
    run()
    return run, typical([seconds(run) for _ in range(5)]), times_


class Pool:
    """Memory for the tiles of one layer at a time, used again for every layer: fresh pages would cost more than some kernels."""

    def __init__(self, room):
        self.numbers = np.random.default_rng(1).standard_normal(65536).astype(np.float32)
        self.other = np.zeros(COLD, np.uint8)
        self.flat, self.used = np.resize(self.numbers, room // 4 + 1024), 0        # and a line for each tile

    def tile(self, region, block):
        shape = storage_shape(region, block)
        count = prod(shape)
        if self.used + count > self.flat.size:              # a row of a very wide layer
            return Tile(region, np.resize(self.numbers, count).reshape(shape))
        first, self.used = self.used, self.used + -(-count // 16) * 16
        return Tile(region, self.flat[first:first + count].reshape(shape))


class Bench:
    """One layer with random weights, to run any tile of."""

    def __init__(self, network, layer, pool):
        self.network, self.layer, self.pool = network, layer, pool
        weights, grads, filters = {}, {}, layer.out_shape[0]
        for name, _ in layer.tensors:
            shape = local_shape(layer, name, (0, filters))
            weights[name] = np.resize(pool.numbers, shape) / np.float32(prod(shape[1:-1]) ** .5)       # or numbers grow from tile to tile
            if name in TRAINED:
                grads[name] = np.ones(shape, np.float32)        # ones, so that its pages are there
        self.nbytes = sum(a.nbytes for a in weights.values())
        if 'variance' in weights:
            weights['variance'] = np.abs(weights['variance']) + 1
        self.state = State(True, (0, filters), (-(-filters // BLOCK), BLOCK), np.dtype(np.float32), weights, grads, True, True,
                           lambda sums: sums, lambda sums: lambda: None, 1, algorithm=algorithms(layer, np.float32))

    def cool(self):
        """Use the caches for something else."""
        self.pool.other += 1

    def run(self, samples, rows, columns):
        """{pass: seconds} of one tile of so many samples, output rows and columns."""
        layer, state, pool = self.layer, self.state, self.pool
        box = Region((0, 0, 0, 0), (samples, layer.out_shape[0], rows, columns))
        needs, out = layer.needs(box), self.network.block(layer.index)
        blocks = [self.network.block(source) for source in layer.inputs]
        pool.used = 0
        xs = [pool.tile(need, block).array for need, block in zip(needs, blocks)]
        z, state.boxes, state.pixels = pool.tile(box, out), (box, tuple(needs)), samples * rows * columns
        self.cool()
        took = {'forward': seconds(layer.ready_forward(z.array, xs, state))}
        dz = z
        if layer.two_phase:
            y, dy = pool.tile(box, out), pool.tile(box, out)
            self.cool()
            took['finish'] = seconds(norm.Finish(layer, state, y, z, box, box))
            dz = pool.tile(framed(layer, box), out)
            self.cool()
            took['unfinish'] = seconds(norm.Unfinish(layer, state, dz, dy, z, box, box))
            pool_after = follower(self.network, layer.index)
            if pool_after and not rows % pool_after.window.size and not columns % pool_after.window.size:
                took.update(self.pooled(box, y, z, dy, dz, pool_after.window.size))
        if any(source >= 0 for source in layer.inputs):
            dxs = [pool.tile(need, block).array for need, block in zip(needs, blocks)]
            self.cool()
            took['backward_data'] = seconds(layer.ready_backward_data(dxs, dz.array, xs, [(0, 0)] * len(xs), state))
        if layer.tensors:
            took['backward_weights'] = seconds(layer.ready_backward_weights(dz[box], xs, state))
        return took

    def pooled(self, box, y, z, dy, dz, size):
        """{pass: seconds} of the finish in one pass with the max-pool that follows; tiles of the same memory serve."""
        small = norm.shrunk(box, size)
        p, dp = (Tile(small, tile.array.reshape(-1)[:prod(storage_shape(small, BLOCK))].reshape(storage_shape(small, BLOCK))) for tile in (y, dy))
        self.cool()
        took = {'finish_pooled': seconds(norm.Finish(self.layer, self.state, p, z, box, box, size))}
        self.cool()
        return {**took, 'unfinish_pooled': seconds(norm.Unfinish(self.layer, self.state, dz, dp, z, box, box, size))}


def seconds(function, *arguments):
    """Time of one call: this thread's own, which other processes do not lengthen, unless the kernels run on several threads."""
    clock = time.thread_time if kernels.get_threads() == 1 else time.perf_counter
    begun = clock()
    function(*arguments)
    return clock() - begun


def memory_rates(megabytes=8):
    """Seconds per byte of copying and adding arrays, and seconds per number of the optimizer's step."""
    count = megabytes << 18
    a, b, c = (np.ones(count, np.float32) for _ in range(3))
    rates = {}
    for name, run in (('copy', lambda: a.__setitem__(slice(None), b)), ('add', lambda: kernels.add(*(x.reshape(1, 1, 1, -1, 16) for x in (a, b))))):
        rates[name] = min(seconds(run) for _ in range(3)) / a.nbytes
    rates['sgd'] = min(seconds(kernels.sgd(a, b, c, np.array([[0, count, 1]])), 0.0, .9, 1e-4) for _ in range(3)) / count
    return rates
