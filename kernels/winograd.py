"""Winograd's minimal filtering F(m x m, 3 x 3), m = 2 or 4, of 3 x 3 convolutions at stride 1, float32.

An m x m tile of outputs costs (m + 2)^2 multiplications instead of 9 m^2: with d a tile of (m + 2)^2 inputs and g a filter,
    forward              y  = A^T [ (G g G^T) * (B^T d B) ] A          (* element-wise, summed over input channels)
    gradient of filters  dg = G^T [ (B^T d B) * (A dy A^T) ] G         (summed over tiles)
and the input gradient is the forward pass with turned filters. Summed over channels, each of the (m + 2)^2 elements is a
matrix product, done by the micro-kernels. Matrices: Lavin and Gray, "Fast algorithms for convolutional neural networks".

Names: V transformed inputs (planes, ICB, T, 16), U filters (planes, OCB, ICB, 16, 16), M products (planes, blocks, T, 16),
Z output gradients (planes, OCB, T, 16), where T tiles are worked on together. Planes lie an odd number of cache lines apart
so that one tile's elements do not fall into the same cache set.
"""
import functools
from dataclasses import dataclass

import numpy as np

from . import native, winograd_loops
from .threads import get_threads, spread, streams, workspace
from .winograd_loops import SCRATCH, TRANSFORMS, odd_lines

# Measured with 1 MiB of second-level cache:
WHOLE = 2_000_000       # bytes of U up to which all filters are transformed beforehand ...
TILES = 56              # ... and so many tiles worked on together; else
V_BYTES = 8_000_000     # as many as V has room for here,
PIECE = 32              # and the filters of so many input blocks transformed when they are used
SUM_TILES = 150         # for the gradient of filters, tiles worked on together,
ONCE = 400              # or all, up to so many, where the filters
ONCE_BLOCKS = 256       # have so many blocks: then U is made and used piece by piece
ONCE_PIECE = 8


@dataclass(frozen=True)
class Grouping:
    """How one pass goes over its tiles."""
    tiles: int          # all of them
    together: int       # T
    piece: int          # input blocks whose U is in use at a time
    whole: bool         # U of all filters exists at once
    shared: int         # floats of workspace for all threads ...
    own: tuple          # ... and for each, by array

    @property
    def groups(self):
        return -(-self.tiles // self.together)


@functools.lru_cache(4096)
def grouping(pass_, m, ocb, icb, n, h, w, threads):
    """The Grouping of a pass over n maps of h x w pixels from icb to ocb blocks, for so many threads."""
    planes, pair = (m + 2) ** 2, native.TILE.blocks
    tiles = n * -(-h // m) * -(-w // m)
    if pass_ == 'backward_weights':
        whole = tiles > (ONCE if ocb * icb >= ONCE_BLOCKS else TILES)
        together = _even(tiles, SUM_TILES if whole else tiles)
        piece = icb if whole else min(ONCE_PIECE, icb)
        own = icb * together * 16, ocb * together * 16, (ocb if whole else pair) * piece * 256
        shared = 0
    else:
        whole = tiles > TILES and ocb * icb * planes * 1024 <= WHOLE
        most = TILES if whole else max(TILES, V_BYTES // (planes * icb * 64))
        if tiles >= 2 * TILES * threads:                    # a group for each thread, rather than all tiles for all
            most = min(most, -(-tiles // threads))
        together = _even(tiles, most)
        piece = icb if whole else min(PIECE, icb)
        own = icb * together * 16, pair * together * 16, 0 if whole else pair * piece * 256
        shared = planes * odd_lines(ocb * icb * 256) if whole else 0
    return Grouping(tiles, together, piece, whole, shared, (*(planes * odd_lines(size) for size in own), SCRATCH))


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


def forward(m, y, x, w, turned=False):
    """y = x * w, or with `turned` filters (blocks transposed, taps reversed) as the input gradient needs; x has two rows
    and columns more than y."""
    n, ocb, h, width, _ = y.shape
    icb, pair = x.shape[1], native.TILE.blocks
    g = grouping('forward', m, ocb, icb, n, h, width, get_threads())
    if not g.tiles:
        return
    natives = _natives(m)
    outputs = natives['outputs'], natives['streamed outputs' if streams(y) else 'outputs']
    filters, plane = w.reshape(-1), 0
    if g.whole:
        plane = odd_lines(ocb * icb * 256)
        filters, = workspace('all', g.shared)
        spread(ocb, functools.partial(winograd_loops.transform_filters, natives['filters'], m, filters, plane, w, int(turned)))

    def part(first, last, ob0, ob1):
        winograd_loops.forward(native.multiply.address, native.TILE.pixels, pair, natives['inputs'], natives['filters'], *outputs,
                               m, y, x, w, int(turned), filters, plane, g.together, g.piece, _offsets(icb, g.together),
                               *workspace('own', *g.own), first, last, ob0, ob1)

    if g.groups >= 4 * get_threads() or g.groups % get_threads() == 0:
        spread(g.groups, lambda first, last: part(first, last, 0, ocb))
    else:
        spread(-(-ocb // pair), lambda first, last: part(0, g.groups, first * pair, min(ocb, last * pair)))


def backward_weights(m, dw, x, dy):
    """dw += gradient of the filters."""
    n, ocb, h, width, _ = dy.shape
    icb, pair = x.shape[1], native.TILE.blocks
    g = grouping('backward_weights', m, ocb, icb, n, h, width, get_threads())
    if not g.tiles:
        return
    natives = _natives(m)

    def part(first, last):
        winograd_loops.backward_weights(native.outer.address, native.TILE.inputs, pair, natives['inputs'], natives['gradients'],
                                        natives['filter gradients'], m, dw, x, dy, g.together, g.piece, int(not g.whole),
                                        *workspace('own', *g.own), first * pair, min(ocb, last * pair))

    spread(-(-ocb // pair), part)
