"""Compilation: one explicit signature for each kernel and dtype, cached on disk, compiled at first use or by `load`."""
import importlib

import numpy as np
from numba import carray, njit, types
from numba.core.typing import signature
from numba.extending import intrinsic
from llvmlite import ir

KERNELS = []                                # every Kernel, in order of definition
MODULES = 'naive', 'elementwise', 'pools', 'copies'

inline = njit(inline='never', nogil=True)   # a helper called by kernels; compiled with its caller


def kernel(argument_types):
    """Decorator: `argument_types` names each argument's type by a word: f5 a 5-D array of the kernel's dtype (any outer
    strides), c6 the same but contiguous, d3 float64 and contiguous, s a scalar of the dtype, i an integer."""
    def decorate(function):
        made = Kernel(function, argument_types.split())
        KERNELS.append(made)
        return made
    return decorate


class Kernel:
    """A function compiled once for each dtype; the dtype is that of the first argument that is an array of the dtype."""

    def __init__(self, function, words, dtypes=('float32', 'float64')):
        self.function, self.words, self.dtypes = function, words, dtypes
        self.which = next(i for i, word in enumerate(words) if word[0] in 'fc')
        self.compiled = {}

    def __call__(self, *arguments):
        dtype = arguments[self.which].dtype.name
        return (self.compiled.get(dtype) or self.compile(dtype))(*arguments)

    def compile(self, dtype):
        dispatcher = njit(cache=True, nogil=True)(self.function)
        dispatcher.compile(signature(types.void, *(_type(word, dtype) for word in self.words)))
        dispatcher.disable_compile()
        self.compiled[dtype] = dispatcher
        return dispatcher


def _type(word, dtype):
    real = getattr(types, dtype)
    if word == 'i':
        return types.int64
    if word == 's':
        return real
    kind, ndim = word[0], int(word[1:])
    return types.Array(types.float64 if kind == 'd' else real, ndim, 'A' if kind == 'f' else 'C')


def load(dtype=np.float32, progress=None):
    """Compile everything for `dtype`, or load it from the disk cache. `progress(done, total)` is called after each kernel."""
    for module in MODULES:
        importlib.import_module('.' + module, __package__)
    name = np.dtype(dtype).name
    wanted = [k for k in KERNELS if name in k.dtypes]
    for done, each in enumerate(wanted, 1):
        if name not in each.compiled:
            each.compile(name)
        if progress:
            progress(done, len(wanted))


@intrinsic
def _pointer(context, address, like):
    """An integer address as a pointer to elements of the array `like`."""
    def emit(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
    return types.CPointer(like.dtype)(types.intp, like), emit


@inline
def row(x, n, b, h):
    """Row h of block b of sample n as a contiguous (W, B) array: tells the compiler that the inner axes are contiguous."""
    address = x.ctypes.data + n * x.strides[0] + b * x.strides[1] + h * x.strides[2]
    return carray(_pointer(address, x), (x.shape[3], x.shape[4]))
