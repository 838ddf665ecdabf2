"""Norms, activations and the optimizer's update, each in one pass over memory.

Per-channel arrays are (CB, 16); sums are float64 (2, CB, 16), added up piece by piece. float32 goes through vector
instructions, a row at a time (a plane without gaps is one row), float64 through `naive_elementwise`.
"""
from functools import partial

import numpy as np

from . import naive_elementwise as naive
from .jit import address, call, inline, kernel, start
from .layout import check_channels, check_maps, check_same
from .naive_elementwise import ACTIVATIONS
from .prepared import prepared
from .rows import NATIVES
from .threads import Spread, streams

PIECE = 512             # pixels summed in float32
CHUNK = 2 ** 17         # bytes written from first to last, where the whole is written from last to first


@prepared
def moments(sums, x, shift):
    """sums[0] = sum of x - shift over N, H, W; sums[1] = sum of its square. Overwritten."""
    check_maps(x)
    check_channels(x, sums, shift)
    if x.dtype != np.float32:
        return partial(naive.moments, sums, x, shift)
    return Spread(x.shape[1], partial(_moments.of(x.dtype), NATIVES['moments'].address, sums, x, shift))


@prepared
def normalize_activate(y, z, scale, shift, activation):
    """y = activation(z * scale + shift); y may be z."""
    check_same(y, z)
    check_channels(z, scale, shift)
    if z.dtype != np.float32:
        return partial(naive.normalize_activate, y, z, scale, shift, ACTIVATIONS.index(activation))
    native = NATIVES[activation, 'forward', y is not z and streams(y)].address
    return Spread(z.shape[0] * z.shape[1], partial(_normalize_activate.of(z.dtype), native, y, z, scale, shift))


@prepared
def activate_backward_reduce(sums, dy, z, scale, shift, mean, istd, activation):
    """With da = dy * activation'(z * scale + shift): sums[0] = sum of da, sums[1] = sum of da * (z - mean) * istd over
    N, H, W. Overwritten."""
    check_same(dy, z)
    check_channels(z, sums, scale, shift, mean, istd)
    if z.dtype != np.float32:
        return partial(naive.activate_backward_reduce, sums, dy, z, scale, shift, mean, istd, ACTIVATIONS.index(activation))
    native = NATIVES[activation, 'reduce'].address
    return Spread(z.shape[1], partial(_activate_backward_reduce.of(z.dtype), native, sums, dy, z, scale, shift, mean, istd))


@prepared
def activate_backward(dz, dy, z, scale, shift, a, b, c, activation):
    """dz = a * da + b * z + c with da as above; dz may be dy or z."""
    check_same(dz, dy, z)
    check_channels(z, scale, shift, a, b, c)
    if z.dtype != np.float32:
        return partial(naive.activate_backward, dz, dy, z, scale, shift, a, b, c, ACTIVATIONS.index(activation))
    native = NATIVES[activation, 'backward', dz is not dy and dz is not z and streams(dz)].address
    return Spread(z.shape[0] * z.shape[1], partial(_activate_backward.of(z.dtype), native, dz, dy, z, scale, shift, a, b, c))


def sgd(w, v, g, parts):
    """The work, given (rate, momentum, decay), of a step on some parts of flat arrays: v = momentum * v + g + decay * w, then w -= rate * v, and g = 0.

    parts: int64 (count, 3): first number, last, and whether decay pulls there.
    """
    if not w.size == v.size == g.size or parts.size and not 0 <= parts[:, :2].min() <= parts[:, :2].max() <= w.size:
        raise ValueError(f'arrays of the same size, and parts inside, are expected, not of {w.size}, {v.size} and {g.size} numbers')
    return Spread(len(parts), partial(_sgd.of(w.dtype), w, v, g, parts))


# Drivers: blocks first ... last (counted over samples too where no sum is wanted). Sums are taken from the first block to the
# last; what follows them begins at the last, which is still in the caches.

@inline
def _joined(x):
    """Whether the rows of a plane follow each other without gaps, as one long row."""
    return x.strides[2] == x.shape[3] * x.strides[3]


@kernel('i d3 f5 c2 i i', ['float32'])
def _moments(native, sums, x, shift, first, last):
    N, _, H, W, _ = x.shape
    if _joined(x):
        H, W = 1, H * W
    out = np.empty(32, np.float32)
    for b in range(first, last):
        sums[:, b] = 0
        for n in range(N):
            for h in range(H):
                for v in range(0, W, PIECE):
                    call(native, (min(PIECE, W - v), start(x, n, b, h) + v * 64, address(shift[b]), address(out)))
                    for lane in range(16):
                        sums[0, b, lane] += out[lane]
                        sums[1, b, lane] += out[16 + lane]


@kernel('i f5 f5 c2 c2 i i', ['float32'])
def _normalize_activate(native, y, z, scale, shift, first, last):
    _, CB, H, W, _ = z.shape
    step = max(1, CHUNK // max(1, H * W * 64))
    if _joined(y) and _joined(z):
        H, W = 1, H * W
    for end in range(last, first, -step):
        for unit in range(max(first, end - step), end):
            n, b = divmod(unit, CB)
            for h in range(H):
                call(native, (W, start(y, n, b, h), start(z, n, b, h), address(scale[b]), address(shift[b])))


@kernel('i d3 f5 f5 c2 c2 c2 c2 i i', ['float32'])
def _activate_backward_reduce(native, sums, dy, z, scale, shift, mean, istd, first, last):
    N, _, H, W, _ = z.shape
    if _joined(dy) and _joined(z):
        H, W = 1, H * W
    out = np.empty(32, np.float32)
    for b in range(first, last):
        sums[:, b] = 0
        for n in range(N):
            for h in range(H):
                for v in range(0, W, PIECE):
                    call(native, (min(PIECE, W - v), start(dy, n, b, h) + v * 64, start(z, n, b, h) + v * 64,
                                  address(scale[b]), address(shift[b]), address(mean[b]), address(out)))
                    for lane in range(16):
                        sums[0, b, lane] += out[lane]
                        sums[1, b, lane] += out[16 + lane] * istd[b, lane]


@kernel('i f5 f5 f5 c2 c2 c2 c2 c2 i i', ['float32'])
def _activate_backward(native, dz, dy, z, scale, shift, a, b, c, first, last):
    _, CB, H, W, _ = z.shape
    step = max(1, CHUNK // max(1, H * W * 64))
    if _joined(dz) and _joined(dy) and _joined(z):
        H, W = 1, H * W
    for end in range(last, first, -step):
        for unit in range(max(first, end - step), end):
            n, k = divmod(unit, CB)
            for h in range(H):
                call(native, (W, start(dz, n, k, h), start(dy, n, k, h), start(z, n, k, h), address(scale[k]), address(shift[k]),
                              address(a[k]), address(b[k]), address(c[k])))


@kernel('c1 c1 c1 n2 s s s i i')
def _sgd(w, v, g, parts, rate, momentum, decay, first, last):
    none = w.dtype.type(0)
    for k in range(first, last):
        pull = decay if parts[k, 2] else none
        weights, speeds, slopes = w[parts[k, 0]:parts[k, 1]], v[parts[k, 0]:parts[k, 1]], g[parts[k, 0]:parts[k, 1]]
        for i in range(weights.size):
            speeds[i] = momentum * speeds[i] + slopes[i] + pull * weights[i]
            weights[i] -= rate * speeds[i]
            slopes[i] = 0
