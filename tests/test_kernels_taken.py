"""Convolutions that sum over some of their input blocks, and later add the others."""
import numpy as np
import pytest

from mpi_ftp import kernels
from mpi_ftp.kernels import threads

SPLITS = {'halves': ([0, 1, 2], [3, 4]), 'of three owners': ([0, 2, 4], [1, 3]), 'one by one': ([0], [1], [2], [3], [4])}


@pytest.fixture(params=[1, 2], ids='{} threads'.format)
def count(request):
    threads.set_threads(request.param)
    yield request.param
    threads.set_threads(1)


def maps(rng, n, blocks, h, w, k, filters, dtype):
    x = rng.standard_normal((n, blocks, h + k - 1, w + k - 1, 16)).astype(dtype)
    return x, rng.standard_normal((filters, blocks, k, k, 16, 16)).astype(dtype), np.full((n, filters, h, w, 16), np.nan, dtype)


@pytest.mark.parametrize('split', SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize('algorithm, k', [('direct', 1), ('direct', 3), ('winograd2', 3), ('winograd4', 3)])
@pytest.mark.parametrize('n, h, w, filters', [(2, 13, 13, 3), (1, 5, 7, 1), (4, 38, 31, 2)])
def test_parts_of_the_inputs_add_up(split, algorithm, k, n, h, w, filters, count):
    x, f, y = maps(np.random.default_rng(h), n, 5, h, w, k, filters, np.float32)
    whole = np.empty_like(y)
    kernels.conv_forward(whole, x, f, 1, algorithm=algorithm)
    unseen = x.copy()
    for part, taken in enumerate(split):
        unseen[:] = np.nan                      # blocks that are not taken are not read
        unseen[:, taken] = x[:, taken]
        kernels.conv_forward(y, unseen, f, 1, algorithm=algorithm, taken=np.array(taken), add=part > 0)
    assert abs(y - whole).max() < 2e-5 * abs(whole).max()


@pytest.mark.parametrize('stride, h', [(1, 6), (2, 6), (1, 1)])
def test_parts_add_up_in_double_precision_and_at_a_stride(stride, h):
    rng = np.random.default_rng(stride)
    x = rng.standard_normal((3, 4, (h - 1) * stride + 3, (h - 1) * stride + 3, 16))
    f = rng.standard_normal((2, 4, 3, 3, 16, 16))
    whole, y, y32 = np.empty((3, 2, h, h, 16)), np.empty((3, 2, h, h, 16)), np.empty((3, 2, h, h, 16), np.float32)
    kernels.conv_forward(whole, x, f, stride)
    for part, taken in enumerate(([1, 2], [0, 3])):
        kernels.conv_forward(y, x, f, stride, taken=np.array(taken), add=part > 0)
        kernels.conv_forward(y32, x.astype(np.float32), f.astype(np.float32), stride, taken=np.array(taken), add=part > 0)
    assert abs(y - whole).max() < 1e-12 * abs(whole).max()
    assert abs(y32 - whole).max() < 1e-5 * abs(whole).max()


@pytest.mark.parametrize('algorithm', ['direct', 'winograd2', 'winograd4'])
def test_all_blocks_taken_are_the_whole(algorithm):
    x, f, y = maps(np.random.default_rng(7), 2, 3, 9, 6, 3, 2, np.float32)
    whole = np.empty_like(y)
    kernels.conv_forward(whole, x, f, 1, algorithm=algorithm)
    kernels.conv_forward(y, x, f, 1, algorithm=algorithm, taken=np.arange(3))
    np.testing.assert_array_equal(y, whole)


@pytest.mark.parametrize('taken', [[], [3], [-1], [1, 0], [1, 1]], ids=str)
def test_blocks_that_are_not_there(taken):
    x, f, y = maps(np.random.default_rng(7), 1, 3, 4, 4, 3, 1, np.float32)
    with pytest.raises(ValueError, match='are not ascending ones of the 3 of'):
        kernels.conv_forward(y, x, f, 1, taken=np.array(taken, int))


def test_grouped_filters_take_all():
    x, f, y = np.zeros((1, 1, 5, 5, 16), np.float32), np.zeros((1, 3, 3, 1, 16), np.float32), np.zeros((1, 1, 3, 3, 16), np.float32)
    with pytest.raises(ValueError, match='grouped filters'):
        kernels.conv_forward(y, x, f, 1, groups=16, add=True)
