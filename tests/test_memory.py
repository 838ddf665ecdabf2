"""Buffers that live at the same time never overlap, and the arena is not larger than it must be."""
import mmap
import random

import numpy as np
import pytest

from mpi_ftp.memory import ALIGN, Arena, Buffer, aligned_zeros, pack


@pytest.mark.parametrize('seed', range(20))
def test_packing(seed):
    rng = random.Random(seed)
    buffers = []
    for i in range(40):
        first = rng.randrange(50)
        buffers.append(Buffer(('b', i), rng.randrange(0, 5000), first, first + rng.randrange(0, 20)))
    offsets, peak = pack(buffers)
    for i, a in enumerate(buffers):
        assert offsets[a.key] % ALIGN == 0 and offsets[a.key] + a.nbytes <= peak
        for b in buffers[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = offsets[a.key] + a.nbytes <= offsets[b.key] or offsets[b.key] + b.nbytes <= offsets[a.key]
            assert not together or apart
    load = max(sum(b.nbytes for b in buffers if b.first <= t <= b.last) for t in range(75))
    assert load <= peak <= 1.35 * load + 40 * ALIGN


def test_arena_hands_out_the_same_aligned_place():
    arena = Arena([Buffer(('a',), 400, 0, 1), Buffer(('b',), 100, 2, 3), Buffer(('c',), 100, 0, 3)])
    a = arena.array(('a',), (10, 10), np.float32)
    a[...] = 5
    assert a.ctypes.data % ALIGN == 0 and np.shares_memory(a, arena.array(('b',), (25,), np.float32))
    assert arena.array(('a',), (100,), np.float32)[99] == 5 and not np.shares_memory(a, arena.array(('c',), (25,), np.float32))
    with pytest.raises(ValueError, match='planned with 100 bytes'):
        arena.array(('b',), (26,), np.float32)
    assert aligned_zeros(7, np.float64).ctypes.data % ALIGN == 0


def test_released_pages_leave_memory_and_come_back_as_zeros():
    def resident():
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE

    arena = Arena([Buffer(('a',), 64 << 20, 0, 1)])
    a = arena.array(('a',), (16 << 20,), np.float32)
    before = resident()
    a[...] = 5
    assert resident() - before > 60 << 20
    arena.release()
    assert resident() - before < 4 << 20 and not a.any()
