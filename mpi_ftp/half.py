"""Numbers on their way in half precision: a message is a scale, a power of two of its own, and 16 bits for each number.

The largest number of a message lies near 2^14 after scaling, so that none becomes infinite and those down to 2^-28 of it keep 11 bits.
"""
import numpy as np

from . import kernels

HEADER = 2                  # 16-bit words of a message that hold its scale, a float32


def message(size):
    """Room for a message of so many numbers."""
    return np.zeros(size + HEADER, np.uint16)


def narrow(buffer, view):
    """Write the message of a map's view."""
    largest = float(max(view.max(), -view.min())) if view.size else 0.0
    scale = 2.0 ** min(100, 14 - int(np.frexp(largest)[1])) if 0 < largest < np.inf else 1.0
    buffer[:HEADER].view(np.float32)[0] = scale
    kernels.pack_half(buffer[HEADER:], view, scale)


def widen(view, buffer, add=False, sign=1):
    """view = (or +=) sign times the numbers of a message."""
    kernels.unpack_half(view, buffer[HEADER:], add, sign / float(buffer[:HEADER].view(np.float32)[0]))


def narrow_with_error(buffer, values, error):
    """Write the message of the flat values + error; `error` becomes what it loses, to be added next time (error feedback)."""
    error += values
    narrow(buffer, line(error))
    widen(line(error), buffer, add=True, sign=-1)


def line(flat):
    """A flat array as the map that kernels take."""
    return flat.reshape(1, 1, 1, flat.size, 1)
