"""The search equals brute force, keeps to what is prescribed and to its budget, and ends soon."""
import time
from dataclasses import replace
from itertools import pairwise, product
from math import prod
from pathlib import Path

import pytest
from core import POOL, compare_with_one_rank, conv, make_network
from planning_core import made_up_machine, network_of

from mpi_ftp import comm as comm_module
from mpi_ftp.budget import Budget
from mpi_ftp.cost import CostModel
from mpi_ftp.dynamic import MIXES, Search, searches_of
from mpi_ftp.errors import MemoryRefused, PlanError
from mpi_ftp.footprint import Footprint
from mpi_ftp.machine import read_machine
from mpi_ftp.network import read_network
from mpi_ftp.plan import GroupPlan, Plan, by_hand
from mpi_ftp.search import fastest, fewer_at_work, find_plan
from mpi_ftp.space import Space
from mpi_ftp.subtiles import check
from mpi_ftp.ways import Way, main_ways, sized, stripped

ROOT = Path(__file__).parent.parent
LINKS = {'quick': (1e-6, 1e9), 'slow': (1e-3, 1e7), 'far': (2e-2, 1e8)}


def every_plan(search, count):
    """All groupings with all ways to cut each group."""
    for mask in product((False, True), repeat=count - 1):
        spans = list(pairwise([0, *(i + 1 for i, cut in enumerate(mask) if cut), count]))
        for ways in product(*([way for way in search.ways if stop in range_of(search, way, start)] for start, stop in spans)):
            yield spans, ways


def range_of(search, way, start):
    ends = search.ends(way, start, float('inf'))
    return search.space.table(way).stops[ends].tolist()


def seconds_of(search, spans, ways):
    """By the tables, group by group."""
    total, before = 0.0, None
    for (start, stop), way in zip(spans, ways):
        steps = search.space.steps(start, way, before, search.ends(way, start, float('inf')))
        best = min(seconds[steps.stops.tolist().index(stop)] for _, seconds in search.choices(start, way, steps))
        total, before = total + best, way
    return total


@pytest.mark.parametrize('link', LINKS)
@pytest.mark.parametrize('ranks, batch, main, speeds', [(2, 1, (1, 1, 2, 1), (1, 1)), (4, 2, (1, 1, 2, 2), (1, 1, 1, 1)), (4, 2, (2, 1, 2, 1), (1, 1, 1, 1)),
                                                        (2, 1, (1, 1, 1, 2), (1, 3)), (3, 1, (1, 1, 3, 1), (1, 1, 2))])
def test_equals_brute_force(tmp_path, link, ranks, batch, main, speeds):
    """Also with parts sized by speed."""
    network = network_of(tmp_path, 'strided', 90, 120)
    model = CostModel(network, made_up_machine(ranks, LINKS[link], speeds=speeds), batch, ranks)
    tails = [sized(Way(parts), speeds) for parts in ((1, 1, 1, 1), (batch, 1, 1, 1), (1, ranks, 1, 1))]
    search = Search(Space(model), sized(Way(main), speeds), tails)
    least, cheapest = float('inf'), float('inf')
    for spans, ways in every_plan(search, len(network)):
        total = seconds_of(search, spans, ways)
        least = min(least, total)
        if total < 1.1 * least:
            plan = Plan(ranks, batch, tuple(GroupPlan(*span, stripped(search.space.edges(way, span[1]))) for span, way in zip(spans, ways)))
            cheapest = min(cheapest, model.price(plan).seconds)
    seconds, plan = search.best()
    assert seconds == pytest.approx(least)
    exact = min(model.price(search.mixed(mix).best()[1]).seconds for mix in MIXES)
    assert exact <= cheapest * 1.04                         # sums of gradients overlap, which no single group can know
    bounded, same = Search(Space(model), sized(Way(main), speeds), tails).best(bound=least * 1.02)
    assert bounded == pytest.approx(least) and same == plan


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
    each = find_plan(network, 4, 1, machine, groups='per-layer', cuts='none', layout='spatial')
    each = replace(each, groups=tuple(replace(group, early=True) for group in each.groups))
    assert each == by_hand(network, 4, 1, tuple(each.predicted['grid']), [i for i in range(len(network)) if i == 0 or not network.layers[i].halo_free])


@pytest.mark.parametrize('wrong', [dict(grid=(3, 2)), dict(groups=[0, 99]), dict(cuts=(99,)), dict(groups='some')])
def test_what_makes_no_plan_is_refused(tmp_path, wrong):
    with pytest.raises(PlanError):
        find_plan(network_of(tmp_path), 4, 1, made_up_machine(4), **wrong)


