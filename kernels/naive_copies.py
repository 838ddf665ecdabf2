"""The definition of `half`: numpy's conversion. The buffer holds bits; a message comes as its header and the rest."""
import numpy as np


def pack_half(bits, view, factor):
    with np.errstate(over='ignore', invalid='ignore'):
        bits[:view.size].view(np.float16).reshape(view.shape)[...] = view * view.dtype.type(factor)


def unpack_half(view, bits, add, factor):
    halves = bits[:view.size].view(np.float16).reshape(view.shape).astype(view.dtype)
    halves *= view.dtype.type(factor)
    if add:
        view += halves
    else:
        view[...] = halves


def narrow(header, bits, view, largest):
    """The scale brings the largest number below 2^largest, if that takes a factor below 2^100."""
    most = float(np.abs(view).max()) if view.size else 0.0
    scale = 2.0 ** min(100, largest - int(np.frexp(most)[1])) if 0 < most < np.inf else 1.0
    header.view(np.float32)[0] = scale
    pack_half(bits, view, scale)


def widen(view, header, bits, add=False, sign=1):
    unpack_half(view, bits, add, sign / float(header.view(np.float32)[0]))


def narrow_with_error(header, bits, values, error, largest):
    error += values
    narrow(header, bits, error, largest)
    widen(error, header, bits, add=True, sign=-1)
