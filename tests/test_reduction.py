"""Sums of gradients: right on any placement of ranks, the same bits on all of them, in half precision without drift."""
from types import SimpleNamespace

import numpy as np
import pytest

from mpi_ftp import comm as comm_module
from mpi_ftp import reduction
from mpi_ftp.allreduce import Stage, by_host, room, stages
from mpi_ftp.reduction import SCRATCH, Lane, Reduction

HOSTS = {'one': 'aaaaaa', 'each its own': 'abcdef', 'pairs': 'aabbcc', 'uneven': 'aaabcc', 'mixed': 'abacab'}


class Placed:
    """A communicator whose ranks are said to run on other hosts."""

    def __init__(self, comm, hosts):
        self.comm, self.rank, self.size, self.host_names = comm, comm.rank, comm.size, list(hosts[:comm.size])

    def messages(self, *args):
        return self.comm.messages(*args)


def test_stages():
    assert by_host(Placed(comm_module.Alone(), 'a')) == ((0,),)
    mixed = SimpleNamespace(size=6, host_names=list('abacab'))
    assert by_host(mixed) == ((0, 2, 4), (1, 5), (3,)) and by_host(mixed, flat=True) == ((0, 1, 2, 3, 4, 5),)
    hosts = ((0, 1, 2), (3,), (4, 5))
    assert stages(hosts, 0) == [Stage((0, 1, 2), 1, False), Stage((0, 3, 4), 3, True)]
    assert stages(hosts, 3) == [Stage((0, 3, 4), 3, True)] and stages(hosts, 5) == [Stage((4, 5), 1, False)]
    assert stages(((0, 2), (1, 3)), 3) == [Stage((1, 3), 2, False), Stage((2, 3), 2, True)]
    assert stages(((0, 1),), 1) == [Stage((0, 1), 2, True)]
    assert room(stages(hosts, 0), 1000) >= 2000                  # the leader receives all from two others


def numbers(rank, size, dtype, step=0):
    return np.random.default_rng([rank, step]).standard_normal(size).astype(dtype)


def reduce(comm, hosts, sizes, dtype, monkeypatch, steps=1, polls=True, grads=None, **options):
    """Sums of `steps` steps of buckets of such sizes; layer numbers fall as in a backward pass."""
    monkeypatch.setattr(reduction, 'PIECE', 400 * np.dtype(dtype).itemsize)
    monkeypatch.setattr(reduction, 'PART', 120 * np.dtype(dtype).itemsize)
    grads, placed = np.empty(sum(sizes), dtype) if grads is None else grads, Placed(comm, hosts)
    edges = np.cumsum([0, *sizes])[::-1]
    buckets = [(2 * k, edges[i + 1], edges[i], placed) for i, k in enumerate(reversed(range(len(sizes))))]
    sums, found = Reduction(grads, buckets, **options), []
    for step in range(steps):
        grads[:] = numbers(comm.rank, grads.size, dtype, step)
        for layer in reversed(range(2 * len(sizes))):
            if polls:
                sums.start_after(layer)
        if not polls:
            sums.start_after(0)
        sums.wait()
        found.append(grads.copy())
    return found, sums


@pytest.mark.mpi(1, 2, 3, 4, 6)
@pytest.mark.parametrize('hosts', HOSTS)
def test_sums_are_right_and_the_same_everywhere(hosts, monkeypatch):
    comm = comm_module.world()
    for polls in (True, False):
        found, _ = reduce(comm, HOSTS[hosts], (1, 5000, 16, 401), np.float64, monkeypatch, steps=3, polls=polls)
        for step, total in enumerate(found):
            truth = sum(numbers(rank, total.size, np.float64, step) for rank in range(comm.size))
            np.testing.assert_allclose(total, truth, rtol=0, atol=1e-14)
            assert len(set(comm.broadcast(comm.gather(total.tobytes())))) == 1


@pytest.mark.mpi(2, 3, 4, 6)
def test_deterministic_sums_do_not_depend_on_hosts(monkeypatch):
    comm = comm_module.world()
    truth = numbers(0, 1500, np.float32)
    for rank in range(1, comm.size):
        truth = truth + numbers(rank, 1500, np.float32)
    for hosts in HOSTS.values():
        (total,), _ = reduce(comm, hosts, (1500,), np.float32, monkeypatch, deterministic=True)
        np.testing.assert_array_equal(total, truth)


