"""Inputs in instalments: the same sums, begun earlier."""
import numpy as np
import pytest
from core import HEAD, compare_with_one_rank, conv, make_network, picture, run
from planning_core import made_up_machine

from mpi_ftp import comm as comm_module
from mpi_ftp import message_cost
from mpi_ftp.cost import CostModel
from mpi_ftp.instalments import Instalments, parted
from mpi_ftp.model import Model
from mpi_ftp.plan import GroupPlan, Plan
from mpi_ftp.region import NOTHING, Layout, Region, balanced

DEEP = conv(64) + conv(80) + conv(48, k=1) + conv(192, s=2) + conv(40, bn=0) + conv(64, k=1) + HEAD
WAYS = {'filters': 'CCCCCC', 'rows to filters': 'HCHCHC', 'samples to filters': 'NCWCNC', 'rows to columns': 'HWHWHW'}


def cut(network, ranks, batch, way):
    """One group per layer, cut along the axis that its letter names, the last two along W."""
    groups = []
    for layer in network.layers:
        shape = network.tensor_shape(layer.index, batch)
        axis = 'NCHW'.index((way + 'WW')[layer.index])
        edges = [(0, n) for n in shape]
        edges[axis] = balanced(shape[axis], ranks, 16 if axis == 1 else 1)
        groups.append(GroupPlan(layer.index, layer.index + 1, tuple(edges)))
    return Plan(ranks, batch, tuple(groups))


def in_instalments(model):
    return {group.plan.start: len(group.arrivals[0].taken) for group in model.groups if group.arrivals}


@pytest.mark.mpi(1, 2, 3, 4, 6, timeout=120)
@pytest.mark.parametrize('way', WAYS)
def test_equals_one_rank(way, tmp_path):
    """Channels that have not arrived are not numbers yet: nobody reads them. Of 48 channels three of six ranks own none."""
    comm = comm_module.world()
    network = make_network(tmp_path, DEEP, 12, 13, name=f'{comm.rank}.cfg')
    plan = cut(network, comm.size, 3, WAYS[way])
    compare_with_one_rank(network, plan, comm, overlap='always')
    _, _, model = run(network, plan, comm, steps=1, overlap='always')
    assert bool(in_instalments(model)) == (comm.size > 1)
    if comm.size == 2 and way == 'filters':         # of 80, 48 and 40 channels the first rank owns more than half
        assert in_instalments(model) == {1: 2, 4: 3, 6: 2} == {g.plan.start: len(g.back.steps[g.plan.start].data) for g in model.groups if g.arrivals}
    _, _, without = run(network, plan, comm, steps=1, overlap=False)
    assert not in_instalments(without)


@pytest.mark.mpi(2, 3)
def test_a_tensor_that_others_read_too(tmp_path):
    """What their gradients brought stays when the first instalment returns."""
    comm = comm_module.world()
    network = make_network(tmp_path, conv(64) + conv(64) + '[shortcut]\nfrom=-2\nactivation=linear\n' + HEAD, 12, 13, name=f'{comm.rank}.cfg')
    plan = cut(network, comm.size, 2, 'CCC')
    compare_with_one_rank(network, plan, comm, overlap='always')
    assert 1 in in_instalments(run(network, plan, comm, steps=1, overlap='always')[2])


@pytest.mark.mpi(4)
def test_recomputed_in_float32_and_without_training(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, DEEP, 12, 13, name=f'{comm.rank}.cfg')
    plan = cut(network, 4, 2, WAYS['rows to filters'])
    again = Plan(4, 2, tuple(GroupPlan(g.start, g.stop, g.edges, (), True) for g in plan.groups))
    compare_with_one_rank(network, again, comm, overlap='always')
    (first, _, model), (other, _, _) = (run(network, plan, comm, np.float32, overlap=o) for o in ('always', False))
    assert in_instalments(model)
    np.testing.assert_allclose(first, other, rtol=1e-5)


@pytest.mark.mpi(3)
def test_a_connected_layer(tmp_path):
    """Its filters are as large as its input."""
    comm = comm_module.world()
    text = conv(96) + conv(112, s=2) + '[connected]\noutput=50\nactivation=leaky\n[connected]\noutput=18\nactivation=linear\n[softmax]\n'
    network = make_network(tmp_path, text, 6, 7, name=f'{comm.rank}.cfg')
    groups = [GroupPlan(layer.index, layer.index + 1, (*((0, n) for n in network.tensor_shape(layer.index, 4)[:1]), balanced(layer.out_shape[0], 3, 16),
                                                       *((0, n) for n in layer.out_shape[1:]))) for layer in network.layers[:4]]
    groups.append(GroupPlan(4, 5, (balanced(4, 3), (0, 18), (0, 1), (0, 1))))
    plan = Plan(3, 4, tuple(groups))
    compare_with_one_rank(network, plan, comm, overlap='always')
    (first, _, model), (other, _, _) = (run(network, plan, comm, np.float32, overlap=o) for o in ('always', False))
    assert 2 in in_instalments(model)
    np.testing.assert_allclose(first, other, rtol=1e-5)


