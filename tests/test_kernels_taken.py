"""Convolutions that sum over some of their input blocks, and later add the others; gradients of some of them."""
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


@pytest.mark.parametrize('split', SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize('algorithm, k, stride, margin, top', [('direct', 1, 1, 0, 0), ('direct', 3, 1, 2, 0), ('direct', 3, 1, 0, -1), ('direct', 3, 2, 0, 1),
                                                               ('direct', 2, 3, 1, -2), ('winograd2', 3, 1, 2, 0), ('winograd4', 3, 1, 2, -1), ('winograd4', 3, 1, 1, 2)])
@pytest.mark.parametrize('n, h, w, filters', [(2, 13, 13, 3), (1, 5, 7, 1), (4, 38, 31, 2)])
def test_gradients_of_some_blocks(split, algorithm, k, stride, margin, top, n, h, w, filters, count):
    """The same bits as with all of them at once; nothing is written elsewhere."""
    rng = np.random.default_rng(h)
    f = rng.standard_normal((filters, 5, k, k, 16, 16)).astype(np.float32)
    dy = np.zeros((n, filters, h + 2 * margin, w + 2 * margin, 16), np.float32)
    dy[:, :, margin:margin + h, margin:margin + w] = rng.standard_normal((n, filters, h, w, 16))
    whole, dx = (np.full((n, 5, (h - 1) * stride + k + 2, (w - 1) * stride + k, 16), np.nan, np.float32) for _ in range(2))
    options = dict(margin=margin, top=top, algorithm=algorithm)
    kernels.conv_backward_data(whole, dy, f, stride, **options)
    for k, made in enumerate(split):
        before = dx.copy()
        kernels.conv_backward_data(dx, dy, f, stride, made=np.array(made), again=k > 0, **options)
        others = np.setdiff1d(np.arange(5), made)
        np.testing.assert_array_equal(dx[:, others], before[:, others])
    np.testing.assert_array_equal(dx, whole)
    assert np.isfinite(dx).all()


def test_gradients_of_some_blocks_in_double_precision():
    rng = np.random.default_rng(1)
    f, dy = rng.standard_normal((2, 4, 3, 3, 16, 16)), rng.standard_normal((1, 2, 4, 5, 16))
    whole, dx = np.empty((1, 4, 9, 11, 16)), np.empty((1, 4, 9, 11, 16))
    kernels.conv_backward_data(whole, dy, f, 2)
    for made in ([1, 3], [0, 2]):
        kernels.conv_backward_data(dx, dy, f, 2, made=np.array(made))
    np.testing.assert_array_equal(dx, whole)


@pytest.mark.parametrize('taken', [[], [3], [-1], [1, 0], [1, 1]], ids=str)
def test_blocks_that_are_not_there(taken):
    x, f, y = maps(np.random.default_rng(7), 1, 3, 4, 4, 3, 1, np.float32)
    for call in (lambda: kernels.conv_forward(y, x, f, 1, taken=np.array(taken, int)), lambda: kernels.conv_backward_data(x, y, f, 1, made=np.array(taken, int))):
        with pytest.raises(ValueError, match='are not ascending ones of the 3 of'):
            call()


def test_grouped_filters_take_all():
    x, f, y = np.zeros((1, 1, 5, 5, 16), np.float32), np.zeros((1, 3, 3, 1, 16), np.float32), np.zeros((1, 1, 3, 3, 16), np.float32)
    with pytest.raises(ValueError, match='grouped filters'):
        kernels.conv_forward(y, x, f, 1, groups=16, add=True)
