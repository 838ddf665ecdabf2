"""Work that is prepared once and done in every step."""
import numpy as np
import pytest

from mpi_ftp import kernels


def cases(dtype):
    """(name, calls that prepare work, array it writes, array it reads)."""
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 2, 10, 11, 16)).astype(dtype), rng.standard_normal((3, 2, 3, 3, 16, 16)).astype(dtype)
    y, dw, dx = np.zeros((2, 3, 8, 9, 16), dtype), np.zeros_like(w), np.zeros_like(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    one = np.ones((3, 16), dtype)
    for algorithm in ('direct', 'winograd4'):
        yield 'forward', lambda a=algorithm: kernels.conv_forward.ready(y, x, w, 1, algorithm=a), y, x
        yield 'backward_data', lambda a=algorithm: kernels.conv_backward_data.ready(dx, dy, w, 1, algorithm=a), dx, dy
        yield 'backward_weights', lambda a=algorithm: kernels.conv_backward_weights.ready(dw, x, dy, 1, algorithm=a), dw, x
    yield 'stride 2', lambda: kernels.conv_backward_data.ready(dx[:, :, :9, :9], dy[:, :, :4, :4], w, 2), dx, dy
    yield 'activation', lambda: kernels.normalize_activate.ready(y, dy, one, one, 'leaky'), y, dy
    yield 'pool', lambda: kernels.maxpool_forward.ready(y[:, :, :4, :4], dy[:, :, :8, :8], 2, 2), y, dy


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_work_that_is_prepared_once_follows_its_arrays(dtype):
    for name, prepare, written, read in cases(dtype):
        work = prepare()
        for factor in (1, -3):
            read *= factor
            written[...] = 0
            work()
            found = written.copy()
            written[...] = 0
            prepare()()
            assert found.any() and np.array_equal(found, written), name


def test_bad_arrays_are_refused_before_any_work():
    with pytest.raises(ValueError, match='span'):
        kernels.conv_forward.ready(np.zeros((1, 1, 4, 4, 16)), np.zeros((1, 1, 5, 6, 16)), np.zeros((1, 1, 3, 3, 16, 16)), 1)


def test_calling_does_what_is_prepared():
    a, b = np.zeros((1, 1, 2, 2, 16)), np.ones((1, 1, 2, 2, 16))
    kernels.add(a, b)
    kernels.add.ready(a, b)()
    assert (a == 2).all()