@pytest.mark.parametrize('ranks', range(1, 8))
def test_every_number_of_ranks_has_a_way(tmp_path, ranks):
    network = network_of(tmp_path)
    ways = main_ways(network, ranks, 2)
    assert max(prod(way.parts) for way in ways) == ranks
    plan = find_plan(network, ranks, 1, made_up_machine(ranks))
    assert plan.groups[0].start == 0 and plan.groups[-1].stop == len(network) and all(a.stop == b.start for a, b in pairwise(plan.groups))


def test_a_budget_is_kept_by_recomputing(tmp_path, monkeypatch):
    network, machine = network_of(tmp_path, 'deep', 256, 256), made_up_machine()
    free = find_plan(network, 1, 2, machine)
    base = free.predicted['memory']['process']
    budget = base + (free.predicted['bytes'] - base) * 5 // 6
    tight = find_plan(network, 1, 2, machine, memory=budget)
    assert any(group.recompute for group in tight.groups) and not any(group.recompute for group in free.groups)
    assert Footprint(network, tight, machine).worst()[0] <= budget < free.predicted['bytes']
    assert free.predicted['seconds'] < tight.predicted['seconds'] < 1.4 * free.predicted['seconds']
    monkeypatch.setattr('mpi_ftp.budget.with_cuts', lambda model, plan, cuts: free)                 # cuts that take more room
    assert find_plan(network, 1, 2, machine, memory=budget).predicted['bytes'] <= budget
    with pytest.raises(MemoryRefused, match=r'rank 0 lacks \d+ MiB.*its process takes \d\d\d MiB, \w+ \d+ MiB; .*layer \d+ \[.*--memory \d+M would do'):
        find_plan(network, 1, 2, machine, memory=base)


def test_the_budget_of_a_refusal_is_enough(tmp_path):
    network, machine = network_of(tmp_path, 'deep', 256, 256), made_up_machine(2)
    with pytest.raises(MemoryRefused) as refused:
        find_plan(network, 2, 1, machine, memory=1 << 20)
    enough = int(str(refused.value).split('--memory ')[1].split('M')[0]) << 20
    assert find_plan(network, 2, 1, machine, memory=enough).predicted['bytes'] <= enough


def whole_tiles(choices):
    """Of the choices of a search those that take no tile in parts."""
    return lambda *about: [choice for choice in choices(*about) if choice[0][1] == (1, 1)]


def test_where_nothing_fits_groups_are_taken_in_more_parts(tmp_path, monkeypatch):
    network, machine = network_of(tmp_path, 'deep', 640, 640), made_up_machine()

    def least():
        with pytest.raises(MemoryRefused) as refused:
            find_plan(network, 1, 1, machine, memory=1 << 20)
        return int(str(refused.value).split('--memory ')[1].split('M')[0]) << 20
    squeezed = least()
    tight = find_plan(network, 1, 1, machine, memory=squeezed)
    assert tight.predicted['bytes'] <= squeezed and any(group.parted for group in tight.groups)
    check(network, tight)
    monkeypatch.setattr(Budget, 'squeeze', lambda self: None)
    found = least()
    monkeypatch.setattr('mpi_ftp.dynamic.Search.choices', whole_tiles(Search.choices))
    assert least() > found > squeezed


def test_many_ranks_are_priced_in_few_arrays(tmp_path):
    """What bounds leave of all groups; seconds say little on a busy machine."""
    network = network_of(tmp_path, 'tiny-yolo', 320, 320)
    spans = len(network) * (len(network) + 1) // 2
    for ranks in 64, 256:
        searches = searches_of(CostModel(network, made_up_machine(ranks), 4, ranks), None, 'auto', 'auto', 'auto')
        begun = time.process_time()
        best = min(fastest(searches), key=lambda entry: entry.seconds)
        assert len(best.plan.groups) > 1 and time.process_time() - begun < 20
        assert best.search.space.priced < len(searches) * len(best.search.ways) ** 2 * spans / 2


@pytest.mark.mpi(2, 3, 4, 6, timeout=180)
@pytest.mark.parametrize('name', ['tiny-yolo', 'residual', 'reorg'])
def test_found_plans_train_as_one_rank_does(tmp_path, name):
    """Whatever cuts the search comes up with, for links of three kinds."""
    comm = comm_module.world()
    network = network_of(tmp_path / f'{comm.rank}' if (tmp_path / f'{comm.rank}').mkdir() is None else tmp_path, name, 36, 52)
    for link in LINKS.values():
        machine = replace(made_up_machine(comm.size, link), base=0)
        for recompute in 'none', 'all':
            plan = comm.from_first(lambda: find_plan(network, comm.size, 2, machine, recompute=recompute))
            compare_with_one_rank(network, plan, comm)


