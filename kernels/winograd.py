"""Winograd's minimal filtering F(m x m, 3 x 3), m = 2 or 4, of 3 x 3 convolutions at stride 1, float32.

An m x m tile of outputs costs (m + 2)^2 multiplications instead of 9 m^2: with d a tile of (m + 2)^2 inputs and g a filter,
    forward              y  = A^T [ (G g G^T) * (B^T d B) ] A          (* element-wise, summed over input channels)
    gradient of filters  dg = G^T [ (B^T d B) * (A dy A^T) ] G         (summed over tiles)
and the input gradient is the forward pass with turned filters. Summed over channels, each of the (m + 2)^2 elements is a
matrix product, done by the micro-kernels. Matrices: Lavin and Gray, "Fast algorithms for convolutional neural networks". Where a map's sides do not
divide by m, its last tiles are shorter and take fewer products: see winograd_tiles.

Names: V transformed inputs (planes, ICB, T, 16), U filters (planes, OCB, ICB, 16, 16), M products (planes, blocks, T, 16),
Z output gradients (planes, OCB, T, 16), where T tiles are worked on together. Planes lie an odd number of cache lines apart
so that one tile's elements do not fall into the same cache set.
"""
import functools
from dataclasses import dataclass

import numpy as np

from . import native, winograd_loops
from .caches import caches
from .prepared import nothing
from .threads import Spread, get_threads, streams, workspace
from .winograd_loops import SCRATCH, TRANSFORMS, odd_lines


@dataclass(frozen=True)
class Sizes:
    """Measured with 1 MiB of second-level and 16 MiB of third-level cache to a core; other caches scale them."""
    whole: int          # bytes of U up to which all filters are transformed beforehand ...
    tiles: int          # ... and so many tiles worked on together; else
    v_bytes: int        # as many as V has room for here,
    piece: int          # and the filters of so many input blocks transformed when they are used
    sum_tiles: int      # for the gradient of filters, tiles worked on together,
    once: int           # or all, up to so many, where the filters
    once_blocks: int    # have so many blocks: then U and V are made and used
    once_piece: int     # so many input blocks at a time

    @staticmethod
    def of(caches):
        scale = min(2.0, caches.l2 / (1 << 20))
        far = max(caches.l3, caches.l2) / (16 << 20)
        tiles = max(2 * native.TILE.pixels, int(56 * scale))
        return Sizes(int(2_000_000 * scale), tiles, int(16_000_000 * far), max(4, int(32 * scale)), max(tiles, int(150 * scale)),
                     400, 256, max(2, int(16 * scale)))


