"""Norms and activations of one row of pixels of one block, as vector instructions: NATIVES[...].address is called with the
number of pixels, the addresses of the rows (outputs first), and the addresses of 16 numbers for the channels."""
import functools

from .activations import emit_times_slope, emit_value
from .jit import Native, instructions
from .naive_elementwise import ACTIVATIONS
from .simd import BLOCK, INT

AHEAD = 128         # pixels


def emit_moments(e, count, x, shift, out):
    def terms(part, value):
        gap = e.b.fsub(value, shifts[part])
        return gap, gap, gap
    shifts = e.channels(shift)
    _emit_sums(e, count, [x], out, terms)


def emit_forward(name, stream, e, count, y, z, scale, shift):
    def one(part, value):
        return emit_value(e, name, e.fma(value, scales[part], shifts[part]))
    scales, shifts = e.channels(scale), e.channels(shift)
    _emit_map(e, count, y, [z], one, stream)


def emit_reduce(name, e, count, dy, z, scale, shift, mean, out):
    def terms(part, dy, z):
        da = emit_times_slope(e, name, e.fma(z, scales[part], shifts[part]), dy)
        return da, da, e.b.fsub(z, means[part])
    scales, shifts, means = e.channels(scale), e.channels(shift), e.channels(mean)
    _emit_sums(e, count, [dy, z], out, terms)


def emit_backward(name, stream, e, count, dz, dy, z, scale, shift, a, b, c):
    def one(part, dy, z):
        da = emit_times_slope(e, name, e.fma(z, scales[part], shifts[part]), dy)
        return e.fma(a[part], da, e.fma(b[part], z, c[part]))
    scales, shifts, a, b, c = (e.channels(each) for each in (scale, shift, a, b, c))
    _emit_map(e, count, dz, [dy, z], one, stream)


def _emit_map(e, count, target, rows, function, stream):
    """target = function(part, *rows) for each vector; rows may be the target unless `stream` writes it past the caches."""
    def pixel(pointers):
        for part in range(0, BLOCK, e.width):
            e.store(function(part, *(e.load(p, part) for p in pointers[1:])), pointers[0], part, stream)
        return [e.at(p, BLOCK) for p in pointers]
    e.loop(count, [e.pointer(row) for row in [target] + rows], pixel)


def _emit_sums(e, count, rows, out, terms):
    """out (2, 16) = sums of p and of q * r over the pixels, where p, q, r = terms(part, *rows)."""
    parts = range(0, BLOCK, e.width)

    def pixels(n):
        def body(carried):
            pointers, sums = carried[:len(rows)], carried[len(rows):]
            for pointer in pointers:
                for u in range(n):
                    e.prefetch(pointer, (u + AHEAD) * BLOCK)
            for at, (u, part) in enumerate((u, part) for u in range(n) for part in parts):
                p, q, r = terms(part, *(e.load(pointer, u * BLOCK + part) for pointer in pointers))
                sums[2 * at] = e.b.fadd(sums[2 * at], p)
                sums[2 * at + 1] = e.fma(q, r, sums[2 * at + 1])
            return [e.at(p, n * BLOCK) for p in pointers] + sums
        return body

    # two pixels at a time, each with sums of its own, so that one addition need not wait for the other
    state = [e.pointer(row) for row in rows] + [e.zero] * (4 * len(parts))
    state = e.loop(e.b.sdiv(count, INT(2)), state, pixels(2))
    sums = e.loop(e.b.srem(count, INT(2)), state, pixels(1))[len(rows):]
    for i, part in enumerate(parts):
        for k in range(2):
            e.store(e.b.fadd(sums[2 * i + k], sums[2 * (i + len(parts)) + k]), e.pointer(out), k * BLOCK + part)


# A Native needs a function of so many arguments: there are four kinds.

def _native4(run, name):
    def row4(count, a, b, c):
        run((count, a, b, c))
    return Native(row4, name)


def _native5(run, name):
    def row5(count, a, b, c, d):
        run((count, a, b, c, d))
    return Native(row5, name)


def _native7(run, name):
    def row7(count, a, b, c, d, f, g):
        run((count, a, b, c, d, f, g))
    return Native(row7, name)


def _native9(run, name):
    def row9(count, a, b, c, d, f, g, h, i):
        run((count, a, b, c, d, f, g, h, i))
    return Native(row9, name)


NATIVES = {'moments': _native4(instructions(emit_moments), '-moments')}
for _name in ACTIVATIONS:
    NATIVES[_name, 'reduce'] = _native7(instructions(functools.partial(emit_reduce, _name)), f'-reduce-{_name}')
    for _stream in (False, True):
        _label = f'-stream-{_name}' if _stream else f'-{_name}'
        NATIVES[_name, 'forward', _stream] = _native5(instructions(functools.partial(emit_forward, _name, _stream)), _label)
        NATIVES[_name, 'backward', _stream] = _native9(instructions(functools.partial(emit_backward, _name, _stream)), _label)
