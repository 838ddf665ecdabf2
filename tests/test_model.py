"""Any number of ranks, any grid, any grouping gives what one rank gives: losses, gradients, weights and running statistics."""
from dataclasses import replace

import numpy as np
import pytest
from core import HEAD, NETWORKS, compare_with_one_rank, conv, make_network, picture, run

from mpi_ftp import comm as comm_module
from mpi_ftp.backward import halves
from mpi_ftp.group import bands
from mpi_ftp.layer_cost import PIECES
from mpi_ftp.model import Model
from mpi_ftp.plan import GroupPlan, Plan, by_hand, per_layer
from mpi_ftp.region import NOTHING, Region, balanced

GRIDS = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2), 5: (2, 2), 6: (2, 3)}
GROUPINGS = {'per layer': lambda net: per_layer(net), 'fused': lambda net: [0], 'by hand': lambda net: [0, 3, 6]}


@pytest.mark.mpi(1, 2, 3, 4, 5, 6, timeout=120)
@pytest.mark.parametrize('recompute', [False, True])
@pytest.mark.parametrize('name', NETWORKS)
def test_equals_one_rank(name, recompute, tmp_path):
    comm = comm_module.world()
    sizes = (36, 52) if name in ('reorg', 'upsample') else (35, 41)
    network = make_network(tmp_path, NETWORKS[name], *sizes, name=f'{comm.rank}.cfg')
    for grouping in GROUPINGS.values():
        plan = by_hand(network, comm.size, 2, GRIDS[comm.size], grouping(network), recompute=recompute)
        compare_with_one_rank(network, plan, comm)


@pytest.mark.mpi(2, 3, 4, 6)
@pytest.mark.parametrize('cuts, starts', [((1,), [0, 7]), ((0, 2, 4), [0, 7]), ((5,), [0, 7]), ((3, 5), [0, 3])])
def test_backward_cuts_change_nothing(cuts, starts, tmp_path):
    """The last one leaves less to return to the group before than came from there."""
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS['deep'], 23, 31, name=f'{comm.rank}.cfg')
    compare_with_one_rank(network, by_hand(network, comm.size, 1, GRIDS[comm.size], starts, cuts), comm)


@pytest.mark.mpi(2, 4, 6)
def test_halo_wider_than_the_neighbours_tile_and_empty_tiles(tmp_path):
    """Seven 3x3 layers reach 7 pixels; tiles along H are 5, 1, 0 and 3 rows."""
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS['deep'], 9, 20, name=f'{comm.rank}.cfg')
    rows = {2: (0, 1, 9), 4: (0, 5, 6, 6, 9), 6: (0, 1, 1, 4, 5, 6, 9)}[comm.size]
    shape = network.tensor_shape(len(network) - 1, 1)
    for starts in ([0], [0, 4], list(range(len(network)))):
        groups = [GroupPlan(a, b, ((0, 1), (0, shape[1]), rows, (0, 20))) for a, b in zip(starts, starts[1:] + [len(network)])]
        groups = [GroupPlan(g.start, g.stop, (g.edges[0], (0, network.layers[g.last].out_shape[0])) + g.edges[2:]) for g in groups]
        compare_with_one_rank(network, Plan(comm.size, 1, tuple(groups)), comm)


def cut_differently(network, ranks, batch, axes):
    """One group per layer; layer i is cut along axes[i % len(axes)], the head always along W."""
    groups = []
    for layer in network.layers:
        shape = network.tensor_shape(layer.index, batch)
        axis = 3 if layer.is_head else axes[layer.index % len(axes)]
        edges = [(0, n) for n in shape]
        edges[axis] = balanced(shape[axis], ranks, 16 if axis == 1 else 1)
        groups.append(GroupPlan(layer.index, layer.index + 1, tuple(edges)))
    return Plan(ranks, batch, tuple(groups))


@pytest.mark.mpi(2, 3, 4, 6)
@pytest.mark.parametrize('axes', [(1,), (0,), (2, 1), (1, 3, 0)], ids=['filters', 'samples', 'rows-filters', 'mixed'])
@pytest.mark.parametrize('name', ['tiny-yolo', 'residual', 'reorg', 'upsample'])
def test_cuts_along_filters_and_samples(name, axes, tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS[name].replace('groups=4', ''), 36, 52, name=f'{comm.rank}.cfg')
    compare_with_one_rank(network, cut_differently(network, comm.size, 3, axes), comm)


