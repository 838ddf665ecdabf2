"""Threads inside one process, and the memory each works in. Kernels release the GIL, so plain Python threads run them."""
import os
import threading
import time
from contextlib import contextmanager
from functools import partial

import numpy as np

LINE = 16                       # floats of a cache line
STREAM_BYTES = 5_000_000        # larger arrays are gone from the caches before they are read again
GAP = 2e-2                      # seconds of a long kernel between two looks at something else
BRIEF = 4                       # times as long a kernel would have to take for one

_team, _count, _aside = None, 1, None
_local = threading.local()


def set_threads(threads, processes=1):
    """Let each kernel use so many threads (at least 1). processes: those of this host that do the same; when all their
    threads together are more than the cores, one without work sleeps at once."""
    global _team, _count
    if _team:
        _team.close()
    _count, _team = max(1, int(threads)), None
    if _count > 1:
        from .team import SPINS, Team
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        _team = Team(_count - 1, SPINS if _count * processes <= cores else 0)


def _alone():
    """A process that was just forked has none of its parent's threads."""
    global _team, _count
    if _team:
        _team.leave()
    _team, _count = None, 1


os.register_at_fork(after_in_child=_alone)


def get_threads():
    return _count


@contextmanager
def looking_aside(aside):
    """Inside it, a long kernel that this thread computes alone is interrupted every GAP seconds or so by aside(); None: by nothing."""
    global _aside
    before, _aside = _aside, aside and (threading.get_ident(), aside)
    try:
        yield
    finally:
        _aside = before


class Spread:
    """Work that is done again and again: a call does work(…, first, last), with what it is given, for consecutive parts of range(units), on all threads at
    once, and returns when all are done. whole: parts that follow each other on one thread cost more than one does."""

    def __init__(self, units, work, whole=False):
        self.units, self.work, self.whole = units, work, whole
        self.seconds, self.brief = 0.0, False           # of a unit, when this was last done by a thread that looks aside; too short to be cut

    def __call__(self, *given):
        parts = min(_count, self.units)
        if parts > 1:
            _team.run(partial(self.work, *given), [self.units * i // parts for i in range(parts + 1)])
        elif self.brief or _aside is None or self.whole or self.units < 2 or _aside[0] != threading.get_ident():
            self.work(*given, 0, self.units)
        else:
            self._slices(given, _aside[1])

    def _slices(self, given, aside):
        """In slices as long as GAP, half as long again at most; how long one takes, the one before tells, or the last time. What is far shorter is not cut again."""
        first = 0
        while first < self.units:
            left = self.units - first
            slices = max(1, round(left / max(1, GAP / self.seconds))) if self.seconds else 16
            begun, last = time.perf_counter(), first - (-left // slices)
            self.work(*given, first, last)
            self.seconds = (time.perf_counter() - begun) / (last - first)
            first = last
            if first < self.units:
                aside()
        self.brief = BRIEF * self.seconds * self.units < GAP


def spread(units, work, whole=False):
    """Do such work once."""
    Spread(units, work, whole)()


def streams(y):
    """Whether y, about to be overwritten in full, is better written past the caches: it is larger than they are, and its pixels lie on cache lines."""
    return y.nbytes >= STREAM_BYTES and y.strides[3] == 4 * LINE and not any(place % (4 * LINE) for place in (y.ctypes.data, *y.strides[:3]))


def workspace(role, *sizes):
    """Arrays of so many floats each, on cache lines, out of this thread's one buffer for `role`: it grows to the largest
    request and is overwritten by the next kernel that asks for the same role."""
    kept = _local.__dict__.setdefault(role, {})         # the buffer, and what was made of it for each request so far
    if sizes in kept:
        return kept[sizes]
    lengths = [-(-size // LINE) * LINE for size in sizes]
    if 'buffer' not in kept or kept['buffer'].size < sum(lengths) + LINE:
        kept.clear()                                    # free the old one first
        kept['buffer'] = np.empty(sum(lengths) + LINE, np.float32)
    start = -kept['buffer'].ctypes.data // 4 % LINE
    arrays = kept[sizes] = []
    for size, length in zip(sizes, lengths):
        arrays.append(kept['buffer'][start:start + size])
        start += length
    return arrays


def forget():
    """Give back the workspaces of all threads."""
    spread(_count, lambda first, last: _local.__dict__.clear())
