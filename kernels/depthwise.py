"""Micro-kernels of convolutions whose groups lie within a block: depthwise ones, and groups of 2, 4 or 8 channels on both
sides. Sums live in registers; each output lane sums over the `group` input lanes of its group.

stencil     forward, input gradient:    y[h, v] = sum over taps, c of spread_c(x[tap + h, tap + v * step]) * w[tap, c]
gather      weight gradient:            dw[tap, c] += sum over rows, pixels of spread_c(x[tap + row, tap + pixel]) * dy[row, pixel]

where spread_c puts lane c of each group into all lanes of the group. Addresses are integers, all strides count floats.
"""
import functools

from .jit import Native, instructions
from .simd import BLOCK, INT, tile

GROUPS = 1, 2, 4, 8             # channels of a group that the kernels know
TAPS = 4                        # columns of filters in registers at once


def registers(tile):
    return 32 if tile.name in ('avx512', 'neon') else 16


def largest(tile, group):
    """Pixels of the largest tile of a stencil: with the filters of TAPS columns they fit into the registers."""
    if registers(tile) == 32:
        return 14 if tile.width == BLOCK and group == 1 else 8
    return 3 if tile.width == 4 else 8 if group == 1 else 4


def unroll(tile):
    """Pixels of a row that share the inputs they load, in a weight gradient."""
    return 4 if registers(tile) == 32 else 2


