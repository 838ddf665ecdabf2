"""The float32 convolutions against float64 twins, at the tolerances of each algorithm, on sizes that fit no tile."""
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from mpi_ftp import kernels

TOLERANCE = {'direct': (3e-6, 1e-5), 'winograd2': (3e-6, 1e-5), 'winograd4': (1e-5, 5e-5)}     # rms and largest error
SHAPES = [  # n, input blocks, output blocks, height, width
    (1, 2, 2, 8, 8), (2, 3, 1, 7, 9), (1, 1, 3, 5, 1), (1, 4, 5, 13, 13), (1, 2, 3, 1, 1), (3, 2, 2, 50, 61),
    (2, 17, 2, 6, 30), (1, 2, 3, 90, 100), (1, 9, 11, 3, 4), (0, 1, 1, 4, 4), (1, 1, 1, 0, 4),
]


def errors(got, want):
    """Root mean square and largest error, each relative to that of the result."""
    if not want.size or not want.any():
        assert not got.any()
        return 0, 0
    gap = got.astype(float) - want
    return np.sqrt((gap ** 2).mean() / (want ** 2).mean()), abs(gap).max() / abs(want).max()


def check(got, want, algorithm):
    rms, largest = errors(got, want)
    assert rms <= TOLERANCE[algorithm][0] and largest <= TOLERANCE[algorithm][1], (rms, largest)


def normal(shape, seed, gaps=True):
    """Normal float32 numbers, as a view with gaps along the outer axes."""
    rng = np.random.default_rng(seed)
    n, cb, h, w, b = shape
    whole = rng.standard_normal((n, cb + 1, h + 1, w + 2, b)).astype(np.float32)
    return whole[:, 1:, 1:, 2:]


def framed(dy, rows, columns):
    return np.pad(dy, ((0, 0), (0, 0), (rows, rows), (columns, columns), (0, 0)))


def compare(algorithm, n, ib, ob, h, w, k=3, stride=1, dilation=1, block=16):
    """All three passes against the twins."""
    x = normal((n, ib, (h - 1) * stride + dilation * (k - 1) + 1 if h else 0,
                (w - 1) * stride + dilation * (k - 1) + 1, block), 0)
    dy = normal((n, ob, h, w, 16), 1)
    f = np.random.default_rng(2).standard_normal((ob, ib, k, k, block, 16)).astype(np.float32)
    y, y64 = np.full_like(dy, np.nan), np.empty(dy.shape)
    kernels.conv_forward(y, x, f, stride, dilation, algorithm=algorithm)
    kernels.conv_forward(y64, x.astype(float), f.astype(float), stride, dilation)
    check(y, y64, algorithm)

    df, df64 = np.ones_like(f), np.ones(f.shape)
    kernels.conv_backward_weights(df, x, dy, stride, dilation, algorithm=algorithm)
    kernels.conv_backward_weights(df64, x.astype(float), dy.astype(float), stride, dilation)
    check(df, df64, algorithm)

    dx64 = np.empty(x.shape)
    kernels.conv_backward_data(dx64, dy.astype(float), f.astype(float), stride, dilation)
    for margin in (0, dilation * (k - 1)):
        dx = normal(x.shape, 3)
        kernels.conv_backward_data(dx, framed(dy, margin, margin), f, stride, dilation, margin=margin, algorithm=algorithm)
        check(dx, dx64, algorithm)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('algorithm', TOLERANCE)
def test_3x3(algorithm, shape):
    compare(algorithm, *shape)


@pytest.mark.parametrize('algorithm', ['winograd2', 'winograd4'])
def test_short_tiles(algorithm):
    """Maps whose sides leave every remainder, alone and behind whole tiles, in groups of tiles that begin and end anywhere."""
    for h, w in itertools.product([1, 2, 3, 4, 5, 6, 7, 8], repeat=2):
        compare(algorithm, 2, 2, 3, h, w)
    for h, w in itertools.product([29, 30, 31], repeat=2):
        compare(algorithm, 5, 1, 1, h, w)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('k, stride, dilation', [(1, 1, 1), (1, 2, 1), (3, 2, 1), (2, 3, 1), (5, 1, 1), (3, 1, 2), (7, 2, 1), (3, 2, 3)])
