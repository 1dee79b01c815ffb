"""sinh, cosh, tanh and their inverses, by h = (e**a - 1) / 2 and by log1p."""
from __future__ import annotations

import math

from ..arithmetic import Arithmetic, Number
from .exponential import decay, half_expm1
from .logarithm import log1p

_LARGEST = {"f32": 89.41598510742188, "f64": 710.4758600739439}
"""Beyond it sinh and cosh overflow."""

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
    """The hyperbolic tangent: (1 - E) / (1 + E) with E = e**-2a, whose sums are rounded once each."""
    a = m.abs(x + x)
    end = 20.0 if m.single else 40.0
    power, q = decay(m, m.select(a > end, end, a))
    return m.copysign(m.fma(-power, q, 1.0 - power) / m.fma(power, q, power + 1.0), x)


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
