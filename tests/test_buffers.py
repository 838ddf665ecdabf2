"""Norm, activation and pool in one pass, tiles inside other groups' tiles: where it applies, and that it changes nothing."""
import numpy as np
import pytest
from core import HEAD, NETWORKS, POOL, compare_with_one_rank, conv, make_network, run

from mpi_ftp import buffers, step_buffers
from mpi_ftp.comm import Alone, world
from mpi_ftp.plan import by_hand


def fused_pools(network, plan, training=True):
    """{layer: pool} of each group of one rank."""
    layouts = plan.layouts(network)
    return [buffers.pooled(network, g, plan.share(network, layouts, g, 0, training), training) for g in plan.groups]


@pytest.mark.parametrize('cuts', [(), (1,), (3,)])
@pytest.mark.parametrize('recompute', [False, True])
def test_one_pass_changes_nothing(recompute, cuts, tmp_path, monkeypatch):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 24)
    plan = by_hand(network, 1, 2, (1, 1), [0], cuts, recompute)
    assert fused_pools(network, plan) == [{0: 1, 2: 3, 4: 5}]
    losses, found, model = run(network, plan, Alone())
    assert ('y', 0, 0) not in model.arena.offsets or recompute
    assert ('d', 0) not in model.arena.offsets
    monkeypatch.setattr(buffers, 'pooled', lambda *_: {})
    want_losses, want, other = run(network, plan, Alone())
    assert model.arena.nbytes < other.arena.nbytes
    np.testing.assert_allclose(losses, want_losses, rtol=1e-13)
    for key, rows in want.items():
        np.testing.assert_allclose(found[key], rows, rtol=1e-10, atol=1e-12 * np.abs(rows).max(), err_msg=str(key))


def test_not_where_windows_do_not_tile_or_others_read(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 30, 24)         # layer 2 has 15 rows
    assert fused_pools(network, by_hand(network, 1, 1, (1, 1), [0])) == [{0: 1, 4: 5}]
    assert fused_pools(network, by_hand(network, 1, 1, (1, 1), [0]), training=False) == [{0: 1, 4: 5}]
    assert fused_pools(network, by_hand(network, 1, 1, (1, 1), [0, 1])) == [{}, {4: 5}]           # a pool that begins a group
    assert fused_pools(network, by_hand(network, 1, 1, (1, 1), [0], (0,))) == [{4: 5}]            # copies are summed in between
    network = make_network(tmp_path, NETWORKS['upsample'], 32, 24, name='other.cfg')
    assert fused_pools(network, by_hand(network, 1, 1, (1, 1), [0])) == [{0: 1}]                  # a route reads layer 2 too


@pytest.mark.mpi(2, 3, 6)
@pytest.mark.parametrize('recompute', [False, True])
def test_what_a_group_gives_lies_in_the_tile_that_the_next_one_reads(recompute, tmp_path, monkeypatch):
    """Layer 1 is read with halos by two groups, one of which holds what it gives; its gradient comes from both, and lies apart."""
    comm = world()
    network = make_network(tmp_path, conv(16) + POOL + conv(24) + conv(32, a='linear') + '[route]\nlayers=-1,1\n' + conv(16) + HEAD, 26, 22)
    plan = by_hand(network, comm.size, 2, {2: (2, 1), 3: (1, 3), 6: (3, 2)}[comm.size], [0, 2, 3, 4], (), recompute)
    compare_with_one_rank(network, plan, comm)
    losses, found, model = run(network, plan, comm)
    first, second, third, last = model.groups
    for home, reader, source in (first, second, 1), (second, third, 2):
        assert np.shares_memory(home.tiles[source].array, reader.tiles[source].array)
        assert reader.exchanges[source]._in_place(model.owned_tile(source), reader.tiles[source])
    assert np.shares_memory(second.d[2].array, third.d[2].array)
    assert not np.shares_memory(first.d[1].array, second.d[1].array) and not np.shares_memory(first.d[1].array, last.d[1].array)
    monkeypatch.setattr(step_buffers, 'settle_inside', lambda *_: None)
    want_losses, want, other = run(network, plan, comm)
    assert not np.shares_memory(other.groups[0].tiles[1].array, other.groups[1].tiles[1].array)
    assert losses == want_losses
    for key, rows in want.items():
        np.testing.assert_array_equal(found[key], rows, err_msg=str(key))
