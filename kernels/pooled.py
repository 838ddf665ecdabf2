"""Norm, activation and the max-pool that follows in one pass over memory, for windows that tile the map (stride = size).

y = activation(z * scale + shift) lives in registers only: neither it nor its gradient is ever stored. Each pass gives what
`elementwise` and `pools` give one after the other. p and dp are (N, CB, H, W, 16); z and dz (N, CB, H * size, W * size, 16).
"""
import functools
from functools import partial

import numpy as np

from . import naive_pooled as naive
from .activations import emit_times_slope, emit_value
from .jit import Native, address, call, instructions, kernel, start
from .layout import check_channels, check_maps, check_same
from .maxima import first_maximum, shares
from .naive_elementwise import ACTIVATIONS
from .prepared import prepared
from .simd import BLOCK, INT
from .threads import Spread, streams


@prepared
def normalize_activate_maxpool(p, z, scale, shift, activation, size):
    """p = the maximum of activation(z * scale + shift) over each window; a NaN in a window wins."""
    _check(p, z, size)
    check_channels(p, scale, shift)
    if z.dtype != np.float32:
        return partial(naive.normalize_activate_maxpool, p, z, scale, shift, ACTIVATIONS.index(activation), size)
    native = _natives(activation, size)['forward'].address
    return Spread(p.shape[0] * p.shape[1], partial(_forward.of(z.dtype), native, p, z, scale, shift, size))


@prepared
def maxpool_activate_backward_reduce(sums, dp, z, scale, shift, mean, istd, activation, size):
    """With da = activation'(z * scale + shift) * dp at the first maximum of each window, 0 elsewhere: sums[0] = sum of da,
    sums[1] = sum of da * (z - mean) * istd over N, H, W. Overwritten."""
    _check(dp, z, size)
    check_channels(dp, sums, scale, shift, mean, istd)
    if z.dtype != np.float32:
        return partial(naive.maxpool_activate_backward_reduce, sums, dp, z, scale, shift, mean, istd, ACTIVATIONS.index(activation), size)
    native = _natives(activation, size)['reduce'].address
    return Spread(z.shape[1], partial(_reduce.of(z.dtype), native, sums, dp, z, scale, shift, mean, istd, size))


@prepared
def maxpool_activate_backward(dz, dp, z, scale, shift, a, b, c, activation, size):
    """dz = a * da + b * z + c with da as above; dz may be z."""
    _check(dp, z, size)
    check_same(dz, z)
    check_channels(dp, scale, shift, a, b, c)
    if z.dtype != np.float32:
        return partial(naive.maxpool_activate_backward, dz, dp, z, scale, shift, a, b, c, ACTIVATIONS.index(activation), size)
    native = _natives(activation, size)['stream' if dz is not z and streams(dz) else 'backward'].address
    return Spread(z.shape[0] * z.shape[1], partial(_backward.of(z.dtype), native, dz, dp, z, scale, shift, a, b, c, size))


def _check(p, z, size):
    check_maps(p, z)
    if z.shape != p.shape[:2] + (p.shape[2] * size, p.shape[3] * size, BLOCK):
        raise ValueError(f'windows of {size} pixels that give {p.shape} do not tile {z.shape}')


@functools.cache
def _natives(activation, size):
    """Rows of windows by pass."""
    def forward_windows(count, p, z, z_row, scale, shift):
        forward((count, p, z, z_row, scale, shift))

    def reduce_windows(count, dp, z, z_row, scale, shift, mean, out):
        reduce((count, dp, z, z_row, scale, shift, mean, out))

    def backward_windows(count, dz, dz_row, dp, z, z_row, scale, shift, a, b, c):
        backward((count, dz, dz_row, dp, z, z_row, scale, shift, a, b, c))

    def stream_windows(count, dz, dz_row, dp, z, z_row, scale, shift, a, b, c):
        stream((count, dz, dz_row, dp, z, z_row, scale, shift, a, b, c))
    forward, reduce = (instructions(partial(emit, activation, size)) for emit in (emit_forward, emit_reduce))
    backward, stream = (instructions(partial(emit_backward, activation, size, past)) for past in (False, True))
    made = {'forward': forward_windows, 'reduce': reduce_windows, 'backward': backward_windows, 'stream': stream_windows}
    return {name: Native(function, f'-{activation}-{size}') for name, function in made.items()}


class Windows:
    """Emits the windows of a row: their z, and which of activation(z * scale + shift) beats all before it."""

    def __init__(self, e, activation, size, scale, shift):
        self.e, self.activation, self.size = e, activation, size
        self.scales, self.shifts = e.channels(scale), e.channels(shift)

    def places(self, row, step):
        """Addresses of a window's pixels in row-major order, from that of its first and the floats from row to row."""
        e = self.e
        return [e.at(e.at(row, e.b.mul(step, INT(i))), j * BLOCK) for i in range(self.size) for j in range(self.size)]

    def argument(self, z, part):
        return self.e.fma(z, self.scales[part], self.shifts[part])

    def pick(self, places, part):
        """(largest value, z of every place, for each but the first whether it wins over those before)."""
        zs = [self.e.load(place, part) for place in places]
        best, wins = first_maximum(self.e, [emit_value(self.e, self.activation, self.argument(z, part)) for z in zs])
        return best, zs, wins


