"""The definition of norm, activation and max-pool in one pass: plain loops, compiled for float64. Arguments are those of `pooled`."""
from .jit import inline, kernel
from .naive_elementwise import slope_at, value_at


@inline
def _first_maximum(z, n, b, h, w, lane, scale, shift, code, size):
    """(value, row, column) of the largest activation in a window; a NaN wins."""
    top, left = h * size, w * size
    best = value_at(z[n, b, top, left, lane] * scale + shift, code)
    for y in range(h * size, h * size + size):
        for x in range(w * size, w * size + size):
            value = value_at(z[n, b, y, x, lane] * scale + shift, code)
            if value > best or (value != value and (y, x) != (h * size, w * size)):
                best, top, left = value, y, x
    return best, top, left


@kernel('f5 f5 c2 c2 i i', ['float64'])
def normalize_activate_maxpool(p, z, scale, shift, code, size):
    N, CB, H, W, B = p.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                for w in range(W):
                    for lane in range(B):
                        p[n, b, h, w, lane] = _first_maximum(z, n, b, h, w, lane, scale[b, lane], shift[b, lane], code, size)[0]


@kernel('d3 f5 f5 c2 c2 c2 c2 i i', ['float64'])
def maxpool_activate_backward_reduce(sums, dp, z, scale, shift, mean, istd, code, size):
    N, CB, H, W, B = dp.shape
    sums[:] = 0
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                for w in range(W):
                    for lane in range(B):
                        s, t = scale[b, lane], shift[b, lane]
                        _, y, x = _first_maximum(z, n, b, h, w, lane, s, t, code, size)
                        there = z[n, b, y, x, lane]
                        da = dp[n, b, h, w, lane] * slope_at(there * s + t, code)
                        sums[0, b, lane] += da
                        sums[1, b, lane] += da * (there - mean[b, lane]) * istd[b, lane]


@kernel('f5 f5 f5 c2 c2 c2 c2 c2 i i', ['float64'])
def maxpool_activate_backward(dz, dp, z, scale, shift, a, b, c, code, size):
    N, CB, H, W, B = dp.shape
    for n in range(N):
        for k in range(CB):
            for h in range(H):
                for w in range(W):
                    for lane in range(B):
                        s, t = scale[k, lane], shift[k, lane]
                        _, top, left = _first_maximum(z, n, k, h, w, lane, s, t, code, size)
                        for y in range(h * size, h * size + size):
                            for x in range(w * size, w * size + size):
                                u = z[n, k, y, x, lane]
                                da = dp[n, k, h, w, lane] * slope_at(u * s + t, code) if y == top and x == left else 0.0
                                dz[n, k, y, x, lane] = a[k, lane] * da + b[k, lane] * u + c[k, lane]
