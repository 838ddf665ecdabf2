"""Winograd's transforms as vector code and the loops over tiles. What is computed is told in `winograd`, whose names are used."""
import numpy as np

from .direct import transpose
from .jit import Native, address, call, inline, instructions, kernel
from .threads import LINE
from .transform import emit_short_tiles, emit_tiles
from .winograd_tiles import emit_gradients, emit_inputs, neighbours, placed, span

MATRICES = {  # m: B^T, G, A^T
    2: ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [.5, .5, .5], [.5, -.5, .5], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]]),
    4: ([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]],
        [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
         [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
}
SCRATCH = 9 * 256               # floats of a turned filter
AHEAD = 4                       # tiles: pixels are asked for so early


def _transform(name, matrix, how='store', fetch=False):
    matrix = np.array(matrix, float)
    run = instructions(lambda e, count, source, a, b, c, target, *steps:
                       emit_tiles(e, matrix, how, fetch, count, e.pointer(source), a, b, c, e.pointer(target), *steps))

    def transform(count, source, s_row, s_column, s_next, target, t_row, t_column, t_next, ahead):
        run((count, source, s_row, s_column, s_next, target, t_row, t_column, t_next, ahead))
    return Native(transform, name)


def _short(name, matrix, how='store', complete=None):
    """The same for tiles that lack rows and columns."""
    matrix = np.array(matrix, float)
    run = instructions(lambda e, count, source, a, b, c, target, *steps:
                       emit_short_tiles(e, matrix, how, complete, count, e.pointer(source), a, b, c, e.pointer(target), *steps))

    def transform(count, source, s_row, s_column, s_next, target, t_row, t_column, t_next, rows, columns):
        run((count, source, s_row, s_column, s_next, target, t_row, t_column, t_next, rows, columns))
    return Native(transform, name)


TRANSFORMS = {m: {
    'inputs': _transform(f'-inputs{m}', BT, fetch=True),
    'filters': _transform(f'-filters{m}', G, fetch=True),
    'outputs': _transform(f'-outputs{m}', AT),
    'streamed outputs': _transform(f'-streamed-outputs{m}', AT, 'stream'),
    'added outputs': _transform(f'-added-outputs{m}', AT, 'add'),
    'gradients': _transform(f'-gradients{m}', np.transpose(AT), fetch=True),
    'filter gradients': _transform(f'-filter-gradients{m}', np.transpose(G), 'add', fetch=True),
    'short inputs': _short(f'-short-inputs{m}', BT, complete=emit_inputs),
    'short gradients': _short(f'-short-gradients{m}', np.transpose(AT), complete=emit_gradients),
    'short outputs': _short(f'-short-outputs{m}', AT),
    'short added outputs': _short(f'-short-added-outputs{m}', AT, 'add'),
} for m, (BT, G, AT) in MATRICES.items()}


def odd_lines(floats):
    """So many floats, rounded up to an odd number of cache lines."""
    return (-(-floats // LINE) | 1) * LINE


_odd_lines = inline(odd_lines)


@inline
def _filter(transform, m, w, ob, ib, turned, scratch, target, plane):
    """U of one block of filters: output block ob, input block ib of the convolution that is done with w."""
    if turned:
        for k in range(9):
            transpose((address(w) + ib * w.strides[0] + ob * w.strides[1] + k * 1024,
                       address(scratch) + (8 - k) * 1024, w.strides[0] // 4))
        source = address(scratch)
    else:
        source = address(w) + ob * w.strides[0] + ib * w.strides[1]
    call(transform, (16, source, 768, 256, 16, target, (m + 2) * plane, plane, 16, w.strides[1] // 4))


@kernel('i i c1 i c6 n1 n1 i i i', ['float32'])
def transform_filters(transform, m, U, plane, w, taken, made, turned, first, last):
    """U (planes, output blocks made, input blocks taken, 16, 16) for made[first] ... made[last]."""
    scratch = np.empty(9 * 256, np.float32)
    for ob in range(first, last):
        for i in range(taken.size):
            _filter(transform, m, w, made[ob], taken[i], turned, scratch, address(U) + (ob * taken.size + i) * 1024, plane)


@inline
def _scatter(transform, short, m, V, plane, T, x, tiles, first, last, b0, b1):
    """Transform tiles first ... last of blocks b0 ... b1 of x to the address V: inputs or gradients; `short` those at the map's end."""
    row, column = x.strides[2] // 4, x.strides[3] // 4
    for b in range(b0, b1):
        target = V + (b - b0) * T * 64
        t = first
        while t < last:
            n, h, v, count, rows, columns = neighbours(tiles, m, t, last)
            source = address(x) + n * x.strides[0] + b * x.strides[1] + h * x.strides[2] + v * x.strides[3]
            if rows == 0 and columns == 0:
                call(transform, (count, source, row, column, m * column, target, (m + 2) * plane, plane, 16, AHEAD * m * column))
            else:
                call(short, (count, source, row, column, m * column, target, (m + 2) * plane, plane, 16, rows, columns))
            target += count * 64
            t += count


@inline
def _gather(whole, short, m, y, made, M, T, tiles, first, last, b0, b1):
    """The inverse for outputs: transform M into tiles first ... last of blocks made[b0] ... made[b1] of y, or add it there; whole tiles by `whole`."""
    plane = _odd_lines((b1 - b0) * T * 16)
    row, column = y.strides[2] // 4, y.strides[3] // 4
    for b in range(b0, b1):
        source = address(M) + (b - b0) * T * 64
        t = first
        while t < last:
            n, h, v, count, rows, columns = neighbours(tiles, m, t, last)
            target = address(y) + n * y.strides[0] + made[b] * y.strides[1] + h * y.strides[2] + v * y.strides[3]
            if rows == 0 and columns == 0:
                call(whole, (count, source, (m + 2) * plane, plane, 16, target, row, column, m * column, 0))
            else:
                call(short, (count, source, (m + 2) * plane, plane, 16, target, row, column, m * column, rows, columns))
            source += count * 64
            t += count


@inline
def _clear(M, plane, blocks, T, t0, t1, lo, hi):
    """Zero the products of tiles t0 ... t1 but lo ... hi, which are not taken, in the plane of M that begins at a float."""
    for j in range(blocks):
        first = plane + j * T * 16
        M[first:first + (lo - t0) * 16] = 0
        M[first + (hi - t0) * 16:first + (t1 - t0) * 16] = 0


@kernel('i i i f5 n1 i i i i c1 i i', ['float32'])
def scatter(transform, short, m, x, taken, H, W, group, T, V, first, last):
    """V of a group of T of the tiles of H x W outputs, for the blocks of x that taken[first] ... taken[last] name."""
    tiles = placed(x.shape[0], H, W, m)
    t0, t1 = group * T, min(tiles[-1], group * T + T)
    _take(transform, short, m, address(V), _odd_lines(taken.size * T * 16), T, x, taken, tiles, t0, t1, first, last)


@inline
def _take(transform, short, m, V, plane, T, x, taken, tiles, t0, t1, first, last):
    """_scatter of blocks that need not be neighbours."""
    for i in range(first, last):
        _scatter(transform, short, m, V + i * T * 64, plane, T, x, tiles, t0, t1, taken[i], taken[i] + 1)


@kernel('i i i i i i i i i f5 f5 c6 n1 n1 i c1 i i i n1 i c1 c1 c1 c1 i i i i', ['float32'])
def forward(multiply, pixels, pair, inputs, short_inputs, filters, outputs, short_outputs, m, y, x, w, taken, made, turned, whole, whole_plane, T, piece,
             table, ready, V, M, U, scratch, first, last, ob0, ob1):
    """Groups first ... last of T tiles of output blocks made[ob0] ... made[ob1], from the input blocks `taken`. whole: U of all filters; without
    (whole_plane 0) the filters of `piece` input blocks are transformed at a time. ready: V is there already."""
    N, _, H, W, _ = y.shape
    ICB, planes = taken.size, (m + 2) ** 2
    tiles = placed(N, H, W, m)
    v_plane = _odd_lines(ICB * T * 16)
    for group in range(first, last):
        t0, t1 = group * T, min(tiles[-1], group * T + T)
        if not ready:
            _take(inputs, short_inputs, m, address(V), v_plane, T, x, taken, tiles, t0, t1, 0, ICB)
        for ob in range(ob0, ob1, pair):
            blocks = min(pair, ob1 - ob)
            m_plane = _odd_lines(blocks * T * 16)
            for i0 in range(0, ICB, piece):
                count = min(piece, ICB - i0)
                if whole_plane > 0:
                    u, u_plane, u_block = address(whole) + ob * ICB * 1024, whole_plane, ICB * 256
                else:
                    u, u_plane, u_block = address(U), _odd_lines(pair * piece * 256), piece * 256
                    for j in range(blocks):
                        for i in range(count):
                            _filter(filters, m, w, made[ob + j], taken[i0 + i], turned, scratch, u + (j * u_block + i * 256) * 4, u_plane)
                for plane in range(planes):
                    lo, hi = span(tiles, plane // (m + 2), plane % (m + 2), t0, t1)
                    if i0 == 0 and hi - lo < t1 - t0:
                        _clear(M, plane * m_plane, blocks, T, t0, t1, lo, hi)
                    a = address(V) + (plane * v_plane + (i0 * T + lo - t0) * 16) * 4
                    c = address(M) + (plane * m_plane + (lo - t0) * 16) * 4
                    add = 1 if i0 > 0 else 0
                    pieces = max(1, (hi - lo + pixels - 1) // pixels)
                    size, longer = (hi - lo) // pieces, (hi - lo) % pieces
                    for width, times in ((size + 1, longer), (size, pieces - longer if size else 0)):
                        call(multiply, (width, blocks, times, a, 16, address(table), count, 16, u + plane * u_plane * 4,
                                        u_block, c, 16, T * 16, add))
                        a += width * times * 64
                        c += width * times * 64
            _gather(outputs, short_outputs, m, y, made, M, T, tiles, t0, t1, ob, ob + blocks)


@kernel('i i i i i i i i i c6 f5 f5 i i i c1 c1 c1 i i i i', ['float32'])
def backward_weights(outer, limit, pair, inputs, short_inputs, gradients, short_gradients, back, m, dw, x, dy, T, piece, once, V, Z, U, ib0, ib1, ob0, ob1):
    """Input blocks ib0 ... ib1 of output blocks ob0 ... ob1, V of `piece` of the former at a time. once: all tiles fit T, and Z of all blocks is there
    already, so the gradient of `pair` x `piece` blocks is completed at a time; else that of all outputs is summed in U over the groups of tiles."""
    N, _, H, W, _ = dy.shape
    planes, tiles = (m + 2) ** 2, placed(N, H, W, m)
    z0, z1 = (0, dy.shape[1]) if once else (ob0, ob1)         # the blocks in Z
    v_plane, z_plane, u_block = _odd_lines(piece * T * 16), _odd_lines((z1 - z0) * T * 16), piece * 256
    u_plane = _odd_lines((pair if once else ob1 - ob0) * u_block)
    pieces = (16 + limit - 1) // limit
    for i0 in range(ib0, ib1, piece):
        count = min(piece, ib1 - i0)
        for t0 in range(0, tiles[-1], T):
            t1 = min(tiles[-1], t0 + T)
            _scatter(inputs, short_inputs, m, address(V), v_plane, T, x, tiles, t0, t1, i0, i0 + count)
            if not once:
                _scatter(gradients, short_gradients, m, address(Z), z_plane, T, dy, tiles, t0, t1, ob0, ob1)
            for ob in range(ob0, ob1, pair):
                blocks = min(pair, ob1 - ob)
                u = address(U) + (0 if once else (ob - ob0) * u_block * 4)
                for plane in range(planes):
                    lo, hi = span(tiles, plane // (m + 2), plane % (m + 2), t0, t1)
                    b = address(Z) + (plane * z_plane + ((ob - z0) * T + lo - t0) * 16) * 4
                    a = address(V) + (plane * v_plane + (lo - t0) * 16) * 4
                    c = u + plane * u_plane * 4
                    for k in range(pieces):
                        width = (16 + k) // pieces
                        call(outer, (width, blocks, count, a, T * 16, 0, 16, b, 0, T * 16, 1, hi - lo, c, 256, u_block,
                                     1 if t0 > 0 else 0))
                        a += width * 4
                        c += width * 64
                if once:
                    _finish(back, m, dw, u, u_plane, u_block, ob, blocks, i0, count)
        if not once:
            for ob in range(ob0, ob1):
                u = address(U) + (ob - ob0) * u_block * 4
                _finish(back, m, dw, u, u_plane, u_block, ob, 1, i0, count)


@inline
def _finish(back, m, dw, u, u_plane, u_block, ob, blocks, ib, count):
    """Add the transformed gradients u of so many output and input blocks to dw."""
    for j in range(blocks):
        for i in range(count):
            target = address(dw) + (ob + j) * dw.strides[0] + (ib + i) * dw.strides[1]
            call(back, (16, u + (j * u_block + i * 256) * 4, (m + 2) * u_plane, u_plane, 16, target, 768, 256, 16, dw.strides[1] // 4))
