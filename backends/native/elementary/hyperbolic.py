"""sinh, cosh, tanh and their inverses, by h = (e**a - 1) / 2 and by log1p."""
from __future__ import annotations

import math

from ..arithmetic import Arithmetic, Number
from .exponential import FORMATS, LN2, LOG2_E, exp_reduced, half_expm1
from .logarithm import log1p

_LARGEST = {"f32": 89.5, "f64": 710.6}
"""Beyond it sinh and cosh overflow."""

_TANH = (-0.3333328366279602, 0.1333148330450058, -0.05374276638031006, 0.020648010075092316, -0.00571397552266717)
"""(tanh(x) - x) / x**3 in x**2 for |x| <= 0.625, in f32."""

_SINH = (0.1666666716337204, 0.008333311416208744, 0.00019842635083477944, 2.783925765470485e-06)
"""(sinh(x) - x) / x**3 in x**2 for |x| <= 1, in f32."""


def sinh(m: Arithmetic, x: Number) -> Number:
    """The hyperbolic sine: h + h / (2 h + 1)."""
    a = m.abs(x)
    h = half_expm1(m, m.select(a > _LARGEST[m.short], _LARGEST[m.short], a))
    y = h + h / m.fma(h, 2.0, m.const(1.0))
    if m.single:
        z = a * a
        y = m.select(a < 1.0, m.fma(a * z, m.polynomial(z, _SINH), a), y)
    return m.copysign(m.select(a > _LARGEST[m.short], math.inf, y), x)


def cosh(m: Arithmetic, x: Number) -> Number:
    """The hyperbolic cosine: g + 1 / (4 g) with g = e**a / 2."""
    a = m.abs(x)
    g = half_expm1(m, m.select(a > _LARGEST[m.short], _LARGEST[m.short], a)) + 0.5
    return m.select(a > _LARGEST[m.short], math.inf, g + 0.25 / g)


def tanh(m: Arithmetic, x: Number) -> Number:
    """The hyperbolic tangent: h / (h + 1) with h = (e**2a - 1) / 2; f32 has a shorter way."""
    a = m.abs(x)
    if m.single:
        return m.copysign(_single_tanh(m, a), x)
    h = half_expm1(m, m.select(a > 22.0, 44.0, a + a))
    return m.copysign(h / (h + 1.0), x)


def _single_tanh(m: Arithmetic, a: Number) -> Number:
    """1 - 2 / (e**2a + 1) for a not below 0.625, where half of the error of e**2a is enough; a polynomial below.

    2a = k ln 2 + r needs one part of ln 2 alone, and 2**k is added to the exponent of e**r, whose k stands in the low
    bits of `shifted`.
    """
    shape = FORMATS["f32"]
    twice = m.select(a > 10.0, 20.0, a + a)
    shifted = m.fma(twice, m.const(LOG2_E), m.const(shape.round))
    r = m.fma(shifted - shape.round, -LN2["f32"][0], twice)
    e = m.from_bits(m.bits(exp_reduced(m, r)) + (m.bits(shifted) << shape.mantissa))
    z = a * a
    near = m.fma(a * z, m.polynomial(z, _TANH), a)
    return m.select(a >= 0.625, 1.0 - 2.0 / (e + 1.0), near)


def asinh(m: Arithmetic, x: Number) -> Number:
    """log1p(a + a**2 / (1 + sqrt(1 + a**2))); for large a, log(a) + log(2)."""
    a = m.abs(x)
    large = a > (2.0**13 if m.single else 2.0**28)
    square = m.select(large, 0.0, a * a)
    u = m.select(large, a - 1.0, a + square / (m.sqrt(square + 1.0) + 1.0))
    return m.copysign(log1p(m, u) + m.select(large, math.log(2.0), m.const(0.0)), x)


def acosh(m: Arithmetic, x: Number) -> Number:
    """log1p(t + sqrt(t (t + 2))) with t = x - 1; in f32 by way of f64, whose rounding does not show."""
    if m.single:
        return m.convert(acosh(m.within("f64"), m.convert(x, "f64")), "f32")
    large = x > 2.0**28
    t = x - 1.0
    u = m.select(large, t, t + m.sqrt(m.fma(t, t, t + t)))
    return m.select(x < 1.0, math.nan, log1p(m, u) + m.select(large, math.log(2.0), m.const(0.0)))


def atanh(m: Arithmetic, x: Number) -> Number:
    """log1p(2 a / (1 - a)) / 2; in f32 by way of f64."""
    if m.single:
        return m.convert(atanh(m.within("f64"), m.convert(x, "f64")), "f32")
    a = m.abs(x)
    return m.copysign(log1p(m, (a + a) / (1.0 - a)) * 0.5, x)
