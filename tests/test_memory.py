"""Buffers that live at the same time never overlap, and the arena is not larger than it must be."""
import mmap
import random
import re
from pathlib import Path

import numpy as np
import pytest
from core import NETWORKS, make_network, picture

from mpi_ftp.comm import Alone
from mpi_ftp.errors import MemoryRefused
from mpi_ftp.memory import ALIGN, Arena, Buffer, Paged, Pages, aligned_zeros, pack
from mpi_ftp.model import Model
from mpi_ftp.plan import by_hand


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


def test_arenas_that_take_turns_lie_in_the_same_pages():
    one, other = ([Buffer(('a',), size, 0, 1)] for size in (400, 200))
    pages = Pages(448)
    a, b = (Arena(buffers, pages).array(('a',), (50,), np.float32) for buffers in (one, other))
    b[...] = 5
    assert np.shares_memory(a, b) and a[49] == 5
    with pytest.raises(ValueError, match='buffer is smaller'):
        Arena([Buffer(('a',), 449, 0, 1)], pages)


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


def test_paged_numbers_survive_being_let_go(monkeypatch, tmp_path):
    def resident():
        fields = Path('/proc/self/smaps_rollup').read_text()
        return int(re.search(r'Rss: +(\d+) kB', fields)[1]) << 10

    count = 4 << 20
    paged = Paged(count, np.float32)
    paged.array[:] = np.arange(count)
    before = resident()
    paged.release(1000, count)
    assert before - resident() > 12 << 20
    assert paged.array[999] == 999 and paged.array[1000] == 1000 and (paged.array[::4096] == np.arange(0, count, 4096)).all()
    monkeypatch.setenv('TMPDIR', str(tmp_path / 'none'))
    with pytest.raises(MemoryRefused, match='no room for 16 MiB of weights in .*none'):
        Paged(count, np.float32)


def test_inference_with_weights_in_a_file_gives_the_same(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'].split('[region]')[0], 36, 52)
    found = []
    for paged in (False, True):
        model = Model(network, by_hand(network, 1, 1, (1, 1), [0, 3, 6]), Alone(), np.float64, training=False, paged=paged)
        model.parameters.initialise(2)
        for statistics in model.parameters.statistics.values():
            statistics['variance'][...] = 1
        model.forward(picture(network, 1, model.picture))
        found.append(model.gather(len(network) - 1))
    np.testing.assert_array_equal(*found)
