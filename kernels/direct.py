"""Direct convolution in float32: which tiles the micro-kernels are called for, and the three passes as calls of them.

`correlate` is the forward pass and, with turned filters, the input gradient: every output pixel is a sum over a table of
input runs in the table's order, so a pixel's value does not depend on the tile it is computed in.
"""
import functools
from dataclasses import dataclass

import numpy as np

from . import native
from .caches import caches
from .jit import address, call, instructions, kernel
from .threads import get_threads, spread, streams, workspace
from .transform import emit_transpose

PANEL = 0.28                # part of the second-level cache for the filters of one pass over the inputs
FORWARD_PIXELS = 512        # output pixels that share them
WEIGHTS_PIXELS = 800        # pixels summed in registers before the sum is added to memory
PARTS = 8                   # that the work should have at least, to be shared by threads


def forward(y, x, w, stride, dilation):
    """y = x * w; see `convolution`."""
    OCB, ICB, KH, KW, B, _ = w.shape
    steps = x.strides[1], x.strides[2] * dilation, x.strides[3] * dilation
    table, run = _table(ICB, KH, KW, *steps, B)
    if y.shape[2] == y.shape[3] == 1:                   # a connected layer: the samples are the pixels of a row
        y, x = y.transpose(3, 1, 2, 0, 4), x[:, :, :1, :1].transpose(3, 1, 2, 0, 4)
        stride = 1
    correlate(y, x, stride, w.ctypes.data, w.strides[0] // 4, table, run)


def backward_data(dx, dy, w, stride, dilation, margin, top, left, stencil=None):
    """dx from dy that carries `margin` (rows, columns) of zeros; see `convolution`. At stride 1, `stencil(target, source, w)`
    may do in place of the last step: target = source * turned filters.

    Input pixels with the same remainder modulo the stride are reached through the same taps: each such phase is a
    correlation of dy at stride 1 with those taps, turned round and transposed.
    """
    OCB, ICB, KH, KW = w.shape[:4]
    height, width = dy.shape[2] - 2 * margin[0], dy.shape[3] - 2 * margin[1]
    dy, margin = framed(dy, margin, stride, dilation, KH, KW)
    panel, = workspace('all', 0 if stencil else w.size)

    phases = [(r, c) for r in phases_of(stride, dilation, KH, height, top, dx.shape[2])
              for c in phases_of(stride, dilation, KW, width, left, dx.shape[3])]
    if sum(r.pixels * c.pixels for r, c in phases) < dx.shape[2] * dx.shape[3]:
        dx[:] = 0
    for r, c in phases:
        source = dy[:, :, margin[0] + r.source:, margin[1] + c.source:]
        target = dx[:, :, r.target:r.target + stride * r.pixels:stride, c.target:c.target + stride * c.pixels:stride]
        if stencil:
            stencil(target, source[:, :, :r.pixels + KH - 1, :c.pixels + KW - 1], w)
            continue
        taps = _taps(r.taps, c.taps, KW)
        size = OCB * ICB * taps.size * 256
        part, panel = panel[:size], panel[size:]
        spread(ICB, functools.partial(turn, part, w, taps))
        steps = source.strides[1], source.strides[2] * r.spacing, source.strides[3] * c.spacing
        table, run = _table(OCB, len(r.taps), len(c.taps), *steps, 16)
        correlate(target, source, 1, part.ctypes.data, part.size // ICB, table, run)


def framed(dy, margin, stride, dilation, *sizes):
    """dy with as wide a margin of zeros as filters of these sizes need, copied if it has less; and its margin."""
    need = tuple(-(-dilation * (k - 1) // stride) for k in sizes)
    if margin[0] >= need[0] and margin[1] >= need[1]:
        return dy, margin
    N, OCB, height, width = dy.shape[0], dy.shape[1], dy.shape[2] - 2 * margin[0], dy.shape[3] - 2 * margin[1]
    shape = N, OCB, height + 2 * need[0], width + 2 * need[1], 16
    flat, = workspace('frame', int(np.prod(shape)))
    frame = flat.reshape(shape)
    frame[:] = 0
    frame[:, :, need[0]:need[0] + height, need[1]:need[1] + width] = dy[:, :, margin[0]:margin[0] + height,
                                                                        margin[1]:margin[1] + width]
    return frame, need


def backward_weights(dw, x, dy, stride, dilation):
    """dw += ...; see `convolution`."""
    OCB, ICB, KH = dw.shape[:3]
    pair = native.TILE.blocks
    rows = max(8, WEIGHTS_PIXELS // max(1, dy.shape[3]))
    units, groups = -(-OCB // pair) * ICB * KH, dy.shape[0] * -(-dy.shape[2] // rows)

    def gather(dw, first, last, group0, group1):
        _gather(native.outer.address, native.TILE.inputs, pair, dw, x, dy, stride, dilation, rows, first, last, group0, group1)

    if units >= PARTS or groups < PARTS:
        spread(units, lambda first, last: gather(dw, first, last, 0, groups))
        return
    # few filters: threads take rows instead, in as many parts for any number of threads, so that sums do not depend on it
    sums = workspace('all', PARTS * dw.size)[0].reshape(PARTS, *dw.shape)

    def part(first, last):
        for k in range(first, last):
            sums[k] = 0
            gather(sums[k], 0, units, groups * k // PARTS, groups * (k + 1) // PARTS)
    spread(PARTS, part)
    for each in sums:
        dw += each


@dataclass(frozen=True)
class Phase:
    """Along one axis, the pixels of dx with the same remainder modulo the stride."""
    taps: tuple         # positions in the filter that read them, last first
    spacing: int        # pixels of dy between two taps
    target: int         # first pixel of dx ...
    source: int         # ... and the pixel of dy under its first tap
    pixels: int


@functools.lru_cache(4096)
def phases_of(stride, dilation, size, length, first, count):
    """Phases with pixels among first ... first + count that some tap reaches from one of `length` outputs."""
    phases = []
    for p in range(stride):
        taps = tuple(k for k in range(size - 1, -1, -1) if (p - k * dilation) % stride == 0)
        # pixel stride * u + p is reached from output u + (p - k * dilation) / stride
        start = max(0, -((p - first) // stride))
        stop = min((length - 1) * stride + dilation * (size - 1) - p, first + count - 1 - p) // stride + 1
        if taps and start < stop:
            offsets = [(p - k * dilation) // stride for k in taps]
            spacing = offsets[1] - offsets[0] if len(taps) > 1 else 1
            phases.append(Phase(taps, spacing, stride * start + p - first, start + offsets[0], stop - start))
    return phases


@functools.cache
def _taps(rows, columns, width):
    return np.array([kh * width + kw for kh in rows for kw in columns])


@functools.lru_cache(4096)
def _table(blocks, rows, columns, block_step, row_step, column_step, B):
    """Offsets (floats) of the runs of inputs that an output sums, and a run's length; steps in bytes. Columns that touch
    make one run."""
    if columns == 1 or column_step == 4 * B:
        columns, run = 1, columns * B
    else:
        run = B
    grid = np.indices((blocks, rows, columns)).reshape(3, -1)
    return np.array([block_step, row_step, column_step]) @ grid // 4, run


def correlate(y, x, stride, filters, b_block, table, run):
    """Every output of y, on all threads; the arguments are those of `_correlate`."""
    stream = int(streams(y))
    rows = max(4, FORWARD_PIXELS // max(1, y.shape[3]))
    groups, blocks, pair = y.shape[0] * -(-y.shape[2] // rows), y.shape[1], native.TILE.blocks
    chunk = max(1, int(PANEL * caches().l2) // (run * 64 * pair))

    def part(first, last, ob0, ob1):
        _correlate(native.multiply.address, native.TILE.pixels, pair, stream, y, x, stride, filters, b_block, table, run, rows,
                   chunk, first, last, ob0, ob1)

    if groups >= 4 * get_threads():
        spread(groups, lambda first, last: part(first, last, 0, blocks))
    else:
        spread(-(-blocks // pair), lambda first, last: part(0, groups, first * pair, min(blocks, last * pair)))


@kernel('i i i i f5 f5 i i i n1 i i i i i i i', ['float32'])
def _correlate(multiply, pixels, pair, stream, y, x, stride, filters, b_block, table, run, rows, chunk, first, last, ob0, ob1):
    """y[n, ob, h, v] = sum over t, k of x[n, 0, h * stride, v * stride] (+ table[t] + k floats) * filters[ob, t, k].

    multiply, pixels, pair: micro-kernel, its largest tile in pixels and in blocks. y, x may be strided along all axes but
    the last. stream: write y past the caches. filters: address of (OCB, table.size, run, 16), blocks b_block floats apart.
    rows, chunk: output rows and entries of the table worked on together. Only the row groups first ... last of all samples are computed, and of them the
    blocks ob0 ... ob1.
    """
    H, W = y.shape[2], y.shape[3]
    groups = (H + rows - 1) // rows
    pieces = (W + pixels - 1) // pixels
    if pieces == 0:
        return
    size, longer = W // pieces, W % pieces
    a_step, c_step, c_block = x.strides[3] // 4 * stride, y.strides[3] // 4, y.strides[1] // 4
    for group in range(first, last):
        n, top = group // groups, group % groups * rows
        for t in range(0, table.size, chunk):
            count = min(chunk, table.size - t)
            for ob in range(ob0, ob1, pair):
                blocks = min(pair, ob1 - ob)
                b = filters + 4 * (ob * b_block + t * run * 16)
                for h in range(top, min(H, top + rows)):
                    a = address(x) + n * x.strides[0] + h * stride * x.strides[2]
                    c = address(y) + n * y.strides[0] + ob * y.strides[1] + h * y.strides[2]
                    add = 1 if t > 0 else 2 if stream and count == table.size else 0
                    for width, tiles in ((size + 1, longer), (size, pieces - longer)):
                        call(multiply, (width, blocks, tiles, a, a_step, address(table) + 8 * t, count, run, b, b_block,
                                        c, c_step, c_block, add))
                        a += 4 * a_step * width * tiles
                        c += 4 * c_step * width * tiles


@kernel('i i i c6 f5 f5 i i i i i i i', ['float32'])
def _gather(outer, inputs, pair, dw, x, dy, stride, dilation, rows, first, last, group0, group1):
    """dw[ob, ib, kh] += sum over pixels of x times dy, for the units first ... last of (pairs of ob) * ICB * KH and
    the row groups group0 ... group1 of all samples.

    outer, inputs, pair: micro-kernel, its largest tile in inputs and in blocks. rows: rows of dy summed in registers.
    """
    OCB, H, W = dy.shape[1:4]
    groups = (H + rows - 1) // rows
    ICB, KH, KW, B = dw.shape[1:5]
    runs, run = (1, KW * B) if dilation == 1 else (KW, B)
    pieces = (run + inputs - 1) // inputs
    size, longer = run // pieces, run % pieces
    a_step = x.strides[3] // 4 * stride
    for group in range(group0, group1):
        n, top = group // groups, group % groups * rows
        count = min(rows, H - top)
        for unit in range(first, last):
            ob, ib, kh = unit // (ICB * KH) * pair, unit // KH % ICB, unit % KH
            b = address(dy) + n * dy.strides[0] + ob * dy.strides[1] + top * dy.strides[2]
            for kw in range(runs):
                a = (address(x) + n * x.strides[0] + ib * x.strides[1] + kw * dilation * x.strides[3]
                     + (top * stride + kh * dilation) * x.strides[2])
                c = address(dw) + ob * dw.strides[0] + ib * dw.strides[1] + kh * dw.strides[2] + kw * dw.strides[3]
                for width, tiles in ((size + 1, longer), (size, pieces - longer)):
                    call(outer, (width, min(pair, OCB - ob), tiles, a, width, x.strides[2] // 4 * stride, a_step,
                                 b, dy.strides[2] // 4, dy.strides[1] // 4, count, W, c, 16 * width, dw.strides[0] // 4, 1))
                    a += 4 * width * tiles
                    c += 64 * width * tiles


transpose = instructions(lambda e, source, target, ahead: emit_transpose(e, e.pointer(source), e.pointer(target), ahead))


@kernel('c1 c6 n1 i i', ['float32'])
def turn(panel, w, taps, first, last):
    """panel (ICB, OCB, taps, 16, 16): the listed taps of w, each block transposed; input blocks first ... last only."""
    OCB = w.shape[0]
    for ib in range(first, last):
        for ob in range(OCB):
            for t in range(taps.size):
                source = address(w) + ob * w.strides[0] + ib * w.strides[1] + taps[t] * 1024
                transpose((source, address(panel) + ((ib * OCB + ob) * taps.size + t) * 1024, w.strides[0] // 4))
