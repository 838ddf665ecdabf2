"""Which pixels of an input's gradient are reached through which taps, and the margin of zeros that lets them all be reached alike."""
import functools
from dataclasses import dataclass

import numpy as np

from .threads import workspace


def reach(stride, dilation, *sizes):
    """Rows and columns of dy beyond an edge that filters of these sizes read."""
    return tuple(-(-dilation * (k - 1) // stride) for k in sizes)


def framed(dy, margin, need):
    """dy with a margin of zeros of `need` rows and columns, copied."""
    N, OCB, height, width = dy.shape[0], dy.shape[1], dy.shape[2] - 2 * margin[0], dy.shape[3] - 2 * margin[1]
    shape = N, OCB, height + 2 * need[0], width + 2 * need[1], 16
    flat, = workspace('frame', int(np.prod(shape)))
    frame = flat.reshape(shape)
    frame[:] = 0
    frame[:, :, need[0]:need[0] + height, need[1]:need[1] + width] = dy[:, :, margin[0]:margin[0] + height,
                                                                        margin[1]:margin[1] + width]
    return frame


@dataclass(frozen=True)
class Phase:
    """Along one axis, the pixels of dx with the same remainder modulo the stride."""
    taps: tuple         # positions in the filter that read them, last first
    spacing: int        # pixels of dy between two taps
    target: int         # first pixel of dx ...
    source: int         # ... and the pixel of dy under its first tap
    pixels: int


@functools.lru_cache(4096)
def phases_of(stride, dilation, size, length, first, count):
    """Phases with pixels among first ... first + count that some tap reaches from one of `length` outputs."""
    phases = []
    for p in range(stride):
        taps = tuple(k for k in range(size - 1, -1, -1) if (p - k * dilation) % stride == 0)
        # pixel stride * u + p is reached from output u + (p - k * dilation) / stride
        start = max(0, -((p - first) // stride))
        stop = min((length - 1) * stride + dilation * (size - 1) - p, first + count - 1 - p) // stride + 1
        if taps and start < stop:
            offsets = [(p - k * dilation) // stride for k in taps]
            spacing = offsets[1] - offsets[0] if len(taps) > 1 else 1
            phases.append(Phase(taps, spacing, stride * start + p - first, start + offsets[0], stop - start))
    return phases