def _prefetch(e, places, size, z_row):
    """Ask for the window under this one."""
    for place in places:
        e.prefetch(e.at(place, e.b.mul(z_row, INT(size))))


def emit_forward(activation, size, e, count, p, z, z_row, scale, shift):
    windows = Windows(e, activation, size, scale, shift)

    def window(carried):
        p, z = carried
        places = windows.places(z, z_row)
        _prefetch(e, places, size, z_row)
        for part in range(0, BLOCK, e.width):
            e.store(windows.pick(places, part)[0], p, part)
        return [e.at(p, BLOCK), e.at(z, size * BLOCK)]
    e.loop(count, [e.pointer(p), e.pointer(z)], window)


def emit_reduce(activation, size, e, count, dp, z, z_row, scale, shift, mean, out):
    windows, means = Windows(e, activation, size, scale, shift), e.channels(mean)
    parts = range(0, BLOCK, e.width)

    def window(carried):
        (dp, z), sums = carried[:2], carried[2:]
        places = windows.places(z, z_row)
        _prefetch(e, places, size, z_row)
        for k, part in enumerate(parts):
            _, (best_z, *others), (_, *wins) = windows.pick(places, part)
            for z_there, win in zip(others, wins):
                best_z = e.b.select(win, z_there, best_z)
            da = emit_times_slope(e, activation, windows.argument(best_z, part), e.load(dp, part))
            sums[2 * k] = e.b.fadd(sums[2 * k], da)
            sums[2 * k + 1] = e.fma(da, e.b.fsub(best_z, means[part]), sums[2 * k + 1])
        return [e.at(dp, BLOCK), e.at(z, size * BLOCK)] + sums
    sums = e.loop(count, [e.pointer(dp), e.pointer(z)] + [e.zero] * (2 * len(parts)), window)[2:]
    for k, part in enumerate(parts):
        for which in range(2):
            e.store(sums[2 * k + which], e.pointer(out), which * BLOCK + part)


def emit_backward(activation, size, past, e, count, dz, dz_row, dp, z, z_row, scale, shift, a, b, c):
    windows = Windows(e, activation, size, scale, shift)
    a, b, c = (e.channels(each) for each in (a, b, c))

    def window(carried):
        dz, dp, z = carried
        places, targets = windows.places(z, z_row), windows.places(dz, dz_row)
        _prefetch(e, places, size, z_row)
        for part in range(0, BLOCK, e.width):
            _, zs, wins = windows.pick(places, part)
            for value, share, target in zip(zs, shares(e, wins, e.load(dp, part)), targets):
                da = emit_times_slope(e, activation, windows.argument(value, part), share)
                e.store(e.fma(a[part], da, e.fma(b[part], value, c[part])), target, part, stream=past)
        return [e.at(dz, size * BLOCK), e.at(dp, BLOCK), e.at(z, size * BLOCK)]
    e.loop(count, [e.pointer(dz), e.pointer(dp), e.pointer(z)], window)


for _name in ('leaky', 'relu'):
    _natives(_name, 2)          # known from the start, so that `load` compiles what nearly every network has


# Drivers: rows of blocks first ... last (counted over samples too where no sum is wanted). What follows a sum begins at the last
# block, which is still in the caches.

@kernel('i f5 f5 c2 c2 i i i', ['float32'])
def _forward(native, p, z, scale, shift, size, first, last):
    _, CB, H, W, _ = p.shape
    for unit in range(last - 1, first - 1, -1):
        n, b = divmod(unit, CB)
        for h in range(H):
            call(native, (W, start(p, n, b, h), start(z, n, b, h * size), z.strides[2] // 4, address(scale[b]), address(shift[b])))


@kernel('i d3 f5 f5 c2 c2 c2 c2 i i i', ['float32'])
def _reduce(native, sums, dp, z, scale, shift, mean, istd, size, first, last):
    N, _, H, W, _ = dp.shape
    out = np.empty(32, np.float32)
    for b in range(first, last):
        sums[:, b] = 0
        for n in range(N):
            for h in range(H):
                call(native, (W, start(dp, n, b, h), start(z, n, b, h * size), z.strides[2] // 4, address(scale[b]),
                              address(shift[b]), address(mean[b]), address(out)))
                for lane in range(16):
                    sums[0, b, lane] += out[lane]
                    sums[1, b, lane] += out[16 + lane] * istd[b, lane]


@kernel('i f5 f5 f5 c2 c2 c2 c2 c2 i i i', ['float32'])
def _backward(native, dz, dp, z, scale, shift, a, b, c, size, first, last):
    _, CB, H, W, _ = dp.shape
    for unit in range(last - 1, first - 1, -1):
        n, k = divmod(unit, CB)
        for h in range(H):
            call(native, (W, start(dz, n, k, h * size), dz.strides[2] // 4, start(dp, n, k, h), start(z, n, k, h * size),
                          z.strides[2] // 4, address(scale[k]), address(shift[k]), address(a[k]), address(b[k]), address(c[k])))