def test_direct(k, stride, dilation, shape):
    if shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * k * k < 1_000_000:
        compare('direct', *shape, k, stride, dilation)


@pytest.mark.parametrize('block', [1, 3, 15])
@pytest.mark.parametrize('k, stride', [(3, 1), (7, 2), (1, 1)])
def test_picture(block, k, stride):
    compare('direct', 2, 1, 3, 9, 31, k, stride, block=block)


@pytest.mark.parametrize('k, stride', [(3, 1), (1, 1), (3, 2)])
def test_direct_does_not_depend_on_the_tile(k, stride):
    """A pixel's value, forwards and backwards, is the same bit for bit wherever the map is cut."""
    n, ib, ob, h, w = 1, 20, 3, 23, 31
    x = normal((n, ib, (h - 1) * stride + k, (w - 1) * stride + k, 16), 0)
    f = np.random.default_rng(2).standard_normal((ob, ib, k, k, 16, 16)).astype(np.float32)
    whole, parts = (np.empty((n, ob, h, w, 16), np.float32) for _ in range(2))
    kernels.conv_forward(whole, x, f, stride)
    dy = framed(whole, k - 1, k - 1)
    dx, dparts = np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    kernels.conv_backward_data(dx, dy, f, stride, margin=k - 1)
    for (a, b), (c, d) in itertools.product([(0, 1), (1, 9), (9, 23)], [(0, 5), (5, 6), (6, 31)]):
        kernels.conv_forward(parts[:, :, a:b, c:d],
                             x[:, :, a * stride:(b - 1) * stride + k, c * stride:(d - 1) * stride + k], f, stride)
        kernels.conv_backward_data(dparts[:, :, a * stride:b * stride, c * stride:d * stride], dy, f, stride, margin=k - 1,
                                   top=a * stride, left=c * stride)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(dparts[:, :, :h * stride, :w * stride], dx[:, :, :h * stride, :w * stride])


@pytest.mark.parametrize('algorithm', TOLERANCE)
def test_threads_change_nothing(algorithm):
    n, ib, ob, h, w = 2, 4, 5, 33, 40
    x, f = normal((n, ib, h + 2, w + 2, 16), 0), normal((ob, ib, 3, 3 * 16, 16), 1).reshape(ob, ib, 3, 3, 16, 16)
    f = np.ascontiguousarray(f)
    results = []
    for threads in (1, 3):
        kernels.set_threads(threads)
        y, dx, df = np.empty((n, ob, h, w, 16), np.float32), np.empty(x.shape, np.float32), np.zeros_like(f)
        kernels.conv_forward(y, x, f, 1, algorithm=algorithm)
        kernels.conv_backward_data(dx, y, f, 1, algorithm=algorithm)
        kernels.conv_backward_weights(df, x, y, 1, algorithm=algorithm)
        results.append((y, dx, df))
    kernels.set_threads(1)
    for one, three in zip(*results):
        np.testing.assert_array_equal(one, three)


def test_choice():
    assert kernels.choose('forward', 64, 128, 3, 1, 38, 38) == 'winograd4'
    assert kernels.choose('forward', 3, 32, 3, 1, 608, 608) == 'direct'
    assert kernels.choose('forward', 512, 512, 3, 1, 7, 9) == 'winograd2'
    assert kernels.choose('forward', 128, 128, 3, 1, 8, 9) == 'winograd4'
    assert kernels.choose('forward', 64, 64, 3, 1, 7, 9) == kernels.choose('forward', 512, 512, 3, 1, 4, 99) == 'direct'
    for other in [dict(k=1), dict(stride=2), dict(dilation=2), dict(groups=2), dict(k=(3, 1))]:
        assert kernels.choose('forward', **{**dict(in_channels=64, out_channels=64, k=3, stride=1, map_h=38, map_w=38), **other}) == 'direct'
    try:
        for switch, expected in [('off', 'direct'), ('2', 'winograd2'), ('4', 'winograd4')]:
            kernels.set_winograd(switch)
            assert kernels.choose('backward_data', 16, 16, 3, 1, 4, 4) == expected
        with pytest.raises(ValueError, match='expected one of off'):
            kernels.set_winograd('on')
    finally:
        kernels.set_winograd('auto')
    x = np.zeros((1, 1, 5, 5, 16), np.float32)
    with pytest.raises(ValueError, match='cannot do 1 x 1'):
        kernels.conv_forward(x, x, np.zeros((1, 1, 1, 1, 16, 16), np.float32), 1, algorithm='winograd4')


