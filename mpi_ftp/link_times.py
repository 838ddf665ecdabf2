"""Measures messages between pairs of ranks, latency and bandwidth inside a host and between hosts, and the strain of computing together.

Works through the communicator it is given; knows no MPI.
"""
import time

import numpy as np

from .collective_times import PATIENCE

SMALL, LARGE = 256, 1 << 20            # bytes
STRETCHES, STRETCH = 6, .1              # of computing without a sum: how many, seconds


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


def strain(comm, run, sum_seconds, before):
    """(seconds of run() on this rank while all ranks run it and nobody waits, seconds more that they lose when they add up a few numbers after each, beyond
    `sum_seconds` and the slowest's pace) (collective). before: such seconds, measured a while ago; the less of both counts, as what slows a machine down
    for a moment is something else."""
    own = min(before, pace(comm, run))
    return own, max(0.0, once(comm, run) - comm.maximum(own) - sum_seconds)


def pace(comm, run):
    """Seconds of run() on this rank while all ranks run it, the median of a few stretches that are long enough for control groups to have their say
    (collective)."""
    found = []
    for _ in range(STRETCHES):
        comm.barrier()
        runs, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < STRETCH:
            run()
            runs += 1
        found.append((time.perf_counter() - begun) / runs)
    return float(np.median(found))


def once(comm, run, turns=24):
    """Mean seconds of a run and a sum, without the longest quarter: a start or an end of something else would count for all steps (collective)."""
    samples, small = [], np.zeros(8)
    for _ in range(turns):
        comm.barrier()
        begun = time.perf_counter()
        run()
        comm.sum(small)
        samples.append(time.perf_counter() - begun)
    return float(np.mean(sorted(samples)[:-(-3 * len(samples) // 4)]))
