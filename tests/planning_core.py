"""What the tests of the planner share: a made-up machine on which every figure is known, networks, and the verb `plan`."""
import json
from io import StringIO

import pytest
from core import NETWORKS, make_network

from mpi_ftp.__main__ import main
from mpi_ftp.curves import Class, Curve
from mpi_ftp.machine import Machine


def made_up_machine(ranks=1, link=(1e-4, 1e7), flops=1e9, hosts=None, **changes):
    """One class of convolutions and one of everything else; others are scaled from them. A rank computes `flops` a second."""
    conv, other = Class('convolutional', 16, 16, 3, activation='leaky', normalize=True), Class('maxpool', 16, 16, 2, 2)
    per_pixel = 2 * 16 * 16 * 9 / flops
    curves = [Curve(conv, name, (100, 10000), (100 * per_pixel + 2e-5, 10000 * per_pixel + 2e-5))
              for name in ('forward', 'backward_data', 'backward_weights')]
    curves += [Curve(conv, name, (100, 10000), (1e-5, 1e-3)) for name in ('finish', 'unfinish')]
    curves += [Curve(other, name, (100, 10000), (1e-5, 1e-3)) for name in ('forward', 'backward_data')]
    settings = dict(net_link=link, hosts=tuple(range(ranks)) if hosts is None else hosts, speeds=(1.0,) * ranks, base=100 << 20, note='made up')
    return Machine(tuple(curves), **{**settings, **changes})


def network_of(tmp_path, name='tiny-yolo', h=64, w=96):
    return make_network(tmp_path, NETWORKS[name], h, w)


def printed(table):
    from rich.console import Console
    text = StringIO()
    Console(width=200, file=text).print(table)
    return text.getvalue()


def run_plan(tmp_path, *words, network=None):
    """The exit code of the verb `plan`, of a network that is small unless it is given."""
    network = network or network_of(tmp_path)
    machine = tmp_path / 'machine.json'
    machine.write_text(json.dumps(made_up_machine(2).to_json()))
    with pytest.raises(SystemExit) as end:
        main(['plan', '--cfg', str(network.path), '--machine', str(machine), *words])
    return end.value.code
