"""Darknet's .weights files: read and written slice by slice. Knows the order of bytes; what tensors a layer has, the layer says.

A file is a header (int32 major, minor, revision, then the number of pictures seen) followed by float32 values, little-endian, of
every layer's `tensors` in order (Darknet's parser.c). The number of pictures is an int64 from version 0.2 on, an int32 before; files of
a version above 1000 hold connected layers transposed. A file may end early at the end of any layer ("darknet19_448.conv.23").
"""
import math
import mmap
import struct
from pathlib import Path

import numpy as np

from .errors import WeightsError
from .files import replacing

VERSION = (0, 2, 0)


def stored(network, key):
    """(layer, [(name, plain shape)]) in file order, without the layers that the .cfg marks with `key`=1 (dontload, dontsave)."""
    return [(layer, layer.tensors) for layer in network.layers
            if layer.tensors and not (layer.section is not None and layer.section.int(key, 0))]


def numbers(tensors):
    return sum(math.prod(shape) for _, shape in tensors)


class WeightsFile:
    """A .weights file opened for a network; float32 arrays in plain order are read on request, by rows of their first axis.

    seen: pictures the file's network was trained on.
    Raises WeightsError when the file does not end where a layer ends, or is longer than the network.
    """

    def __init__(self, path, network):
        self.path = Path(path)
        try:
            size = self.path.stat().st_size
            with open(self.path, 'rb') as file:
                head = file.read(20)
        except OSError as error:
            raise WeightsError(f'cannot read the weights {path}: {error.strerror}') from None
        if len(head) < 16:
            raise WeightsError(f'{path}: {size} bytes are no Darknet .weights file; expected a header of 16 or 20 bytes')
        major, minor, _ = struct.unpack('<3i', head[:12])
        wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
        self.transposed = major > 1000 or minor > 1000
        self.header = 20 if wide and len(head) == 20 else 16
        self.seen = max(0, struct.unpack('<q' if self.header == 20 else '<i', head[12:self.header])[0])
        self.offsets, self.network = {}, network
        self._place(size)
        with open(self.path, 'rb') as file:
            self.pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.values = np.frombuffer(self.pages, '<f4', (size - self.header) // 4, self.header)

    def _place(self, size):
        """Note where each tensor lies, as far as the file goes."""
        end = start = self.header
        for layer, tensors in stored(self.network, 'dontload'):
            start, end = end, end + 4 * numbers(tensors)
            if size == start > self.header:
                return
            if size < end:
                raise WeightsError(f'{self.path}: ends inside {layer.name}: found {size} bytes, expected {end} (the end of this layer)'
                                   + (f' or {start} (the end of the one before)' if start > self.header else '') + '; is it of another network?')
            for name, shape in tensors:
                self.offsets[layer.index, name] = (start - self.header) // 4, shape
                start += 4 * math.prod(shape)
        if size != end:
            raise WeightsError(f'{self.path}: found {size} bytes, expected {end} for the {len(self.network.layers)} layers of the network; '
                               'is it of another network?')

    def __contains__(self, layer):
        """Whether the file holds the tensors of a layer (by index)."""
        return any(index == layer for index, _ in self.offsets)

    def read(self, layer, name, first=None, last=None):
        """Rows [first, last) of a tensor's first axis; only these are read from the disk."""
        offset, shape = self.offsets[layer, name]
        flat = self.values[offset:offset + math.prod(shape)]
        if self.transposed and name == 'filters' and self.network.layers[layer].kind == 'connected':
            whole = flat.reshape(math.prod(shape[1:]), shape[0]).T
        else:
            whole = flat.reshape(shape[0], -1)
        part = np.array(whole[first:last], np.float32, order='C')
        self.pages.madvise(mmap.MADV_DONTNEED)          # or the whole file would come to lie in memory
        return part.reshape(len(part), *shape[1:])

    def __iter__(self):
        """(layer index, name, whole array) of every tensor, one at a time."""
        for layer, name in self.offsets:
            yield layer, name, self.read(layer, name)


def write(path, network, seen, pieces, layers=None):
    """Write the tensors of the first `layers` layers (default all) to a new file that replaces `path`.

    pieces(layer index, name) yields (first row, rows) in plain order, every row once, one piece at a time; rows lie one after the other, so
    that each piece goes to its own place. Shapes and number of rows are checked (ValueError: a mistake of the caller).
    """
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        file.write(struct.pack('<3iq', *VERSION, seen))
        start = file.tell()
        for layer, tensors in stored(network, 'dontsave'):
            if layers is not None and layer.index >= layers:
                break
            for name, shape in tensors:
                size, written = 4 * math.prod(shape[1:]), 0
                for first, rows in pieces(layer.index, name):
                    if rows.shape[1:] != tuple(shape[1:]) or first + len(rows) > shape[0]:
                        raise ValueError(f'{layer.name} {name}: rows from {first} of shape {rows.shape}, expected {tuple(shape)} in all')
                    file.seek(start + first * size)
                    file.write(np.ascontiguousarray(rows, '<f4'))
                    written += len(rows)
                if written != shape[0]:
                    raise ValueError(f'{layer.name} {name} came with {written} rows, expected {tuple(shape)}')
                start += shape[0] * size