@pytest.mark.mpi(2, 3, 6)
@pytest.mark.parametrize('hosts', ['one', 'each its own', 'pairs'])
def test_half_precision_loses_nothing_for_good(hosts, monkeypatch):
    """One sum is off by 2^-11 of the largest number; the sum over steps stays as near as that."""
    comm, steps = comm_module.world(), 30
    found, sums = reduce(comm, HOSTS[hosts], (1000, 77), np.float32, monkeypatch, steps=steps, half=True)
    assert len(set(comm.broadcast(comm.gather(found[-1].tobytes())))) == 1
    truth = [sum(numbers(rank, 1077, np.float64, step) for rank in range(comm.size)) for step in range(steps)]
    bound = 2 * 2 ** -11 * np.abs(truth).max() * comm.size
    assert 0 < np.abs(found[0] - truth[0]).max() < bound
    assert np.abs(np.sum(found, 0, np.float64) - np.sum(truth, 0)).max() < bound
    if hosts == 'each its own':
        assert sums.bytes_sent < .55 * reduce(comm, HOSTS[hosts], (1000, 77), np.float32, monkeypatch)[1].bytes_sent


@pytest.mark.mpi(2, 3, 6)
@pytest.mark.parametrize('hosts', ['one', 'each its own', 'pairs'])
def test_early_lanes_do_not_wait_for_late_ones(hosts, monkeypatch):
    comm = comm_module.world()
    sizes, lanes = (1000, 16, 3001, 700), {0: 0, 2: 0, 4: 1, 6: 2}
    edges, grads = np.cumsum([0, *sizes]), np.empty(sum(sizes))
    _, sums = reduce(comm, HOSTS[hosts], sizes, np.float64, monkeypatch, grads=grads, lanes=lanes)
    for step in range(1, 4):
        grads[:] = numbers(comm.rank, edges[-1], np.float64, step)
        sums.start_after(0)
        truth = sum(numbers(rank, edges[-1], np.float64, step) for rank in range(comm.size))
        for count, end in ((1, edges[2]), (2, edges[3]), (None, edges[4])):
            sums.wait(count)
            np.testing.assert_allclose(grads[:end], truth[:end], rtol=0, atol=1e-14)
            assert not any(lane.open for lane in sums.lanes[:count])
        assert not any(lane.open for lane in sums.lanes)


@pytest.mark.parametrize('pieces, size, slots', [(50, 1 << 10, 6), (50, SCRATCH // 5 // 4, 5), (50, SCRATCH, 3), (2, 1 << 10, 2), (0, 0, 1)])
def test_a_lane_has_a_few_pieces_under_way(pieces, size, slots):
    """Six of small ones at most, or what waits on a slow link is old before it leaves; three of large ones at least, or the link rests."""
    lane, started = Lane(pieces, size, np.dtype(np.float32)), []
    assert lane.scratch.shape == (slots, size)
    lane.pieces = [(0, SimpleNamespace(start=lambda k=k: started.append(k))) for k in range(pieces)]
    lane.complete(0)
    lane.begin()
    assert started == list(range(min(pieces, slots)))


@pytest.mark.mpi(2)
def test_times_are_told_once(monkeypatch):
    comm = comm_module.world()
    _, sums = reduce(comm, 'ab', (5000,), np.float32, monkeypatch)
    under_way, waited = sums.take_times()
    assert 0 < waited <= under_way and sums.take_times() == (0, 0)


@pytest.mark.mpi(2, 3, 6)
def test_small_sums_in_one_round_add_in_the_order_of_ranks():
    comm = comm_module.world()
    some = comm.split(0)
    some.in_order = True
    for step in range(3):
        for shape, dtype in (((2, 3, 16), np.float64), ((7,), np.float32), ((2, 3, 16), np.float32)):
            array = numbers(comm.rank, int(np.prod(shape)), dtype, step).reshape(shape)
            truth = numbers(0, array.size, dtype, step)
            for rank in range(1, comm.size):
                truth = truth + numbers(rank, array.size, dtype, step)
            assert some.sum(array) is array
            np.testing.assert_array_equal(array.ravel(), truth)


@pytest.mark.mpi(2)
def test_pieces_of_two_lanes_never_share_a_tag(monkeypatch):
    """They may start in another order on another rank. Nor do those of a lane that are under way together."""
    comm, tags = comm_module.world(), []
    monkeypatch.setattr(Placed, 'messages', lambda self, sends, receives, tag: tags.append(tag) or self.comm.messages(sends, receives, tag))
    _, sums = reduce(comm, 'ab', (4000, 16 * 30000), np.float32, monkeypatch, lanes={0: 0, 2: 1})
    first, second = (len(lane.pieces) for lane in sums.lanes)
    each = len(tags) // (first + second)                            # tags of a piece; lanes are made one after the other
    assert first and first + second > reduction.TURNS and len(tags) == each * (first + second)
    assert len(set(tags[:first * each])) == first * each
    assert not set(tags[:first * each]) & set(tags[first * each:]) and max(tags) < 32000
