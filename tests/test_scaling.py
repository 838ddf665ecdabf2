"""Steps on fewer and more ranks are measured in one run; the bounds follow from operations and bytes."""
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from core import NETWORKS, make_network
from mpi_run import under_mpirun
from planning_core import made_up_machine

from mpi_ftp import comm as comm_module
from mpi_ftp.compare import alternative
from mpi_ftp.contest import Contestant, Entry, Figures, Room, operations
from mpi_ftp.errors import JobError
from mpi_ftp.footprint import Footprint
from mpi_ftp.manual import named, sweep
from mpi_ftp.network import PICTURE
from mpi_ftp.plan import by_hand
from mpi_ftp.plan_table import brief
from mpi_ftp.region import Region
from mpi_ftp.rivals import finalists, plan_rows, verdict
from mpi_ftp.rivals_picture import draw_rivals
from mpi_ftp.scaling import Row, count_rows


def test_operations_of_one_rank_are_those_of_the_network(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48)
    alone = by_hand(network, 1, 2, (1, 1), [0])
    forward = {layer.index: layer.flops(Region.whole(network.tensor_shape(layer.index, 2))) for layer in network.layers}
    want = sum(n * (2 if network.layers[i].inputs[0] == PICTURE else 3) for i, n in forward.items())
    assert operations(network, alone, 0) == want
    cut = by_hand(network, 4, 2, (2, 2), [0, 4])
    parts = [operations(network, cut, rank) for rank in range(4)]
    assert want < sum(parts) < 2 * want                             # halos are computed twice
    again = by_hand(network, 4, 2, (2, 2), [0, 4], recompute=True)
    assert operations(network, again, 0) > parts[0]
    assert brief(alone) == '0:whole' and brief(cut) == '0:2Hx2W 4:2Hx2W'


def test_efficiency_and_hidden_part():
    row = Row(SimpleNamespace(ranks=2), Figures(.06, .01, .002, .003, .03, .1, (10, 20), (1, 1), (.06,), (.06, .06)), serial=.1, ideal=.05, bound=.05, labour=.05)
    assert row.efficiency == pytest.approx(.1 / 2 / .06) and row.hidden == pytest.approx(.9)
    assert replace(row, figures=replace(row.figures, reductions=0)).hidden is None


def test_a_slow_rank_is_due_less(tmp_path):
    """Of the work of a rank of speed 1 and one of half of it the ideal is two thirds and one third, however the slow one's time became known."""
    waits = 0.0, 0.0, 0.0, 0.0, 0.0
    one, two = (Entry(by_hand(make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48), ranks, 2, (ranks, 1), [0])) for ranks in (1, 2))
    machine = replace(made_up_machine(2), hosts=(0, 1), speeds=(3.0, 6.0), labour=1e-9)
    shared = Figures(.08, *waits, (10 ** 6, 10 ** 6), (70, 30), (.08,), (.08, .08))
    for each in (.1, .2), (.1,):
        rows = count_rows([one, two], {one: Figures(.1, *waits, (0, 0), (100,), (.1,), each), two: shared}, machine)
        assert [row.ideal for row in rows] == pytest.approx([.1, .2 / 3]) and [row.efficiency for row in rows] == pytest.approx([1, 2 / 3 / .8])
        assert [row.bound for row in rows] == pytest.approx([.1, 2e6 / machine.link[1]]) and rows[1].serial == .1
        assert [row.labour for row in rows] == pytest.approx([.1, .07 + 2e6 * 3e-9])          # the other: .06 + 2e6 * 6e-9
        assert [row.muted for row in rows] == [None, None]
    quiet = {two: shared, replace(two, mute=True): replace(shared, seconds=.07), one: Figures(.1, *waits, (0, 0), (100,), (.1,), each)}
    assert [row.muted for row in count_rows([one, two], quiet, machine)] == [None, .07]


def test_words_of_plans():
    assert alternative('spatial 2x3 0/4/8 cuts 2/6') == {'layout': 'spatial', 'grid': (2, 3), 'groups': (0, 4, 8), 'cuts': (2, 6)}
    assert alternative('2x1x3 fused') == {'grid': (2, 1, 3), 'groups': 'fused'}
    with pytest.raises(JobError, match="'2x fused': expected auto, per-layer"):
        alternative('2x fused')


