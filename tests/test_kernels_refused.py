"""Arguments that do not fit together are refused before anything is written."""
import numpy as np
import pytest

from mpi_ftp import kernels


def maps(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize('call', [
    lambda: kernels.conv_forward(maps(1, 1, 4, 4, 16), maps(1, 1, 5, 6, 16), maps(1, 1, 3, 3, 16, 16), 1),
    lambda: kernels.conv_forward(maps(1, 1, 4, 4, 16), maps(1, 2, 6, 6, 16), maps(1, 1, 3, 3, 16, 16), 1),
    lambda: kernels.conv_forward(maps(1, 1, 4, 4, 16), maps(2, 1, 6, 6, 16), maps(1, 1, 3, 3, 16, 16), 1),
    lambda: kernels.conv_forward(maps(1, 1, 4, 4, 16), maps(1, 1, 6, 6, 32)[..., ::2], maps(1, 1, 3, 3, 16, 16), 1),
    lambda: kernels.conv_forward(maps(1, 1, 4, 4, 16), maps(1, 1, 6, 12, 16)[:, :, :, ::2], maps(1, 1, 3, 3, 16, 16), 1),
    lambda: kernels.conv_forward(maps(1, 1, 4, 4, 16), maps(1, 1, 6, 6, 16), maps(1, 1, 3, 6, 16, 16)[:, :, :, ::2], 1),
    lambda: kernels.conv_backward_data(maps(1, 1, 4, 4, 16), maps(1, 2, 4, 4, 16), maps(1, 1, 3, 3, 16, 16), 1),
    lambda: kernels.conv_backward_weights(maps(1, 1, 3, 3, 16, 16), maps(1, 1, 6, 6, 16), maps(1, 1, 5, 4, 16), 1),
    lambda: kernels.normalize_activate(maps(1, 1, 4, 4, 16), maps(1, 1, 4, 5, 16), maps(1, 16), maps(1, 16), 'leaky'),
    lambda: kernels.maxpool_forward(maps(1, 1, 3, 3, 16), maps(1, 1, 5, 6, 16), 2, 2),
    lambda: kernels.conv_forward(maps(1, 1, 2, 2, 8), maps(1, 1, 4, 4, 16), maps(1, 1, 3, 3, 16, 16), 1),
    lambda: kernels.conv_forward(maps(1, 1, 2, 2, 16), maps(1, 1, 4, 4, 16), maps(1, 1, 3, 3, 16, 8), 1),
    lambda: kernels.conv_forward(maps(1, 1, 2, 2, 16), maps(1, 1, 4, 4, 16), maps(1, 3, 3, 16), 1),
    lambda: kernels.conv_backward_data(maps(1, 1, 4, 4, 16), maps(1, 1, 2, 2, 8), maps(1, 3, 3, 1, 16), 1, groups=16),
    lambda: kernels.moments(np.zeros((2, 1, 16)), maps(1, 2, 3, 3, 16), maps(2, 16)),
    lambda: kernels.moments(np.zeros((1, 1, 16)), maps(1, 1, 3, 3, 16), maps(1, 16)),
    lambda: kernels.moments(np.zeros((2, 1, 3)), maps(1, 1, 3, 3, 3), maps(1, 3)),
    lambda: kernels.normalize_activate(maps(1, 1, 3, 3, 3), maps(1, 1, 3, 3, 3), maps(1, 3), maps(1, 3), 'leaky'),
    lambda: kernels.normalize_activate(maps(1, 2, 3, 3, 16), maps(1, 2, 3, 3, 16), maps(1, 16), maps(2, 16), 'leaky'),
    lambda: kernels.activate_backward_reduce(np.zeros((2, 1, 16)), maps(1, 2, 1, 1, 16), maps(1, 2, 1, 1, 16), *[maps(2, 16)] * 4, 'leaky'),
    lambda: kernels.activate_backward(maps(1, 2, 1, 1, 16), maps(1, 2, 1, 1, 16), maps(1, 2, 1, 1, 16), *[maps(2, 16)] * 4, maps(1, 16), 'leaky'),
    lambda: kernels.normalize_activate_maxpool(maps(1, 2, 1, 1, 16), maps(1, 2, 2, 2, 16), maps(1, 16), maps(2, 16), 'leaky', 2),
    lambda: kernels.maxpool_activate_backward_reduce(np.zeros((2, 1, 16)), maps(1, 2, 1, 1, 16), maps(1, 2, 2, 2, 16), *[maps(2, 16)] * 4, 'leaky', 2),
    lambda: kernels.maxpool_activate_backward(maps(1, 2, 2, 2, 16), maps(1, 2, 1, 1, 16), maps(1, 2, 2, 2, 16), *[maps(2, 16)] * 4, maps(1, 16), 'leaky', 2),
    lambda: kernels.avgpool_forward(maps(1, 1, 1, 1, 16), maps(1, 2, 3, 3, 16)),
    lambda: kernels.avgpool_forward(maps(1, 1, 1, 1, 16), maps(1, 1, 3, 6, 16)[:, :, :, ::2]),
    lambda: kernels.avgpool_backward(maps(1, 2, 3, 3, 16), maps(1, 1, 1, 1, 16)),
    lambda: kernels.narrow_with_error(kernels.message(16), *np.split(np.zeros(48, np.float32), [16])),
    lambda: kernels.sgd(np.zeros(5, np.float32), np.zeros(4, np.float32), np.zeros(5, np.float32), np.array([[0, 4, 0]])),
    lambda: kernels.sgd(*np.zeros((3, 5), np.float32), np.array([[0, 6, 0]])),
    lambda: kernels.move((np.zeros(15, np.float32), maps(1, 1, 1, 1, 16))),
    lambda: kernels.move((maps(1, 1, 1, 1, 16), maps(1, 1, 1, 2, 16))),
    lambda: kernels.move((maps(1, 1, 1, 1, 16), np.zeros(16))),
    lambda: kernels.move((maps(1, 1, 1, 1, 16), 0), (np.zeros((1, 1, 1, 1, 16)), 0)),
    lambda: kernels.copy_channels(maps(1, 1, 2, 2, 16), 8, maps(1, 1, 2, 2, 16), 0, 9),
])
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match=r'\(1, |same size|one type'):
        call()


@pytest.mark.parametrize('odd', range(3))
def test_one_type_of_numbers_is_expected(odd):
    """Filters in float64 once were read as float32."""
    arrays = [np.zeros(shape, np.float64 if i == odd else np.float32) for i, shape in enumerate([(1, 1, 4, 4, 16), (1, 1, 6, 6, 16), (1, 1, 3, 3, 16, 16)])]
    y, x, w = arrays
    for call in (lambda: kernels.conv_forward(y, x, w, 1), lambda: kernels.conv_backward_data(x, y, w, 1), lambda: kernels.conv_backward_weights(w, x, y, 1)):
        with pytest.raises(ValueError, match='one type'):
            call()
