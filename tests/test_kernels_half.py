"""Half precision against numpy's, and messages whose largest number is scaled into its range."""
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from mpi_ftp import kernels
from test_kernels_elementwise import DTYPES, view


@DTYPES
@pytest.mark.parametrize('buffer', ['float16', 'uint16'])
@pytest.mark.parametrize('shape', [(2, 2, 3, 5, 16), (1, 3, 1, 37, 16), (2, 3, 7, 1, 16), (2, 1, 4, 7, 3), (2, 1, 0, 3, 16)])
def test_half(dtype, buffer, shape):
    rng = np.random.default_rng(7)
    a, b = view(shape, dtype, rng), view(shape, dtype, rng)
    a *= 10 ** rng.uniform(-9, 1, shape)
    flat = np.full(a.size + 3, 7, buffer)
    kernels.pack_half(flat, a)
    want = a.astype(np.float16)
    np.testing.assert_array_equal(flat[:a.size].view(np.float16), want.ravel())
    assert (flat[a.size:] == 7).all()
    before = b.copy()
    kernels.unpack_half(b, flat, add=True)
    np.testing.assert_array_equal(b, before + want.astype(dtype))
    kernels.unpack_half(b, flat)
    np.testing.assert_array_equal(b, want)
    assert (np.abs(b - a) <= np.maximum(np.abs(a) * 2. ** -11, 2. ** -25)).all()

    # small gradients keep their digits behind a factor
    kernels.pack_half(flat, a, 2. ** 10)
    kernels.unpack_half(b, flat, factor=2. ** -10)
    np.testing.assert_array_equal(b, (a * 2 ** 10).astype(np.float16).astype(dtype) / 2 ** 10)
    assert (np.abs(b - a) <= np.maximum(np.abs(a) * 2. ** -11, 2. ** -35)).all()


@DTYPES
def test_half_at_the_ends(dtype):
    a = np.array([65504, 65519, 65521, -1e9, np.inf, -np.inf, np.nan, -0.0, 2 ** -25, 1.5 * 2 ** -25, 1e-30, 1, 1 + 2 ** -11,
                  1 + 3 * 2 ** -11, -2 ** -14, 3], dtype).reshape(1, 1, 1, 1, 16)
    want = np.array([65504, 65504, np.inf, -np.inf, np.inf, -np.inf, np.nan, -0.0, 0, 2 ** -24, 0, 1, 1, 1 + 2 ** -9, -2 ** -14, 3])
    flat, b = np.empty(16, np.uint16), np.empty_like(a)
    kernels.pack_half(flat, a)
    kernels.unpack_half(b, flat)
    np.testing.assert_array_equal(b.ravel(), want)
    assert np.signbit(b[0, 0, 0, 0, 7])
    with pytest.raises(ValueError, match='float16 or uint16'):
        kernels.pack_half(a.ravel().copy(), a)
    with pytest.raises(ValueError, match='too small'):
        kernels.pack_half(flat[1:], a)


@DTYPES
@pytest.mark.parametrize('size', [0, 1, 5, 37, 401])
def test_messages_keep_eleven_digits_of_their_largest_number(dtype, size):
    rng = np.random.default_rng(8)
    for factor in (1e-30, 1.0, 3e7):
        a = (factor * rng.standard_normal((1, 1, 1, size, 1))).astype(dtype)
        message, b = kernels.message(size), np.ones_like(a)
        kernels.widen(b, message)
        assert not b.any()                              # nothing was written yet
        kernels.narrow(message, a)
        kernels.widen(b, message)
        largest = np.abs(a).max(initial=0)
        assert np.abs(b - a).max(initial=0) <= largest * 2. ** -11
        kernels.widen(b, message, add=True)
        assert np.abs(b - 2 * a).max(initial=0) <= largest * 2. ** -10


@DTYPES
@pytest.mark.parametrize('size', [0, 1, 5, 37, 401])
def test_what_a_message_loses_is_kept(dtype, size):
    """values + error = message + new error, to rounding, over many messages."""
    rng = np.random.default_rng(9)
    message, error, sent = kernels.message(size), np.zeros(size, dtype), np.zeros((1, 1, 1, size, 1), dtype)
    total = np.zeros(size)
    for step in range(20):
        values = (10. ** (step % 3) * rng.standard_normal(size)).astype(dtype)
        largest = np.abs(values + error).max(initial=0)
        kernels.narrow_with_error(message, values, error)
        total += values
        kernels.widen(sent, message, add=True)
        assert np.abs(error).max(initial=0) <= largest * 2. ** -11
    np.testing.assert_allclose(sent.ravel() + error, total, rtol=0, atol=1e4 * np.finfo(dtype).eps)


@DTYPES
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_message_tells_what_is_not_finite(dtype, bad):
    a = np.ones((1, 1, 1, 40, 1), dtype)
    a[0, 0, 0, 33] = bad
    message, b = kernels.message(40), np.zeros_like(a)
    kernels.narrow(message, a)
    kernels.widen(b, message)
    np.testing.assert_array_equal(b, a)


CODE = '''
import numpy as np
from mpi_ftp import kernels
from mpi_ftp.kernels import cache, half, simd
view = np.random.default_rng(0).standard_normal((2, 2, 5, 7, 16)).astype(np.float32)
back, flat, message = np.empty_like(view), np.empty(view.size, np.uint16), kernels.message(view.size)
kernels.pack_half(flat, view)
kernels.unpack_half(back, flat)
assert (back == view.astype(np.float16)).all() and (flat.view(np.float16) == back.ravel()).all()
kernels.narrow(message, view)
kernels.widen(back, message)
assert np.abs(back - view).max() < 1e-3 and (message != 0).mean() > .9
print(simd.tile().name, half.HALVES, cache.directory().name)
'''


@pytest.mark.skipif(platform.machine() not in ('x86_64', 'AMD64'), reason='names of another kind of CPU')
@pytest.mark.parametrize('cpu, features, told', [('generic', None, 'generic False generic-generic-'), ('x86-64', '', 'generic False x86-64-generic-'),
                                                 ('haswell', '+avx,+avx2,+fma,+f16c', 'avx2 True haswell-avx2-')])
def test_the_cpu_that_numba_is_told(tmp_path, cpu, features, told):
    """Halves without the instructions for them, and a directory of its own for its kernels."""
    environment = {name: value for name, value in os.environ.items() if name not in ('MPI_FTP_SIMD', 'NUMBA_CPU_FEATURES')}
    environment |= {'MPI_FTP_CACHE': str(tmp_path), 'NUMBA_CPU_NAME': cpu} | ({} if features is None else {'NUMBA_CPU_FEATURES': features})
    ended = subprocess.run([sys.executable, '-c', CODE], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout.startswith(told), ended.stdout + ended.stderr