@pytest.mark.mpi(4)
def test_inference_and_half_precision(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, DEEP, 12, 13, name=f'{comm.rank}.cfg')
    plan, outputs = cut(network, 4, 2, WAYS['samples to filters']), {}
    for overlap in ('always', False):
        for halos in ('full', 'half'):
            model = Model(network, plan, comm, np.float32, training=False, overlap=overlap, halos=halos)
            assert bool(in_instalments(model)) == bool(overlap)
            model.parameters.initialise(3)
            for statistics in model.parameters.statistics.values():
                statistics['variance'][...] = 1
            model.forward(picture(network, 2, model.picture).astype(np.float32))
            outputs[overlap, halos] = model.gather(len(network) - 2)
    if comm.rank == 0:
        scale = abs(outputs[False, 'full']).max()
        for key, tolerance in ((('always', 'full'), 1e-5), (('always', 'half'), 1e-2), ((False, 'half'), 1e-2)):
            assert 0 < abs(outputs[key] - outputs[False, 'full']).max() < tolerance * scale


@pytest.mark.mpi(3)
def test_as_many_bytes_come(tmp_path):
    comm = comm_module.world()
    network = make_network(tmp_path, DEEP, 12, 13, name=f'{comm.rank}.cfg')
    sent = []
    for overlap in ('always', False):
        _, _, model = run(network, cut(network, 3, 2, WAYS['filters']), comm, steps=1, overlap=overlap)
        sent.append([[exchange.bytes_sent for exchange in group.exchanges.values()] for group in model.groups] + [model.bytes_moved])
        assert any(isinstance(e, Instalments) for group in model.groups for e in group.exchanges.values()) == bool(overlap)
    assert sent[0] == sent[1]


SHAPE = (2, 176, 4, 6)
ALL = [Region.whole(SHAPE)] * 3


def test_every_owner_sends_some_channels_first():
    owners = Layout.cut(SHAPE, ((0, 2), balanced(176, 3, 16), (0, 4), (0, 6)), 3)
    parts = parted(owners, ALL)
    assert [[(box.lo[1], box.hi[1]) for box in layout] for layout, _ in parts] == [
        [(0, 16), (64, 80), (112, 128)], [(16, 32), (80, 96), (128, 144)], [(32, 64), (96, 112), (144, 176)]]
    assert [taken.tolist() for _, taken in parts] == [[0, 4, 7], [1, 5, 8], [2, 3, 6, 9, 10]]


def test_channels_of_rows_are_parted_alike():
    rows = Layout.cut((2, 40, 4, 6), ((0, 2), (0, 40), (0, 1, 2, 4), (0, 6)), 3)
    parts = parted(rows, [Region.whole((2, 40, 4, 6))] * 3)
    assert [taken.tolist() for _, taken in parts] == [[0], [1], [2]] and [box.hi[1] for box in parts[2][0]] == [40] * 3


@pytest.mark.parametrize('channels, rows, reads', [
    (176, (0, 4, 4), (0, 4)),                       # one rank owns all that it reads
    (176, (0, 1, 4), (0, 4)),                       # the second has three quarters
    (16, (0, 2, 4), (0, 4)),                        # one block of channels
], ids=['nothing comes', 'most is there', 'one block'])
def test_where_nothing_is_gained(channels, rows, reads):
    shape = 2, channels, 4, 6
    owners = Layout.cut(shape, ((0, 2), (0, channels), rows, (0, 6)), 2)
    held = [NOTHING if box.empty else Region((0, 0, reads[0] - 1, -1), (2, channels, reads[1] + 1, 7)) for box in owners]
    assert parted(owners, held) == []


def test_half_may_be_there():
    owners = Layout.cut((2, 32, 4, 6), ((0, 2), (0, 32), (0, 2, 4), (0, 6)), 2)
    assert len(parted(owners, [Region.whole((2, 32, 4, 6))] * 2)) == 2


@pytest.mark.parametrize('ranks', [2, 3, 4, 6])
@pytest.mark.parametrize('way', WAYS)
def test_the_cost_model_parts_as_a_run_does(way, ranks, tmp_path):
    network = make_network(tmp_path, DEEP, 12, 13)
    plan, model = cut(network, ranks, 3, WAYS[way]), CostModel(network, made_up_machine(ranks), 3, ranks)
    layouts, found = plan.layouts(network), []
    for before, group in zip(plan.groups, plan.groups[1:-1]):
        (entry,), owned = model.messages.inputs(model.extent(group)[0], group.start, slice(0, 1)), model.extent(before)[0].owned[before.start]
        held = [plan.share(network, layouts, group, rank).held[before.start] for rank in range(ranks)]
        priced, = message_cost.in_parts(message_cost.overlap(entry.held, owned), entry.sizes, owned)
        found.append((priced, max(1, len(parted(layouts[before.start], held)))))
    assert all(priced == run for priced, run in found) and max(found) > (1, 1)


def test_the_cost_model_lets_them_hide(tmp_path, monkeypatch):
    """What brings filters' inputs hides behind the layer that reads them, all but the first part; halos cost what they did."""
    network = make_network(tmp_path, DEEP, 36, 52)
    prices = {}
    for count in (1, 3):
        monkeypatch.setattr(message_cost, 'COUNT', count)
        model = CostModel(network, made_up_machine(4, hosts=tuple('abcd')), 3, 4)
        prices[count] = {way: [row['exchange'] for row in model.price(cut(network, 4, 3, way * len(network))).groups] for way in 'CH'}
    assert prices[1]['H'][1:3] == prices[3]['H'][1:3]
    gains = [b / a for a, b in zip(prices[1]['C'], prices[3]['C']) if a]
    assert min(gains) < .9 and all(1 / 3 < gain < 1.1 for gain in gains)
