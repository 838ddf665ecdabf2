"""Measures the curves of a network's layers on this machine: every distinct class of layers, at a few tile sizes, every pass.

The layer's own methods run on tiles as in a step, so that what Python costs is in the figures.
"""
import time

import numpy as np

from . import kernels
from .curves import Curve, class_of
from .layers import norm
from .layers.base import State
from .layers.convolution import algorithms
from .parameters import TRAINED, local_shape
from .region import Region
from .tile import BLOCK, Tile, storage_shape

LIMIT = 4e9                 # floating-point operations of the largest tile that is timed
REPEATS = 4
TILE_BYTES = 64 << 20       # of the largest tile and of what it reads
SPARE = 2 << 20             # bytes of weights that are kept from one repetition to the next
COLD = 2 << 20              # bytes that are touched before each pass over memory: in a step, others have used the caches meanwhile


def sample_sizes(layer, ranks, batch):
    """[(samples, rows, columns)] of the output tiles to time, largest first: about a rank's share of the mini-batch, parts of it, a few rows."""
    _, h, w = layer.out_shape
    rows = max(1, min(h, round(h / max(1, ranks ** .5))))
    columns = max(1, min(w, round(w / max(1, ranks ** .5))))
    flops = layer.flops(Region.whole((1,) + tuple(layer.out_shape))) / (h * w)
    pixel = 4 * (layer.out_shape[0] + sum(c * high * wide for c, high, wide in layer.in_shapes) / (h * w))
    row = max(flops / LIMIT, pixel / TILE_BYTES) * columns
    samples = max(1, min(batch, int(1 / (row * rows))))
    most = max(1, min(rows, int(1 / row)))
    sizes = [(samples, most, columns), (1, most, columns), (1, -(-rows // 2), -(-columns // 2)), (1, min(rows, 2), min(columns, 8))]
    return list(dict.fromkeys(sizes))


def times(network, ranks=1, batch=1, seconds=2.0):
    """[Curve] of the network's layers, stopping with what is known after about `seconds` seconds."""
    begun, busy, found, benches, pools = time.perf_counter(), time.process_time(), {}, {}, Pools()
    layers = {}
    for layer in network.layers:
        if not layer.is_head:
            layers.setdefault(class_of(layer), layer)
    for turn in range(REPEATS):
        for kind, layer in layers.items():
            spent = max(time.process_time() - busy, (time.perf_counter() - begun) / 2)      # on a busy machine, wait for a fair share
            if spent > seconds * (1 if turn else 2):
                break
            bench = benches.get(kind) or Bench(network, layer, pools)
            if bench.nbytes < SPARE:
                benches[kind] = bench
            sizes = sample_sizes(layer, ranks, batch)
            for size in sizes if spent < seconds else sizes[1:]:
                for pass_, took in bench.run(*size).items():
                    key = kind, pass_, size[0] * int(kind.pixels(*size[1:]))
                    found[key] = min(took, found.get(key, took))
    curves = {}
    for (kind, pass_, pixels), took in sorted(found.items(), key=lambda item: item[0][2]):
        curves.setdefault((kind, pass_), []).append((pixels, took))
    return [Curve(kind, pass_, *map(tuple, zip(*points))) for (kind, pass_), points in curves.items()]


class Pool:
    """Memory for tiles, used again for every layer: fresh pages would cost more than some kernels."""

    def __init__(self, numbers):
        self.numbers, self.flat, self.used = numbers, np.resize(numbers, 0), 0

    def tile(self, region, block):
        shape = storage_shape(region, block)
        count = int(np.prod(shape))
        if self.used + count > self.flat.size:              # tiles in use keep the old array alive
            self.flat, self.used = np.resize(self.numbers, max(count, 2 * self.flat.size)), 0
        first, self.used = self.used, self.used + -(-count // 16) * 16
        return Tile(region, self.flat[first:first + count].reshape(shape))


class Pools:
    """Inputs, which stay as they are, and outputs."""

    def __init__(self):
        self.numbers = np.random.default_rng(1).standard_normal(65536).astype(np.float32)
        self.other = np.zeros(COLD, np.uint8)
        self.given, self.written = Pool(self.numbers), Pool(self.numbers)

    def clear(self):
        self.given.used = self.written.used = 0


class Bench:
    """One layer with random weights, to run any tile of."""

    def __init__(self, network, layer, pools):
        self.network, self.layer, self.pools = network, layer, pools
        weights, grads, filters = {}, {}, layer.out_shape[0]
        for name, _ in layer.tensors:
            shape = local_shape(layer, name, (0, filters))
            weights[name] = np.resize(pools.numbers, shape)
            if name in TRAINED:
                grads[name] = np.ones(shape, np.float32)        # ones, so that its pages are there
        self.nbytes = sum(a.nbytes for a in weights.values())
        if 'variance' in weights:
            weights['variance'] = np.abs(weights['variance']) + 1
        self.state = State(True, (0, filters), (-(-filters // BLOCK), BLOCK), np.dtype(np.float32), weights, grads, True, True,
                           lambda sums: sums, 1, algorithm=algorithms(layer, np.float32))

    def cool(self):
        """Use the caches for something else."""
        self.pools.other += 1

    def run(self, samples, rows, columns):
        """{pass: seconds} of one tile of so many samples, output rows and columns."""
        layer, state, pools = self.layer, self.state, self.pools
        box = Region((0, 0, 0, 0), (samples, layer.out_shape[0], rows, columns))
        needs, out = layer.needs(box), self.network.block(layer.index)
        blocks = [self.network.block(source) for source in layer.inputs]
        pools.clear()
        xs = [pools.given.tile(need, block).array for need, block in zip(needs, blocks)]
        z, state.boxes, state.pixels = pools.written.tile(box, out), (box, tuple(needs)), samples * rows * columns
        self.cool()
        took = {'forward': seconds(layer.forward, z.array, xs, state)}
        dz = z
        if layer.two_phase:
            y, dy = pools.written.tile(box, out), pools.given.tile(box, out)
            self.cool()
            took['finish'] = seconds(norm.Finish(layer, state, y, z, box, box))
            down, right = getattr(layer, 'margin', (0, 0))
            framed = Region((0, 0, -down, -right), (samples, layer.out_shape[0], rows + down, columns + right))
            dz = pools.written.tile(framed, out)
            self.cool()
            took['unfinish'] = seconds(norm.Unfinish(layer, state, dz, dy, z, box, box))
        if any(source >= 0 for source in layer.inputs):
            dxs = [pools.written.tile(need, block).array for need, block in zip(needs, blocks)]
            self.cool()
            took['backward_data'] = seconds(layer.backward_data, dxs, dz.array, xs, [(0, 0)] * len(xs), state)
        if layer.tensors:
            took['backward_weights'] = seconds(layer.backward_weights, dz[box], xs, state)
        return took


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
    rates['sgd'] = min(seconds(kernels.sgd, a, b, c, 0.0, .9, 1e-4) for _ in range(3)) / count
    return rates
