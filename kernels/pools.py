"""Max-pool over windows and global average-pool. Windows are valid; padding is already in x (-inf for a max).

float32 in blocks of 16 goes through vector instructions, a row of outputs at a time; other pools through the loops of
`naive_pools`, which are the definition.
"""
import functools
from functools import partial

import numpy as np

from . import naive_pools as naive
from .jit import Native, call, instructions, kernel, row, start
from .layout import check_maps, check_same
from .maxima import first_maximum, shares
from .prepared import prepared
from .simd import BLOCK, INT
from .threads import Spread, streams


@prepared
def maxpool_forward(y, x, size, stride):
    """y (N, CB, Ho, Wo, B) = maximum over windows of x; a NaN in a window wins."""
    _check(y, x, size, stride)
    if _plain(y):
        return partial(naive.maxpool_forward, y, x, size, stride)
    return Spread(y.shape[0] * y.shape[1], partial(_forward.of(y.dtype), _natives(size)[0].address, y, x, stride))


@prepared
def maxpool_backward(dx, dy, x, size, stride):
    """dx is overwritten: each dy goes to the first maximum of its window in row-major order, found again in x."""
    _check(dy, x, size, stride)
    check_same(dx, x)
    if _plain(dy):
        return partial(naive.maxpool_backward, dx, dy, x, size, stride)
    covered = size == stride and dx.shape[2:4] == (dy.shape[2] * size, dy.shape[3] * size)
    native = _natives(size)[3 if covered and streams(dx) else 1 if covered else 2].address
    return Spread(dy.shape[0] * dy.shape[1], partial(_backward.of(dy.dtype), native, dx, dy, x, stride, int(covered)))


def _check(y, x, size, stride):
    check_maps(y, x)
    reach = [(side - 1) * stride + size for side in y.shape[2:4]]
    if y.size and (x.shape[:2] != y.shape[:2] or x.shape[4] != y.shape[4] or x.shape[2] < reach[0] or x.shape[3] < reach[1]):
        raise ValueError(f'windows of {size} pixels at stride {stride} that give {y.shape} do not fit into {x.shape}')


def _plain(y):
    return y.dtype != np.float32 or y.shape[4] != BLOCK


@functools.cache
def _natives(size):
    """Rows of outputs of so large windows: forward, backward where windows tile dx, backward that adds to dx, and the second
    past the caches."""
    def forward(count, y, x, x_row, x_step, x_next):
        run_forward((count, y, x, x_row, x_step, x_next))

    def backward(count, dx, dx_row, dx_step, dx_next, dy, x, x_row, x_step, x_next):
        run_backward((count, dx, dx_row, dx_step, dx_next, dy, x, x_row, x_step, x_next))

    def backward_add(count, dx, dx_row, dx_step, dx_next, dy, x, x_row, x_step, x_next):
        run_backward_add((count, dx, dx_row, dx_step, dx_next, dy, x, x_row, x_step, x_next))

    def backward_stream(count, dx, dx_row, dx_step, dx_next, dy, x, x_row, x_step, x_next):
        run_backward_stream((count, dx, dx_row, dx_step, dx_next, dy, x, x_row, x_step, x_next))
    run_forward = instructions(partial(emit_forward, size))
    run_backward = instructions(partial(emit_backward, size, 'store'))
    run_backward_add = instructions(partial(emit_backward, size, 'add'))
    run_backward_stream = instructions(partial(emit_backward, size, 'stream'))
    return [Native(each, f'-{size}') for each in (forward, backward, backward_add, backward_stream)]


def _window(e, size, x, x_row, part):
    """The values of a window in row-major order."""
    return [e.load(e.at(x, e.b.mul(x_row, INT(i))), j * BLOCK + part) for i in range(size) for j in range(size)]


def _emit_prefetch(e, size, x, x_row, x_next, write=False):
    """Ask for the window under this one, `x_next` floats further on; its first columns were asked for with the one before."""
    for i in range(size):
        for j in range(max(0, size - 2), size):
            e.prefetch(e.at(e.at(x, e.b.mul(x_row, INT(i))), x_next), j * BLOCK, write)


