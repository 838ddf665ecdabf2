"""An array that knows its Region: the only place where global coordinates become local offsets.

Storage is blocked: (N, ceil(C/B), H, W, B) with B = 16 channels to a block, zero-padded; the network's picture is stored
interleaved, which is the same form with one block of B = C channels. Cuts along C fall on block boundaries.
"""
import numpy as np

from .region import Region

BLOCK = 16


def storage_shape(region, block):
    """Shape of the array that stores `region`: (N, blocks, H, W, block)."""
    n, c, h, w = region.shape
    return (n, -(-c // block), h, w, block) if n and c and h and w else (0, 0, 0, 0, block)


class Tile:
    """A Region and the array that holds it; `tile[region]` is a view of the part inside `region`."""
    __slots__ = ('region', 'array')

    def __init__(self, region, array):
        self.region, self.array = region, array

    @staticmethod
    def zeros(region, block=BLOCK, dtype=np.float32):
        return Tile(region, np.zeros(storage_shape(region, block), dtype))

    @property
    def block(self):
        return self.array.shape[-1]

    def __getitem__(self, region):
        """The view of `region`, which must lie inside the tile (an empty region gives an empty view)."""
        if region.empty:
            return self.array[:0, :0, :0, :0]
        if region == self.region:
            return self.array
        if region not in self.region:
            raise IndexError(f'{region} is not inside the tile {self.region}')
        block = self.block
        (n, c, h, w), (n0, c0, h0, w0), (n1, c1, h1, w1) = self.region.lo, region.lo, region.hi
        return self.array[n0 - n:n1 - n, (c0 - c) // block:-(-(c1 - c) // block), h0 - h:h1 - h, w0 - w:w1 - w]

    def plain(self, region=None):
        """A copy of `region` as an ordinary (N, C, H, W) array."""
        region = self.region if region is None else region
        view = self[region]
        n, blocks, h, w, block = view.shape
        return view.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, w)[:, :region.shape[1]].copy()

    def set_plain(self, region, values):
        """Store an ordinary (N, C, H, W) array into `region`; padded channel lanes become zero."""
        view = self[region]
        if view.size:
            n, blocks, h, w, block = view.shape
            lanes = np.zeros((n, blocks * block, h, w), view.dtype)
            lanes[:, :values.shape[1]] = values
            view[...] = lanes.reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2)


def clear_padded_lanes(view, channels_left):
    """Zero the lanes past the tensor's last channel, when `view` holds `channels_left` channels up to its end."""
    spare = view.shape[1] * view.shape[-1] - channels_left
    if spare > 0 and view.size:
        view[:, -1, :, :, view.shape[-1] - spare:] = 0


def outside(region, tensor_shape):
    """Disjoint boxes of `region` that lie outside the tensor: its padding."""
    return region.minus(Region.whole(tensor_shape))
