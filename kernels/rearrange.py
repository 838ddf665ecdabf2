"""Layers that only move numbers: upsampling, Darknet's reorg, dropout's mask. Offsets are those of the view inside the whole tensor.

Plain loops over the blocked layout, any float dtype; each backward is the transpose of its forward.
"""
import numpy as np

from .jit import inline, kernel


@kernel('f5 f5 i i i')
def upsample_forward(y, x, stride, top, left):
    """y[i, j] = x[(top+i)//stride - first row, …]: `top`, `left` are global indices of y's first pixel; x starts at their quotient."""
    n_, b_, h_, w_, lanes = y.shape
    top0, left0 = top // stride, left // stride
    for n in range(n_):
        for b in range(b_):
            for i in range(h_):
                row = (top + i) // stride - top0
                for j in range(w_):
                    column = (left + j) // stride - left0
                    for k in range(lanes):
                        y[n, b, i, j, k] = x[n, b, row, column, k]


@kernel('f5 f5 i i i')
def upsample_backward(dx, dy, stride, top, left):
    """dx = sum of dy over the copies; dx overwritten."""
    dx[...] = 0
    n_, b_, h_, w_, lanes = dy.shape
    top0, left0 = top // stride, left // stride
    for n in range(n_):
        for b in range(b_):
            for i in range(h_):
                row = (top + i) // stride - top0
                for j in range(w_):
                    column = (left + j) // stride - left0
                    for k in range(lanes):
                        dx[n, b, row, column, k] += dy[n, b, i, j, k]


@inline
def reorg_source(c, y, x, channels, height, width, stride):
    """The input pixel (c, y, x) that Darknet's reorg puts at output pixel (c, y, x).

    Darknet numbers the output as if it had the input's shape (channels, height, width), and the input as if it had
    channels / stride² maps of height * stride by width * stride.
    """
    linear = x + (width // stride) * (y + (height // stride) * c)
    i, j, k = linear % width, linear // width % height, linear // (width * height)
    maps = channels // (stride * stride)
    part = k // maps
    source = i * stride + part % stride + width * stride * (j * stride + part // stride + height * stride * (k % maps))
    return source // (width * height), source // width % height, source % width


@kernel('f5 f5 i i i i i i i i i i i')
def reorg_forward(y, x, c0, i0, j0, xc0, xi0, xj0, y_channels, channels, height, width, stride):
    """c0, i0, j0 and xc0, xi0, xj0: global (C, H, W) of the first elements of y and x; y_channels: channels in the view; channels,
    height, width: of the whole input."""
    lanes, x_lanes = y.shape[4], x.shape[4]
    for n in range(y.shape[0]):
        for c in range(y_channels):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    sc, si, sj = reorg_source(c0 + c, i0 + i, j0 + j, channels, height, width, stride)
                    sc -= xc0
                    y[n, c // lanes, i, j, c % lanes] = x[n, sc // x_lanes, si - xi0, sj - xj0, sc % x_lanes]


@kernel('f5 f5 i i i i i i i i i i i')
def reorg_backward(dx, dy, c0, i0, j0, xc0, xi0, xj0, y_channels, channels, height, width, stride):
    """The transpose of reorg_forward; dx overwritten."""
    dx[...] = 0
    lanes, x_lanes = dy.shape[4], dx.shape[4]
    for n in range(dy.shape[0]):
        for c in range(y_channels):
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    sc, si, sj = reorg_source(c0 + c, i0 + i, j0 + j, channels, height, width, stride)
                    sc -= xc0
                    dx[n, sc // x_lanes, si - xi0, sj - xj0, sc % x_lanes] += dy[n, c // lanes, i, j, c % lanes]


@inline
def _uniform(key, index):
    """A number in [0, 1) from a counter: the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    z = np.uint64(key) + np.uint64(index) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel('f5 f5 i s i i i i i i i')
def dropout(y, x, key, probability, n0, c0, i0, j0, channels, height, width):
    """y = x / (1 - probability) where the element survives, else 0; decided by (key, global element), so alike on every rank.

    n0, c0, i0, j0: global (N, C, H, W) of the view's first element; channels, height, width: of the whole tensor. The same call is
    the backward pass.
    """
    lanes = y.shape[4]
    scale = 1.0 / (1.0 - probability)
    for n in range(y.shape[0]):
        for b in range(y.shape[1]):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    for k in range(lanes):
                        c = c0 + b * lanes + k
                        index = (((n0 + n) * channels + c) * height + i0 + i) * width + j0 + j
                        y[n, b, i, j, k] = x[n, b, i, j, k] * scale if _uniform(key, index) >= probability else 0
