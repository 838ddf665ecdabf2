"""Depthwise convolutions and groups of a few channels, in vector instructions, against the naive loops in float64."""
import os
import subprocess
import sys

import numpy as np
import pytest

from mpi_ftp import kernels
from mpi_ftp.kernels import grouped

CASES = [  # channels, groups, (kh, kw), (ho, wo), stride, dilation
    (32, 32, (3, 3), (9, 29), 1, 1),
    (20, 20, (3, 3), (5, 14), 2, 1),
    (16, 16, (3, 3), (1, 1), 1, 1),
    (16, 16, (1, 1), (3, 7), 2, 1),
    (32, 32, (5, 5), (6, 15), 1, 1),
    (16, 16, (5, 3), (4, 9), 3, 1),
    (16, 16, (7, 7), (8, 30), 1, 2),
    (16, 16, (2, 9), (3, 33), 2, 3),
    (40, 20, (3, 3), (6, 17), 1, 1),
    (40, 10, (3, 3), (5, 8), 2, 1),
    (48, 6, (3, 5), (4, 19), 1, 2),
    (32, 4, (3, 3), (30, 31), 1, 1),
]


def maps(channels, h, w, rng):
    """A view with gaps, filled with normal numbers; lanes past the channels are zero."""
    cb = kernels.blocks(channels)
    view = np.full((3, cb + 1, h + 2, w + 3, 16), np.nan, np.float32)[1:, :cb, 1:h + 1, 2:w + 2]
    view[:] = kernels.to_blocked(rng.standard_normal((2, channels, h, w)).astype(np.float32))
    return view


def near(got, want):
    scale = np.sqrt(np.mean(want ** 2))
    assert np.sqrt(np.mean((got - want) ** 2)) <= 3e-6 * scale and np.abs(got - want).max() <= 1e-5 * max(scale, np.abs(want).max())


def compare(channels, groups, size, out, stride, dilation, margins=True):
    rng = np.random.default_rng(0)
    (kh, kw), (h, w) = size, out
    rows, columns = (h - 1) * stride + dilation * (kh - 1) + 1, (w - 1) * stride + dilation * (kw - 1) + 1
    margin = (dilation * (kh - 1), dilation * (kw - 1)) if margins else (0, 0)
    x, dy = maps(channels, rows, columns, rng), maps(channels, h + 2 * margin[0], w + 2 * margin[1], rng)
    f = kernels.pack_filters(rng.standard_normal((channels, channels // groups, kh, kw)).astype(np.float32), groups)
    inner = dy[:, :, margin[0]:margin[0] + h, margin[1]:margin[1] + w]
    keep = inner.copy()
    dy[:] = 0
    inner[:] = keep
    assert grouped.is_depthwise(x, f, channels // groups)

    results = []
    for kind in (np.float32, np.float64):
        x_, f_, dy_, inner_ = (a if kind == np.float32 else a.astype(kind) for a in (x, f, dy, inner))
        y, dx, dw = maps(channels, h, w, rng).astype(kind), maps(channels, rows + 3, columns + 2, rng).astype(kind), np.ones_like(f_)
        kernels.conv_forward(y, x_, f_, stride, dilation, groups, filters=channels)
        kernels.conv_backward_data(dx, dy_, f_, stride, dilation, groups, margin, -2, 1, filters=channels)
        kernels.conv_backward_weights(dw, x_, inner_, stride, dilation, groups, filters=channels)
        results.append((y, dx, dw))
    for got, want in zip(*results):
        assert np.abs(want).max() > 0
        near(got, want)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('margins', [True, False])
def test_depthwise(case, margins):
    compare(*case, margins)


@pytest.mark.parametrize('width', range(1, 31))
def test_rows_of_any_length(width):
    """Tiles that overlap write what is there already, and nothing past the row."""
    rng = np.random.default_rng(1)
    x = maps(16, 5, width + 2, rng)
    f = kernels.pack_filters(rng.standard_normal((16, 1, 3, 3)).astype(np.float32), 16)
    frame = np.full((2, 1, 3, width + 2, 16), 7, np.float32)
    y, want = frame[:, :, :, 1:-1], np.empty((2, 1, 3, width, 16))
    kernels.conv_forward(y, x, f, 1, groups=16)
    kernels.conv_forward(want, x.astype(float), f.astype(float), 1, groups=16)
    near(y, want)
    assert (frame[:, :, :, [0, -1]] == 7).all()


@pytest.mark.parametrize('simd', ['avx2', 'neon', 'generic'])
def test_other_vector_widths(simd):
    code = 'import sys; sys.path.insert(0, sys.argv[1]); import test_kernels_depthwise as t\n' \
           'for case in t.CASES[1], t.CASES[8], t.CASES[11]: t.compare(*case)'
    done = subprocess.run([sys.executable, '-c', code, os.path.dirname(__file__)], capture_output=True, text=True,
                          env={**os.environ, 'MPI_FTP_SIMD': simd})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('outputs, inputs, channels, groups, filters', [
    (1, 3, 16, 3, 16),          # no whole number of filters a group
    (1, 1, 4, 0, 16), (2, 2, 4, 8, 40), (2, 2, 4, 8, 0), (2, 2, 4, 4, 16), (2, 3, 1, 32, None), (3, 2, 16, 2, 32), (2, 3, 16, 2, None), (2, 1, 1, 16, 16)])
def test_groups_that_do_not_fit_are_refused(dtype, outputs, inputs, channels, groups, filters):
    y, x = np.zeros((1, outputs, 2, 2, 16), dtype), np.zeros((1, inputs, 2, 2, 16), dtype)
    w = np.zeros((outputs, 1, 1, channels, 16), dtype)
    for call in (lambda: kernels.conv_forward.ready(y, x, w, 1, 1, groups, filters),
                 lambda: kernels.conv_backward_data.ready(x, y, w, 1, 1, groups, filters=filters),
                 lambda: kernels.conv_backward_weights.ready(w, x, y, 1, 1, groups, filters)):
        with pytest.raises(ValueError, match=r'\(1, '):
            call()
