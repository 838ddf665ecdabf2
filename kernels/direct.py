"""Direct convolution in float32: which tiles the micro-kernels are called for, and the three passes as calls of them.

A correlation is the forward pass and, with turned filters, the input gradient: every output pixel is a sum over a table of
input runs in the table's order, so a pixel's value does not depend on the tile it is computed in.
"""
import functools
from functools import partial

import numpy as np

from . import native
from .caches import caches
from .jit import address, call, instructions, kernel
from .phases import framed, phases_of, reach
from .prepared import one_by_one
from .threads import Spread, get_threads, spread, streams, workspace
from .transform import emit_transpose

PANEL = 0.28                # part of the second-level cache for the filters of one pass over the inputs
FORWARD_PIXELS = 512        # output pixels that share them
WEIGHTS_PIXELS = 800        # pixels summed in registers before the sum is added to memory
PARTS = 8                   # that the work should have at least, to be shared by threads


def forward(y, x, w, stride, dilation, taken=None, add=False):
    """The work of y = x * w; see `convolution`."""
    OCB, ICB, KH, KW, B, _ = w.shape
    steps = x.strides[1], x.strides[2] * dilation, x.strides[3] * dilation
    if y.shape[2] == y.shape[3] == 1:                   # a connected layer: the samples are the pixels of a row
        y, x = y.transpose(3, 1, 2, 0, 4), x[:, :, :1, :1].transpose(3, 1, 2, 0, 4)
        stride = 1
    works = []
    for first, last in [(0, ICB)] if taken is None else neighbours(taken):
        table, run = _table(last - first, KH, KW, *steps, B)
        stored = 1 if add or works else 0 if taken is not None else None
        works.append(partial(correlation(y, x[:, first:], stride, w.strides[0] // 4, table, run, stored), w[:, first].ctypes.data, w))
    return works[0] if len(works) == 1 else partial(one_by_one, works)


def neighbours(taken):
    """[(first, last)] of the runs of blocks that follow each other."""
    ends = np.flatnonzero(np.diff(taken) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(taken, ends)]


def backward_data(dx, dy, w, stride, dilation, margin, top, left, stencil=None, made=None, again=False):
    """The work of dx, or of its blocks `made`, from dy that carries `margin` (rows, columns) of zeros; see `convolution`. At stride 1, what
    `stencil(target, source, w)` returns may do in place of the last step: target = source * turned filters.

    Input pixels with the same remainder modulo the stride are reached through the same taps: each such phase is a
    correlation of dy at stride 1 with those taps, turned round and transposed.
    """
    OCB, ICB, KH, KW = w.shape[:4]
    need = reach(stride, dilation, KH, KW)
    if margin[0] < need[0] or margin[1] < need[1]:
        return lambda: backward_data(dx, framed(dy, margin, need), w, stride, dilation, need, top, left, stencil, made, again)()
    height, width = dy.shape[2] - 2 * margin[0], dy.shape[3] - 2 * margin[1]

    phases = [(r, c) for r in phases_of(stride, dilation, KH, height, top, dx.shape[2])
              for c in phases_of(stride, dilation, KW, width, left, dx.shape[3])]
    runs, steps, taken = [(0, ICB)] if made is None else neighbours(made), [], 0
    if sum(r.pixels * c.pixels for r, c in phases) < dx.shape[2] * dx.shape[3]:
        steps += [partial(dx[:, a:b].fill, 0) for a, b in runs]
    for r, c in phases:
        source = dy[:, :, margin[0] + r.source:, margin[1] + c.source:]
        target = dx[:, :, r.target:r.target + stride * r.pixels:stride, c.target:c.target + stride * c.pixels:stride]
        if stencil:
            steps.append(stencil(target, source[:, :, :r.pixels + KH - 1, :c.pixels + KW - 1], w, made=made, again=again))
            continue
        taps = _taps(r.taps, c.taps, KW)
        size = OCB * ICB * taps.size * 256
        strides = source.strides[1], source.strides[2] * r.spacing, source.strides[3] * c.spacing
        table, run = _table(OCB, len(r.taps), len(c.taps), *strides, 16)
        for a, b in runs:
            part = slice(taken + size // ICB * a, taken + size // ICB * b)
            steps.append(partial(turned, w, taps, part, a, b, correlation(target[:, a:b], source, 1, size // ICB, table, run)))
        taken += size
    return steps[0] if len(steps) == 1 else partial(one_by_one, steps)


def turned(w, taps, part, b0, b1, correlate):
    """A correlation with the listed taps of w turned round and transposed, for its input blocks b0 ... b1, kept in a part of the workspace meanwhile."""
    panel, turns = workspace('all', w.size)[0][part], turn.of(w.dtype)
    spread(b1 - b0, lambda first, last: turns(panel, w, taps, b0, b0 + first, b0 + last))
    correlate(panel.ctypes.data, panel)


def backward_weights(dw, x, dy, stride, dilation):
    """The work of dw += ...; see `convolution`."""
    OCB, ICB, KH = dw.shape[:3]
    pair = native.TILE.blocks
    rows = max(8, WEIGHTS_PIXELS // max(1, dy.shape[3]))
    units, groups = -(-OCB // pair) * ICB * KH, dy.shape[0] * -(-dy.shape[2] // rows)

    compute, outer, inputs = _gather.of(dw.dtype), native.outer.address, native.TILE.inputs

    def gather(dw, group0, group1, first, last):
        compute(outer, inputs, pair, dw, x, dy, stride, dilation, rows, first, last, group0, group1)

    if units >= PARTS or groups < PARTS:
        return Spread(units, partial(gather, dw, 0, groups))

    def by_rows():
        """Few filters: threads take rows instead, in as many parts for any number of threads, so that sums do not depend on it."""
        sums = workspace('all', PARTS * dw.size)[0].reshape(PARTS, *dw.shape)

        def part(first, last):
            for k in range(first, last):
                sums[k] = 0
                gather(sums[k], groups * k // PARTS, groups * (k + 1) // PARTS, 0, units)
        spread(PARTS, part)
        for each in sums:
            np.add(dw, each, out=dw)
    return by_rows


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


def correlation(y, x, stride, b_block, table, run, stored=None):
    """A function of the filters' address, and of what lives as long, that computes every output of y, on all threads; the
    arguments are those of `_correlate`. stored: None where y is complete then, and may be written past the caches."""
    stored = 2 * streams(y) if stored is None else stored
    rows = max(4, FORWARD_PIXELS // max(1, y.shape[3]))
    groups, blocks, pair = y.shape[0] * -(-y.shape[2] // rows), y.shape[1], native.TILE.blocks
    chunk = max(1, int(PANEL * caches().l2) // (run * 64 * pair))

    compute, before = _correlate.of(y.dtype), (native.multiply.address, native.TILE.pixels, pair, int(stored), y, x, stride)
    after = b_block, table, run, rows, chunk

    def by_rows(filters, alive, first, last):
        compute(*before, filters, *after, first, last, 0, blocks)

    def by_blocks(filters, alive, first, last):
        compute(*before, filters, *after, 0, groups, first * pair, min(blocks, last * pair))

    return Spread(groups, by_rows) if groups >= 4 * get_threads() else Spread(-(-blocks // pair), by_blocks)


@kernel('i i i i f5 f5 i i i n1 i i i i i i i', ['float32'])
def _correlate(multiply, pixels, pair, stored, y, x, stride, filters, b_block, table, run, rows, chunk, first, last, ob0, ob1):
    """y[n, ob, h, v] = sum over t, k of x[n, 0, h * stride, v * stride] (+ table[t] + k floats) * filters[ob, t, k].

    multiply, pixels, pair: micro-kernel, its largest tile in pixels and in blocks. y, x may be strided along all axes but
    the last. stored: 0 write y, 1 add to it, 2 write it past the caches. filters: address of (OCB, table.size, run, 16), blocks b_block floats apart.
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
                    add = 1 if t > 0 else stored if stored < 2 or count == table.size else 0
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


@kernel('c1 c6 n1 i i i', ['float32'])
def turn(panel, w, taps, begin, first, last):
    """panel (input blocks from `begin` on, OCB, taps, 16, 16): the listed taps of w, each block transposed; input blocks first ... last only."""
    OCB = w.shape[0]
    for ib in range(first, last):
        for ob in range(OCB):
            for t in range(taps.size):
                source = address(w) + ob * w.strides[0] + ib * w.strides[1] + taps[t] * 1024
                transpose((source, address(panel) + (((ib - begin) * OCB + ob) * taps.size + t) * 1024, w.strides[0] // 4))
