"""Compilation: one explicit signature for each kernel and dtype, cached on disk, compiled at first use or by `load`."""
import importlib

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.core.errors import TypingError
from numba.core.typing import signature
from numba.extending import intrinsic

from .cache import DiskCache
from .caches import caches
from .simd import Emitter, tile

MODULES = ('naive naive_elementwise naive_pools native direct grouped winograd_loops elementwise pools naive_pooled pooled '
           'statistics copies half rearrange image team').split()
KERNELS = []                                # every Kernel and Native, in order of definition

inline = njit(nogil=True)                   # a helper called by kernels; compiled with its caller


def kernel(words, dtypes=('float32', 'float64')):
    """Decorator: `words` names each argument's type. f5: a 5-D array of the kernel's dtype with any outer strides; c6: the
    same but contiguous; d3: float64 and contiguous; n1: int64, h1: uint16 likewise; s: a number of the dtype; i: an integer."""
    def decorate(function):
        made = Kernel(function, words.split(), dtypes)
        KERNELS.append(made)
        return made
    return decorate


class Kernel:
    """A function compiled once for each dtype; a call takes the dtype from its first argument of type f or c."""

    def __init__(self, function, words, dtypes):
        self.function, self.words, self.dtypes = function, words, dtypes
        self.__doc__ = function.__doc__
        self.first = next(i for i, word in enumerate(words) if word[0] in 'fc')
        self.caches = {dtype: DiskCache(function, dtype) for dtype in dtypes}
        self.compiled = {}
        self.fast = {}                      # the same by the dtype's character: its name takes numpy microseconds

    def __call__(self, *arguments):
        return self.of(arguments[self.first].dtype)(*arguments)

    def of(self, dtype):
        """The compiled function for a dtype."""
        return self.fast.get(dtype.char) or self.compile(dtype.name)

    def compile(self, dtype):
        dispatcher = njit(nogil=True)(self.function)
        dispatcher._cache = self.caches[dtype]
        dispatcher.compile(signature(types.void, *(_type(word, dtype) for word in self.words)))
        dispatcher.disable_compile()
        self.compiled[dtype] = self.fast[np.dtype(dtype).char] = dispatcher
        return dispatcher


def _type(word, dtype):
    real = getattr(types, dtype)
    kind, ndim = word[0], int(word[1:] or 0)
    if not ndim:
        return {'i': types.int64, 's': real}[kind]
    return types.Array({'d': types.float64, 'n': types.int64, 'h': types.uint16}.get(kind, real), ndim, 'A' if kind == 'f' else 'C')


class Native:
    """A function of integers compiled to a bare address. Kernels take `address` as an argument and go there by `call`, so
    that it is compiled once and not with each of them."""
    dtypes = 'float32',

    def __init__(self, function, name=''):
        self.function = function
        self.cache = DiskCache(function, tile().name + name)        # the name tells apart functions of one definition
        self.compiled = {}
        KERNELS.append(self)

    @property
    def address(self):
        return (self.compiled.get('float32') or self.compile('float32')).address

    def compile(self, dtype):
        made = CFunc(self.function, ([types.int64] * self.function.__code__.co_argcount, types.void), {}, {})
        made._cache = self.cache
        made.compile()
        self.compiled[dtype] = made
        return made


def instructions(emit):
    """A function of one tuple of integers, for use in kernels, whose code is written by `emit(emitter, *integers)`."""
    @intrinsic
    def run(context, integers):
        _check(integers)
        def code(context, builder, signature, arguments):
            emit(Emitter(builder, tile().width), *cgutils.unpack_tuple(builder, arguments[0]))
            return context.get_dummy_value()
        return types.void(integers), code
    return run


def _check(integers):
    if not all(isinstance(each, types.Integer) and each.bitwidth == 64 for each in integers):
        raise TypingError(f'64-bit integers are expected, not {integers}')


@intrinsic
def call(context, address, integers):
    """Jump to a Native's address with a tuple of integers."""
    _check(integers)
    def code(context, builder, signature, arguments):
        values = cgutils.unpack_tuple(builder, arguments[1])
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), values)
        return context.get_dummy_value()
    return types.void(types.int64, integers), code


@intrinsic
def _pointer(context, address, like):
    """An integer address as a pointer to elements of the array `like`."""
    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
    return types.CPointer(like.dtype)(types.int64, like), code


@inline
def address(array):
    """Where an array's first element is, as a signed integer (an unsigned one would turn sums into floats)."""
    return np.int64(array.ctypes.data)


@inline
def flat(where, count, like):
    """So many numbers of the type of `like` from an address on."""
    return carray(_pointer(where, like), count)


@inline
def start(x, n, b, h):
    """Where row h of block b of sample n begins."""
    return address(x) + n * x.strides[0] + b * x.strides[1] + h * x.strides[2]


@inline
def row(x, n, b, h):
    """That row as a contiguous (W, B) array: tells the compiler that the inner axes are contiguous."""
    return carray(_pointer(start(x, n, b, h), x), (x.shape[3], x.shape[4]))


@inline
def line(x, n, b, h):
    """That row as one axis."""
    return carray(_pointer(start(x, n, b, h), x), x.shape[3] * x.shape[4])


def load(dtype=np.float32, progress=None):
    """Compile everything for `dtype`, or load it from the disk cache. `progress(done, total)` is called after each kernel."""
    caches()                                    # a wrong setting is told here, not at the first convolution
    for module in MODULES:
        importlib.import_module('.' + module, __package__)
    name = np.dtype(dtype).name
    wanted = [each for each in KERNELS if name in each.dtypes]
    for done, each in enumerate(wanted, 1):
        if name not in each.compiled:
            each.compile(name)
        if progress:
            progress(done, len(wanted))
