"""Numbers on their way in half precision: 16 bits each, or messages of such numbers with a scale of their own.

A message is a scale, a power of two, and 16 bits for each number. Its largest number lies near 2^14 after scaling, so that none
becomes infinite and those down to 2^-28 of it keep 11 bits. uint16 holds the bits of float16: MPI knows no float16.
"""
import math
from functools import partial

import numpy as np

from . import naive_copies as naive
from .copies import check_room
from .jit import address, call, inline, kernel, line, start
from .layout import check_maps, check_same
from .prepared import prepared
from .simd import arm, has

HEADER = 2                              # 16-bit words of a message that hold its scale, a float32
LARGEST = 14                            # binary digits before the point of a message's largest number
HALVES = arm() or has('f16c')           # does this CPU have instructions for half precision?
if HALVES:
    from . import halves


def pack_half(buffer, view, factor=1.0):
    """The view's elements times `factor`, in its order, to the front of the flat buffer in half precision: float16, or uint16
    that holds the same bits.

    Rounded to nearest even: relative error 2^-11 from 6e-5 to 65504, absolute error 3e-8 below; beyond 65520 infinite. A power
    of two as factor (its inverse goes to unpack_half) moves small gradients into that range and rounds nothing itself.
    """
    bits = _bits(buffer, view)
    if _plain(view):
        naive.pack_half(bits, view, factor)
    else:
        _pack_half(halves.narrow.address, bits, view, np.array([factor], np.float32))


def unpack_half(view, buffer, add=False, factor=1.0):
    """The inverse of pack_half; with `add` the buffer is added to the view."""
    bits = _bits(buffer, view)
    if _plain(view):
        naive.unpack_half(view, bits, add, factor)
    else:
        native = halves.widen_add if add else halves.widen
        _unpack_half(native.address, view, bits, np.array([factor], np.float32))


def _bits(buffer, view):
    check_maps(view)
    check_room(buffer, view)
    if buffer.dtype not in (np.float16, np.uint16):
        raise ValueError(f'a buffer of float16 or uint16 is expected, not of {buffer.dtype}')
    return buffer.view(np.uint16)


def _plain(view):
    return not HALVES or view.dtype != np.float32


def message(size):
    """Room for a message of so many numbers, which are zero until it is written."""
    made = np.zeros(size + HEADER, np.uint16)
    made[:HEADER].view(np.float32)[0] = 1
    return made


@prepared
def narrow(message, view):
    """Write the message of a map."""
    bits = _bits(message[HEADER:], view)
    if _plain(view):
        return partial(naive.narrow, message[:HEADER], bits, view, LARGEST)
    return partial(_narrow.of(view.dtype), halves.narrow.address, message[:HEADER], bits, view)


@prepared
def widen(view, message, add=False):
    """The inverse of narrow; with `add` the message is added to the map."""
    bits = _bits(message[HEADER:], view)
    if _plain(view):
        return partial(naive.widen, view, message[:HEADER], bits, add)
    return partial(_widen.of(view.dtype), (halves.widen_add if add else halves.widen).address, view, message[:HEADER], bits)


@prepared
def narrow_with_error(message, values, error):
    """Write the message of flat `values` + `error`; `error` becomes what it loses, to be added next time (error feedback)."""
    values, error = (flat.reshape(1, 1, 1, flat.size, 1) for flat in (values, error))
    check_same(values, error)
    bits = _bits(message[HEADER:], values)
    if _plain(values):
        return partial(naive.narrow_with_error, message[:HEADER], bits, values, error, LARGEST)
    return partial(_narrow_with_error.of(values.dtype), halves.narrow_rest.address, message[:HEADER], bits, values.ravel(), error.ravel())


@kernel('i h1 f5 c1', ['float32'])
def _pack_half(native, bits, view, factor):
    _by_rows(native, bits, view, factor, True)


@kernel('i f5 h1 c1', ['float32'])
def _unpack_half(native, view, bits, factor):
    _by_rows(native, bits, view, factor, False)


@inline
def _by_rows(native, bits, view, factor, narrows):
    """Rows of a map to halves, or back."""
    N, CB, H, W, B = view.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                at = ((n * CB + b) * H + h) * W * B
                there, here = address(bits) + 2 * at, start(view, n, b, h)
                target, source = (there, here) if narrows else (here, there)
                call(native, (W * B, target, source, address(factor)))


@inline
def _largest(numbers):
    """The bits of the largest absolute value, those of NaN being the largest of all; as integers vector instructions compare them."""
    most, sign = np.int32(0), np.int32(0x7fffffff)
    bits = numbers.view(np.int32)
    for i in range(bits.size):
        most = max(most, bits[i] & sign)
    return most


@inline
def _scale_of(most):
    """The power of two for numbers whose largest has these bits."""
    if most == 0 or most >= 0x7f800000:         # nothing but zeros; infinite, or not a number
        return 1.0
    return math.ldexp(1.0, min(100, LARGEST + 126 - (most >> 23)))


@kernel('i h1 h1 f5', ['float32'])
def _narrow(native, header, bits, view):
    N, CB, H, _, _ = view.shape
    most = 0
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                most = max(most, _largest(line(view, n, b, h)))
    scale = header.view(np.float32)
    scale[0] = _scale_of(most)
    _by_rows(native, bits, view, scale, True)


@kernel('i f5 h1 h1', ['float32'])
def _widen(native, view, header, bits):
    factor = np.empty(1, np.float32)
    factor[0] = 1 / header.view(np.float32)[0]
    _by_rows(native, bits, view, factor, False)


@kernel('i h1 h1 c1 c1', ['float32'])
def _narrow_with_error(native, header, bits, values, error):
    for i in range(error.size):
        error[i] += values[i]
    factors = np.empty(2, np.float32)
    factors[0] = _scale_of(_largest(error))
    factors[1] = -1 / factors[0]
    header.view(np.float32)[0] = factors[0]
    call(native, (error.size, address(bits), address(error), address(factors)))
