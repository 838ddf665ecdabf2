"""Waiting with pauses: it takes little processor time, and nothing is missed."""
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mpi_ftp import comm as comm_module
from mpi_ftp.errors import PlanError
from mpi_ftp.hosts import host_names, this_machine
from mpi_ftp.waiting import Messages, until


def test_waiting_leaves_the_core_to_others():
    begun, busy = time.perf_counter(), time.process_time()
    until(lambda: time.perf_counter() - begun > .2)
    assert time.perf_counter() - begun < .4
    assert time.process_time() - busy < .1


def test_what_is_done_already_is_not_waited_for():
    asked = []
    until(lambda: asked.append(1) or len(asked) == 3)
    assert len(asked) == 3
    Messages([], []).wait()


def test_requests_are_given_back_once_nothing_is_under_way():
    freed, mpi = [], SimpleNamespace(Is_finalized=lambda: False)
    request = SimpleNamespace(Free=lambda: freed.append(1), Test=lambda: True)
    Messages([request], [request, request], mpi)
    assert len(freed) == 3
    under_way = Messages([request], [], mpi)
    under_way.left = 1
    del under_way
    assert len(freed) == 3


@pytest.mark.mpi(2, 3)
@pytest.mark.parametrize('patient', [False, True])
def test_patient_ranks_get_the_same(patient):
    world = comm_module.world()
    comm = comm_module.World(world.comm, world.mpi, patient=patient)
    assert comm.split(0).patient == comm.host_comm().patient == patient
    total = comm.sum(np.arange(5.0) + comm.rank)
    np.testing.assert_array_equal(total, comm.size * np.arange(5.0) + sum(range(comm.size)))
    out, into = np.full(1000, comm.rank, float), np.zeros(1000)
    messages = comm.messages([((comm.rank + 1) % comm.size, out)], [((comm.rank - 1) % comm.size, into)], 7)
    for _ in range(3):
        into[:] = -1
        messages.start()
        messages.wait()
        assert (into == (comm.rank - 1) % comm.size).all()


@pytest.mark.mpi(1, 3, timeout=30)
def test_what_the_first_rank_finds_others_wait_for_without_work():
    comm, busy = comm_module.world(), time.process_time()
    assert comm.from_first(lambda: time.sleep(.5) or 'found') == 'found'
    assert time.process_time() - busy < .1

    def refuse():
        raise PlanError(f'rank {comm.rank} finds none')
    with pytest.raises(PlanError, match='^rank 0 finds none$'):
        comm.from_first(refuse)


@pytest.mark.mpi(3, timeout=30)
def test_ranks_with_unlike_cores_wait_in_one_way(monkeypatch):
    world = comm_module.world()
    monkeypatch.setattr(comm_module, 'cores', lambda: 1 if world.rank == 1 else 64)
    comm = comm_module.World(world.comm, world.mpi)
    assert comm.patient and comm.sum(np.ones(3)).tolist() == [comm.size] * 3
    monkeypatch.setattr(comm_module, 'cores', lambda: 64)
    assert not comm_module.World(world.comm, world.mpi).patient


def test_machines_of_one_name_are_told_apart():
    assert host_names([('pi', 'a'), ('pi', 'b'), ('other', 'c'), ('pi', 'a')]) == ['pi#1', 'pi#2', 'other', 'pi#1']
    assert host_names([('pi', 'a'), ('pi', 'a')]) == ['pi', 'pi'] and host_names([this_machine()]) == [this_machine()[0]]
