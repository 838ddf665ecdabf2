"""A tile taken in parts gives what it gives as a whole, in less memory."""
from dataclasses import replace

import numpy as np
import pytest
from core import NETWORKS, POOL, compare_with_one_rank, conv, make_network, picture, run

from mpi_ftp import comm as comm_module
from mpi_ftp.backward import BackwardPass
from mpi_ftp.errors import PlanError
from mpi_ftp.model import Model
from mpi_ftp.plan import Plan, by_hand
from mpi_ftp.region import NOTHING
from mpi_ftp.subtiles import check, obstacle, part_shares, walks, with_parts
from mpi_ftp.tape import Tape

GRIDS = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2)}
PARTS = [(2, 1), (1, 3), (3, 2)]
SHORTCUTS = conv(16) + conv(16, a='linear', bn=0) + '[shortcut]\nfrom=-2\nactivation=leaky\n' + conv(32, s=2) + conv(32, k=1, bn=0, a='mish') \
    + '[route]\nlayers=-1,-2\n' + POOL + conv(24, bn=0)
HEAD = conv(18, k=1, a='linear', bn=0) + '[region]\nanchors=1,1\nnum=1\nclasses=13\ncoords=4\n'
# network, first layers of its groups
CASES = {
    'norm and pool': (NETWORKS['tiny-yolo'], [0, 2, 4, 6, 7, 8]),
    'pool and norm': (NETWORKS['tiny-yolo'], [0, 1, 3, 5, 7, 8]),
    'single layers': (NETWORKS['tiny-yolo'], list(range(10))),
    'strided': (NETWORKS['strided'], [0, 1, 2, 3, 5]),
    'without norm': (conv(16, bn=0) + POOL + conv(24, bn=0, a='mish') + conv(20, s=2, bn=0) + conv(32, k=1, bn=0) + HEAD, [0, 5]),
    'norm between': (conv(16, bn=0) + POOL + conv(24) + conv(20, bn=0) + conv(32, k=1, bn=0) + HEAD, [0, 5]),
    'shortcut, route': (SHORTCUTS + HEAD, [0, 1, 3, 8]),
    'reorg': (NETWORKS['reorg'], [0, 2, 4, 8, 9]),
    'upsample': (NETWORKS['upsample'], [0, 2, 4, 7, 9, 12]),
    'half of the filters': (conv(16, s=2) + conv(16, s=2) + conv(48, s=2, bn=0) + '[upsample]\nstride=4\n[route]\nlayers=-1\ngroups=2\ngroup_id=1\n'
                            + conv(20, bn=0) + HEAD, [0, 2, 5, 6]),
    'pads': (NETWORKS['pads'], [0, 3, 5, 6]),
    'mixed': (NETWORKS['deep'], [0, 2, 4, 6]),
    'several norms': (NETWORKS['deep'], [0, 8]),
    'norms and pools': (NETWORKS['tiny-yolo'], [0, 6, 9]),
    'norms and shortcuts': (NETWORKS['residual'], [0, 3, 9]),
}


def planned(network, ranks, batch, starts, parts):
    plan = by_hand(network, ranks, batch, GRIDS[ranks], starts, recompute=True)
    plan = with_parts(network, plan, parts)
    assert any(group.parted for group in plan.groups)
    return plan


@pytest.mark.mpi(1, 2, 3, 4, timeout=120)
@pytest.mark.parametrize('parts', PARTS, ids='{0[0]}x{0[1]}'.format)
@pytest.mark.parametrize('name', CASES)
def test_parts_change_nothing(name, parts, tmp_path):
    comm = comm_module.world()
    text, starts = CASES[name]
    sizes = (36, 52) if name in ('reorg', 'upsample') else (35, 41)
    network = make_network(tmp_path, text, *sizes, name=f'{comm.rank}.cfg')
    compare_with_one_rank(network, planned(network, comm.size, 2, starts, parts), comm)


@pytest.mark.parametrize('name', CASES)
def test_only_groups_with_a_head_stay_whole(name, tmp_path):
    network = make_network(tmp_path, CASES[name][0], 36, 52)
    plan = planned(network, 1, 1, CASES[name][1], (2, 1))
    assert [g.stop for g in plan.groups if not g.parted] == [len(network)]


@pytest.mark.mpi(1, 2, 4)
@pytest.mark.parametrize('parts', PARTS, ids='{0[0]}x{0[1]}'.format)
@pytest.mark.parametrize('name', ['tiny-yolo', 'residual', 'upsample'])
def test_frozen_norm_has_no_bounds_in_depth(name, parts, tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS[name], 36, 52, name=f'{comm.rank}.cfg')
    plan = planned(network, comm.size, 2, [0, len(network) - 1], parts)
    one = by_hand(network, 1, 2, (1, 1), [0])
    values, found, _ = run(network, plan, comm, frozen=True, variance=1.0)
    want_values, want, _ = run(network, one, comm_module.Alone(), frozen=True, variance=1.0)
    np.testing.assert_allclose(values, want_values, rtol=1e-12)
    for key, rows in found.items():
        assert np.abs(rows - want[key]).max() <= 1e-12 * max(1e-300, np.abs(want[key]).max()), key