def test_a_manual_sweep(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48)
    names = sweep(network, 6, 4)
    assert {'3x2 per-layer', '3x2 0/2/4/6', '2x3 0/4', '2x3x1 fused', 'auto'} < set(names) and len(names) == 13
    plans = named(network, 6, 4, made_up_machine(6), [*names, '7x1', '5x1x1', '0/99'])
    assert 'grid 7x1 needs 7 ranks' in plans['7x1'] and 'cuts a batch of 4 into 5 parts' in plans['5x1x1'] and 'layer 99' in plans['0/99']
    assert brief(plans['2x3x1 0/4']) == '0:2Nx3H 4:2Nx3H'
    best = plans['auto'].predicted['seconds']
    assert all(isinstance(plans[name], str) or plans[name].predicted['seconds'] >= .999 * best for name in plans)


def test_rows_of_plans_and_who_is_best(tmp_path):
    one, two = by_hand(make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48), 2, 2, (2, 1), [0]), None
    one = replace(one, predicted={'seconds': .1, 'bytes': 1 << 20})
    two = replace(one, groups=one.groups[:1] + (replace(one.groups[-1], recompute=True),))
    waits = 0.0, 0.0, 0.0, 0.0, 0.0, (0, 0), (1, 1)
    plans = {'3x3': 'grid 3x3 needs 9 ranks, there are 2', 'fused': one, 'again': two, 'auto': one}
    figures = {Entry(one): Figures(.2, *waits, (.2, .4, .2), (.2, .2)), Entry(two): Figures(.19, *waits, (.1, .3, .19), (.19, .19))}
    rows = plan_rows(plans, figures)
    missing, fused, again, auto = rows
    assert missing.figures is None and 'needs 9 ranks' in missing.reason and auto.same == 'fused' and fused.same == '' and auto.ratio == 1
    assert again.ratio == pytest.approx(.75) and again.low == pytest.approx(.625) and again.rounds == 3      # each beside auto's of the same round
    assert "of 2 plans 'again' is the best" in verdict(rows) and 'auto takes 33.3 % longer' in verdict(rows)
    assert verdict([missing, fused, replace(again, ratio=1.1), auto]).endswith("auto is the best by measurement; the next, 'again', takes 10.0 % longer.")
    assert "auto is the best" in verdict([fused, replace(again, figures=replace(again.figures, rounds=(.1, .3))), auto])           # it did not go on to the end
    assert finalists(plans, figures, 2) == [Entry(one), Entry(two)] and finalists(plans, figures, 1) == [Entry(one)]
    draw_rivals(tmp_path / 'out.png', rows + [replace(row, batch=4) for row in rows], 'net.cfg, 2 ranks')
    assert (tmp_path / 'out.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.mpi(2)
def test_contestants_share_memory_and_weights(tmp_path, mpi_ranks):
    """What each computes does not depend on whom it shares with; only filters that are cut otherwise are held again."""
    network, world, batch = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48), comm_module.world(), 2
    machine = made_up_machine(2)
    plans = [plan for plan in named(network, 2, batch, machine, ['2x1 per-layer', '1x2 fused', '2x1x1 0/4']).values()]
    last = plans[0].groups[-3]
    filters = replace(last, edges=((0, batch), (0, 16, last.edges[1][-1]), last.edges[2][::2], last.edges[3]))
    plans.append(replace(plans[0], groups=(*plans[0].groups[:-3], filters, *plans[0].groups[-2:])))
    job = SimpleNamespace(overlap=True, deterministic=False, halos='full', gradients='full')
    entries = [Entry(plan) for plan in plans]
    room = Room(world, network, entries, machine)
    together = [Contestant(world, network, entry, job, room) for entry in entries]
    assert len({id(c.model.arena.pages) for c in together}) == 1 and len(room.weights) == 2
    assert together[0].model.parameters is together[1].model.parameters is not together[3].model.parameters
    for contestant in together:
        apart = Contestant(world, network, Entry(contestant.plan), job, Room(world, network, [Entry(contestant.plan)], machine))
        losses = []
        for one in apart, *together, contestant:
            one.model.parameters.grads[:] = 0
            value = one.model.forward(one.picture, one.truths)
            one.model.backward()
            one.model.reduction.wait()
            losses.append(float(world.sum(np.array([value]))[0]))
        assert [losses[1 + together.index(contestant)], losses[-1]] == pytest.approx(losses[:1] * 2, rel=1e-5)      # pictures are each plan's own
        mine, alone = contestant.model.parameters.grads, apart.model.parameters.grads
        assert np.abs(mine - alone).max() <= 1e-4 * np.abs(alone).max() > 0
    for entry in Entry(by_hand(network, 1, batch, (1, 1), [0]), everywhere=True), Entry(by_hand(network, 1, batch, (1, 1), [0])):
        needs = Footprint(network, entry.plan, made_up_machine()).arena(0, True)
        assert len(Room(world, network, [entry], machine).pages.map) == (needs if entry.everywhere or world.rank == 0 else 1)
    together[0].turn(1)
    together[0].turn(2)
    figures = together[0].figures()
    assert (figures is None) == (world.rank > 0) and (world.rank > 0 or len(figures.rounds) == 1 and figures.seconds > 0)


