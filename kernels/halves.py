"""Lines of 32-bit numbers to and from 16 bits (IEEE half precision), as vector instructions: each Native is called with the
number of floats, the address written, the address read and that of a factor. Some CPUs lack them: see `half`."""
from llvmlite import ir

from .jit import Native, instructions
from .simd import FLOAT, INT

HALF = ir.HalfType()


def emit_narrow(e, count, halves, floats, factor):
    """halves = floats * factor, rounded to nearest even; beyond 65504 they become infinite."""
    def vector(width, halves, floats):
        value = e.b.fmul(e.load(floats, width=width), _factor(e, factor, width))
        e.b.store(e.b.fptrunc(value, ir.VectorType(HALF, width)), halves, align=2)
    _emit(e, count, halves, HALF, floats, FLOAT, vector)


def emit_narrow_rest(e, count, halves, floats, factors):
    """halves = floats * the first factor, as in emit_narrow; floats += halves * the second: what rounding takes away, where that is minus the inverse."""
    inverse = e.b.ptrtoint(e.at(e.pointer(factors), 1), INT)

    def vector(width, halves, floats):
        value = e.load(floats, width=width)
        rounded = e.b.fptrunc(e.b.fmul(value, _factor(e, factors, width)), ir.VectorType(HALF, width))
        e.b.store(rounded, halves, align=2)
        lost = e.b.fmul(e.b.fpext(rounded, ir.VectorType(FLOAT, width)), _factor(e, inverse, width))
        e.b.store(e.b.fadd(value, lost), floats, align=4)
    _emit(e, count, halves, HALF, floats, FLOAT, vector)


def emit_widen(e, count, floats, halves, factor):
    """floats = halves * factor."""
    def vector(width, floats, halves):
        e.b.store(_widened(e, halves, factor, width), floats, align=4)
    _emit(e, count, floats, FLOAT, halves, HALF, vector)


def emit_widen_add(e, count, floats, halves, factor):
    """floats += halves * factor."""
    def vector(width, floats, halves):
        e.b.store(e.b.fadd(e.load(floats, width=width), _widened(e, halves, factor, width)), floats, align=4)
    _emit(e, count, floats, FLOAT, halves, HALF, vector)


def _factor(e, factor, width):
    return e.broadcast(e.pointer(factor)) if width == e.width else e.load(e.pointer(factor), width=1)


def _widened(e, halves, factor, width):
    value = e.b.load(halves, typ=ir.VectorType(HALF, width), align=2)
    return e.b.fmul(e.b.fpext(value, ir.VectorType(FLOAT, width)), _factor(e, factor, width))


def _emit(e, count, target, to, source, of, vector):
    """vector(width, target, source) for whole vectors, then for the numbers left over one by one."""
    def some(width):
        def body(pointers):
            vector(width, *pointers)
            return [e.b.gep(p, [INT(width)], source_etype=kind) for p, kind in zip(pointers, (to, of))]
        return body
    state = e.loop(e.b.sdiv(count, INT(e.width)), [e.pointer(target), e.pointer(source)], some(e.width))
    e.loop(e.b.srem(count, INT(e.width)), state, some(1))


_narrow, _narrow_rest, _widen, _widen_add = (instructions(emit) for emit in (emit_narrow, emit_narrow_rest, emit_widen, emit_widen_add))


@Native
def narrow(count, halves, floats, factor):
    _narrow((count, halves, floats, factor))


@Native
def narrow_rest(count, halves, floats, factors):
    _narrow_rest((count, halves, floats, factors))


@Native
def widen(count, floats, halves, factor):
    _widen((count, floats, halves, factor))


@Native
def widen_add(count, floats, halves, factor):
    _widen_add((count, floats, halves, factor))