@pytest.mark.mpi(4, 6)
def test_filters_by_rows_hybrid_and_fused_filter_groups(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 36, 52, name=f'{comm.rank}.cfg')
    groups = []
    for start, stop, cut in ((0, 3, 'rows'), (3, 5, 'both'), (5, 8, 'filters'), (8, 10, 'rows')):
        n, c, h, w = network.tensor_shape(stop - 1, 2)
        filters = balanced(c, {'rows': 1, 'both': 2, 'filters': comm.size}[cut], 16)
        rows = balanced(h, {'rows': comm.size, 'both': comm.size // 2, 'filters': 1}[cut])
        groups.append(GroupPlan(start, stop, ((0, n), filters, rows, (0, w))))
    for recompute in (False, True):
        plan = Plan(comm.size, 2, tuple(GroupPlan(g.start, g.stop, g.edges, (), recompute) for g in groups))
        compare_with_one_rank(network, plan, comm)


@pytest.mark.mpi(4)
def test_depthwise_branches_cut_along_filters_exchange_nothing(tmp_path):
    comm = comm_module.world()
    text = conv(64) + conv(64, bn=0, more='groups=64\n') + conv(64, bn=0, more='groups=4\n') + conv(18, k=1, a='linear', bn=0)
    network = make_network(tmp_path, text + '[region]\nanchors=1,1\nnum=1\nclasses=13\n', 12, 13, name=f'{comm.rank}.cfg')
    plan = cut_differently(network, comm.size, 1, (1,))
    compare_with_one_rank(network, plan, comm)
    _, _, model = run(network, plan, comm)
    assert sum(e.bytes_sent for g in model.groups[1:3] for e in g.exchanges.values()) == 0


@pytest.mark.mpi(4)
def test_overlap_changes_nothing_but_order(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 64, 80, name=f'{comm.rank}.cfg')
    plan = by_hand(network, comm.size, 1, (2, 2), per_layer(network))
    with_overlap, without = (run(network, plan, comm, overlap=o) for o in ('always', False))
    assert any(not g.core.empty for g in with_overlap[2].groups) and all(g.core.empty for g in without[2].groups)
    late = Model(network, replace(plan, groups=tuple(replace(g, early=False) for g in plan.groups)), comm, overlap='always')
    assert all(g.core.empty for g in late.groups)
    for key, rows in with_overlap[1].items():
        np.testing.assert_allclose(rows, without[1][key], rtol=1e-11, atol=1e-13)


@pytest.mark.mpi(2)
def test_work_is_kept_only_where_sums_follow_what_returns(tmp_path):
    """The first weights' gradient comes in two pieces where gradients go back to layers that sum over ranks, not where each filter has one owner."""
    comm = comm_module.world()
    network = make_network(tmp_path, conv(32) * 4 + HEAD, 36, 52, name=f'{comm.rank}.cfg')
    for axis, twice in ((1, set()), (2, {1, 2, 3})):
        model = Model(network, cut_differently(network, 2, 2, (axis,)), comm, overlap='always')
        assert {len(e.receives) for g in model.groups[1:4] for e in g.exchanges.values()} == {1}
        assert [len(g.back.steps[g.plan.start].pieces) for g in model.groups[:5]] == [1 + (start in twice) for start in range(5)]


@pytest.mark.mpi(4)
def test_a_core_keeps_to_the_tiles_of_the_whole(tmp_path):
    """With Winograd kernels the first layer of a group gives the same bits in pieces as in one."""
    comm = comm_module.world()
    text = '[convolutional]\nbatch_normalize=1\nfilters=32\nsize=3\nstride=1\npad=1\nactivation=leaky\n'
    network = make_network(tmp_path, text * 2 + '[region]\nanchors=1,1\nnum=1\nclasses=27\n', 60, 70, name=f'{comm.rank}.cfg')
    plan = by_hand(network, comm.size, 1, (2, 2), per_layer(network))
    (first, _, model), (again, _, _) = (run(network, plan, comm, np.float32, steps=1, overlap=o) for o in ('always', False))
    assert max(len(g.tape.uses[g.plan.start]) for g in model.groups) == PIECES and first == again        # as the cost model counts them


def test_bands_and_halves_are_whole_tiles():
    box = Region((0, 0, 3, 0), (1, 8, 25, 9))
    assert [b.shape[2] for b in bands(box, 4)] == [8, 8, 6] and [b.shape[2] for b in bands(box)] == [7, 7, 8]
    assert [b.shape[2] for b in bands(box.replace(2, 3, 8), 4)] == [4, 1]
    assert [b.shape[2] for b in halves(box)] == [12, 10] and halves(box.replace(2, 3, 7)) == [box.replace(2, 3, 7)]
    assert [b.shape[0] for b in halves(box.replace(0, 0, 3))] == [2, 1] and halves(NOTHING) == [NOTHING]


@pytest.mark.mpi(2, 4)
def test_frozen_batch_norm(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 35, 41, name=f'{comm.rank}.cfg')
    plan = by_hand(network, comm.size, 2, GRIDS[comm.size], [0, 3])
    values, found, _ = run(network, plan, comm, frozen=True, variance=1.0)
    truth_values, truth, _ = run(network, by_hand(network, 1, 2, (1, 1), [0]), comm_module.Alone(), frozen=True, variance=1.0)
    np.testing.assert_allclose(values, truth_values, rtol=1e-12)
    for key, rows in found.items():
        assert np.abs(rows - truth[key]).max() <= 1e-12 * max(1e-300, np.abs(truth[key]).max()), key
        if key[1] == 'mean':
            assert not rows.any(), 'frozen statistics moved'


@pytest.mark.mpi(2, 4)
def test_float32_forward_is_bit_equal_under_every_cut(tmp_path, monkeypatch):
    """Direct kernels without batch norm: a pixel's sum does not depend on the tile it is computed in."""
    comm = comm_module.world()
    text = conv(16, bn=0) + '[maxpool]\nsize=2\nstride=2\n' + conv(40, bn=0) + conv(24, k=1, bn=0) + conv(32, s=2, bn=0)
    network = make_network(tmp_path, text, 61, 47, name=f'{comm.rank}.cfg')
    from mpi_ftp.model import Model

    def outputs(plan, on):
        model = Model(network, plan, on, np.float32, training=False)
        model.parameters.initialise(1)
        model.forward(picture(network, 1, model.picture).astype(np.float32))
        return model.gather(len(network) - 1)

    monkeypatch.setattr('mpi_ftp.kernels.algorithms._switch', 'off')
    truth = outputs(by_hand(network, 1, 1, (1, 1), [0]), comm_module.Alone())
    for starts in ([0], [0, 2], per_layer(network)):
        mine = outputs(by_hand(network, comm.size, 1, GRIDS[comm.size], starts), comm)
        assert comm.rank or np.array_equal(mine, truth)


@pytest.mark.mpi(2, 4, 6)
def test_float32_loss_after_ten_steps(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 64, 80, name=f'{comm.rank}.cfg')
    one = by_hand(network, 1, 1, (1, 1), [0])
    values, _, _ = run(network, one, comm_module.Alone(), np.float32, steps=10)
    mine, _, _ = run(network, by_hand(network, comm.size, 1, GRIDS[comm.size], [0, 4]), comm, np.float32, steps=10)
    np.testing.assert_allclose(mine, values, rtol=1e-4)


@pytest.mark.mpi(3, 4, timeout=120)
def test_a_rank_without_a_tile_holds_no_weights(tmp_path):
    """Maps smaller than the grid go to the first ranks, by samples; the others neither hold nor sum nor step those layers."""
    comm = comm_module.world()
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 24, 16)
    groups = []
    for start, stop in ((0, 4), (4, len(network))):
        n, c, h, w = network.tensor_shape(stop - 1, 2)
        groups.append(GroupPlan(start, stop, ((0, n), (0, c), balanced(h, comm.size), (0, w)) if not start else tuple((0, v) for v in (n, c, h, w))))
    plan = Plan(comm.size, 2, tuple(groups))
    compare_with_one_rank(network, plan, comm)
    _, _, model = run(network, plan, comm)
    assert model.parameters.sharing[4] == ((0, 32),) + (None,) * (comm.size - 1)
    assert (4 in model.parameters.channels) == (comm.rank == 0)
    assert 0 in model.parameters.channels


def test_the_layer_that_is_no_longer_finite_is_named_in_parts_and_pools(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 32)
    for plan in (by_hand(network, 1, 1, (1, 1), [0]), by_hand(network, 1, 1, (1, 1), [0, 4], recompute=True)):
        groups = tuple(replace(g, parts=(2, 1)) if g.recompute and not g.start else g for g in plan.groups)
        model = Model(network, replace(plan, groups=groups), comm_module.Alone(), np.float64)
        model.parameters.initialise(1)
        tile = picture(network, 1, model.picture)
        assert model.first_not_finite(tile, None) == len(network)
        model.parameters.views(2, model.parameters.flat)['scale'][...] = np.inf
        assert model.first_not_finite(tile, None) == 2