def outputs(network, plan, comm):
    """The whole last output of an inference model on rank 0."""
    model = Model(network, plan, comm, np.float64, training=False)
    model.parameters.initialise(1)
    for statistics in model.parameters.statistics.values():
        statistics['variance'][...] = 1
    model.arena.memory.view(np.float64)[:] = np.nan
    model.forward(picture(network, plan.batch, model.picture))
    return model.gather(len(network) - 1), model


@pytest.mark.mpi(1, 2, 3, 4)
@pytest.mark.parametrize('name', NETWORKS)
def test_inference_in_parts(name, tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS[name].split('[region]')[0], 36, 52, name=f'{comm.rank}.cfg')
    want, _ = outputs(network, by_hand(network, 1, 2, (1, 1), [0]), comm_module.Alone())
    for parts in PARTS:
        plan = with_parts(network, by_hand(network, comm.size, 2, GRIDS[comm.size], [0, 4]), parts, training=False)
        assert all(group.parted for group in plan.groups)
        mine, model = outputs(network, plan, comm)
        if comm.rank == 0:
            np.testing.assert_allclose(mine, want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize('parts', PARTS + [(40, 1), (1, 1)], ids='{0[0]}x{0[1]}'.format)
@pytest.mark.parametrize('name', NETWORKS)
def test_parts_own_the_tile_and_hold_what_it_holds(name, parts, tmp_path):
    network = make_network(tmp_path, NETWORKS[name].split('[region]')[0], 36, 52)
    plan = by_hand(network, 4, 2, (2, 2), [0, 4])
    layouts = plan.layouts(network)
    for group in (replace(g, parts=parts) for g in plan.groups):
        for rank in range(4):
            whole, shares = plan.share(network, layouts, group, rank), part_shares(network, group, layouts, rank)
            assert len(shares) == 1 or not any(s.owned[group.last].empty for s in shares)
            for index in range(group.start, group.stop):
                owned = [s.owned[index] for s in shares]
                assert sum(box.size for box in owned) == layouts[index][rank].size
                assert all((a & b).empty for i, a in enumerate(owned) for b in owned[:i])
            for tiles in ('held', 'gradient', 'computed', 'differentiated'):
                for index, box in getattr(whole, tiles).items():
                    around = NOTHING
                    for part in shares:
                        around = around | getattr(part, tiles)[index]
                    assert around == box, (tiles, index)


def test_what_cannot_be_taken_in_parts(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 36, 52)
    plan = by_hand(network, 1, 1, (1, 1), [0, 4], recompute=True)
    parted = Plan(1, 1, tuple(replace(g, parts=(2, 2)) for g in plan.groups))
    with pytest.raises(PlanError, match=r'layers 4 to 9 cannot be taken in 2x2 parts: layer 9 .region. takes the loss'):
        Model(network, parted, comm_module.Alone())
    with pytest.raises(PlanError, match=r'the backward pass is cut after layer 0'):
        check(network, Plan(1, 1, (replace(plan.groups[0], cuts=(0,), parts=(2, 1)),)))
    assert obstacle(network, 0, 9) is None


def test_memory_shrinks_with_the_parts(tmp_path):
    network = make_network(tmp_path, conv(16) + POOL + conv(32) + POOL + HEAD, 256, 256)
    sizes = []
    for parts in ((1, 1), (2, 1), (4, 1), (8, 1)):
        plan = by_hand(network, 1, 1, (1, 1), [0, 2, 4], recompute=True)
        sizes.append(Model(network, with_parts(network, plan, parts), comm_module.Alone(), losses={}).arena.nbytes)
    assert all(b < a for a, b in zip(sizes, sizes[1:])) and sizes[-1] < .7 * sizes[0], sizes


def test_the_first_layer_that_is_not_finite_is_found_inside_parts(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 35, 41)
    _, _, model = run(network, planned(network, 1, 1, [0, 2, 4, 6, 7, 8], (2, 1)), comm_module.Alone(), steps=1)
    model.parameters.weights(2)['filters'][...] = np.nan
    assert model.first_not_finite(picture(network, 1, model.picture), [None]) == 2


@pytest.mark.parametrize('starts', [[0, 8], [0, 2, 4, 8], [0, 1, 6, 8]])
def test_walks_count_how_often_layers_run(starts, tmp_path, monkeypatch):
    network = make_network(tmp_path, NETWORKS['deep'], 16, 16)
    counts = {}

    def counted(kind, name):
        method = getattr(kind, name)

        def run_it(self, index, *more, **options):
            key = name, self.turn if isinstance(self, Tape) else None, index
            counts[key] = counts.get(key, 0) + 1
            return method(self, index, *more, **options)
        monkeypatch.setattr(kind, name, run_it)

    for name in ('compute', 'finish'):
        counted(Tape, name)
    counted(BackwardPass, 'data')
    plan = planned(network, 1, 1, starts, (3, 1))
    _, _, model = run(network, plan, comm_module.Alone(), steps=1)
    for group in (g for g in plan.groups if g.parted):
        for index, (z, y, again, gradients) in walks(network, group.start, group.stop).items():
            assert counts['compute', 0, index] == 3 * z and counts['finish', 0, index] == 3 * y
            assert counts['data', None, index] == 3 * gradients
            assert index == 7 or counts['compute', 1, index] == 3 * again          # nobody reads layer 7, linear without norm, again
