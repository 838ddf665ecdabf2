"""The definition of norms and activations: plain loops, compiled for float64. Arguments are those of `elementwise`; `code` counts the
activations of ACTIVATIONS."""
import math

import numpy as np

from .jit import inline, kernel, row

ACTIVATIONS = 'linear', 'leaky', 'relu', 'logistic', 'mish', 'swish'


@inline
def _logistic(u):
    return 1 / (1 + math.exp(-u))


@inline
def _softplus(u):
    return u if u > 20 else math.log1p(math.exp(u))


@inline
def _below(u):
    """u, but not farther down than where its factor is 0: infinity times 0 is not a number."""
    return -1e4 if u < -1e4 else u


@inline
def value_at(u, code):
    """Activation number `code` at u."""
    if code == 3:
        return _logistic(u)
    if code == 4:
        return _below(u) * math.tanh(_softplus(u))
    if code == 5:
        return _below(u) * _logistic(u)
    return u if u > 0 or code == 0 else 0.1 * u if code == 1 else 0.0 * _below(u)


@inline
def slope_at(u, code):
    """Its derivative at u."""
    if code == 3:
        s = _logistic(u)
        return s * (1 - s)
    near = -_below(-_below(u))
    if code == 4:
        t = math.tanh(_softplus(u))
        return t + near * (1 - t * t) * _logistic(u)
    if code == 5:
        s = _logistic(u)
        return s + near * s * (1 - s)
    return 1.0 if u > 0 or code == 0 else 0.1 if code == 1 else 0.0


@kernel('d3 f5 c2', ['float64'])
def moments(sums, x, shift):
    N, CB, H, W, B = x.shape
    sums[:] = 0
    first, second = np.empty(B, x.dtype), np.empty(B, x.dtype)
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                src = row(x, n, b, h)
                first[:] = 0
                second[:] = 0
                for v in range(W):
                    for lane in range(B):
                        a = src[v, lane] - shift[b, lane]
                        first[lane] += a
                        second[lane] += a * a
                for lane in range(B):
                    sums[0, b, lane] += first[lane]
                    sums[1, b, lane] += second[lane]


@kernel('f5 f5 c2 c2 i', ['float64'])
def normalize_activate(y, z, scale, shift, code):
    N, CB, H, W, B = y.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                out, src = row(y, n, b, h), row(z, n, b, h)
                for v in range(W):
                    for lane in range(B):
                        out[v, lane] = value_at(src[v, lane] * scale[b, lane] + shift[b, lane], code)



@kernel('d3 f5 f5 c2 c2 c2 c2 i', ['float64'])
def activate_backward_reduce(sums, dy, z, scale, shift, mean, istd, code):
    N, CB, H, W, B = z.shape
    sums[:] = 0
    first, second = np.empty(B, z.dtype), np.empty(B, z.dtype)
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                grad, src = row(dy, n, b, h), row(z, n, b, h)
                first[:] = 0
                second[:] = 0
                for v in range(W):
                    for lane in range(B):
                        a = src[v, lane]
                        d = grad[v, lane] * slope_at(a * scale[b, lane] + shift[b, lane], code)
                        first[lane] += d
                        second[lane] += d * (a - mean[b, lane])
                for lane in range(B):
                    sums[0, b, lane] += first[lane]
                    sums[1, b, lane] += second[lane] * istd[b, lane]



@kernel('f5 f5 f5 c2 c2 c2 c2 c2 i', ['float64'])
def activate_backward(dz, dy, z, scale, shift, a, b, c, code):
    N, CB, H, W, B = z.shape
    for n in range(N):
        for k in range(CB):
            for h in range(H):
                out, grad, src = row(dz, n, k, h), row(dy, n, k, h), row(z, n, k, h)
                for v in range(W):
                    for lane in range(B):
                        u = src[v, lane]
                        d = grad[v, lane] * slope_at(u * scale[k, lane] + shift[k, lane], code)
                        out[v, lane] = a[k, lane] * d + b[k, lane] * u + c[k, lane]

