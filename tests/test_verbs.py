"""The verbs as a newcomer meets them: command lines in processes of their own, alone and under mpirun, on small random networks."""
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
CONV = '[convolutional]\nfilters={}\nsize={}\nstride={}\npad=1\nactivation={}\n'


def start(*words, ranks=1):
    """mpi-ftp with these words as a process; with ranks > 1 under mpirun."""
    command = [sys.executable, '-m', 'mpi_ftp', *map(str, words)]
    if ranks > 1:
        beside = Path(sys.executable).parent / 'mpirun'
        launcher = os.environ.get('MPIRUN') or (str(beside) if beside.exists() else 'mpirun')
        command = ['bash', '-c', '. "$0" && exec "$@"', str(ROOT / 'jobs' / 'mpi.env.sh'), launcher, '-n', str(ranks), *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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


@pytest.mark.parametrize('first, second, stride', [(16, 16, 2), (20, 12, 2), (20, 12, 1), (12, 20, 1)])
def test_shortcut_between_unequal_maps_adds_what_both_have(first, second, stride, tmp_path):
    cfg, weights, given, made = (tmp_path / name for name in ('n.cfg', 'n.weights', 'x.npy', 'y.npy'))
    cfg.write_text('[net]\nchannels=3\nwidth=1\nheight=1\n' + CONV.format(first, 1, 1, 'linear') + CONV.format(second, 1, stride, 'linear')
                   + '[shortcut]\nfrom=0\nactivation=leaky\n')
    w = write_weights(weights, first + first * 3 + second + second * first)
    x = np.random.default_rng(1).random((2, 3, 10, 14))
    np.save(given, x)
    bias1, w1, bias2, w2 = np.split(w, np.cumsum([first, first * 3, second]))
    a = np.einsum('fc,nchw->nfhw', w1.reshape(first, 3), x) + bias1[:, None, None]
    b = np.einsum('fc,nchw->nfhw', w2.reshape(second, first), a[:, :, ::stride, ::stride]) + bias2[:, None, None]
    both = min(first, second)
    b[:, :both] += a[:, :both, ::stride, ::stride]
    verb('forward', '--cfg', cfg, '--weights', weights, '--input', given, '--output', made, '--dtype', 'float64')
    np.testing.assert_allclose(np.load(made), np.where(b > 0, b, .1 * b), rtol=1e-5, atol=1e-6)