def test_workspace_is_predicted():
    from mpi_ftp.kernels import threads
    x, f = normal((2, 3, 42, 34, 16), 0), np.zeros((5, 3, 3, 3, 16, 16), np.float32)
    dy = np.zeros((2, 5, 40, 32, 16), np.float32)
    calls = {'forward': lambda a: kernels.conv_forward(dy, x, f, 1, algorithm=a),
             'backward_weights': lambda a: kernels.conv_backward_weights(f, x, dy, 1, algorithm=a),
             'backward_data': lambda a: kernels.conv_backward_data(x, framed(dy, 2, 2), f, 1, margin=2, algorithm=a)}
    for algorithm in TOLERANCE:
        for pass_, run in calls.items():
            threads._local.__dict__.clear()
            run(algorithm)
            size = (2, 42, 34) if pass_ == 'backward_data' else (2, 40, 32)
            told = sum(kernels.workspace_bytes(pass_, algorithm, 48, 80, (3, 3), *size))
            took = sum(kept['buffer'].nbytes for kept in threads._local.__dict__.values())
            assert told <= took <= told + 1024


@pytest.mark.parametrize('simd', ['avx2', 'neon', 'generic', 'nonsense'])
def test_other_vector_widths(simd):
    """Every tile runs on every CPU; only the speed differs."""
    code = 'import sys; sys.path.insert(0, sys.argv[1]); import test_kernels_simd as t\n' \
           'for a in t.TOLERANCE: t.compare(a, 2, 3, 3, 7, 19)\n' \
           't.compare("direct", 1, 1, 2, 5, 9, 3, 2, block=3)'
    done = subprocess.run([sys.executable, '-c', code, os.path.dirname(__file__)], capture_output=True, text=True,
                          env={**os.environ, 'MPI_FTP_SIMD': simd})
    if simd == 'nonsense':
        assert "known: avx512, avx2, neon, generic" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('offset', [0, 4])
def test_writing_past_the_caches_changes_nothing(monkeypatch, offset):
    """Large outputs that lie on cache lines take other instructions; others must not."""
    from mpi_ftp.kernels import threads
    from mpi_ftp.kernels.bench import aligned

    def empty(shape):
        size = int(np.prod(shape))
        return aligned(size + 16)[offset:offset + size].reshape(shape)
    x, f = normal((1, 2, 12, 13, 16), 0), np.random.default_rng(1).standard_normal((3, 2, 3, 3, 16, 16)).astype(np.float32)
    z, pooled = normal((2, 3, 8, 10, 16), 2), normal((2, 3, 4, 5, 16), 3)
    c = [np.random.default_rng(i).standard_normal((3, 16)).astype(np.float32) for i in range(5)]
    results = []
    for size in (0, 1 << 40):
        monkeypatch.setattr(threads, 'STREAM_BYTES', size)
        made = [empty((1, 3, 10, 11, 16)) for _ in TOLERANCE] + [empty(z.shape) for _ in range(3)]
        for y, algorithm in zip(made, TOLERANCE):
            kernels.conv_forward(y, x, f, 1, algorithm=algorithm)
        kernels.normalize_activate(made[3], z, *c[:2], 'mish')
        kernels.activate_backward(made[4], z[:, ::-1], z, *c, 'leaky')
        kernels.maxpool_backward(made[5], pooled, z, 2, 2)
        results.append(made)
    for past, through in zip(*results):
        assert past.any()
        np.testing.assert_array_equal(past, through)
