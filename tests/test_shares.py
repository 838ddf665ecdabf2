"""Ranks that differ in memory and in speed: who takes which tile, what a budget of its own makes possible, what is refused."""
from dataclasses import replace
from pathlib import Path

import pytest
from core import compare_with_one_rank
from planning_core import made_up_machine, network_of

from mpi_ftp import comm as comm_module
from mpi_ftp import planning
from mpi_ftp.cost import CostModel
from mpi_ftp.errors import MemoryRefused
from mpi_ftp.footprint import Footprint
from mpi_ftp.job import Job
from mpi_ftp.plan import GroupPlan, Plan
from mpi_ftp.refine import moves, runs, with_moved_edges
from mpi_ftp.search import find_plan
from mpi_ftp.shares import by_memory, orders, roomy_orders

MIB, PLENTY = 1 << 20, 4 << 30


def machine_of(ranks, **changes):
    return made_up_machine(ranks, **{'names': tuple(f'pi{number}' for number in range(ranks)), **changes})


def test_orders_put_quick_and_roomy_hosts_first():
    assert orders(machine_of(4), 4) == [()]
    assert orders(machine_of(4, speeds=(1.0, 1.0, 1.0, 2.0)), 4) == [()]
    assert orders(machine_of(4, speeds=(1.0, 2.0, 2.0, 1.0)), 1) == [(0, 3, 1, 2)]
    assert orders(machine_of(4, speeds=(1.0, 2.0, 2.0, 1.0)), 2) == [(0, 3, 1, 2), (0, 1, 3, 2)]
    assert orders(machine_of(4, speeds=(2.0, 3.0, 1.0, 1.0), hosts=(0, 0, 1, 1)), 1) == [(2, 3, 0, 1)]      # hosts stay together
    assert roomy_orders(machine_of(3), (5, 9, 7)) == [(1, 2, 0)]
    assert roomy_orders(machine_of(3, speeds=(2.0, 2.0, 1.0)), (9, 5, 5)) == [(), (2, 0, 1)]


def test_shares_are_no_larger_than_room_and_speed_allow():
    assert by_memory((1, 1, 1), [(5, 5, 5)]) == []
    (least, room) = by_memory((1, 1), [(30, 10)])
    assert least == pytest.approx((2 / 3, 1 / 3)) and room == pytest.approx((3 / 4, 1 / 4))
    for shares in by_memory((1, 2), [(100, -5)]):
        assert sum(shares) == pytest.approx(1) and .01 < shares[1] < .05


def least_for_all(network, ranks, batch, machine):
    """Bytes that do for every rank where all have the same, by the refusal of less."""
    with pytest.raises(MemoryRefused) as refused:
        find_plan(network, ranks, batch, machine, memory=MIB)
    return int(str(refused.value).split('--memory ')[1].split('M')[0]) * MIB


@pytest.mark.parametrize('ranks', [2, 3])
def test_a_large_rank_makes_up_for_a_small_one(tmp_path, ranks):
    """What is refused where every rank has as little as the poorest is trained where the others have plenty."""
    network, machine = network_of(tmp_path, 'deep', 256, 256), machine_of(ranks)
    little = least_for_all(network, ranks, 1, machine) - 6 * MIB
    job = Job(cfg=Path('net.cfg'))
    with pytest.raises(MemoryRefused):
        planning.fitting(network, ranks, 1, machine, job, (little,) * ranks)
    for poor in range(ranks):
        memory = tuple(little if rank == poor else PLENTY for rank in range(ranks))
        plan = planning.fitting(network, ranks, 1, machine, job, memory)
        footprint = Footprint(network, plan, machine)
        assert all(footprint.total(rank) <= memory[rank] for rank in range(ranks))
        assert plan.predicted['seconds'] == pytest.approx(CostModel(network, machine, 1, ranks, order=plan.order).price(plan).seconds)
        assert Plan.from_json(plan.to_json()) == plan


def test_the_refusal_names_the_host_and_what_would_do(tmp_path):
    network, machine = network_of(tmp_path, 'deep', 256, 256), machine_of(2)
    with pytest.raises(MemoryRefused, match=r'rank 1 on pi1 may hold 150 MiB and lacks \d+ MiB .*; --memory pi1=\d+M would do') as refused:
        find_plan(network, 2, 1, machine, memory=(PLENTY, 150 * MIB))
    enough = int(str(refused.value).split('pi1=')[1].split('M')[0]) * MIB
    assert 150 * MIB < enough < least_for_all(network, 2, 1, machine)
    plan = find_plan(network, 2, 1, machine, memory=(PLENTY, enough))
    assert Footprint(network, plan, machine).total(1) <= enough


def test_a_rank_that_is_far_too_slow_gets_no_tile(tmp_path):
    network = network_of(tmp_path, 'tiny-yolo', 64, 64)
    lame = find_plan(network, 3, 1, machine_of(3, link=(1e-6, 1e9), speeds=(50.0, 1.0, 1.0)))
    assert all(layout[0].empty for layout in lame.layouts(network).values())
    two = find_plan(network, 2, 1, machine_of(2, link=(1e-6, 1e9)))
    assert lame.predicted['seconds'] == pytest.approx(two.predicted['seconds'], rel=.05)


@pytest.mark.parametrize('speeds', [(1, 2, 2, 1), (2, 1, 1, 1), (2, 2, 1, 1)])
def test_the_numbers_of_ranks_do_not_count(tmp_path, speeds):
    """Whichever ranks are slow, the step takes as long."""
    network, link = network_of(tmp_path, 'tiny-yolo', 128, 128), (1e-5, 1e9)
    step, like = (find_plan(network, 4, 2, machine_of(4, link=link, speeds=tuple(map(float, s)))).predicted['seconds'] for s in (speeds, sorted(speeds)))
    assert step == pytest.approx(like, rel=1e-6)


def test_no_move_of_a_cut_or_a_run_of_cuts_is_left(tmp_path):
    assert runs(3) == [(1, 1), (2, 2), (3, 3), (1, 2), (2, 3), (1, 3)] and runs(9) == [(k, k) for k in range(1, 10)]
    network = network_of(tmp_path, 'tiny-yolo', 120, 60)
    model = CostModel(network, machine_of(4, link=(1e-6, 1e9), speeds=(1.0, 1.0, 1.0, 2.0)), 1, 4)
    edges = tuple((0, size) if axis != 2 else (0, 4, 8, 12, 15) for axis, size in enumerate(network.tensor_shape(len(network) - 1, 1)))
    plan = with_moved_edges(model, Plan(4, 1, (GroupPlan(0, len(network), edges),)))
    least = model.price(plan).seconds
    assert plan.groups[0].edges[2] != edges[2]
    assert all(model.price(changed).seconds >= .9995 * least for changed in moves(plan, 0))


@pytest.mark.mpi(2, 3, timeout=120)
def test_plans_sized_by_memory_train_as_one_rank_does(tmp_path):
    comm = comm_module.world()
    network = network_of(tmp_path / f'{comm.rank}' if (tmp_path / f'{comm.rank}').mkdir() is None else tmp_path, 'deep', 160, 160)
    machine = replace(machine_of(comm.size), base=0)
    plan = None
    if comm.rank == 0:
        little = least_for_all(network, comm.size, 1, machine) - 2 * MIB
        plan = find_plan(network, comm.size, 1, machine, memory=(little,) + (PLENTY,) * (comm.size - 1))
        first = plan.layouts(network)[0]
        assert first[0].size < first[1].size
    compare_with_one_rank(network, comm.broadcast(plan), comm)
