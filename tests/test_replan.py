"""Drift is told from steps; weights, statistics and momentum arrive whole under any other cut."""
import numpy as np
import pytest
from core import Quadratic
from planning_core import made_up_machine, network_of

from mpi_ftp import comm as comm_module
from mpi_ftp.model import Model
from mpi_ftp.plan import GroupPlan, Plan, by_hand
from mpi_ftp.region import balanced
from mpi_ftp.replan import LEAST, STEPS, Watch, drift, move


def row(computing, waiting, reading=.01):
    return {'seconds': computing + waiting + reading, 'halo_seconds': waiting / 2, 'norm_seconds': waiting / 4, 'sum_seconds': waiting / 4,
            'input_seconds': reading}


def watched(first, late, count=LEAST):
    watch = Watch()
    for figures in [(9, 9)] + [first] * STEPS + [late] * count:
        watch.step(row(*figures))
    return watch.typical()


def test_a_watch_knows_first_and_late_steps():
    assert watched((1, .2), (2, .3), LEAST - 1) is None
    (computing, waiting, whole), late = watched((1, .2), (2, .3))
    assert (computing, waiting, whole) == pytest.approx((1, .2, 1.21)) and late == pytest.approx((2, .3, 2.31))


def test_a_throttled_rank_and_a_slow_link_are_drifts():
    machine = made_up_machine(3, speeds=(1.0, 1.0, 2.0))
    steady, slower = watched((1, .2), (1.1, .2)), watched((1, .2), (2.2, .2))
    assert drift(machine, [steady] * 3) is None and drift(machine, [slower] * 3) is None and drift(machine, [steady, None, slower]) is None
    now, why = drift(machine, [steady, steady, slower])
    assert now.speeds == pytest.approx((1, 1, 4)) and why == 'rank 2 computes 2.0 times slower than before'
    waits = watched((1, .2), (1, .8))
    now, why = drift(machine, [waits] * 3)
    assert now.net_link == pytest.approx((4e-4, 2.5e6)) and why == 'messages take 4.0 times longer than before'
    assert drift(machine, [waits, waits, steady]) is None               # one rank waits for none: the others wait for it, not for the wire


def filters_cut(network, ranks):
    """Each layer a group; those with filters to share are cut along them."""
    groups = []
    for layer in network.layers:
        n, c, h, w = network.tensor_shape(layer.index, 1)
        parts = min(ranks, c // 16) if layer.tensors and not layer.is_head else 1
        groups.append(GroupPlan(layer.index, layer.index + 1, ((0, n), balanced(c, parts, 16) if parts > 1 else (0, c), (0, h), (0, w))))
    return Plan(ranks, 1, tuple(groups))


@pytest.mark.mpi(1, 2, 3)
def test_weights_move_between_cuts(tmp_path):
    comm = comm_module.world()
    network = network_of(tmp_path)
    losses = {head.index: Quadratic() for head in network.heads}
    plans = by_hand(network, comm.size, 1, (comm.size, 1), [0, 2]), filters_cut(network, comm.size)
    for before, after in (plans, plans[::-1]):
        old, new, truth = (Model(network, plan, comm, np.float64, losses=losses).parameters for plan in (before, after, after))
        for parameters in (old, truth):
            parameters.initialise(3)
            fill(parameters)
        move(comm, old, new)
        for name in 'flat', 'momentum':
            np.testing.assert_array_equal(getattr(new, name), getattr(truth, name))
        for layer, held in truth.statistics.items():
            for name, array in held.items():
                np.testing.assert_array_equal(new.statistics[layer][name], array)


def fill(parameters):
    """Momentum and statistics that tell every row apart."""
    for layer, (first, last) in parameters.channels.items():
        for name, shape in parameters.network.layers[layer].tensors:
            rows = np.arange(first, last, dtype=float).reshape((-1,) + (1,) * (len(shape) - 1)) + np.zeros(shape[1:])
            parameters.set(layer, name, rows + layer, None if name in ('mean', 'variance') else parameters.momentum)