@dataclass(frozen=True)
class Grouping:
    """How one pass goes over its tiles."""
    tiles: int          # all of them
    together: int       # T
    piece: int          # input blocks whose U (for the gradient of filters: and V) is in use at a time
    whole: bool         # U of all filters exists at once
    by_blocks: bool     # threads take output blocks, after they filled V together (or pieces of inputs, after Z); else groups of tiles, or a V each
    shared: tuple       # floats of workspace for all threads, by array ...
    own: tuple          # ... and for each

    @property
    def groups(self):
        return -(-self.tiles // self.together)


@functools.lru_cache(4096)
def grouping(pass_, m, ocb, icb, n, h, w, threads):
    """The Grouping of a pass over n maps of h x w pixels from icb to ocb blocks, for so many threads."""
    planes, pair, best = (m + 2) ** 2, native.TILE.blocks, Sizes.of(caches())
    tiles = n * -(-h // m) * -(-w // m)
    if pass_ == 'backward_weights':
        whole = tiles > (best.once if ocb * icb >= best.once_blocks else best.tiles)
        together = _even(tiles, best.sum_tiles if whole else tiles)
        piece = icb if whole else -(-icb // (-(-icb // (best.once_piece * threads)) * threads))        # as many pieces for each thread
        V, Z, U = piece * together * 16, ocb * together * 16, (ocb if whole else pair) * piece * 256
        by_blocks = not whole
        (shared, own), scratch = ((Z,), (V, 0, U)) if by_blocks else ((0,), (V, Z, U)), ()
    else:
        whole = tiles > best.tiles and ocb * icb * planes * 1024 <= best.whole
        most = best.tiles if whole else max(best.tiles, best.v_bytes // (planes * icb * 64))
        if tiles >= 2 * best.tiles * threads:                    # a group for each thread, rather than all tiles for all
            most = min(most, -(-tiles // threads))
        together = _even(tiles, most)
        groups = -(-tiles // together)
        by_blocks = groups < 4 * threads and groups % threads > 0
        piece = icb if whole else min(best.piece, icb)
        V, M, U = icb * together * 16, pair * together * 16, 0 if whole else pair * piece * 256
        shared = ocb * icb * 256 if whole else 0, V if by_blocks else 0
        own, scratch = (0 if by_blocks else V, M, U), (SCRATCH,)
    shared, own = ([planes * odd_lines(size) if size else 0 for size in sizes] for sizes in (shared, own))
    return Grouping(tiles, together, piece, whole, by_blocks, tuple(shared), (*own, *scratch))


def _even(tiles, most):
    """Tiles of a group when all are cut into as few groups of at most `most` as possible."""
    groups = max(1, -(-tiles // max(1, most)))
    return max(1, -(-tiles // groups))


@functools.cache
def _natives(m):
    return {name: each.address for name, each in TRANSFORMS[m].items()}


@functools.lru_cache(1024)
def _offsets(blocks, together):
    return np.arange(blocks) * together * 16


def forward(m, y, x, w, turned=False, taken=None, add=False, made=None, again=False):
    """The work of y = x * w, or with `turned` filters (blocks transposed, taps reversed) as the input gradient needs; x has
    two rows and columns more than y. taken: the input blocks to sum over, all if None; add: to what y holds; made: the output blocks to write, all if
    None; again: just before, other blocks of the same outputs were made from the same inputs, whose V is still there."""
    n, ocb, h, width, _ = y.shape
    icb, pair = x.shape[1], native.TILE.blocks
    g = grouping('forward', m, ocb, icb, n, h, width, get_threads())
    natives = _natives(m)
    how, short = ('added ', 'short added ') if add else ('streamed ' if taken is None and streams(y) else '', 'short ')
    taken, made = np.arange(icb) if taken is None else taken, np.arange(ocb) if made is None else made
    outs, plane = len(made), odd_lines(len(made) * len(taken) * 256) if g.whole else 0
    before = (native.multiply.address, native.TILE.pixels, pair, natives['inputs'], natives['short inputs'], natives['filters'], natives[how + 'outputs'],
              natives[short + 'outputs'], m, y, x, w, taken, made, int(turned))
    again = again and g.groups == 1
    between = plane, g.together, g.piece, _offsets(icb, g.together), int(g.by_blocks or again)
    transform, loops, scatter = (each.of(y.dtype) for each in (winograd_loops.transform_filters, winograd_loops.forward,
                                                               winograd_loops.scatter))

    def part(filters, V, first, last, ob0, ob1):
        own, M, U, scratch = workspace('own', *g.own)
        loops(*before, filters, *between, V if g.by_blocks else own, M, U, scratch, first, last, ob0, ob1)

    def fill(V, group, first, last):
        scatter(natives['inputs'], natives['short inputs'], m, x, taken, h, width, group, g.together, V, first, last)

    transforms = Spread(outs, lambda filters, first, last: transform(natives['filters'], m, filters, plane, w, taken, made, int(turned), first, last))
    fills = Spread(len(taken), fill)
    all_groups = Spread(g.groups, lambda filters, V, first, last: part(filters, V, first, last, 0, outs))
    one_group = Spread(-(-outs // pair), lambda filters, V, group, first, last: part(filters, V, group, group + 1, first * pair, min(outs, last * pair)))

    def run():
        shared = filters, V = workspace('all', *g.shared)
        if g.whole:
            transforms(filters)
        if not g.by_blocks:
            all_groups(*shared)
            return
        for group in range(g.groups):
            if not again:
                fills(V, group)
            one_group(*shared, group)

    return run if g.tiles else nothing


def backward_weights(m, dw, x, dy):
    """The work of dw += gradient of the filters."""
    n, ocb, h, width, _ = dy.shape
    icb, pair = x.shape[1], native.TILE.blocks
    g = grouping('backward_weights', m, ocb, icb, n, h, width, get_threads())
    natives = _natives(m)
    loops, scatter = winograd_loops.backward_weights.of(dw.dtype), winograd_loops.scatter.of(dw.dtype)
    before = (native.outer.address, native.TILE.inputs, pair, natives['inputs'], natives['short inputs'], natives['gradients'],
              natives['short gradients'], natives['filter gradients'], m, dw, x, dy, g.together, g.piece, int(g.by_blocks))

    def fill(Z, first, last):
        scatter(natives['gradients'], natives['short gradients'], m, dy, np.arange(ocb), h, width, 0, g.together, Z, first, last)

    rows, columns, each = -(-icb // g.piece), -(-ocb // pair), pair                 # pieces of inputs, and shares of the outputs
    if g.by_blocks:
        each = -(-ocb // -(-get_threads() // rows) // pair) * pair
        columns = -(-ocb // each)

    def part(Z, first, last):
        """Pieces and shares, the latter counted first: at once where there is one of either."""
        V, own, U = workspace('own', *g.own)
        step = last - first if 1 in (rows, columns) else 1
        for k in range(first, last, step):
            (i, o), (more, wider) = divmod(k, columns), (step, 1) if columns == 1 else (1, step)
            loops(*before, V, Z if g.by_blocks else own, U, i * g.piece, min(icb, (i + more) * g.piece), o * each, min(ocb, (o + wider) * each))

    fills, parts = Spread(ocb, fill), Spread(rows * columns, part, whole=not g.by_blocks)

    def run():
        Z, = workspace('all', *g.shared)
        if g.by_blocks:
            fills(Z)
        parts(Z)

    return run if g.tiles else nothing
