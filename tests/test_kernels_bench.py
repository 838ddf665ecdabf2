"""The benchmark command on a tiny shape; its numbers are checked for sense only."""
import os
import subprocess
import sys

import pytest

from mpi_ftp.kernels import bench
from mpi_ftp.kernels.cfg_shapes import convolutions


def test_command(tmp_path):
    chart = tmp_path / 'bars.png'
    done = subprocess.run([sys.executable, '-m', 'mpi_ftp.kernels', '--shape', '16,32,3,1,13,14', '--shape', '3,16,7,2,5,5',
                           '--seconds', '0', '--no-torch', '--chart', str(chart)], capture_output=True, text=True,
                          env={**os.environ, 'COLUMNS': '160'})
    assert done.returncode == 0, done.stderr
    for text in ('16->32 3x3 @13x14', '3->16 7x7/2 @5x5', 'backward_weights', 'winograd4'):
        assert text in done.stdout
    assert chart.read_bytes().startswith(b'\x89PNG')


def test_shapes_of_a_cfg():
    text = """[net]
    height=64 ; pixels
    width=96
    channels=3
    [convolutional]
    filters=32
    size=3
    pad=1
    [maxpool]
    size=2
    stride=2
    [convolutional]
    filters=64
    size=1
    [route]
    layers=-2
    [reorg]
    stride=2
    [route]
    layers=-1,-2
    [convolutional]
    filters=8
    size=3
    stride=2
    """
    assert convolutions(text) == [(3, 32, 3, 1, 64, 96), (32, 64, 1, 1, 32, 48), (160, 8, 3, 2, 7, 11)]
    assert convolutions(text, 32)[0] == (3, 32, 3, 1, 32, 32)
    with pytest.raises(ValueError, match='layer 1 is .crop'):
        convolutions(text[:text.index('[maxpool]')] + '[crop]')


def test_rates_are_below_the_peak():
    (_, peak, rates), *_ = bench.convolution(bench.Shape(64, 64, 3, 1, 26, 26), seconds=0.1, torch=False)
    assert 0 < rates['direct'] < 1.3 * peak


def test_elementwise_is_measured():
    names = [name for name, times in bench.elementwise(16, 8, seconds=0, torch=False) if times['ours'] > 0]
    assert len(names) == 4
