"""Prices of messages: what is copied, what hides, what a link and the processor take for them."""
import json
from dataclasses import replace

import numpy as np
import pytest
from planning_core import made_up_machine, network_of

from mpi_ftp.cost import CostModel
from mpi_ftp.message_cost import lies_inside, overlap
from mpi_ftp.plan import Plan, by_hand, per_layer
from mpi_ftp.refine import with_early_starts


def test_what_is_copied_is_what_a_rank_owns_and_does_not_hold():
    """Two ranks hold rows, and one more; own these rows, filters, all by one."""
    def sides(*cuts):
        return tuple(np.array([edges[:-1], edges[1:]])[:, None] for edges in cuts)
    held = *sides((0, 2), (0, 32)), np.array([[[0, 19]], [[21, 40]]]), *sides((0, 12))
    for filters, rows, expected in ((0, 32), (0, 20, 40), [True, True]), ((0, 16, 32), (0, 40), [False, False]), ((0, 32), (0, 40), [False, False]):
        mine = sides((0, 2), filters, rows, (0, 12))
        assert lies_inside(overlap(held, mine), mine).tolist() == [expected]


def test_groups_begin_early_where_links_are_slower_than_pieces_cost(tmp_path):
    network = network_of(tmp_path)
    plan = by_hand(network, 2, 1, (1, 2), per_layer(network))
    for link, wins in (((1e-6, 1e9), False), ((1e-3, 1e6), True)):
        model = CostModel(network, made_up_machine(2, link=link, copy=1e-12), 1, 2)
        found = with_early_starts(model, plan)
        late = replace(plan, groups=tuple(replace(group, early=False) for group in plan.groups))
        reading = {2, 4, 6}                                                                 # the others read nothing that a neighbour owns
        assert {group.start for group in found.groups if group.early} == {group.start for group in plan.groups} - (set() if wins else reading)
        rows, others = (model.price(each).groups for each in (found, late if wins else plan))
        gained = [other['exchange'] - row['exchange'] for row, other in zip(rows, others)]
        assert gained == pytest.approx([abs(row['early']) * (group.early == wins) for row, group in zip(rows, found.groups)])
        assert model.price(found).seconds == min(model.price(each).seconds for each in (found, late, plan))
        assert Plan.from_json(json.loads(json.dumps(found.to_json()))) == found
        parted = [replace(each, groups=tuple(replace(group, parts=(2, 1)) for group in each.groups)) for each in (plan, late)]
        waits = [model.price(each).groups[2]['exchange'] for each in (*parted, late)]               # groups in parts never begin early
        assert waits == pytest.approx([waits[2]] * 3)
    piece = made_up_machine(2).curve(network.layers[2], 'forward').fixed
    assert piece == pytest.approx(2e-5 * 32 * 16 / 256)                                     # scaled from the measured class, as all of its seconds
    one_host = CostModel(network, made_up_machine(2, hosts=(0, 0)), 1, 2)
    assert with_early_starts(one_host, plan) == plan


def test_slower_links_and_slower_ranks_cost_more(tmp_path):
    network = network_of(tmp_path)
    plan = by_hand(network, 2, 1, (1, 2), per_layer(network))
    models = (CostModel(network, machine, 1, 2) for machine in (
        made_up_machine(2, link=(1e-6, 1e9)), made_up_machine(2, link=(1e-3, 1e6)), made_up_machine(2, link=(1e-6, 1e9), speeds=(1.0, 3.0))))
    quick, slow, lame = (model.price(with_early_starts(model, plan)) for model in models)
    assert slow.parts['exchange'] > 10 * quick.parts['exchange'] and slow.parts['gradient_sums'] > quick.parts['gradient_sums']
    assert lame.parts['forward'] == pytest.approx(3 * quick.parts['forward'], rel=.01)


def test_messages_between_hosts_are_work_as_far_as_it_is_not_done_while_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr('mpi_ftp.cost.BUCKET', 1)
    network = network_of(tmp_path)
    plan = by_hand(network, 2, 1, (1, 2), per_layer(network))
    weights = sum(int(np.prod(shape)) for layer in network.layers for name, shape in layer.tensors if name not in ('mean', 'variance'))

    def price(labour, **changes):
        return CostModel(network, made_up_machine(2, labour=labour, **changes), 1, 2).price(plan)
    quick = {'link': (1e-6, 1e9), 'flops': 1e7}
    more = price(1e-7, **quick).parts['gradient_sums'] - price(0.0, **quick).parts['gradient_sums']
    assert more == pytest.approx(weights * 4 * 1e-7, rel=.1)                    # each of two ranks sends as many bytes as it holds
    halves = {**quick, 'speeds': (2.0, 1.0)}
    assert price(1e-7, **halves).parts['gradient_sums'] - price(0.0, **halves).parts['gradient_sums'] == pytest.approx(2 * more, rel=.1)
    slow = {'link': (1e-3, 1e6), 'flops': 1e11}
    assert price(1e-7, **slow).parts['gradient_sums'] - price(0.0, **slow).parts['gradient_sums'] < .3 * more
    assert price(1e-7, **quick).parts['forward'] > price(0.0, **quick).parts['forward']                 # halos are work, too
    assert price(1e-7, hosts=(0, 0)) == price(0.0, hosts=(0, 0))
