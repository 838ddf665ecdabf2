"""Copies and sums of views: channel ranges, halo boxes, gradients of a tensor that is read twice."""
from functools import partial

import numpy as np

from .jit import flat, kernel, line, row
from .layout import check_maps, check_same
from .prepared import nothing, prepared

COPY, ADD, FILL = range(3)


@kernel('f5 i f5 i i i')
def _copy_channels(dst, dst_c, src, src_c, count, accumulate):
    N, _, H, W, _ = dst.shape
    DB, SB = dst.shape[4], src.shape[4]
    done = 0
    while done < count:
        # the longest run that stays in one block on both sides
        to, first = divmod(dst_c + done, DB)
        of, start = divmod(src_c + done, SB)
        run = min(DB - first, SB - start, count - done)
        for n in range(N):
            for h in range(H):
                out, a = row(dst, n, to, h), row(src, n, of, h)
                for v in range(W):
                    for c in range(run):
                        if accumulate:
                            out[v, first + c] += a[v, start + c]
                        else:
                            out[v, first + c] = a[v, start + c]
        done += run


def copy_channels(dst, dst_c, src, src_c, count, add=False):
    """Plain channels src_c ... src_c + count of src to dst_c ... of dst (or add them); N, H, W agree; touches nothing else."""
    check_maps(dst, src)
    fits = all(0 <= first <= first + count <= x.shape[1] * x.shape[4] for x, first in ((dst, dst_c), (src, src_c)))
    if not fits or dst.shape[0] != src.shape[0] or dst.shape[2:4] != src.shape[2:4]:
        raise ValueError(f'{count} channels from {src_c} of {src.shape} cannot go to {dst_c} of {dst.shape}')
    _copy_channels(dst, dst_c, src, src_c, count, int(add))


@prepared
def add(dst, src):
    """dst += src."""
    check_same(dst, src)
    return partial(_add.of(dst.dtype), dst, src)


@kernel('f5 f5')
def _add(dst, src):
    N, CB, H, _, _ = dst.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                out, a = line(dst, n, b, h), line(src, n, b, h)
                for i in range(out.size):
                    out[i] += a[i]


@prepared
def move(*moves):
    """One after the other, in one call: each of `moves` is (target, source), target = source, or (target, source, True), target += source. They are maps of one
    shape; the source may be a number; either may be a flat buffer, that begins with the other's elements in their order."""
    rows, numbers, kept = [], [], []
    for target, source, *add in moves:
        if not isinstance(source, np.ndarray):
            number, source, how = source, target, FILL
        else:
            number, how = 0, ADD if add and add[0] else COPY
        target, source = _as_map(target, source), _as_map(source, target)
        check_same(target, source)
        if {target.dtype, source.dtype} - {moves[0][0].dtype}:
            raise ValueError(f'numbers of one type are expected, not {moves[0][0].dtype}, {target.dtype} and {source.dtype}')
        if target.size:
            rows.append((how, target.ctypes.data, source.ctypes.data, *_runs(target, source)))
            numbers.append(number)
            kept.append((target, source))
    if not rows:
        return nothing
    return _Moves(kept, np.array(rows), np.array(numbers, kept[0][0].dtype))


class _Moves:
    """The work of `move`: holds on to the arrays whose addresses are in its table."""

    def __init__(self, arrays, table, numbers):
        self.arrays, self.arguments, self.work = arrays, (table, numbers), _move.of(numbers.dtype)

    def __call__(self):
        self.work(*self.arguments)


def check_room(buffer, view):
    """Raise ValueError unless a flat buffer holds as many numbers as a map has."""
    check_maps(view)
    if buffer.size < view.size:
        raise ValueError(f'a buffer of {buffer.size} elements is too small for a view of {view.shape}')


def _as_map(array, other):
    """A map, or a buffer as one of the other's shape."""
    if array.ndim > 1 or other.ndim == 1:
        return array
    check_room(array, other)
    return array[:other.size].reshape(other.shape)


def _runs(target, source):
    """How many runs of neighbours there are along three axes, their length, and the steps between them in bytes."""
    shape, steps, run = list(target.shape[:3]), [list(x.strides[:3]) for x in (target, source)], target.shape[3] * target.shape[4]
    while shape and all(step[-1] == run * target.itemsize for step in steps):
        run *= shape.pop()
        steps = [step[:-1] for step in steps]
    missing = 3 - len(shape)
    return (*[1] * missing, *shape, run, *[0] * missing, *steps[0], *[0] * missing, *steps[1])


@kernel('n2 c1')
def _move(table, numbers):
    """table: rows of (how, target, source, runs along three axes, their length, steps of the target, steps of the source)."""
    for k in range(table.shape[0]):
        how, run = table[k, 0], table[k, 6]
        for n in range(table[k, 3]):
            for b in range(table[k, 4]):
                for h in range(table[k, 5]):
                    out = flat(table[k, 1] + n * table[k, 7] + b * table[k, 8] + h * table[k, 9], run, numbers)
                    a = flat(table[k, 2] + n * table[k, 10] + b * table[k, 11] + h * table[k, 12], run, numbers)
                    if how == COPY:
                        for i in range(run):
                            out[i] = a[i]
                    elif how == ADD:
                        for i in range(run):
                            out[i] += a[i]
                    else:
                        for i in range(run):
                            out[i] = numbers[k]
