"""Measures which algorithm computes each 3 x 3 convolution of a network fastest, for a typical tile of a rank, and keeps the times in the cache
directory of the kernels: the next run on this kind of CPU need not measure.
"""
import json
import os
import tempfile
import time

import numpy as np

from . import kernels
from .tile import BLOCK

FLOPS = 2e9                 # of a tile that is timed
REPEATS = 3
PASSES = 'forward', 'backward_data', 'backward_weights'


def times(network, ranks=1, batch=1, room=96 << 20):
    """Rows for kernels.set_rates: of every layer that leaves a choice, seconds of each pass and algorithm on the typical tile of so many ranks.

    room: bytes that tiles to measure with may take.
    """
    known, found = read(), {}
    count = len(known)
    for layer in network.layers:
        if layer.kind != 'convolutional' or not kernels.choosable(layer.in_shapes[0][0], layer.filters, (layer.rows.size, layer.columns.size),
                                                                  layer.rows.stride, layer.rows.dilation, layer.groups):
            continue
        channels, (filters, h, w) = layer.in_shapes[0][0], layer.out_shape
        shape = channels, filters, *typical(channels, filters, h, w, ranks, batch, room)
        key = ','.join(map(str, (*shape, kernels.get_threads())))
        if key not in known:
            known[key] = measure(*shape)
        for name, seconds in known[key].items():
            pass_, algorithm = name.split()
            found[pass_, channels, filters, h, w, algorithm] = seconds
    if len(known) > count:
        write(known)
    return [(*key, seconds) for key, seconds in found.items()]


def typical(channels, filters, h, w, ranks, batch, room):
    """(samples, rows, columns) of a rank's tile, less of it where that is much work or memory."""
    rows, columns = (max(1, round(side / max(1, ranks ** .5))) for side in (h, w))
    row = columns * max(18 * channels * filters / FLOPS, 8 * (channels + filters) / room)      # part that a row takes of what is allowed
    return max(1, min(batch, int(1 / (row * rows)))), max(1, min(rows, int(1 / row))), columns


def measure(channels, filters, n, h, w):
    """{'pass algorithm': least seconds} of one tile."""
    ib, ob, rng = -(-channels // BLOCK), -(-filters // BLOCK), np.random.default_rng(1)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)
    x, y, frame, dx = normal(n, ib, h + 2, w + 2, BLOCK), normal(n, ob, h, w, BLOCK), normal(n, ob, h + 4, w + 4, BLOCK), normal(n, ib, h, w, BLOCK)
    filters, gradient = normal(ob, ib, 3, 3, BLOCK, BLOCK), normal(ob, ib, 3, 3, BLOCK, BLOCK)
    calls = {'forward': lambda a: kernels.conv_forward(y, x, filters, 1, algorithm=a),
             'backward_data': lambda a: kernels.conv_backward_data(dx, frame, filters, 1, margin=2, top=1, left=1, algorithm=a),
             'backward_weights': lambda a: kernels.conv_backward_weights(gradient, x, frame[:, :, 2:-2, 2:-2], 1, algorithm=a)}
    clock, found = time.thread_time if kernels.get_threads() == 1 else time.perf_counter, {}
    for turn in range(1 + REPEATS):
        for pass_, call in calls.items():
            for algorithm in kernels.ALGORITHMS:
                begun = clock()
                call(algorithm)
                if turn:                                        # the first time, pages and caches are fresh
                    name = f'{pass_} {algorithm}'
                    found[name] = min(clock() - begun, found.get(name, np.inf))
    return found


def path():
    from .kernels.cache import convolution_hash, directory
    return directory() / f'algorithms-{convolution_hash()}.json'


def read():
    """{tile and threads: {'pass algorithm': seconds}} measured earlier with these kernels on this kind of CPU."""
    try:
        return json.loads(path().read_text())
    except (OSError, ValueError):
        return {}


def write(known):
    with tempfile.NamedTemporaryFile('w', dir=path().parent, delete=False) as file:
        json.dump(known, file)
    os.replace(file.name, path())
