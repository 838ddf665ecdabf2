"""Conversion between plain arrays (NCHW, FCHW) and the blocked layout. Plain numpy; not for the inner loop of training."""
import numpy as np

BLOCK = 16


def blocks(channels, block=BLOCK):
    """Number of blocks that hold so many channels."""
    return -(-channels // block)


def check_maps(*maps):
    """Raise ValueError unless these are arrays (N, CB, H, W, B) whose two inner axes are contiguous: kernels trust that."""
    for x in maps:
        shape, strides, bytes_ = x.shape, x.strides, x.itemsize
        if len(shape) != 5 or x.size and (strides[4] != bytes_ or shape[3] > 1 and strides[3] != shape[4] * bytes_):
            raise ValueError(f'a map of shape {x.shape} and strides {x.strides} is not (N, CB, H, W, B) with contiguous W, B')


def check_same(first, *others):
    """Raise ValueError unless these are maps of one shape."""
    check_maps(first, *others)
    for other in others:
        if other.shape != first.shape:
            raise ValueError(f'maps of one shape are expected, not {first.shape} and {other.shape}')


def check_channels(x, *arrays):
    """Raise ValueError unless the blocks of map x have 16 channels, and these are numbers for them, (CB, 16), or their sums, (2, CB, 16)."""
    shape = x.shape[1], BLOCK
    if x.shape[4] != BLOCK or any(array.shape not in (shape, (2, *shape)) for array in arrays):
        raise ValueError(f'numbers of {[array.shape for array in arrays]} are not for the blocks of {x.shape}')


def to_blocked(array, block=BLOCK, dtype=None):
    """(N, C, H, W) -> (N, CB, H, W, block), lanes past C zero. block = C stores a picture interleaved."""
    n, c, h, w = array.shape
    count = blocks(c, block)
    out = np.zeros((n, count, h, w, block), dtype or array.dtype)
    for b in range(count):
        part = array[:, b * block:(b + 1) * block]
        out[:, b, :, :, :part.shape[1]] = part.transpose(0, 2, 3, 1)
    return out


def from_blocked(x, channels):
    """(N, CB, H, W, B) -> (N, channels, H, W)."""
    n, count, h, w, block = x.shape
    return np.ascontiguousarray(x.transpose(0, 1, 4, 2, 3)).reshape(n, count * block, h, w)[:, :channels]


def pack_filters(w, groups=1, block=BLOCK, dtype=None):
    """(F, C/groups, KH, KW) -> (OCB, ICB, KH, KW, block, 16), or (OCB, KH, KW, C/groups, 16) when groups > 1."""
    f, c, kh, kw = w.shape
    ocb, icb = blocks(f), blocks(c, block)
    full = np.zeros((ocb * BLOCK, (c if groups > 1 else icb * block), kh, kw), dtype or w.dtype)
    full[:f, :c] = w
    if groups > 1:
        return np.ascontiguousarray(full.reshape(ocb, BLOCK, c, kh, kw).transpose(0, 3, 4, 2, 1))
    return np.ascontiguousarray(full.reshape(ocb, BLOCK, icb, block, kh, kw).transpose(0, 2, 4, 5, 3, 1))


def unpack_filters(packed, filters, channels, groups=1):
    """The inverse: -> (filters, channels, KH, KW), where channels counts those of one group."""
    if groups > 1:
        ocb, kh, kw, c, _ = packed.shape
        full = packed.transpose(0, 4, 3, 1, 2).reshape(ocb * BLOCK, c, kh, kw)
    else:
        ocb, icb, kh, kw, block, _ = packed.shape
        full = packed.transpose(0, 5, 1, 4, 2, 3).reshape(ocb * BLOCK, icb * block, kh, kw)
    return np.ascontiguousarray(full[:filters, :channels])
