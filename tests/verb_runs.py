"""What the tests of verbs share: command lines in processes of their own, a small random network with a data set, and a run on one rank."""
import csv
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi_run import under_mpirun

CONV = '[convolutional]\nfilters={}\nsize={}\nstride={}\npad=1\nactivation={}\n'
NET = ('[net]\nwidth=48\nheight=40\nchannels=3\nbatch=2\nmax_batches=4\nlearning_rate=.01\n' + CONV.format(8, 3, 1, 'leaky') + 'batch_normalize=1\n'
       '[maxpool]\nsize=2\nstride=2\n' + CONV.format(12, 3, 2, 'leaky') + 'batch_normalize=1\n' + CONV.format(16, 1, 1, 'linear')
       + '[region]\nanchors=1,1, 3,2\nnum=2\nclasses=3\ncoords=4\nsoftmax=1\n')


def start(*words, ranks=1):
    """mpi-ftp with these words as a process; with ranks > 1 under mpirun."""
    command = [sys.executable, '-m', 'mpi_ftp', *map(str, words)]
    return subprocess.Popen(under_mpirun(ranks, *command) if ranks > 1 else command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def verb(*words, ranks=1, code=0):
    """What a verb wrote on stderr; it must end with exit code `code` within a minute."""
    process = start(*words, ranks=ranks)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    return errors


def write_weights(path, numbers, low=-.5, high=.5):
    """Random weights as a Darknet file; returns them."""
    values = np.random.default_rng(0).uniform(low, high, numbers).astype('<f4')
    Path(path).write_bytes(struct.pack('<3iq', 0, 2, 0, 0) + values.tobytes())
    return values.astype(np.float64)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder whose name has a space, with a network and a data set of five pictures, the smallest of one pixel, and no names."""
    from PIL import Image
    folder = tmp_path_factory.mktemp('some place')
    (folder / 'n.cfg').write_text(NET)
    rng = np.random.default_rng(2)
    for i, size in enumerate([(40, 48), (1, 1), (90, 31), (40, 48), (20, 24)]):
        for kind in ('images', 'labels'):
            (folder / 'set' / kind / ('train' if i < 4 else 'val')).mkdir(parents=True, exist_ok=True)
        split = 'train' if i < 4 else 'val'
        Image.fromarray(rng.integers(0, 256, size + (3,)).astype(np.uint8)).save(folder / 'set' / 'images' / split / f'{i}.png')
        (folder / 'set' / 'labels' / split / f'{i}.txt').write_text(f'{i % 3} .4 .5 .3 .4\n' if i != 3 else '')
    verb('convert', 'yolo', folder / 'set', folder / 'set.h5')
    return folder


def training(place, run, *more, data='set.h5'):
    return ['train', '--cfg', place / 'n.cfg', '--data', place / data, '--run', place / run, '--dtype', 'float64', '--seed', '4', *more]


def losses(run):
    with open(run / 'metrics.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['iteration']) for row in rows] == list(range(1, len(rows) + 1))
    return [float(row['loss']) for row in rows]


@pytest.fixture(scope='module')
def alone(place):
    """A whole run on one rank: what every other way of running it must repeat."""
    verb(*training(place, 'alone'))
    assert len(losses(place / 'alone')) == 4 and (place / 'alone' / 'finished').exists()
    return place / 'alone'


def same_run(run, other, tolerance):
    """The losses and the written weights of two runs agree."""
    np.testing.assert_allclose(losses(run), losses(other), rtol=tolerance)
    weights = [np.frombuffer((r / 'last.weights').read_bytes()[20:], '<f4') for r in (run, other)]
    np.testing.assert_allclose(*weights, rtol=max(tolerance, 2e-7), atol=tolerance)
