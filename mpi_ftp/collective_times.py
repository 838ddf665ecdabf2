"""Measures what ranks do together, against size and number of ranks: sums, all-gathers and reduce-scatters; and what one more message costs.

Works through the communicator it is given; knows no MPI and no network.
"""
import time
from itertools import chain, count, takewhile
from statistics import median

import numpy as np

from .exchange import Exchange
from .reduction import Reduction
from .region import Layout, Region, balanced
from .tile import BLOCK, Tile

PATIENCE = 0.25                         # seconds for one figure
LARGE = 256 << 10                       # bytes from which an array is added as gradients are
FEW_SIZES = 256, 16 << 10, 256 << 10, 4 << 20
SIZES = 256, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20
MOVED = 16 << 10, 256 << 10, 4 << 20    # of all-gathers and reduce-scatters
LABOUR, TURNS = 2 << 20, 4              # bytes added to see what work they are, how often
MESSAGES = 9


def typical(comm, run, turns=6):
    """Seconds that run() takes until all ranks are through (collective)."""
    samples = []
    for _ in range(turns):
        comm.barrier()
        begun = time.perf_counter()
        run()
        samples.append(comm.maximum(time.perf_counter() - begun))
        if sum(samples) > PATIENCE:
            break
    return float(np.median(samples[1:] or samples))        # not the least: where ranks share cores, waiting is the cost


def adding(comm, nbytes):
    """What adds an array as a run does: batch norm's small ones at once, large ones as gradients."""
    if nbytes < LARGE:
        array = np.zeros(nbytes // 8)
        return lambda: comm.sum(array)
    array = np.zeros(nbytes // 4, np.float32)
    gradients = Reduction(array, [(0, 0, array.size, comm)])

    def add():
        gradients.start_after(0)
        gradients.wait()
    return add


def sums(comm, sizes=FEW_SIZES):
    """((bytes, seconds), …) of sums over all ranks, increasing (collective)."""
    points = []
    for nbytes in sizes:
        points.append((nbytes, typical(comm, adding(comm, nbytes))))
        if points[-1][1] > PATIENCE / 3:
            break
    return tuple(points)


def labour(comm):
    """Seconds of a rank's processor for each byte that it sends and receives as gradients are added (collective). The least of a few turns, of the middling
    rank: whoever waits long asks often."""
    add, spent = adding(comm, LABOUR), []
    for _ in range(TURNS):
        comm.barrier()
        begun = time.process_time()
        add()
        spent.append(time.process_time() - begun)
    middling = comm.gather(min(spent))
    return comm.broadcast(median(middling) / (2 * LABOUR * (comm.size - 1) / comm.size) if middling else None)


def moves(comm):
    """((bytes, seconds of an all-gather, seconds of a reduce-scatter), …) of tensors that are cut along C on one side, whole on the other (collective)."""
    points, channels = [], BLOCK * comm.size
    for nbytes in MOVED:
        shape = 1, channels, 1, max(1, nbytes // (4 * channels))
        cut = Layout.cut(shape, ((0, 1), balanced(channels, comm.size, BLOCK), (0, 1), (0, shape[3])), comm.size)
        exchange = Exchange(comm, cut, Layout(shape, (Region.whole(shape),) * comm.size), tag=1)
        part, whole = Tile.zeros(exchange.src, BLOCK, np.float32), Tile.zeros(exchange.dst, BLOCK, np.float32)
        points.append((nbytes, typical(comm, lambda: exchange.forward(part, whole)), typical(comm, lambda: exchange.backward(part, whole))))
        if points[-1][1] > PATIENCE / 3:
            break
    return tuple(points)


def rank_counts(size):
    """2, 3, 4, 6, 8, 12, … below `size`."""
    return list(takewhile(lambda ranks: ranks < size, chain.from_iterable((2 << k, 3 << k) for k in count())))


def over_fewer(comm, measured):
    """((ranks, *row), …): what `measured` finds on the first 2, 3, 4, 6, … ranks, while the others rest (collective)."""
    found = []
    for ranks in rank_counts(comm.size):
        part = comm.split(0 if comm.rank < ranks else None)
        found += [(ranks, *row) for row in measured(part)] if part else []
        comm.rest()
    return comm.broadcast(tuple(found))


def more_message(comm):
    """Seconds that each further small message takes, one sent and one received, when every rank sends to others at once (collective)."""
    seconds = []
    for messages in (1, MESSAGES):
        steps, buffers = [1 + k % (comm.size - 1) for k in range(messages)], np.zeros((2, messages, 64), np.float32)
        ring = comm.messages([((comm.rank + step) % comm.size, out) for step, out in zip(steps, buffers[0])],
                             [((comm.rank - step) % comm.size, into) for step, into in zip(steps, buffers[1])], 1)

        def run():
            ring.start()
            ring.wait()
        seconds.append(typical(comm, run, 30))
    return max(0.0, (seconds[1] - seconds[0]) / (MESSAGES - 1))


def together(comm, thorough=False, progress=lambda share: None):
    """Fields of a Machine: what two ranks or more take for sums and messages; thorough: more sizes, numbers of ranks and ways to share; progress: called with the
    share that is done (collective)."""
    found = {'sums': sums(comm, SIZES if thorough else FEW_SIZES), 'message': more_message(comm), 'labour': labour(comm)}
    if thorough:
        progress(.3)
        found['fewer'] = over_fewer(comm, lambda part: sums(part, SIZES))
        progress(.7)
        moved = over_fewer(comm, moves) + tuple((comm.size, *row) for row in moves(comm))
        found.update(gathers=tuple(row[:3] for row in moved), scatters=tuple((*row[:2], row[3]) for row in moved))
    return found