@pytest.mark.mpi(2)
@pytest.mark.parametrize('precision', ['full', 'half'])
def test_a_mute_contestant_neither_sends_nor_waits(tmp_path, mpi_ranks, precision):
    """It makes no request, has weights of its own, which the other's do not suffer from, and takes the same steps."""
    network, world = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48), comm_module.world()
    job = SimpleNamespace(overlap=True, deterministic=False, halos=precision, gradients=precision)
    loud = Entry(by_hand(network, 2, 2, (2, 1), [0, 4]))
    room = Room(world, network, [loud], made_up_machine(2))
    speaks, mute = (Contestant(world, network, entry, job, room) for entry in (loud, replace(loud, mute=True)))
    assert speaks.model.parameters is not mute.model.parameters and len(room.weights) == 2
    before = mute.model.parameters.flat.copy()
    for contestant in speaks, mute:
        contestant.turn(1)
        contestant.turn(1)
    requests = [[messages.requests for lane in each.model.reduction.lanes for _, piece in lane.pieces for _, messages, _ in piece.rounds] for each in (speaks, mute)]
    assert all(requests[0]) and requests[1] and not any(requests[1])
    assert speaks.model.bytes_moved == mute.model.bytes_moved > 0 and np.isfinite(mute.model.parameters.flat).all() and (mute.model.parameters.flat != before).any()
    if world.rank == 0:         # the other would wait for ever, had it anybody to wait for
        mute.step()


@pytest.mark.parametrize('more', [(), ('--busy', '--mute')])
def test_the_verb(tmp_path, more):
    """Three processes; one to three ranks take turns."""
    done = scaling(tmp_path, 3, '--batches', '2', *more, '--profile', 'machine.json')
    rows = json.loads((tmp_path / 'out.json').read_text())
    assert [row['ranks'] for row in rows] == [1, 2, 3] and all(row['seconds'] > 0 for row in rows)
    for row in rows:                        # where one rank alone is faster, three send nothing either
        assert (sum(row['sent']) > 0) == any(not group.endswith(':whole') for group in row['plan'].split())
    assert [bool(row['muted']) for row in rows] == [False, bool(more), bool(more)]
    assert sum(rows[0]['sent']) == 0 and (tmp_path / 'machine.json').exists() and 'efficiency' in done.stdout


def test_the_verb_with_plans(tmp_path):
    """Two processes; plans take turns, and one that does not exist is told in its row."""
    done = scaling(tmp_path, 2, '--batches', '1,2', '--plans', '2x1 fused, 2x1 0,3x1,2x1 per-layer', '--png', 'out.png', '--finalists', '2')
    rows = json.loads((tmp_path / 'out.json').read_text())
    assert [(row['batch'], row['name']) for row in rows] == [(batch, name) for batch in (1, 2) for name in ('2x1 fused', '2x1 0', '3x1', '2x1 per-layer', 'auto')]
    assert rows[1]['same'] == '2x1 fused' and rows[1]['seconds'] == rows[0]['seconds'] > 0 < sum(rows[0]['sent']) and rows[0]['rounds'] >= 3 and rows[4]['ratio'] == 1
    assert sum(row['rounds'] == rows[4]['rounds'] for row in rows[:5] if row['seconds'] and not row['same']) == 2       # one went on beside auto
    assert rows[2]['seconds'] is None and 'grid 3x1 needs 3 ranks' in rows[2]['reason'] and (tmp_path / 'out.png').exists()
    assert 'batch 2, 2 ranks: of ' in done.stdout and 'batch 1: plans are made' in done.stdout


def scaling(folder, ranks, *words):
    """The verb in so many processes on a small network; what it writes lies in the folder."""
    make_network(folder, NETWORKS['tiny-yolo'], 32, 48)
    command = under_mpirun(ranks, sys.executable, '-m', 'mpi4py', '-m', 'mpi_ftp', 'scaling', '--cfg', 'net.cfg', '--seconds', '.2', '--threads', '1',
                           '--json', 'out.json', *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
