"""Where Winograd's tiles lie on a map, and which of their elements are worth a multiplication.

Where the map's rows (or columns) do not divide by m, the last tiles end with the map and begin `lacking` rows before what is left of it. Of these
rows nothing is wanted, so that nothing needs to be true: the inputs there are made up such that B^T d is zero at one point of evaluation for each of
them, and these elements are left out of all products. What is left of a tile of r rows costs r + 2 rows of multiplications instead of m + 2: it is
F(r x r, 3 x 3) with m's matrices.

Tiles are numbered by kind: those short of columns alone, whole ones, those short of rows alone, those short of both, each by sample, row and column.
Thus the tiles that an element counts for have numbers without a gap.
"""
from .jit import inline
from .simd import INT


@inline
def placed(N, H, W, m):
    """The tiles of N maps of H x W pixels: whole ones in a column and in a row, rows and columns that the others lack, and the numbers of the first
    whole one, of the first one short of rows, of the first one short of both, and behind the last."""
    tall, wide, r, c = H // m, W // m, H % m, W % m
    whole = N * tall if c else 0
    below = whole + N * tall * wide
    both = below + N * wide if r else below
    return tall, wide, (m - r) % m, (m - c) % m, whole, below, both, both + (N if r and c else 0)


@inline
def neighbours(tiles, m, t, last):
    """Tiles t ... last that lie side by side: sample, row and column of the first, how many there are, and the rows and columns that each lacks.
    The row and the column are those of the first output that counts. tiles: see `placed`."""
    tall, wide, rows, columns, whole, below, both, _ = tiles
    if t < whole:
        return t // tall, t % tall * m, wide * m, 1, 0, columns
    if t < below:
        t, last = t - whole, last - whole
        line = t // wide
        return line // tall, line % tall * m, (t - line * wide) * m, min(last, (line + 1) * wide) - t, 0, 0
    if t < both:
        t, last = t - below, last - below
        n = t // wide
        return n, tall * m, (t - n * wide) * m, min(last, (n + 1) * wide) - t, rows, 0
    return t - both, tall * m, wide * m, 1, rows, columns


@inline
def _counts(point, lacking):
    """Whether products are taken at a point of evaluation of a tile that lacks so many rows."""
    return not (lacking > 0 and point == 0 or lacking > 1 and point == 4 or lacking > 2 and point == 3)


@inline
def span(tiles, row, column, first, last):
    """Those of the tiles first ... last that element (row, column) counts for: from, to."""
    _, _, rows, columns, whole, below, both, end = tiles
    across = _counts(column, columns)
    if not _counts(row, rows):
        end = below
    elif not across:
        end = both
    start = max(first, 0 if across else whole)
    return start, max(start, min(last, end))


def emit_inputs(e, entries, lacking):
    """The m + 2 inputs of a line with the first `lacking` of them made up, such that B^T d is 0 where products are not taken.

    For m = 4 the points are 0, 1, -1, 2, -2 and infinity; (B^T d)_3 = (B^T d)_4 = 0 where d2 = d4 and d1 = d3, (B^T d)_4 = 0 where
    d1 = d3 + (d2 - d4) / 2, (B^T d)_0 = 0 where d0 = d2 + (d2 - d4) / 4.
    """
    if len(entries) == 4:
        d0, d1, d2, d3 = entries
        return [_instead(e, lacking, 0, d2, d0), d1, d2, d3]
    d0, d1, d2, d3, d4, d5 = entries
    d2 = _instead(e, lacking, 2, d4, d2)
    difference = e.b.fsub(d2, d4)
    d1 = _instead(e, lacking, 1, e.fma(difference, e.splat(1 / 2), d3), d1)
    d0 = _instead(e, lacking, 0, e.fma(difference, e.splat(1 / 4), d2), d0)
    return [d0, d1, d2, d3, d4, d5]


def emit_gradients(e, entries, lacking):
    """The m output gradients of a line, the first `lacking` of them zero."""
    return [_instead(e, lacking, i, e.zero, entry) for i, entry in enumerate(entries)]


def _instead(e, lacking, i, made, entry):
    """`made` where entry i lacks."""
    return e.b.select(e.b.icmp_signed('>', lacking, INT(i)), made, entry)
