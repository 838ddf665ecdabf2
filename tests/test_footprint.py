"""Bytes of a rank under a plan: what parts spare, what ranks without a tile do not hold."""
from dataclasses import replace

import numpy as np
import pytest
from planning_core import made_up_machine, network_of

from mpi_ftp.footprint import EVALUATION, LATER, PLOTS, STAYS, Course, Footprint
from mpi_ftp.memory import Arena
from mpi_ftp.plan import GroupPlan, Plan, by_hand
from mpi_ftp.step_buffers import group_buffers


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_tiles_are_what_a_run_allocates(tmp_path, dtype):
    network = network_of(tmp_path, h=64, w=96)
    plan = by_hand(network, 2, 1, (2, 1), [0, 4])
    footprint = Footprint(network, plan, made_up_machine(2), course=Course(dtype=dtype))
    for rank in range(2):
        groups = group_buffers(network, plan, footprint.layouts, footprint.shares, rank, np.dtype(dtype), True)
        arena = Arena([buffer for group in groups for buffer in group.declare()])
        assert footprint.arena(rank, True) == arena.nbytes > 0


def test_numbers_of_twice_the_bytes_take_twice_the_room(tmp_path):
    network = network_of(tmp_path, h=64, w=96)
    plan = by_hand(network, 2, 1, (2, 1), [0, 4])
    single, double = (Footprint(network, plan, made_up_machine(2), course=Course(dtype=dtype)).phase(1, 'training') for dtype in ('float32', 'float64'))
    for name in 'parameters', 'messages', 'pictures':
        assert double[name] == 2 * single[name] > 0


def test_parts_need_less_room_for_tiles(tmp_path):
    network = network_of(tmp_path, 'deep', h=256, w=256)
    plan = by_hand(network, 1, 1, (1, 1), [0, 6], recompute=True)
    parted = replace(plan, groups=(replace(plan.groups[0], parts=(4, 2)),) + plan.groups[1:])
    whole, less = (Footprint(network, p, made_up_machine()) for p in (plan, parted))
    assert less.arena(0, True) < whole.arena(0, True)


def test_a_rank_without_a_tile_holds_no_weights(tmp_path):
    network = network_of(tmp_path, h=64, w=64)
    edges = tuple((0, v) for v in network.tensor_shape(len(network) - 1, 1))
    footprint = Footprint(network, Plan(3, 1, (GroupPlan(0, len(network), edges),)), made_up_machine(3))
    assert footprint.weights(0) > 0 and footprint.weights(1) == footprint.weights(2) == 0


def test_what_a_run_does_not_do_takes_no_memory(tmp_path):
    network = network_of(tmp_path, h=64, w=96)
    plan = by_hand(network, 1, 1, (1, 1), [0, 4])
    machine = made_up_machine()
    busy, quiet, hasty = (Footprint(network, plan, machine, course=course) for course in (Course(), Course(False, False), Course(False, False, ahead=0)))
    assert busy.phases() == ['training', 'evaluation', 'saving'] and quiet.phases() == ['training', 'saving']
    assert busy.phase(0, 'training')['process'] > quiet.phase(0, 'training')['process'] == machine.base + LATER        # what drawing leaves, and evaluating
    assert quiet.phase(0, 'saving')['process'] == machine.base + LATER + PLOTS
    asked = Footprint(network, plan, machine, training=False)
    assert asked.phases() == ['evaluation'] and asked.phase(0, 'evaluation')['process'] == machine.base + LATER
    assert busy.phase(0, 'evaluation')['process'] == machine.base + LATER + EVALUATION + STAYS['saving']
    assert busy.phase(0, 'saving')['pictures'] == 2 * hasty.phase(0, 'training')['pictures'] > quiet.phase(0, 'saving')['pictures'] == 0
    assert 2 * quiet.parameters(0) == 3 * quiet.parameters(0, 'saving') > 0
