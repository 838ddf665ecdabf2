"""Grouped convolutions that have a fast form: depthwise ones, and groups of whole blocks of channels.

Depthwise filters multiply lane by lane, so plain loops over 16 lanes vectorise, for any dtype. A group of whole blocks is a
convolution of its own; its filters are copied to the ungrouped layout first. Other groups are left to `naive`.
"""
import numpy as np

from . import direct
from .jit import kernel, row
from .simd import BLOCK
from .threads import spread


def is_depthwise(x, w, per):
    return w.shape[3] == per == 1 and x.shape[4] == BLOCK


def is_blocked(x, w, per):
    """Groups of whole blocks on both sides, in float32."""
    return w.shape[3] % BLOCK == per % BLOCK == 0 and x.shape[4] == BLOCK and w.dtype == np.float32


def depthwise_forward(y, x, w, stride, dilation):
    spread(y.shape[0] * y.shape[1], lambda first, last: _forward(y, x, w, stride, dilation, first, last))


def depthwise_backward_data(dx, dy, w, stride, dilation, top, left):
    """dy without margin."""
    spread(dy.shape[0] * dy.shape[1], lambda first, last: _backward_data(dx, dy, w, stride, dilation, top, left, first, last))


def depthwise_backward_weights(dw, x, dy, stride, dilation):
    spread(dy.shape[1], lambda first, last: _backward_weights(dw, x, dy, stride, dilation, first, last))


def blocked_forward(y, x, w, stride, dilation, per):
    for out, into in _groups(x.shape[1], y.shape[1], per, w.shape[3]):
        direct.forward(y[:, out], x[:, into], _ungrouped(w[out]), stride, dilation)


def blocked_backward_data(dx, dy, w, stride, dilation, per, margin, top, left):
    for out, into in _groups(dx.shape[1], dy.shape[1], per, w.shape[3]):
        direct.backward_data(dx[:, into], dy[:, out], _ungrouped(w[out]), stride, dilation, margin, top, left)


def blocked_backward_weights(dw, x, dy, stride, dilation, per):
    for out, into in _groups(x.shape[1], dy.shape[1], per, dw.shape[3]):
        part = np.zeros_like(_ungrouped(dw[out]))
        direct.backward_weights(part, x[:, into], dy[:, out], stride, dilation)
        dw[out] += part.transpose(0, 2, 3, 1, 4, 5).reshape(dw[out].shape)


def _groups(input_blocks, output_blocks, per, channels):
    """Slices of output and of input blocks of each group."""
    o, i = per // BLOCK, channels // BLOCK
    return [(slice(g * o, g * o + o), slice(g * i, g * i + i)) for g in range(output_blocks // o)]


def _ungrouped(w):
    """(OCB, KH, KW, C, 16) -> (OCB, ICB, KH, KW, 16, 16)."""
    ocb, kh, kw, c, _ = w.shape
    return np.ascontiguousarray(w.reshape(ocb, kh, kw, c // BLOCK, BLOCK, BLOCK).transpose(0, 3, 1, 2, 4, 5))


@kernel('f5 f5 c5 i i i i')
def _forward(y, x, w, stride, dilation, first, last):
    _, CB, H, W, _ = y.shape
    for unit in range(first, last):
        n, b = divmod(unit, CB)
        for h in range(H):
            out = row(y, n, b, h)
            out[:] = 0
            for kh in range(w.shape[1]):
                src = row(x, n, b, h * stride + kh * dilation)
                for kw in range(w.shape[2]):
                    tap = w[b, kh, kw, 0]
                    for v in range(W):
                        for lane in range(16):
                            out[v, lane] += src[v * stride + kw * dilation, lane] * tap[lane]


@kernel('f5 f5 c5 i i i i i i')
def _backward_data(dx, dy, w, stride, dilation, top, left, first, last):
    _, CB, H, W, _ = dy.shape
    for unit in range(first, last):
        n, b = divmod(unit, CB)
        for h in range(dx.shape[2]):
            row(dx, n, b, h)[:] = 0
        for h in range(H):
            src = row(dy, n, b, h)
            for kh in range(w.shape[1]):
                at = h * stride + kh * dilation - top
                if at < 0 or at >= dx.shape[2]:
                    continue
                out = row(dx, n, b, at)
                for kw in range(w.shape[2]):
                    tap = w[b, kh, kw, 0]
                    shift = kw * dilation - left            # output v reaches pixel v * stride + shift
                    start = max(0, -(shift // stride))
                    for v in range(start, min(W, (dx.shape[3] - 1 - shift) // stride + 1)):
                        for lane in range(16):
                            out[v * stride + shift, lane] += src[v, lane] * tap[lane]


@kernel('c5 f5 f5 i i i i')
def _backward_weights(dw, x, dy, stride, dilation, first, last):
    N, _, H, W, _ = dy.shape
    total = np.empty(16, dw.dtype)
    for b in range(first, last):
        for kh in range(dw.shape[1]):
            for kw in range(dw.shape[2]):
                for n in range(N):
                    for h in range(H):
                        src, grad = row(x, n, b, h * stride + kh * dilation), row(dy, n, b, h)
                        total[:] = 0
                        for v in range(W):
                            for lane in range(16):
                                total[lane] += src[v * stride + kw * dilation, lane] * grad[v, lane]
                        for lane in range(16):
                            dw[b, kh, kw, 0, lane] += total[lane]