@pytest.mark.mpi(2, 3, 4, timeout=180)
@pytest.mark.parametrize('name', ['tiny-yolo', 'reorg'])
def test_plans_for_uneven_ranks_train_as_one_rank_does(tmp_path, name):
    """Ranks of which the first is the slowest, or has the least memory: tiles are dealt in another order than ranks are numbered."""
    comm = comm_module.world()
    network = network_of(tmp_path / f'{comm.rank}' if (tmp_path / f'{comm.rank}').mkdir() is None else tmp_path, name, 36, 52)
    for speeds in (3, 1, 2, 1), (9, 1, 1, 1):
        machine = replace(made_up_machine(comm.size, LINKS['quick'], speeds=tuple(map(float, speeds[:comm.size]))), base=0)
        plan = comm.from_first(lambda: find_plan(network, comm.size, 2, machine))
        assert plan.order and plan.order[0] != 0
        compare_with_one_rank(network, plan, comm)


def test_one_rank_alone_where_links_are_too_slow(tmp_path):
    network = network_of(tmp_path)
    plan = find_plan(network, 3, 1, made_up_machine(3, link=(1e-1, 1e5)))
    assert plan.predicted['parts']['gradient_sums'] == plan.predicted['parts']['exchange'] == 0
    assert plan.predicted['seconds'] < find_plan(network, 3, 1, made_up_machine(3, link=(1e-1, 1e5)), layout='spatial').predicted['seconds']


def test_two_of_six_work_where_sums_over_more_take_long(tmp_path):
    sums = ((2, 1e-4, .02), (3, .03, 3.0), (4, .04, 4.0))
    fewer = tuple((ranks, nbytes, seconds) for ranks, small, large in sums for nbytes, seconds in ((256, small), (256 << 10, large)))
    machine = made_up_machine(6, (2e-2, 1e6), flops=1e8, sums=((256, .05), (256 << 10, 5.0)), fewer=fewer)
    plan = find_plan(network_of(tmp_path), 6, 4, machine)
    assert {prod([len(edges) - 1 for edges in group.edges]) for group in plan.groups} == {2}
    assert [fewer_at_work(ranks, [0]) for ranks in (1, 2, 3, 5, 16)] == [[0], [1, 0], [2, 1, 0], [4, 3, 2, 1, 0], [15, 14, 13, 12, 10, 8, 4, 0]]


@pytest.mark.parametrize('link', LINKS.values(), ids=LINKS)
def test_more_ranks_are_never_expected_to_be_slower(tmp_path, link):
    """Where five or six divide samples and maps badly, four may do the work."""
    network = network_of(tmp_path)
    seconds = {ranks: find_plan(network, ranks, 4, made_up_machine(ranks, link)).predicted['seconds'] for ranks in range(3, 8)}
    for ranks in 5, 6, 7:
        assert all(seconds[ranks] <= 1.01 * seconds[fewer] for fewer in (ranks - 2, ranks - 1)), seconds


def test_two_of_six_work_where_one_would_do_nearly_all(tmp_path):
    """The best plan for all six has few messages, as one computes nearly all of it: that says nothing of two."""
    network, machine = read_network(ROOT / 'jobs' / 'reference.cfg'), read_machine(ROOT / 'hostfiles' / 'pi5-100mbit.json')
    two, six = (find_plan(network, ranks, 1, machine).predicted['seconds'] for ranks in (2, 6))
    assert six <= 1.001 * two


@pytest.mark.parametrize('speed, link', [(3e8, 1e6), (1e9, 3e6)])
def test_no_restricted_form_is_expected_to_be_faster(tmp_path, speed, link):
    """Where a third of the sums of gradients is not hidden: neither a half nor nothing."""
    network, machine = network_of(tmp_path), made_up_machine(4, (1e-4, link), flops=speed)
    free, each = (find_plan(network, 4, 1, machine, groups=groups).predicted['seconds'] for groups in ('auto', 'per-layer'))
    assert free <= 1.001 * each


@pytest.mark.parametrize('groups', ['auto', 'per-layer', 'fused'])
@pytest.mark.parametrize('prescribed', [dict(grid=(2, 2)), dict(grid=(1, 4)), dict(layout='spatial')], ids=str)
def test_a_grid_by_hand_cuts_all_that_it_can(tmp_path, groups, prescribed):
    """A head that no grid can cut, or a map too small for it, says nothing of the layers before."""
    classifier = conv(16) + POOL + conv(32) + conv(12, k=1) + '[avgpool]\n[softmax]\n'
    network = make_network(tmp_path, classifier, 32, 32)
    plan = find_plan(network, 4, 1, made_up_machine(4, LINKS['slow']), groups=groups, **prescribed)
    cut = [prod(len(edges) - 1 for edges in group.edges) for group in plan.groups for _ in range(group.start, group.stop)]
    assert cut == [4] * 4 + [1] * 2