def emit_forward(size, e, count, y, x, x_row, x_step, x_next):
    def pixel(carried):
        y, x = carried
        _emit_prefetch(e, size, x, x_row, x_next)
        for part in range(0, BLOCK, e.width):
            e.store(first_maximum(e, _window(e, size, x, x_row, part))[0], y, part)
        return [e.at(y, BLOCK), e.at(x, x_step)]
    e.loop(count, [e.pointer(y), e.pointer(x)], pixel)


def emit_backward(size, how, e, count, dx, dx_row, dx_step, dx_next, dy, x, x_row, x_step, x_next):
    def pixel(carried):
        dx, dy, x = carried
        _emit_prefetch(e, size, x, x_row, x_next)
        if how != 'stream':
            _emit_prefetch(e, size, dx, dx_row, dx_next, write=True)
        for part in range(0, BLOCK, e.width):
            wins = first_maximum(e, _window(e, size, x, x_row, part))[1]
            for k, share in enumerate(shares(e, wins, e.load(dy, part))):
                place = e.at(e.at(dx, e.b.mul(dx_row, INT(k // size))), k % size * BLOCK + part)
                e.store(e.b.fadd(share, e.load(place)) if how == 'add' else share, place, stream=how == 'stream')
        return [e.at(dx, dx_step), e.at(dy, BLOCK), e.at(x, x_step)]
    e.loop(count, [e.pointer(dx), e.pointer(dy), e.pointer(x)], pixel)


_natives(2)         # known from the start, so that `load` compiles what nearly every network has


@kernel('i f5 f5 i i i', ['float32'])
def _forward(native, y, x, stride, first, last):
    _, CB, H, W, B = y.shape
    x_row = x.strides[2] // 4
    for unit in range(first, last):
        n, b = divmod(unit, CB)
        for h in range(H):
            call(native, (W, start(y, n, b, h), start(x, n, b, h * stride), x_row, stride * B, stride * x_row))


@kernel('i f5 f5 f5 i i i i', ['float32'])
def _backward(native, dx, dy, x, stride, covered, first, last):
    _, CB, H, W, B = dy.shape
    dx_row, x_row = dx.strides[2] // 4, x.strides[2] // 4
    for unit in range(first, last):
        n, b = divmod(unit, CB)
        if not covered:
            for h in range(dx.shape[2]):
                row(dx, n, b, h)[:] = 0
        for h in range(H):
            call(native, (W, start(dx, n, b, h * stride), dx_row, stride * B, stride * dx_row,
                          start(dy, n, b, h), start(x, n, b, h * stride), x_row, stride * B, stride * x_row))


def avgpool_forward(y, x):
    """y (N, CB, 1, 1, B) = mean of x over its rows and columns."""
    _check_mean(y, x)
    _avgpool_forward(y, x)


def avgpool_backward(dx, dy):
    """dx (N, CB, H, W, B) = dy (N, CB, 1, 1, B) spread evenly."""
    _check_mean(dy, dx)
    _avgpool_backward(dx, dy)


def _check_mean(y, x):
    check_maps(y, x)
    if y.shape != (*x.shape[:2], 1, 1, x.shape[4]):
        raise ValueError(f'{y.shape} is not the shape of the mean of {x.shape}')


@kernel('f5 f5')
def _avgpool_forward(y, x):
    N, CB, H, W, B = x.shape
    total = np.empty(B, np.float64)
    for n in range(N):
        for b in range(CB):
            total[:] = 0
            for h in range(H):
                src = row(x, n, b, h)
                for v in range(W):
                    for lane in range(B):
                        total[lane] += src[v, lane]
            for lane in range(B):
                y[n, b, 0, 0, lane] = total[lane] / (H * W)


@kernel('f5 f5')
def _avgpool_backward(dx, dy):
    N, CB, H, W, B = dx.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                out = row(dx, n, b, h)
                for v in range(W):
                    for lane in range(B):
                        out[v, lane] = dy[n, b, 0, 0, lane] / (H * W)
