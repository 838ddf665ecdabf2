"""The cost model: its regions are those of the run, its seconds add up, it prefers what is cheaper by construction."""
import numpy as np
import pytest
from planning_core import made_up_machine, network_of

from mpi_ftp.cost import CostModel
from mpi_ftp.extents import Extents
from mpi_ftp.plan import GroupPlan, Plan, by_hand, per_layer
from mpi_ftp.region import balanced


def boxes(regions):
    return [[list(pair) for pair in zip(r.lo, r.hi)] if not r.empty else [[0, 0]] * 4 for r in regions]


@pytest.mark.parametrize('name', ['tiny-yolo', 'residual', 'upsample', 'deep', 'strided', 'pads'])
@pytest.mark.parametrize('cut', ['grid', 'filters', 'samples'])
def test_extents_are_every_ranks_share(tmp_path, name, cut):
    """Axis by axis or rank by rank, the same boxes; on sizes that do not divide, with an idle rank."""
    network, ranks, batch = network_of(tmp_path, name, 44 if name == 'upsample' else 45, 52), 7, 3
    for stop in range(1, len(network) + 1):
        n, c, h, w = network.tensor_shape(stop - 1, batch)
        edges = {'grid': ((0, n), (0, c), balanced(h, 3), balanced(w, 2)), 'filters': ((0, n), balanced(c, 2, 16), (0, h), (0, w)),
                 'samples': (balanced(n, 3), (0, c), (0, h), (0, w))}[cut]
        start = max(0, stop - 3)
        if cut == 'filters' and any(getattr(layer, 'groups', 1) > 1 for layer in network.layers[start:stop]):
            continue
        before = [GroupPlan(i, i + 1, tuple((0, m) for m in network.tensor_shape(i, batch))) for i in range(start)]
        plan = Plan(ranks, batch, (*before, GroupPlan(start, stop, edges)))
        layouts, extents = plan.layouts(network), Extents(network, stop, edges, batch, ranks)
        shares = [plan.share(network, layouts, plan.groups[-1], rank) for rank in range(ranks)]
        for index in range(start, stop):
            for field in ('computed', 'differentiated', 'owned'):
                assert getattr(extents, field)[index].tolist() == boxes([getattr(s, field)[index] for s in shares]), (index, field)
        for source in {s for i in range(start, stop) for s in network.layers[i].inputs if s < start}:
            assert extents.held(start, source).tolist() == boxes([s.held[source] for s in shares])


def test_one_rank_costs_the_sum_of_its_layers(tmp_path):
    network, machine = network_of(tmp_path), made_up_machine()
    model = CostModel(network, machine, 1, 1)
    price = model.price(by_hand(network, 1, 1, (1, 1), [0]))
    expected = 0
    for layer in network.layers:
        _, h, w = layer.out_shape
        expected += machine.call
        for name in ('forward', 'finish'):
            curve = machine.curve(layer, name)
            if not layer.is_head and curve is not None and (name == 'forward' or layer.two_phase):
                expected += float(curve(np.array([h * w]))[0])
    assert price.parts['forward'] == pytest.approx(expected, rel=.02)
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


def test_slower_links_and_slower_ranks_cost_more(tmp_path):
    network = network_of(tmp_path)
    plan = by_hand(network, 2, 1, (1, 2), per_layer(network))
    quick, slow, lame = (CostModel(network, machine, 1, 2).price(plan) for machine in (
        made_up_machine(2, link=(1e-6, 1e9)), made_up_machine(2, link=(1e-3, 1e6)), made_up_machine(2, link=(1e-6, 1e9), speeds=(1.0, 3.0))))
    assert slow.parts['exchange'] > 10 * quick.parts['exchange'] and slow.parts['gradient_sums'] > quick.parts['gradient_sums']
    assert lame.parts['forward'] == pytest.approx(3 * quick.parts['forward'], rel=.01)


def test_a_cut_along_filters_holds_and_sums_fewer_weights(tmp_path):
    network = network_of(tmp_path)
    model = CostModel(network, made_up_machine(2), 1, 2)
    whole = [GroupPlan(i, i + 1, tuple((0, m) for m in network.tensor_shape(i, 1))) for i in range(len(network))]
    cut = list(whole)
    shape = network.tensor_shape(6, 1)
    cut[6] = GroupPlan(6, 7, ((0, 1), balanced(shape[1], 2, 16), (0, shape[2]), (0, shape[3])))
    assert model.price(Plan(2, 1, tuple(cut))).parts['gradient_sums'] < model.price(Plan(2, 1, tuple(whole))).parts['gradient_sums']
