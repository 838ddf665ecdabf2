"""Grouped convolutions that have a fast form in float32: groups that lie within a block, and groups of whole blocks.

Groups of 1, 2, 4 or 8 channels on both sides go through the micro-kernels of `depthwise`, all rows of a plane in one call. A
group of whole blocks is a convolution of its own; its filters are copied to the ungrouped layout first. Other groups, and
float64, are left to `naive`.
"""
import functools

import numpy as np

from . import depthwise, direct
from .jit import address, call, kernel, start
from .phases import framed, phases_of, reach
from .simd import BLOCK, tile
from .threads import spread

WEIGHTS_PIXELS = 800        # pixels summed in registers before the sum is added to memory
TILE = tile()


def is_depthwise(x, w, per):
    """Groups of so few channels, as many out as in, that each lies within a block."""
    return w.shape[3] == per and per in depthwise.GROUPS and x.shape[4] == BLOCK and w.dtype == np.float32


def is_blocked(x, w, per):
    """Groups of whole blocks on both sides, in float32."""
    return w.shape[3] % BLOCK == per % BLOCK == 0 and x.shape[4] == BLOCK and w.dtype == np.float32


def depthwise_forward(y, x, w, stride, dilation):
    KH, KW, C = w.shape[1:4]
    rows, columns = _forward(C, KW, stride, dilation, *y.shape[2:4], KH)
    spread(y.shape[0] * y.shape[1], lambda first, last: _stencil(y, x, w, rows, columns, stride, first, last))


