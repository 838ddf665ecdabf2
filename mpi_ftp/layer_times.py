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
from .tile import BLOCK, Tile

LIMIT = 1.5e9               # floating-point operations of the largest tile that is timed
REPEATS = 3


def sample_sizes(layer, ranks):
    """[(rows, columns)] of the output tiles to time, largest first: about a rank's share of the map, a quarter of it, a few rows."""
    _, h, w = layer.out_shape
    rows = max(1, min(h, round(h / max(1, ranks ** .5))))
    columns = max(1, min(w, round(w / max(1, ranks ** .5))))
    flops = layer.flops(Region.whole((1,) + tuple(layer.out_shape))) / (h * w)
    rows = max(1, min(rows, int(LIMIT / (flops * columns))))
    sizes = [(rows, columns), (-(-rows // 2), -(-columns // 2)), (min(rows, 2), min(columns, 8))]
    return list(dict.fromkeys(sizes))


def times(network, ranks=1, seconds=2.0):
    """[Curve] of the network's layers, stopping with what is known after about `seconds` seconds."""
    deadline, found, done = time.perf_counter() + seconds, {}, set()
    layers = {}
    for layer in network.layers:
        if not layer.is_head:
            layers.setdefault(class_of(layer), layer)
    for turn in range(REPEATS):
        for kind, layer in layers.items():
            if time.perf_counter() > deadline and turn > 0:
                break
            if time.perf_counter() > deadline + seconds:
                break
            bench = Bench(network, layer)
            for size in sample_sizes(layer, ranks):
                for pass_, took in bench.run(*size).items():
                    key = kind, pass_, kind.pixels(*size)
                    found[key] = min(took, found.get(key, took))
    curves = {}
    for (kind, pass_, pixels), took in sorted(found.items(), key=lambda item: item[0][2]):
        curves.setdefault((kind, pass_), []).append((pixels, took))
    return [Curve(kind, pass_, *map(tuple, zip(*points))) for (kind, pass_), points in curves.items()]


class Bench:
    """One layer with random weights, to run any tile of."""

    def __init__(self, network, layer):
        self.network, self.layer = network, layer
        rng = np.random.default_rng(1)
        self.fill = rng.standard_normal(4096).astype(np.float32)
        weights, grads, filters = {}, {}, layer.out_shape[0]
        for name, _ in layer.tensors:
            shape = local_shape(layer, name, (0, filters))
            weights[name] = self.random(shape)
            if name in TRAINED:
                grads[name] = np.zeros(shape, np.float32)
        if 'variance' in weights:
            weights['variance'] = np.abs(weights['variance']) + 1
        self.state = State(True, (0, filters), (-(-filters // BLOCK), BLOCK), np.dtype(np.float32), weights, grads, True, True,
                           lambda sums: sums, 1, algorithm=algorithms(layer, np.float32))

    def random(self, shape):
        return np.resize(self.fill, shape)

    def tile(self, region, block=BLOCK):
        tile = Tile.zeros(region, block)
        tile.array[...] = self.random(tile.array.shape)
        return tile

    def run(self, rows, columns):
        """{pass: seconds} of one tile of so many output rows and columns."""
        layer, state = self.layer, self.state
        box = Region((0, 0, 0, 0), (1, layer.out_shape[0], rows, columns))
        needs = layer.needs(box)
        blocks = [self.network.block(source) for source in layer.inputs]
        xs = [self.tile(need, block).array for need, block in zip(needs, blocks)]
        out = self.network.block(layer.index)
        z, state.boxes, state.pixels = self.tile(box, out), (box, tuple(needs)), rows * columns
        took = {'forward': seconds(layer.forward, z.array, xs, state)}
        dz = z
        if layer.two_phase:
            y, dy = self.tile(box, out), self.tile(box, out)
            took['finish'] = seconds(norm.Finish(layer, state, y, z, box, box))
            down, right = getattr(layer, 'margin', (0, 0))
            framed = Region((0, 0, -down, -right), (1, layer.out_shape[0], rows + down, columns + right))
            dz = self.tile(framed, out)
            took['unfinish'] = seconds(norm.Unfinish(layer, state, dz, dy, z, box, box))
        if any(source >= 0 for source in layer.inputs):
            dxs = [np.zeros_like(x) for x in xs]
            took['backward_data'] = seconds(layer.backward_data, dxs, dz.array, xs, [(0, 0)] * len(xs), state)
        if layer.tensors:
            took['backward_weights'] = seconds(layer.backward_weights, dz[box], xs, state)
        return took


def seconds(function, *arguments):
    """Wall time of one call."""
    begun = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begun


def memory_rates(megabytes=8):
    """Seconds per byte of copying and adding arrays, and seconds per number of the optimizer's step."""
    count = megabytes << 18
    a, b, c = (np.ones(count, np.float32) for _ in range(3))
    rates = {}
    for name, run in (('copy', lambda: a.__setitem__(slice(None), b)), ('add', lambda: kernels.add(*(x.reshape(1, 1, 1, -1, 16) for x in (a, b))))):
        rates[name] = min(seconds(run) for _ in range(3)) / a.nbytes
    rates['sgd'] = min(seconds(kernels.sgd, a, b, c, 0.0, .9, 1e-4) for _ in range(3)) / count
    return rates
