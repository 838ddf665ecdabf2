"""Measures messages and sums between the ranks at hand: latency and bandwidth inside a host and between hosts, sums against size.

Works through the communicator it is given; knows no MPI.
"""
import time

import numpy as np

from .reduction import Reduction

SMALL, LARGE = 256, 1 << 20            # bytes
PATIENCE = 0.25                         # seconds for one figure


def ping_pong(comm, a, b, nbytes):
    """Seconds one way between ranks a and b, the same on all ranks (collective)."""
    took = 0.0
    if comm.rank in (a, b):
        peer = b if comm.rank == a else a
        out, into = np.zeros(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
        there, back = comm.messages([(peer, out)], [], 7), comm.messages([], [(peer, into)], 7)
        begun, runs = time.perf_counter(), 0
        samples = []
        # the number of turns must be the same on both sides: it follows from the first of them, as rank a saw it
        turns = 1
        while runs < turns + 1:
            start = time.perf_counter()
            for part in ((there, back) if comm.rank == a else (back, there)):
                part.start()
                part.wait()
            samples.append((time.perf_counter() - start) / 2)
            if runs == 0:
                count = np.array([max(2, min(30, int(PATIENCE / 2 / max(1e-6, time.perf_counter() - begun))))])
                way = comm.messages([(peer, count)], [], 8) if comm.rank == a else comm.messages([], [(peer, count)], 8)
                way.start()
                way.wait()
                turns = int(count[0])
            runs += 1
        took = min(samples[1:])
    return float(comm.sum(np.array([took if comm.rank == a else 0.0]))[0])


def link(comm, pair):
    """(latency, bytes a second) between two ranks (collective)."""
    latency = ping_pong(comm, *pair, SMALL)
    long = ping_pong(comm, *pair, LARGE)
    return latency, LARGE / max(1e-9, long - latency)


def strain(comm, run, alone, sum_seconds, turns=12):
    """How many times longer than `alone` seconds run() takes when all ranks run it and wait for each other after it (collective)."""
    samples, small = [], np.zeros(8)
    for _ in range(turns):
        comm.barrier()
        begun = time.perf_counter()
        run()
        comm.sum(small)
        samples.append(time.perf_counter() - begun)
    return float(np.median(samples) - sum_seconds) / alone


def adding(comm, array):
    """What adds an array as a run does: batch norm's small ones at once, large ones as gradients."""
    if array.nbytes < LARGE >> 2:
        return lambda: comm.sum(array)
    gradients = Reduction(array, [(0, 0, array.size, comm)])

    def add():
        gradients.start_after(0)
        gradients.wait()
    return add


def sums(comm):
    """((bytes, seconds), …) of sums over all ranks, increasing (collective)."""
    points = []
    for nbytes in (256, 16 << 10, 256 << 10, 4 << 20):
        add, samples = adding(comm, np.zeros(nbytes // 4, np.float32)), []
        for _ in range(6):
            comm.barrier()
            begun = time.perf_counter()
            add()
            samples.append(comm.maximum(time.perf_counter() - begun))
            if sum(samples) > PATIENCE:
                break
        points.append((nbytes, float(np.median(samples[1:] or samples))))       # not the least: where ranks share cores, waiting is the cost
        if points[-1][1] > PATIENCE / 3:
            break
    return tuple(points)