def tap_rows(tile, columns):
    """Rows of filters whose gradients fit into the registers."""
    return max(1, (12 if registers(tile) == 32 else 9) // columns)


def emit_stencil(e, pixels, group, columns, step, spacing, tiles, last, rows, y, y_row, y_step, x, x_row, taps, x_tap,
                 w, w_row, w_column):
    """`rows` rows of `tiles` tiles, each of `pixels` (a Python int) vectors of 16. Further Python ints: lanes of a group,
    columns of filters, pixels of x between outputs and between columns.

    y, x: the first output and the input under its first tap; rows `y_row` and `x_row`, outputs `y_step` apart, pixels of x 16.
    last: first pixel of the last tile, which may overlap the one before. taps: rows of filters; those of x lie `x_tap`, those
    of w `w_row`, columns of w `w_column` apart; the `group` vectors of a tap lie together.
    """
    def row(carried):
        y, x = carried

        def one(carried):
            v, = carried
            first = e.b.select(e.b.icmp_signed('<', v, last), v, last)
            for part in range(0, BLOCK, e.width):
                _emit_pixels(e, part, pixels, group, columns, step, spacing, e.at(y, e.b.mul(first, y_step)), y_step,
                             e.at(x, e.b.mul(first, INT(step * BLOCK))), taps, x_tap, w, w_row, w_column)
            return [e.b.add(v, INT(pixels))]
        e.loop(tiles, [INT(0)], one)
        return [e.at(y, y_row), e.at(x, x_row)]
    e.loop(rows, [y, x], row)


def _emit_pixels(e, part, pixels, group, columns, step, spacing, y, y_step, x, taps, x_tap, w, w_row, w_column):
    """Part of the lanes of one tile."""
    def tap_row(carried):
        x, w, *sums = carried
        for c in range(group):
            for k0 in range(0, columns, TAPS):
                some = range(k0, min(columns, k0 + TAPS))
                here = e.again(x)                       # load inputs here: registers are short
                filters = {k: e.load(e.at(w, e.b.mul(w_column, INT(k))), c * BLOCK + part) for k in some}
                for at in range((pixels - 1) * step + some[-1] * spacing + 1):
                    users = [(m, k) for k in some for m in range(pixels) if m * step + k * spacing == at]
                    if users:
                        value = _spread(e, here, at * BLOCK, part, group, c)
                        for m, k in users:
                            sums[m] = e.fma(value, filters[k], sums[m])
        return [e.at(x, x_tap), e.at(w, w_row)] + sums
    sums = e.loop(taps, [x, w] + [e.zero] * pixels, tap_row)[2:]
    for m, value in enumerate(sums):
        e.store(value, e.at(y, e.b.mul(y_step, INT(m))), part)


def _spread(e, x, offset, part, group, c):
    """Lane c of each group, in all lanes of the group."""
    if group >= e.width:
        return e.broadcast(x, offset + part // group * group + c)
    value = e.load(x, offset + part)
    return value if group == 1 else e.shuffle(value, [lane // group * group + c for lane in range(e.width)])


def emit_gather(e, unroll, tap_rows, group, columns, step, spacing, rows, pixels, dw, w_row, x, x_row, x_tap, dy, dy_row):
    """dw (tap_rows, columns, group, 16) += sums over rows x pixels, from zero. Python ints: pixels unrolled, rows of filters, lanes of a group,
    columns of filters, pixels of x between outputs and between columns. Rows of dw lie `w_row` apart, of x under successive
    rows of dy `x_row`, under successive rows of filters `x_tap`.
    """
    taps = [(i, k) for i in range(tap_rows) for k in range(columns)]

    for part in range(0, BLOCK, e.width):
        for c in range(group):
            def some(count, part=part, c=c):
                def body(carried):
                    x, dy, *sums = carried
                    grads = [e.load(dy, m * BLOCK + part) for m in range(count)]
                    for i in range(tap_rows):
                        line = e.again(e.at(x, e.b.mul(x_tap, INT(i))))
                        for at in range((count - 1) * step + (columns - 1) * spacing + 1):
                            users = [(m, k) for k in range(columns) for m in range(count) if m * step + k * spacing == at]
                            if users:
                                value = _spread(e, line, at * BLOCK, part, group, c)
                                for m, k in users:
                                    at_ = i * columns + k
                                    sums[at_] = e.fma(value, grads[m], sums[at_])
                    return [e.at(x, count * step * BLOCK), e.at(dy, count * BLOCK)] + sums
                return body

            def row(carried, some=some):
                x, dy, *sums = carried
                state = e.loop(e.b.sdiv(pixels, INT(unroll)), [x, dy] + sums, some(unroll))
                sums = e.loop(e.b.srem(pixels, INT(unroll)), state, some(1))[2:]
                return [e.at(x, x_row), e.at(dy, dy_row)] + sums
            sums = e.loop(rows, [x, dy] + [e.zero] * len(taps), row)[2:]
            for (i, k), value in zip(taps, sums):
                place = e.at(e.at(dw, e.b.mul(w_row, INT(i))), (k * group + c) * BLOCK + part)
                e.store(e.b.fadd(e.load(place), value), place)


@functools.cache
def stencil(group, columns, step, spacing):
    """The Native for tiles of any size: size, tiles, ... as in emit_stencil."""
    def emit(e, size, tiles, last, rows, y, y_row, y_step, x, x_row, taps, x_tap, w, w_row, w_column):
        y, x, w = e.pointer(y), e.pointer(x), e.pointer(w)
        e.switch(size, {n: lambda n=n: emit_stencil(e, n, group, columns, step, spacing, tiles, last, rows, y, y_row, y_step,
                                                    x, x_row, taps, x_tap, w, w_row, w_column)
                        for n in range(1, largest(tile(), group) + 1)})

    def depthwise(size, tiles, last, rows, y, y_row, y_step, x, x_row, taps, x_tap, w, w_row, w_column):
        run((size, tiles, last, rows, y, y_row, y_step, x, x_row, taps, x_tap, w, w_row, w_column))
    run = instructions(emit)
    return Native(depthwise, f'-{group}-{columns}-{step}-{spacing}')


@functools.cache
def gather(tap_rows, group, columns, step, spacing):
    """The Native: rows, pixels, ... as in emit_gather."""
    def emit(e, rows, pixels, dw, w_row, x, x_row, x_tap, dy, dy_row):
        emit_gather(e, unroll(tile()), tap_rows, group, columns, step, spacing, rows, pixels, e.pointer(dw), w_row, e.pointer(x), x_row, x_tap,
                    e.pointer(dy), dy_row)

    def depthwise_weights(rows, pixels, dw, w_row, x, x_row, x_tap, dy, dy_row):
        run((rows, pixels, dw, w_row, x, x_row, x_tap, dy, dy_row))
    run = instructions(emit)
    return Native(depthwise_weights, f'-{tap_rows}-{group}-{columns}-{step}-{spacing}')
