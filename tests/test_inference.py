"""Plans of a forward pass: found for a machine, within a limit of memory, with the results of a plan by hand."""
import json
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from core import Quadratic, picture
from planning_core import made_up_machine, network_of

from mpi_ftp import comm as comm_module
from mpi_ftp import inference
from mpi_ftp.cost import CostModel
from mpi_ftp.errors import MemoryRefused
from mpi_ftp.footprint import Footprint
from mpi_ftp.inference import plan_inference, planned, typical_machine
from mpi_ftp.job import Job
from mpi_ftp.model import Model
from mpi_ftp.network import Network
from mpi_ftp.search import find_plan


def outputs(network, plan, comm):
    """The last convolution's output on rank 0."""
    losses = {head.index: Quadratic() for head in network.heads}
    model = Model(network, plan, comm, np.float32, training=False, losses=losses)
    model.parameters.initialise(3)
    for statistics in model.parameters.statistics.values():
        statistics['variance'][...] = 1
    model.forward(picture(network, plan.batch, model.picture).astype(np.float32))
    return model.gather(len(network) - 1)


def test_a_forward_pass_costs_no_backward(tmp_path):
    network = network_of(tmp_path)
    plan = find_plan(network, 4, 2, made_up_machine(4), training=False)
    parts = plan.predicted['parts']
    assert parts['forward'] > 0 and parts['backward'] == parts['recompute'] == parts['norm_sums'] == parts['gradient_sums'] == 0
    assert not any(group.cuts or group.recompute for group in plan.groups)
    assert plan.predicted['seconds'] < find_plan(network, 4, 2, made_up_machine(4)).predicted['seconds'] / 2


def test_parts_keep_a_forward_pass_in_its_limit(tmp_path):
    network, machine = network_of(tmp_path, 'tiny-yolo', 512, 512), made_up_machine()
    free = find_plan(network, 1, 1, machine, training=False)
    others = free.predicted['bytes'] - free.predicted['memory']['tiles']
    budget = others + free.predicted['memory']['tiles'] * 2 // 3
    tight = find_plan(network, 1, 1, machine, memory=budget, training=False)
    assert tight.predicted['bytes'] <= budget < free.predicted['bytes'] and any(group.parted for group in tight.groups)
    assert CostModel(network, machine, 1, 1, training=False).price(tight).seconds == pytest.approx(tight.predicted['seconds'])
    with pytest.raises(MemoryRefused):
        find_plan(network, 1, 1, machine, memory=1 << 20, training=False)


@pytest.mark.mpi(1, 3, timeout=120)
def test_found_plans_give_the_same_outputs(tmp_path):
    comm = comm_module.world()
    network = network_of(tmp_path, 'tiny-yolo', 64, 96)
    path = tmp_path / f'machine-{comm.rank}.json'
    path.write_text(json.dumps(made_up_machine(comm.size).to_json()))
    by_hand = plan_inference(network, comm.size, 2, Job(cfg=network.path))
    truth = outputs(network, by_hand, comm)
    for job in Job(cfg=network.path, machine=path), Job(cfg=network.path, machine=path, memory=700 << 20), Job(cfg=network.path, memory=700 << 20):
        found = outputs(network, planned(comm, network, 2, job)[0], comm)
        assert comm.rank or np.abs(found - truth).max() < 1e-5 * np.abs(truth).max()       # tiles of Winograd begin elsewhere
    assert len(typical_machine(comm).hosts) == comm.size


def test_parts_that_do_not_fit_the_memory_are_refused(tmp_path):
    network = network_of(tmp_path)
    asked = Job(cfg=Path('net.cfg'), parts=(2, 2), memory=1 << 20)
    with pytest.raises(MemoryRefused, match='parts of 2x2 take'):
        planned(comm_module.Alone(), network, 1, asked)
    plan, paged = planned(comm_module.Alone(), network, 1, replace(asked, memory=1 << 40))
    assert plan.groups[0].parts == (2, 2) and not paged


def test_weights_wait_in_a_file_where_nothing_else_keeps_to_the_memory(tmp_path, monkeypatch):
    network, alone = network_of(tmp_path, 'tiny-yolo', 16, 16), comm_module.Alone()
    monkeypatch.setattr(inference, 'resident', lambda: 50 << 20)
    room = Job(cfg=network.path, memory=1 << 40)
    (whole, first), (less, second) = (planned(alone, network, 1, room, paged=choice) for choice in (None, True))
    assert not first and second
    heaviest = max(prod(shape) for layer in network.layers for name, shape in layer.tensors) * 4
    (most, few), kept = (plan.predicted['memory']['parameters'] for plan in (whole, less)), Footprint(network, less, typical_machine(alone), training=False)
    assert heaviest <= few < 1.5 * heaviest < most and kept.parameters(0) == most
    tight = Job(cfg=network.path, memory=(whole.predicted['bytes'] + less.predicted['bytes']) // 2)
    for choice in None, True:
        plan, paged = planned(alone, network, 1, tight, paged=choice)
        assert paged and plan.predicted['bytes'] <= tight.memory
    with pytest.raises(MemoryRefused):
        planned(alone, network, 1, tight, paged=False)
    with pytest.raises(MemoryRefused):
        planned(alone, network, 1, tight, beside=most)
    assert planned(alone, network, 1, Job(cfg=network.path), paged=True)[1]


def test_groups_by_hand_end_with_the_layer_that_is_asked_for(tmp_path):
    network = network_of(tmp_path)
    part = Network(network.shape, network.layers[:6], network.net, network.path)
    plan = plan_inference(part, 1, 1, Job(cfg=network.path, groups=(0, 4, 8)), last=5)
    assert [(group.start, group.stop) for group in plan.groups] == [(0, 4), (4, 6)]
