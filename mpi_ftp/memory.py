"""One flat arena for all tiles of a step: buffers with lifetimes, packed once, so that a step allocates nothing and its peak is known.

Times are positions in the plan's sequence of events. The same packing serves the planner's prediction and the run.
"""
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .errors import MemoryRefused

ALIGN = 64                  # bytes: a cache line, and the widest vector


@dataclass(frozen=True)
class Buffer:
    """`nbytes` needed from event `first` to event `last`, both included."""
    key: tuple
    nbytes: int
    first: int
    last: int


def pack(buffers):
    """({key: offset}, bytes in all): largest first, each at the lowest place free during its life.

    Greedy by size, as in Pisarchyk & Lee 2020 (arXiv 2001.03288).
    """
    placed, offsets, peak = [], {}, 0
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.first, str(b.key))):
        size = -(-buffer.nbytes // ALIGN) * ALIGN
        busy = sorted((o, s) for o, s, first, last in placed if first <= buffer.last and buffer.first <= last)
        offset = 0
        for other, taken in busy:
            if other - offset >= size:
                break
            offset = max(offset, other + taken)
        placed.append((offset, size, buffer.first, buffer.last))
        offsets[buffer.key] = offset
        peak = max(peak, offset + size)
    return offsets, peak


class Pages:
    """Memory that the system fills with zeros when it is touched, in huge pages where it has them."""

    def __init__(self, nbytes):
        self.map = mmap.mmap(-1, max(1, nbytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.advise('MADV_HUGEPAGE')

    def advise(self, name):
        """Tell the system, where it knows this advice: Linux kernels may be built without huge pages."""
        with suppress(AttributeError, OSError):
            self.map.madvise(getattr(mmap, name))


class Arena:
    """The packed memory: `array(key, shape, dtype)` is the same place every step.

    pages: to lie in, where several arenas take turns; else pages of its own. Nothing is kept from one step to the next. Raises ValueError where it does
    not fit into them.
    """

    def __init__(self, buffers, pages=None):
        self.buffers = {b.key: b for b in buffers}
        self.offsets, self.nbytes = pack(buffers)
        self.pages = pages or Pages(self.nbytes)
        self.memory = np.frombuffer(self.pages.map, np.uint8, self.nbytes)

    def release(self):
        """Give the pages back to the system until they are written again: what they held is lost."""
        self.pages.advise('MADV_DONTNEED')

    def array(self, key, shape, dtype):
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        offset = self.offsets[key]
        if nbytes > self.buffers[key].nbytes:
            raise ValueError(f'{key} was planned with {self.buffers[key].nbytes} bytes, asked for {nbytes}')
        return self.memory[offset:offset + nbytes].view(dtype).reshape(shape)


class Paged:
    """A flat array of zeros in a file without a name: pages come from it when touched, and can be let go when they were read or written.

    The file is made in $TMPDIR, else /var/tmp, which unlike /tmp is never in memory. Raises MemoryRefused where it does not fit there.
    """

    def __init__(self, count, dtype):
        self.itemsize = np.dtype(dtype).itemsize
        import tempfile
        folder, nbytes = os.environ.get('TMPDIR', '/var/tmp'), max(1, count * self.itemsize)
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                os.posix_fallocate(file.fileno(), 0, nbytes)            # or a full disk would be told by a signal
                self.pages = mmap.mmap(file.fileno(), nbytes)
        except OSError as error:
            raise MemoryRefused(f'no room for {nbytes >> 20} MiB of weights in {folder}: {error.strerror}') from None
        self.array = np.frombuffer(self.pages, dtype, count)

    def release(self, first, last):
        """Let go of the pages of numbers [first, last)."""
        begin = first * self.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            self.pages.madvise(mmap.MADV_DONTNEED, begin, last * self.itemsize - begin)


def aligned_zeros(count, dtype):
    """A flat array of zeros that begins on a cache line."""
    itemsize = np.dtype(dtype).itemsize
    raw = np.zeros(count + ALIGN // itemsize, dtype)
    start = (-raw.ctypes.data % ALIGN) // itemsize
    return raw[start:start + count]
