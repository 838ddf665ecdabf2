"""Activations and their derivatives as vector instructions."""
import numpy as np
from llvmlite import ir

from .simd import INT32

FAR = 1e4           # so far out mish and swish are u or 0: what is multiplied by a vanishing factor is held there, for infinity times 0 is not a number


def emit_value(e, name, u):
    """The activation at u."""
    if name in _SLOPES:
        below = u if _SLOPES[name] else _at_least(e, u, -FAR)
        return e.b.select(_positive(e, u), u, e.b.fmul(below, e.splat(_SLOPES[name])))
    if name == 'linear':
        return u
    if name == 'mish':
        return e.b.fmul(_at_least(e, u, -FAR), _tanh_softplus(e, u)[0])
    s = _logistic(e, u)
    return s if name == 'logistic' else e.b.fmul(_at_least(e, u, -FAR), s)


def emit_times_slope(e, name, u, d):
    """d times the derivative at u."""
    if name in _SLOPES:
        return e.b.select(_positive(e, u), d, e.b.fmul(d, e.splat(_SLOPES[name])))
    if name == 'linear':
        return d
    one, near = e.splat(1), _at_most(e, _at_least(e, u, -FAR), FAR)
    if name == 'mish':
        t, power, rest = _tanh_softplus(e, u)
        # t + u * (1 - t^2) * logistic(u), with 1 - t^2 = 4 (w + 1) / (w + 2)^2
        steep = e.b.fmul(e.b.fmul(e.splat(4), e.b.fdiv(e.b.fsub(rest, one), rest)), e.b.fdiv(one, rest))
        s = e.b.fdiv(power, e.b.fadd(one, power))
        return e.b.fmul(d, e.fma(e.b.fmul(near, steep), s, t))
    s = _logistic(e, u)
    slope = e.b.fmul(s, e.b.fsub(one, s))
    return e.b.fmul(d, slope if name == 'logistic' else e.fma(near, slope, s))


_SLOPES = {'leaky': 0.1, 'relu': 0.0}           # of the half below zero


def _positive(e, u):
    return e.b.fcmp_ordered('>', u, e.zero)


def _at_least(e, u, low):
    """NaN stays NaN."""
    return e.b.select(e.b.fcmp_ordered('<', u, e.splat(low)), e.splat(low), u)


def _at_most(e, u, high):
    return e.b.select(e.b.fcmp_ordered('>', u, e.splat(high)), e.splat(high), u)


def _logistic(e, u):
    one = e.splat(1)
    return e.b.fdiv(one, e.b.fadd(one, emit_exp(e, e.b.fsub(e.zero, u))))


def _tanh_softplus(e, u):
    """tanh(log(1 + exp(u))) = w / (w + 2) with w = exp(u) * (exp(u) + 2); also exp(u) and w + 2."""
    power = emit_exp(e, _at_most(e, u, 40))
    w = e.b.fmul(power, e.b.fadd(power, e.splat(2)))
    rest = e.b.fadd(w, e.splat(2))
    return e.b.fdiv(w, rest), power, rest


def emit_exp(e, x):
    """exp(x) to 2e-7 relative between -87 and 88, held at the ends beyond; NaN stays NaN.

    x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) is its Taylor polynomial of degree 7, 2^n is put together as bits.
    """
    b = e.b
    x = _at_least(e, _at_most(e, x, 88), -87)
    n = e.fma(x, e.splat(1 / np.log(2)), e.splat(1.5 * 2 ** 23))      # the addition rounds to an integer
    n = b.fsub(n, e.splat(1.5 * 2 ** 23))
    r = e.fma(n, e.splat(-0.693359375), x)
    r = e.fma(n, e.splat(0.693359375 - np.log(2)), r)
    total = e.splat(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1):
        total = e.fma(total, r, e.splat(factor))
    kind = ir.VectorType(INT32, e.width)
    whole = b.select(b.fcmp_ordered('==', n, n), n, e.zero)
    bits = b.shl(b.add(b.fptosi(whole, kind), ir.Constant(kind, [127] * e.width)), ir.Constant(kind, [23] * e.width))
    return b.fmul(total, b.bitcast(bits, e.vector))
