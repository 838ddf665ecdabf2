"""The cost model: its regions are those of the run, its seconds add up, it prefers what is cheaper by construction."""
from dataclasses import replace

import numpy as np
import pytest
from planning_core import made_up_machine, network_of

from mpi_ftp.cost import CostModel
from mpi_ftp.curves import Curve
from mpi_ftp.extents import Extents, cells
from mpi_ftp.plan import GroupPlan, Plan, by_hand, per_layer
from mpi_ftp.region import Region, balanced


def boxes(regions):
    return [[list(pair) for pair in zip(r.lo, r.hi)] if not r.empty else [[0, 0]] * 4 for r in regions]


def of_ranks(axes, parts, row, ranks):
    """Boxes of every rank from one row of intervals along each axis."""
    found = np.zeros((ranks, 4, 2), int)
    for axis, places in enumerate(cells(parts)):
        found[:len(places), axis] = axes[axis][:, row, places].T
    found[(found[:, :, 1] <= found[:, :, 0]).any(1)] = 0
    return found.tolist()


EDGES = {
    'grid': lambda n, c, h, w: ((0, n), (0, c), balanced(h, 3), balanced(w, 2)),
    'uneven': lambda n, c, h, w: ((0, n), (0, c), (0, 1, h), (0, w // 3, w - 1, w)),
    'filters': lambda n, c, h, w: ((0, n), balanced(c, 2, 16), (0, h), (0, w)),
    'samples': lambda n, c, h, w: (balanced(n, 3), (0, c), (0, h), (0, w)),
    'hybrid': lambda n, c, h, w: (balanced(n, 2), (0, c), balanced(h, 3), (0, w)),
}


@pytest.mark.parametrize('name', ['tiny-yolo', 'residual', 'upsample', 'deep', 'strided', 'pads'])
@pytest.mark.parametrize('cut', EDGES)
def test_extents_are_every_ranks_share(tmp_path, name, cut):
    """All groups at once, axis by axis, or rank by rank: the same boxes; on sizes that do not divide, with an idle rank. Where a rank owns nothing
    of an inner layer that others share, not less."""
    network, ranks, batch = network_of(tmp_path, name, 44 if name == 'upsample' else 45, 52), 7, 3
    stops = [stop for stop in range(1, len(network) + 1) if cut != 'filters' or network.layers[stop - 1].out_shape[0] > 16]
    edges = {stop: EDGES[cut](*network.tensor_shape(stop - 1, batch)) for stop in stops}
    extents = Extents(network, stops, list(edges.values()), batch)
    for row, stop in enumerate(stops):
        start = max(0, stop - 3)
        if cut == 'filters' and any(getattr(layer, 'groups', 1) > 1 for layer in network.layers[start:stop]):
            continue
        before = [GroupPlan(i, i + 1, tuple((0, m) for m in network.tensor_shape(i, batch))) for i in range(start)]
        plan = Plan(ranks, batch, (*before, GroupPlan(start, stop, edges[stop])))
        layouts, alone = plan.layouts(network), Extents(network, [stop], [edges[stop]], batch, start=start)
        shares = [plan.share(network, layouts, plan.groups[-1], rank) for rank in range(ranks)]
        for index in range(start, stop):
            for field in ('computed', 'differentiated', 'owned'):
                wanted = boxes([getattr(s, field)[index] for s in shares])
                found = of_ranks(getattr(extents, field)[index], extents.parts, row, ranks)
                assert of_ranks(getattr(alone, field)[index], extents.parts, 0, ranks) == found, (index, field)
                if all(s.owned[i].empty == s.owned[stop - 1].empty for s in shares for i in range(start, stop)):
                    assert found == wanted, (index, field)
                else:
                    assert all(a <= c and b >= d for have, want in zip(found, wanted) for (a, b), (c, d) in zip(have, want) if any(map(any, want))), (index, field)
        for source in {s for i in range(start, stop) for s in network.layers[i].inputs if s < start}:
            if all(s.owned[i].empty == s.owned[stop - 1].empty for s in shares for i in range(start, stop)):
                assert of_ranks(extents.held(start, source), extents.parts, row, ranks) == boxes([s.held[source] for s in shares])


def test_extents_with_backward_cuts(tmp_path):
    network = network_of(tmp_path, 'deep', 45, 52)
    edges = EDGES['grid'](*network.tensor_shape(6, 1))
    plan = Plan(6, 1, (GroupPlan(0, 7, edges, (2, 4)),))
    extents = Extents(network, [7], [edges], 1, cuts=(2, 4))
    for index in range(7):
        wanted = boxes([plan.share(network, plan.layouts(network), plan.groups[0], rank).differentiated[index] for rank in range(6)])
        assert of_ranks(extents.differentiated[index], extents.parts, 0, 6) == wanted


@pytest.mark.parametrize('cut', [EDGES[name] for name in ('grid', 'samples', 'hybrid')])
def test_messages_are_what_ranks_hold_and_do_not_own(tmp_path, cut):
    """From a cut along rows and columns into another kind: counted box by box."""
    network = network_of(tmp_path, 'tiny-yolo', 45, 52)
    first = GroupPlan(0, 2, EDGES['grid'](*network.tensor_shape(1, 3)))
    plan = Plan(7, 3, (first, GroupPlan(2, 5, cut(*network.tensor_shape(4, 3))), GroupPlan(5, 10, tuple((0, m) for m in network.tensor_shape(9, 3)))))
    row = CostModel(network, made_up_machine(7), 3, 7).price(plan).groups[1]
    layouts = plan.layouts(network)
    held = [plan.share(network, layouts, plan.groups[1], rank).held[1] & Region.whole(network.tensor_shape(1, 3)) for rank in range(7)]
    came = [box.size - (box & mine).size for box, mine in zip(held, layouts[1])]
    assert row['halo_bytes'] == 4 * max(came)
    busy = came.index(max(came))
    assert row['messages'] == sum(not (held[busy] & mine).empty for rank, mine in enumerate(layouts[1]) if rank != busy)


def test_one_rank_costs_the_sum_of_its_layers(tmp_path):
    """No pass that a layer does not have is borrowed from another kind."""
    network, machine = network_of(tmp_path), made_up_machine()
    model = CostModel(network, machine, 1, 1)
    price = model.price(by_hand(network, 1, 1, (1, 1), [0]))
    expected = 0
    for layer in network.layers:
        _, h, w = layer.out_shape
        expected += machine.call
        for name in ('forward', 'finish'):
            curve = machine.curve(layer, name)
            assert (curve is not None) == (name == 'forward' or layer.two_phase)
            if not layer.is_head and curve is not None:
                expected += float(curve(np.array([curve.layer.pixels(h, w)]))[0])
        expected += machine.head * h * w * layer.is_head
    assert not any(machine.curve(layer, 'backward_weights') for layer in network.layers if not layer.tensors)
    assert price.parts['forward'] == pytest.approx(expected, rel=1e-3)
    assert price.parts['exchange'] == price.parts['norm_sums'] == price.parts['gradient_sums'] == price.parts['recompute'] == 0
    assert price.seconds == pytest.approx(sum(price.parts.values()))


def test_fusing_pays_with_arithmetic_and_saves_rounds(tmp_path):
    network = network_of(tmp_path, 'deep')
    model = CostModel(network, made_up_machine(4), 1, 4)
    fused, single = (model.price(by_hand(network, 4, 1, (2, 2), starts)) for starts in ([0], per_layer(network)))
    assert fused.parts['forward'] > 1.1 * single.parts['forward'] and fused.parts['exchange'] < single.parts['exchange'] / 5
    kept, again = (model.price(by_hand(network, 4, 1, (2, 2), [0], recompute=r)) for r in (False, True))
    assert 0 < again.seconds - kept.seconds == pytest.approx(again.parts['recompute'])
    assert again.parts['recompute'] <= kept.parts['forward']
    cut = model.price(by_hand(network, 4, 1, (2, 2), [0], cuts=(3,)))
    assert cut.parts['backward'] < fused.parts['backward'] and cut.parts['exchange'] > fused.parts['exchange']


def test_sums_hide_behind_what_runs_of_the_next_forward_pass_before_they_are_needed(tmp_path):
    network = network_of(tmp_path)
    plan, model = by_hand(network, 2, 1, (1, 2), per_layer(network)), CostModel(network, made_up_machine(2), 1, 2)
    early = sum(lane == 0 for lane in model.lanes.values())
    assert list(model.lanes.values()) == sorted(model.lanes.values()) and 0 < early < len(network)

    def exposed(took, left, back=0.0):
        return model.exposed(plan, [{'forward': .5, 'exchange': .5, 'norm_sums': .5, 'back': back}] * len(network), took, left)      # a second a layer
    assert exposed([1.0, 50.0], -3.0) == exposed([0.0, 50.0], early) == 0               # nothing is left; the late layers' sums are there just in time
    assert exposed([2.0, 50.0], 2.0) == 2                                               # the early ones are needed at once
    assert exposed([0.0, 50.0], early + 3) == 3
    assert exposed([2.0, 50.0], early + 3) == 3 and exposed([2.0, 50.0], early + 1) == 2        # one wait for both
    assert exposed([0.0, 50.0], early, back=.1) == pytest.approx(.1 * early)            # halos have the link, too


def test_half_precision_is_priced_as_half_the_bytes(tmp_path):
    network = network_of(tmp_path)
    plan = by_hand(network, 2, 1, (1, 2), per_layer(network))
    machine = made_up_machine(2, host_link=(1e-9, 1e5), hosts=(0, 0))               # where nothing hides
    full, halos, sums = (CostModel(network, machine.sending(*how), 1, 2).price(plan) for how in (('full', 'full'), ('half', 'full'), ('full', 'half')))
    assert halos.parts['exchange'] == pytest.approx(.5 * full.parts['exchange'], rel=.02)
    assert [row['halo_bytes'] for row in halos.groups] == [row['halo_bytes'] // 2 for row in full.groups]
    assert sums.parts['gradient_sums'] == pytest.approx(.5 * full.parts['gradient_sums'], rel=.1) and sums.parts['exchange'] == full.parts['exchange']
    assert halos.parts['forward'] == sums.parts['forward'] == full.parts['forward'] and halos.parts['norm_sums'] == full.parts['norm_sums']


def test_a_cut_along_filters_holds_and_sums_fewer_weights(tmp_path):
    network = network_of(tmp_path)
    model = CostModel(network, made_up_machine(2), 1, 2)
    shapes = [network.tensor_shape(i, 1) for i in range(len(network))]
    whole = [GroupPlan(i, i + 1, ((0, 1), (0, c), balanced(h, 2), (0, w))) for i, (_, c, h, w) in enumerate(shapes)]
    cut = list(whole)
    shape = network.tensor_shape(6, 1)
    cut[6] = GroupPlan(6, 7, ((0, 1), balanced(shape[1], 2, 16), (0, shape[2]), (0, shape[3])))
    assert model.price(Plan(2, 1, tuple(cut))).parts['gradient_sums'] < model.price(Plan(2, 1, tuple(whole))).parts['gradient_sums']


def test_ranks_without_a_tile_sum_nothing(tmp_path):
    network = network_of(tmp_path)
    one = Plan(3, 1, tuple(GroupPlan(i, i + 1, tuple((0, m) for m in network.tensor_shape(i, 1))) for i in range(len(network))))
    parts = CostModel(network, made_up_machine(3, link=(1e-3, 1e6)), 1, 3).price(one).parts
    assert parts['gradient_sums'] == parts['norm_sums'] == parts['exchange'] == 0


def test_ranks_that_own_nothing_cost_nothing(tmp_path):
    """However slow they are, however far away."""
    network = network_of(tmp_path)
    alone = CostModel(network, made_up_machine(picture=1e-6), 1, 1).price(by_hand(network, 1, 1, (1, 1), [0])).parts
    two, many = (CostModel(network, made_up_machine(ranks, speeds=(1.0, 1.0, 10.0, 10.0)[:ranks], picture=1e-6), 1, ranks) for ranks in (2, 4))
    assert many.price(by_hand(network, 4, 1, (1, 1), [0])).parts == alone
    assert many.price(by_hand(network, 4, 1, (1, 2), per_layer(network))).parts == two.price(by_hand(network, 2, 1, (1, 2), per_layer(network))).parts
    quick = CostModel(network, made_up_machine(4, speeds=(10.0, 1.0, 10.0, 1.0), picture=1e-6), 1, 4, order=(1, 3, 0, 2))
    assert quick.price(by_hand(network, 4, 1, (1, 1), [0])).parts == alone


def test_a_pool_in_one_pass_with_the_norm_before_it_spares_its_own(tmp_path):
    """Each way it costs what the common pass takes more than norm and activation alone; where the pool begins a group nothing changes."""
    network, plain = network_of(tmp_path), made_up_machine()
    common = [Curve(plain.curves[0].layer, name, (100, 10000), (1.2e-5, 1.2e-3)) for name in ('finish_pooled', 'unfinish_pooled')]
    before, after = (CostModel(network, machine, 1, 1) for machine in (plain, replace(plain, curves=(*plain.curves, *common))))
    apart, fused = (by_hand(network, 1, 1, (1, 1), starts) for starts in (per_layer(network), [0]))
    assert after.price(apart).parts == before.price(apart).parts

    def seconds(index, name):
        curve, (_, h, w) = after.machine.curve(network.layers[index], name), network.layers[index].out_shape
        return float(curve(np.array([curve.layer.pixels(h, w)]))[0])
    for part, own, alone, pooled in (('forward', 'forward', 'finish', 'finish_pooled'), ('backward', 'backward_data', 'unfinish', 'unfinish_pooled')):
        spared = before.price(fused).parts[part] - after.price(fused).parts[part]
        calls = 0 if part == 'forward' else 3 * plain.call                                              # of two each way back one is spared
        assert spared - calls == pytest.approx(sum(seconds(pool, own) + seconds(pool - 1, alone) - seconds(pool - 1, pooled) for pool in (1, 3, 5)))
