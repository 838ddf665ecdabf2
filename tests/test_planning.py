"""Budgets of memory by rank and host; plans that do not fit them are refused before anything is allocated."""
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from core import HEAD, conv, make_network
from planning_core import made_up_machine, network_of

from mpi_ftp import comm as comm_module
from mpi_ftp import planning
from mpi_ftp.cost import CostModel
from mpi_ftp.errors import CfgError, JobError, MemoryRefused
from mpi_ftp.footprint import Footprint
from mpi_ftp.job import Job, read_job
from mpi_ftp.kinds import parse_memory
from mpi_ftp.limits import available, resident
from mpi_ftp.machine import read_machine, write_machine
from mpi_ftp.measuring import signature
from mpi_ftp.plan import by_hand
from mpi_ftp.search import find_plan
from mpi_ftp.subtiles import with_parts

MIB = 1 << 20


def test_budgets_as_given_by_host_or_found():
    hosts, found = ('pi1', 'pi1', 'pi2'), (100, 101, 102)
    assert planning.given(None, hosts, found) == found
    assert planning.given(7, hosts, found) == (7, 7, 7)
    assert planning.given(parse_memory('pi1=1M, pi2=2M'), hosts, found) == (MIB, MIB, 2 * MIB)
    assert planning.given(parse_memory('pi2=2M'), hosts, found) == (100, 101, 2 * MIB)
    with pytest.raises(JobError, match='--memory names pi3, but the ranks run on pi1, pi2, did you mean'):
        planning.given(parse_memory('pi3=1M'), hosts, found)


def test_a_job_file_says_the_same(tmp_path):
    memory = parse_memory('pi1=700M,pi2=1.5G')
    (tmp_path / 'job.toml').write_text(Job(memory=memory).toml())
    assert read_job(tmp_path / 'job.toml')['memory'] == memory == (('pi1', 700 * MIB), ('pi2', 1536 * MIB))


@pytest.mark.parametrize('text', ['pi1=', '=1M', 'pi1=1M,pi1=2M', 'pi1=much'])
def test_what_is_no_budget(text):
    with pytest.raises((ValueError, AttributeError)):
        parse_memory(text)


@pytest.mark.mpi(1, 2, 3)
def test_ranks_of_a_host_share_what_is_free():
    world = comm_module.world()
    found = planning.budgets(world, None)
    assert len(found) == world.size and world.broadcast(found) == found
    assert found[world.rank] - resident() <= 1.2 * available() / world.size + 32 * MIB
    assert planning.budgets(world, 5) == (5,) * world.size
    assert planning.budgets(world, ((world.host, 9),)) == (9,) * world.size


