"""The definition of copies in half precision: numpy's conversion. Arguments are those of `copies`; the buffer holds bits."""
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
