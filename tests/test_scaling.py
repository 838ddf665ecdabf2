"""Steps on fewer and more ranks are measured in one run; the bounds follow from operations and bytes."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from core import NETWORKS, make_network

from mpi_ftp.network import PICTURE
from mpi_ftp.plan import by_hand
from mpi_ftp.region import Region
from mpi_ftp.scaling import Row, brief, operations

ROOT = Path(__file__).parent.parent


def test_operations_of_one_rank_are_those_of_the_network(tmp_path):
    network = make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48)
    alone = by_hand(network, 1, 2, (1, 1), [0])
    forward = {layer.index: layer.flops(Region.whole(network.tensor_shape(layer.index, 2))) for layer in network.layers}
    want = sum(n * (2 if network.layers[i].inputs[0] == PICTURE else 3) for i, n in forward.items())
    assert operations(network, alone, 0) == want
    cut = by_hand(network, 4, 2, (2, 2), [0, 4])
    parts = [operations(network, cut, rank) for rank in range(4)]
    assert want < sum(parts) < 2 * want                             # halos are computed twice
    again = by_hand(network, 4, 2, (2, 2), [0, 4], recompute=True)
    assert operations(network, again, 0) > parts[0]
    assert brief(alone) == '0:whole' and brief(cut) == '0:2Hx2W 4:2Hx2W'


def test_efficiency_and_hidden_part():
    row = Row(4, 2, .06, .1, .05, .05, .01, .002, .003, .03, .1, (10, 20), '')
    assert row.efficiency == pytest.approx(.1 / 2 / .06) and row.hidden == pytest.approx(.9)
    assert Row(4, 1, .1, .1, .1, .1, 0, 0, 0, 0, .1, (0, 0), '').hidden is None


@pytest.mark.parametrize('more', [(), ('--busy',)])
def test_the_verb(tmp_path, more):
    """Three processes; one to three ranks take turns."""
    make_network(tmp_path, NETWORKS['tiny-yolo'], 32, 48)
    command = ['bash', '-c', '. "$0" && exec "$@"', str(ROOT / 'jobs' / 'mpi.env.sh'), os.environ.get('MPIRUN') or str(Path(sys.executable).parent / 'mpirun'),
               '-n', '3', sys.executable, '-m', 'mpi4py', '-m', 'mpi_ftp', 'scaling', '--cfg', str(tmp_path / 'net.cfg'), '--batches', '2', '--seconds',
               '.2', '--threads', '1', *more, '--json', str(tmp_path / 'out.json'), '--profile', str(tmp_path / 'machine.json')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / 'out.json').read_text())
    assert [row['ranks'] for row in rows] == [1, 2, 3] and all(row['seconds'] > 0 for row in rows)
    assert sum(rows[-1]['sent']) > 0 == sum(rows[0]['sent']) and (tmp_path / 'machine.json').exists() and 'efficiency' in done.stdout
