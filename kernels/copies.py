"""Copies and sums of views: channel ranges, halo boxes, gradients of a tensor that is read twice."""
from functools import partial

from .jit import kernel, line, row
from .layout import check_maps, check_same
from .prepared import prepared


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
def pack(buffer, view):
    """The view's elements, in its order, to the front of the flat buffer."""
    check_room(buffer, view)
    return partial(_pack.of(view.dtype), buffer, view)


def check_room(buffer, view):
    """Raise ValueError unless a flat buffer holds as many numbers as a map has."""
    check_maps(view)
    if buffer.size < view.size:
        raise ValueError(f'a buffer of {buffer.size} elements is too small for a view of {view.shape}')


@kernel('c1 f5')
def _pack(buffer, view):
    N, CB, H, W, B = view.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                at = ((n * CB + b) * H + h) * W * B
                out, a = buffer[at:at + W * B], line(view, n, b, h)
                for i in range(out.size):
                    out[i] = a[i]


@kernel('f5 c1 i')
def _unpack(view, buffer, accumulate):
    N, CB, H, W, B = view.shape
    for n in range(N):
        for b in range(CB):
            for h in range(H):
                at = ((n * CB + b) * H + h) * W * B
                out, a = line(view, n, b, h), buffer[at:at + W * B]
                if accumulate:
                    for i in range(out.size):
                        out[i] += a[i]
                else:
                    for i in range(out.size):
                        out[i] = a[i]


@prepared
def unpack(view, buffer, add=False):
    """The inverse of pack; with `add` the buffer is added to the view."""
    check_room(buffer, view)
    return partial(_unpack.of(view.dtype), view, buffer, int(add))
