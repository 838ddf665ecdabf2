"""The search equals brute force, keeps to what is prescribed and to its budget, and ends soon."""
import time
from dataclasses import replace
from itertools import pairwise, product

import pytest
from core import compare_with_one_rank
from planning_core import made_up_machine, network_of

from mpi_ftp import comm as comm_module
from mpi_ftp.cost import CostModel
from mpi_ftp.errors import MemoryRefused, PlanError
from mpi_ftp.footprint import Footprint
from mpi_ftp.plan import GroupPlan, Plan, by_hand
from mpi_ftp.search import GridSearch, all_grids, find_plan

LINKS = {'quick': (1e-6, 1e9), 'slow': (1e-3, 1e7), 'far': (2e-2, 1e8)}


def every_plan(search, count):
    """All groupings with all layouts of each group."""
    for mask in product((False, True), repeat=count - 1):
        cuts = [0, *(i + 1 for i, cut in enumerate(mask) if cut), count]
        spans = list(pairwise(cuts))
        for kinds in product(*(search.kinds(*span) for span in spans)):
            yield spans, kinds


@pytest.mark.parametrize('link', LINKS)
@pytest.mark.parametrize('ranks, batch', [(2, 1), (4, 2)])
def test_equals_brute_force(tmp_path, link, ranks, batch):
    network = network_of(tmp_path, 'strided', 90, 120)
    model = CostModel(network, made_up_machine(ranks, LINKS[link]), batch, ranks)
    search = GridSearch(model, (2, ranks // 2))
    least, cheapest = float('inf'), float('inf')
    for spans, kinds in every_plan(search, len(network)):
        total, before = 0.0, 'picture'
        for (start, stop), kind in zip(spans, kinds):
            total, before = total + search.step(start, stop, kind, before, 0.0)[0], kind
        least = min(least, total)
        if total < 1.3 * least:
            plan = Plan(ranks, batch, tuple(GroupPlan(*span, search.edges(span[1], kind)) for span, kind in zip(spans, kinds)))
            cheapest = min(cheapest, model.price(plan).seconds)
    seconds, plan, _ = search.best(0.0)
    total, before = 0.0, 'picture'
    for group in plan.groups:
        kind = next(k for k in search.kinds(group.start, group.stop) if search.edges(group.stop, k) == group.edges)
        total, before = total + search.step(group.start, group.stop, kind, before, 0.0)[0], kind
    assert total == pytest.approx(least)
    assert seconds <= cheapest * 1.02                       # sums of gradients overlap, which no single group can know


def test_slow_links_make_larger_groups(tmp_path):
    network = network_of(tmp_path, 'deep')
    few, many = (find_plan(network, 4, 1, made_up_machine(4, link), grid=(2, 2)) for link in ((2e-2, 1e8), (1e-6, 1e9)))
    assert len(few.groups) < len(many.groups)


def test_keeps_to_what_is_prescribed(tmp_path):
    network, machine = network_of(tmp_path), made_up_machine(4)
    plan = find_plan(network, 4, 1, machine, grid=(2, 2), groups=[0, 4], cuts=(2,), recompute='all')
    hand = by_hand(network, 4, 1, (2, 2), [0, 4], (2,), True)
    assert plan == hand
    assert plan.predicted['seconds'] == pytest.approx(sum(plan.predicted['parts'].values()))
    assert not any(group.cuts or group.recompute for group in find_plan(network, 4, 1, machine, cuts='none', recompute='none').groups)
    assert find_plan(network, 4, 1, machine, groups='per-layer') == by_hand(network, 4, 1, tuple(find_plan(network, 4, 1, machine, groups='per-layer').predicted['grid']), [
        i for i in range(len(network)) if i == 0 or not network.layers[i].halo_free], find_plan(network, 4, 1, machine, groups='per-layer', cuts='none').groups[0].cuts)


@pytest.mark.parametrize('wrong', [dict(grid=(3, 2)), dict(groups=[0, 99]), dict(cuts=(99,)), dict(groups='some')])
def test_what_makes_no_plan_is_refused(tmp_path, wrong):
    with pytest.raises(PlanError):
        find_plan(network_of(tmp_path), 4, 1, made_up_machine(4), **wrong)


@pytest.mark.parametrize('ranks', range(1, 8))
def test_every_number_of_ranks_has_a_grid(tmp_path, ranks):
    network = network_of(tmp_path)
    grids = all_grids(network, ranks)
    assert grids and all(r * c <= ranks for r, c in grids) and (max(r * c for r, c in grids) == ranks)
    plan = find_plan(network, ranks, 1, made_up_machine(ranks))
    assert plan.groups[0].start == 0 and plan.groups[-1].stop == len(network) and all(a.stop == b.start for a, b in pairwise(plan.groups))


def test_a_budget_is_kept_by_recomputing(tmp_path):
    network, machine = network_of(tmp_path, 'deep', 256, 256), made_up_machine()
    free = find_plan(network, 1, 2, machine)
    base = free.predicted['memory']['process']
    budget = base + (free.predicted['bytes'] - base) * 5 // 6
    tight = find_plan(network, 1, 2, machine, memory=budget)
    assert any(group.recompute for group in tight.groups) and not any(group.recompute for group in free.groups)
    assert Footprint(network, tight, machine).worst()[0] <= budget < free.predicted['bytes']
    assert free.predicted['seconds'] < tight.predicted['seconds'] < 1.4 * free.predicted['seconds']
    with pytest.raises(MemoryRefused, match=r'rank 0 lacks \d+ MiB.*layer \d+ \[.*--memory \d+M would do'):
        find_plan(network, 1, 2, machine, memory=base)


def test_the_budget_of_a_refusal_is_enough(tmp_path):
    network, machine = network_of(tmp_path, 'deep', 256, 256), made_up_machine(2)
    with pytest.raises(MemoryRefused) as refused:
        find_plan(network, 2, 1, machine, memory=1 << 20)
    enough = int(str(refused.value).split('--memory ')[1].split('M')[0]) << 20
    assert find_plan(network, 2, 1, machine, memory=enough).predicted['bytes'] <= enough


def test_sixty_four_ranks_in_seconds(tmp_path):
    network = network_of(tmp_path, 'tiny-yolo', 320, 320)
    begun = time.process_time()
    plan = find_plan(network, 64, 4, made_up_machine(64))
    assert time.process_time() - begun < 10 and len(plan.groups) > 1


@pytest.mark.mpi(2, 3, 4, 6, timeout=180)
@pytest.mark.parametrize('name', ['tiny-yolo', 'residual', 'reorg'])
def test_found_plans_train_as_one_rank_does(tmp_path, name):
    """Whatever cuts the search comes up with, for links of three kinds."""
    comm = comm_module.world()
    network = network_of(tmp_path / f'{comm.rank}' if (tmp_path / f'{comm.rank}').mkdir() is None else tmp_path, name, 36, 52)
    for link in LINKS.values():
        machine = replace(made_up_machine(comm.size, link), base=0)
        for recompute in 'none', 'all':
            compare_with_one_rank(network, comm.broadcast(find_plan(network, comm.size, 2, machine, recompute=recompute)), comm)
