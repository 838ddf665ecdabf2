"""Drift is told from steps; weights, statistics and momentum arrive whole under any other cut; the run goes on."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
from core import HEAD, Quadratic, conv, make_network
from planning_core import made_up_machine, network_of
from verb_runs import losses, same_run

from mpi_ftp import comm as comm_module
from mpi_ftp import train
from mpi_ftp.job import Job
from mpi_ftp.machine import write_machine
from mpi_ftp.model import Model
from mpi_ftp.network import read_network
from mpi_ftp.pictures import writing
from mpi_ftp.plan import GroupPlan, Plan, by_hand
from mpi_ftp.region import balanced
from mpi_ftp.replan import LEAST, STEPS, Watch, drift, move
from mpi_ftp.runfolder import open_run
from mpi_ftp.search import find_plan


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
    quadratic = {head.index: Quadratic() for head in network.heads}
    plans = by_hand(network, comm.size, 1, (comm.size, 1), [0, 2]), filters_cut(network, comm.size)
    for before, after in (plans, plans[::-1]):
        old, new, truth = (Model(network, plan, comm, np.float64, losses=quadratic).parameters for plan in (before, after, after))
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


@pytest.mark.mpi(2, timeout=120)
def test_a_run_that_plans_anew_goes_on_as_before(tmp_path, monkeypatch):
    """After the first epoch rows become columns: the losses and weights are those of a run that keeps its plan."""
    world, machine = comm_module.world(), made_up_machine(2)
    if world.rank == 0:
        make_network(tmp_path, conv(16) + conv(16, s=2) + conv(32) + HEAD, 24, 32)
        write_machine(tmp_path / 'm.json', machine)
        with writing(tmp_path / 'd.h5', [str(k) for k in range(13)], (24, 32)) as writer:
            for k in range(4):
                writer.add(str(k), np.random.default_rng(k).integers(0, 256, (24, 32, 3)).astype(np.uint8), [[k, .4, .5, .3, .4]])
            writer.splits = {'train': [0, 1, 2, 3]}
    world.barrier()
    cfg, runs = tmp_path / 'net.cfg', {'steady': [], 'anew': []}
    new = find_plan(read_network(cfg), 2, 2, machine, grid=(1, 2), groups=[0, 2])
    monkeypatch.setattr(train, 'Signals', lambda: SimpleNamespace(asked=False))
    for name, asked in runs.items():
        plans = [('a link is slow', 1.0, new, machine)] * (name == 'anew')
        monkeypatch.setattr(train, 'plan_again', lambda *about: asked.append(about) or (plans.pop() if plans else None))
        job = Job(cfg=cfg, data=tmp_path / 'd.h5', run=tmp_path / name, machine=tmp_path / 'm.json', batch=2, epochs=3.0, learning_rate=.01, grid=(2, 1),
                  groups=(0,), dtype='float64', threads=1)
        with train.Trainer(world, job, open_run(job.run, False, world.rank)) as trainer:
            trainer.train()
        assert len(asked) == 2 and (trainer.plan == new) == (name == 'anew')
    if world.rank == 0:
        same_run(tmp_path / 'anew', tmp_path / 'steady', 1e-11)
        assert len(losses(tmp_path / 'anew')) == 6
        assert 'iteration 2: a link is slow; a new plan takes' in (tmp_path / 'anew' / 'log.txt').read_text()
        assert Plan.from_json(json.loads((tmp_path / 'anew' / 'plan.json').read_text())) == new