def test_a_plan_larger_than_the_host_is_refused(tmp_path, monkeypatch):
    network, machine = network_of(tmp_path, 'deep', 256, 256), made_up_machine()
    job = Job(cfg=Path('net.cfg'))
    free = planning.fitting(network, 1, 2, machine, job, (1 << 40,))
    base = free.predicted['memory']['process']
    tight = planning.fitting(network, 1, 2, machine, job, (base + (free.predicted['bytes'] - base) * 5 // 6,))
    assert tight.predicted['bytes'] < free.predicted['bytes']
    with pytest.raises(MemoryRefused, match='lacks') as refused:
        planning.fitting(network, 1, 2, machine, job, (base,))
    assert refused.value.exit_code == 8
    enough = int(str(refused.value).split('--memory ')[1].split('M')[0]) << 20
    least = planning.fitting(network, 1, 2, machine, job, (enough,))
    assert least.predicted['bytes'] <= enough and (free.predicted['ahead'], least.predicted['ahead']) == (2, 0)      # pictures are made when they are asked for


def test_a_stale_machine_file_is_measured_again(tmp_path, capsys):
    network, path, alone = network_of(tmp_path), tmp_path / 'machine.json', comm_module.Alone()
    job = Job(cfg=Path('net.cfg'), machine=path)
    estimate, stale = made_up_machine(), replace(made_up_machine(), signature='a Z80, 1 cores')
    write_machine(path, estimate)
    assert planning.known_machine(alone, network, 1, job, 8 * MIB) == estimate and 'was not measured on these ranks' in capsys.readouterr().out
    write_machine(path, stale)
    found = planning.known_machine(alone, network, 1, job, 8 * MIB)
    assert found.signature == signature() and 'was measured on a Z80, 1 cores, this is' in capsys.readouterr().out
    assert read_machine(path) == found == planning.known_machine(alone, network, 1, job, 8 * MIB)


def test_ranks_that_share_cores_may_stay_idle(tmp_path):
    network = network_of(tmp_path, 'tiny-yolo', 64, 64)
    crowded = replace(made_up_machine(), hosts=(0,) * 6, speeds=(1.0,) * 6, cores=2)
    job, plenty = Job(cfg=Path('net.cfg')), (1 << 40,) * 6
    plan = planning.fitting(network, 6, 1, crowded, job, plenty)
    assert plan.ranks == 6
    assert all(region.empty for layout in plan.layouts(network).values() for region in layout.regions[2:])
    spread = planning.fitting(network, 6, 1, crowded, replace(job, grid=(3, 2)), plenty)
    assert not any(region.empty for region in spread.layouts(network)[0])
    assert plan.predicted['seconds'] < spread.predicted['seconds']
    two_hosts = replace(crowded, hosts=(0, 0, 0, 1, 1, 1))
    assert planning.with_idle_ranks(network, 1, two_hosts, job, 6) is None


@pytest.mark.parametrize('key', ('batch', 'subdivisions'))
def test_no_pictures_are_no_batch(tmp_path, key):
    network = network_of(tmp_path)
    network.net = network.net.replace(**{key: 0})
    with pytest.raises(CfgError, match=rf'\[net\] {key}=0: expected a whole number of at least 1'):
        planning.mini_batch(network, Job())


@pytest.mark.parametrize('text, layout', [(HEAD, 'auto'), (conv(16) * 3 + HEAD, 'tail')])
def test_a_limit_that_nothing_keeps_is_refused_where_little_is_taped(text, layout, tmp_path):
    network = make_network(tmp_path, text, 17, 17)
    for training in (False, True):
        with pytest.raises(MemoryRefused, match='no plan '):
            find_plan(network, 2, 1, made_up_machine(2), layout=layout, memory=1 << 20, training=training)


def test_frozen_batch_norm_is_planned_without_its_sums(tmp_path):
    network, machine = network_of(tmp_path), made_up_machine(2, link=(1e-3, 1e8))
    parted = with_parts(network, by_hand(network, 1, 1, (1, 1), [0, 8], recompute=True), (2, 1))
    sums, parts = [], []
    for batch_norm in 'live', 'frozen':
        job = Job(cfg=Path('net.cfg'), grid=(1, 2), batch_norm=batch_norm)
        course = planning.course_of(network, job, ('train',))
        sums.append(planning.fitting(network, 2, 1, machine, job, (1 << 40,) * 2, course).predicted['parts']['norm_sums'])
        parts.append(CostModel(network, made_up_machine(), 1, 1, course=course).price(parted).parts)
    assert sums[0] > sums[1] == 0
    assert all(parts[0][name] > parts[1][name] for name in ('forward', 'backward', 'recompute'))           # walks through the parts for moments


def test_parts_that_a_job_asks_for(tmp_path):
    network, machine, job = network_of(tmp_path, 'deep', 256, 256), made_up_machine(), Job(cfg=Path('net.cfg'), groups=(0, 7), recompute='all')
    whole, parted = (planning.fitting(network, 1, 1, machine, replace(job, parts=parts), (1 << 40,)) for parts in (None, (4, 1)))
    assert [group.parts for group in parted.groups] == [(4, 1), (1, 1)] and whole.predicted['bytes'] > parted.predicted['bytes']
    assert parted.predicted['bytes'] == Footprint(network, parted, machine).worst()[0] == sum(parted.predicted['memory'].values())
    monolith = replace(job, recompute='none', groups=(0,), parts=(4, 1))                                    # a head's group is not taken in parts
    assert not any(group.parted for group in planning.fitting(network, 1, 1, machine, monolith, (1 << 40,)).groups)


@pytest.mark.mpi(2)
def test_a_new_plan_is_made_where_it_pays(tmp_path):
    comm, machine = comm_module.world(), made_up_machine(2)
    network, job = network_of(tmp_path, h=96, w=96), Job(cfg=Path('net.cfg'))
    plan = comm.from_first(lambda: find_plan(network, 2, 2, machine))
    steady, slow = ((1.0, .2, 1.21), (1.0, .2, 1.21)), ((1.0, .2, 1.21), (3.0, .2, 3.21))

    def again(late, **changes):
        typical = late if comm.rank == 1 else steady
        return planning.plan_again(comm, network, 2, replace(job, **changes), plan, machine, SimpleNamespace(typical=lambda: typical))
    why, before, new, now = again(slow)
    assert why == 'rank 1 computes 3.0 times slower than before' and now.speeds == pytest.approx((1, 3))
    was, will = (sum(share.computed[0].size for share in shares[1:]) / sum(share.computed[0].size for share in shares) for shares in
                 ([p.share(network, p.layouts(network), p.groups[0], rank) for rank in range(2)] for p in (plan, new)))
    assert will < .4 < was and new.predicted['seconds'] < .9 * before
    assert again(steady) is None
    assert again(slow, memory=1) is None                     # nothing would fit, the run goes on as it is
    assert again(None) is None                               # too few steps were seen