def depthwise_backward_data(dx, dy, w, stride, dilation, margin, top, left):
    """dy carries `margin` (rows, columns) of zeros. By phases, as in `direct.backward_data`, with the taps backwards."""
    KH, KW, C = w.shape[1:4]
    height, width = dy.shape[2] - 2 * margin[0], dy.shape[3] - 2 * margin[1]
    need = reach(stride, dilation, KH, KW)
    if margin[0] < need[0] or margin[1] < need[1]:
        dy, margin = framed(dy, margin, need), need
    rows, columns, covered = _backward(C, KH, KW, stride, dilation, height, width, margin, top, left, dx.shape[2:4])
    if not covered:
        dx[:] = 0
    if C > 1:                       # what was the input lane of a group becomes its output lane
        w = np.ascontiguousarray(w.reshape(*w.shape[:4], BLOCK // C, C).transpose(0, 1, 2, 5, 4, 3)).reshape(w.shape)
    spread(dx.shape[0] * dx.shape[1], lambda first, last: _stencil(dx, dy, w, rows, columns, 1, first, last))


# The plan of a stencil along an axis, one line for each phase: first output, step to the next, number of outputs, first input,
# inputs between taps, number of taps, first tap, step to the next; for columns also the Native and the size of its tiles.

@functools.lru_cache(4096)
def _forward(C, KW, stride, dilation, height, width, KH):
    return np.array([[0, 1, height, 0, dilation, KH, 0, 1]]), _with_natives(C, stride, [[0, 1, width, 0, dilation, KW, 0, 1]])


@functools.lru_cache(4096)
def _backward(C, KH, KW, stride, dilation, height, width, margin, top, left, shape):
    """Also whether every pixel of dx is written."""
    plans = []
    for size, length, before, first, count in zip((KH, KW), (height, width), margin, (top, left), shape):
        plans.append([[p.target, stride, p.pixels, before + p.source, p.spacing, len(p.taps), p.taps[0],
                       p.taps[1] - p.taps[0] if len(p.taps) > 1 else 0]
                      for p in phases_of(stride, dilation, size, length, first, count)])
    covered = all(sum(line[2] for line in plan) == count for plan, count in zip(plans, shape))
    return np.array(plans[0], np.int64).reshape(-1, 8), _with_natives(C, 1, plans[1]), covered


def _with_natives(C, step, plan):
    """The plan of columns; x advances by `step` from one output to the next."""
    most = depthwise.largest(TILE, C)
    return np.array([line + [depthwise.stencil(C, line[5], step, line[4]).address, -(-line[2] // max(1, -(-line[2] // most)))]
                     for line in plan], np.int64).reshape(-1, 10)


def depthwise_backward_weights(dw, x, dy, stride, dilation):
    KH, KW, C = dw.shape[1:4]
    height = depthwise.tap_rows(TILE, KW)
    for kh in range(0, KH, height):
        taps = min(height, KH - kh)
        native = depthwise.gather(taps, C, KW, stride, dilation).address
        spread(dy.shape[1], lambda first, last: _sums(native, dw, kh, x, dy, stride, dilation, first, last))


def blocked_forward(y, x, w, stride, dilation, per):
    for out, into in _groups(y.shape[1], per, w.shape[3]):
        direct.forward(y[:, out], x[:, into], _ungrouped(w[out]), stride, dilation)()


def blocked_backward_data(dx, dy, w, stride, dilation, per, margin, top, left):
    for out, into in _groups(dy.shape[1], per, w.shape[3]):
        direct.backward_data(dx[:, into], dy[:, out], _ungrouped(w[out]), stride, dilation, margin, top, left)()


def blocked_backward_weights(dw, x, dy, stride, dilation, per):
    for out, into in _groups(dy.shape[1], per, dw.shape[3]):
        part = np.zeros_like(_ungrouped(dw[out]))
        direct.backward_weights(part, x[:, into], dy[:, out], stride, dilation)()
        dw[out] += part.transpose(0, 2, 3, 1, 4, 5).reshape(dw[out].shape)


def _groups(output_blocks, per, channels):
    """Slices of output and of input blocks of each group."""
    o, i = per // BLOCK, channels // BLOCK
    return [(slice(g * o, g * o + o), slice(g * i, g * i + i)) for g in range(output_blocks // o)]


def _ungrouped(w):
    """(OCB, KH, KW, C, 16) -> (OCB, ICB, KH, KW, 16, 16)."""
    ocb, kh, kw, c, _ = w.shape
    return np.ascontiguousarray(w.reshape(ocb, kh, kw, c // BLOCK, BLOCK, BLOCK).transpose(0, 3, 1, 2, 4, 5))


# Drivers: planes first ... last, counted over blocks, and over samples too where no sum is wanted.

@kernel('f5 f5 c5 n2 n2 i i i', ['float32'])
def _stencil(y, x, w, rows, columns, step, first, last):
    """y = x correlated with w, as the plans of rows and columns say; x advances by `step` rows from one output to the next."""
    CB, KW, C = y.shape[1], w.shape[2], w.shape[3]
    y_row, y_step, x_row = y.strides[2] // 4, y.strides[3] // 4, x.strides[2] // 4
    for unit in range(first, last):
        n, b = divmod(unit, CB)
        for r in range(rows.shape[0]):
            y0, y1, height, x0, spacing, taps, tap, next_tap = rows[r]
            together = height if columns.shape[0] == 1 else 1           # neighbouring columns belong together
            for h in range(0, height, max(1, together)):
                for c in range(columns.shape[0]):
                    v0, v1, width, u0, _, _, column, next_column, native, size = columns[c]
                    if width == 0:
                        continue
                    call(native, (size, (width + size - 1) // size, width - size, together,
                                  start(y, n, b, y0 + h * y1) + v0 * y.strides[3], y_row * y1, y_step * v1,
                                  start(x, n, b, x0 + h * step) + u0 * 64, x_row * step, taps, x_row * spacing,
                                  address(w) + b * w.strides[0] + (tap * KW + column) * C * 64, next_tap * KW * C * 16,
                                  next_column * C * 16))


@kernel('i c5 i f5 f5 i i i i', ['float32'])
def _sums(native, dw, kh, x, dy, stride, dilation, first, last):
    N, _, H, W, _ = dy.shape
    rows = max(1, WEIGHTS_PIXELS // max(1, W))
    for b in range(first, last):
        for n in range(N):
            for h in range(0, H, rows):
                call(native, (min(rows, H - h), W, address(dw) + b * dw.strides[0] + kh * dw.strides[1], dw.strides[1] // 4,
                              start(x, n, b, h * stride + kh * dilation), x.strides[2] // 4 * stride,
                              x.strides[2] // 4 * dilation, start(dy, n, b, h), dy.strides[2] // 4))
