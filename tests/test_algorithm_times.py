"""Algorithms chosen by measurement: what is measured, that it is kept, and that a run's choice follows it."""
import json
from dataclasses import replace

import numpy as np
import pytest
from core import conv, make_network
from planning_core import made_up_machine

from mpi_ftp import algorithm_times, kernels
from mpi_ftp import comm as comm_module
from mpi_ftp.layers.convolution import algorithms
from mpi_ftp.machine import read_machine
from mpi_ftp.measuring import measure

NET = conv(16) + conv(32) + conv(32, k=1) + conv(32, s=2) + conv(48)


@pytest.fixture(autouse=True)
def back_to_the_rule(tmp_path, monkeypatch):
    monkeypatch.setattr(algorithm_times, 'path', lambda: tmp_path / 'rates.json')
    yield
    kernels.set_rates(())


def test_layers_with_a_choice_are_measured_once(tmp_path, monkeypatch):
    network = make_network(tmp_path, NET, 24, 32)
    rows = algorithm_times.times(network)
    assert {row[:5] for row in rows} == {(pass_, i, o, h, w) for pass_ in algorithm_times.PASSES for i, o, h, w in [(16, 32, 24, 32), (32, 48, 12, 16)]}
    assert {row[5] for row in rows} == set(kernels.ALGORITHMS) and all(0 < row[6] < 1 for row in rows)
    monkeypatch.setattr(algorithm_times, 'measure', None)
    assert algorithm_times.times(network) == rows                   # from the file
    try:
        kernels.set_winograd('off')
        assert algorithm_times.times(network) == []
    finally:
        kernels.set_winograd('auto')


def test_a_file_that_is_none_is_measured_again(tmp_path):
    (tmp_path / 'rates.json').write_text('{')
    network = make_network(tmp_path, NET, 24, 32)
    assert len(algorithm_times.times(network)) == 18 and len(json.loads((tmp_path / 'rates.json').read_text())) == 2


def test_tiles_keep_to_work_and_memory():
    assert algorithm_times.typical(64, 64, 40, 60, 4, 8, 1 << 30) == (8, 20, 30)
    assert algorithm_times.typical(1024, 1024, 38, 38, 1, 8, 1 << 30) == (1, 2, 38)
    samples, rows, columns = algorithm_times.typical(64, 64, 40, 60, 1, 8, 1 << 20)
    assert samples == 1 and 8 * 128 * rows * columns <= 1 << 20


def test_a_layer_takes_what_was_fastest_on_its_map(tmp_path):
    layer = make_network(tmp_path, NET, 24, 32).layers[1]

    def chosen():
        return {pass_: options['algorithm'] for pass_, options in algorithms(layer, np.float32).items()}
    assert set(chosen().values()) == {'winograd4'}
    times = {'direct': 1e-3, 'winograd2': 2e-3, 'winograd4': 1.04e-3}
    kernels.set_rates([('forward', 16, 32, 24, 32, a, t) for a, t in times.items()])
    assert set(chosen().values()) == {'winograd4'}                  # no difference to speak of
    kernels.set_rates([('forward', 16, 32, 24, 32, a, t) for a, t in {**times, 'direct': 9e-4}.items()])
    assert chosen() == {'forward': 'direct', 'backward_data': 'winograd4', 'backward_weights': 'winograd4'}


def test_a_choice_keeps_to_its_workspace():
    shape = 64, 128, 3, 1, 76, 76
    needs = {a: sum(kernels.workspace_bytes('forward', a, 64, 128, (3, 3), 1, 76, 76)) for a in kernels.ALGORITHMS}
    assert needs['direct'] < needs['winograd2'] < needs['winograd4']
    try:
        for switch in 'auto', '4':
            for workspace, expected in [(needs['winograd4'], 'winograd4'), (needs['winograd4'] - 1, 'winograd2'), (1000, 'direct')]:
                kernels.set_winograd(switch, workspace)
                assert kernels.choose('forward', *shape) == expected
        kernels.set_winograd('2', needs['winograd4'])
        assert kernels.choose('forward', *shape) == 'winograd2'
    finally:
        kernels.set_winograd('auto')


def test_a_machine_carries_them(tmp_path):
    network = make_network(tmp_path, NET, 24, 32)
    machine = measure(comm_module.Alone(), network, seconds=.05)
    assert len(machine.algorithms) == 18
    path = tmp_path / 'machine.json'
    path.write_text(json.dumps(machine.to_json()))
    assert read_machine(path) == machine != replace(machine, algorithms=())
    assert made_up_machine(2).algorithms == ()
