"""sin, cos, tan.

x = k pi/2 + r with |r| <= pi/4, by three parts of pi/2 and fma; what the reduction rounds off is kept. Arguments
beyond 1e5 (f32) or 1e9 (f64) need more of pi than that: they take the rare path through the C library's double
functions."""
from __future__ import annotations

import math
from collections.abc import Callable

from ..arithmetic import Arithmetic, Number
from .exponential import FORMATS, whole

_PARTS = {
    "f32": (1.5707963705062866, -4.3711388286737929e-08, -1.7151244561203126e-15),
    "f64": (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33),
}
"""pi/2 in three parts of each format."""

_LIMIT = {"f32": 1e5, "f64": 1e9}

_SIN = {
    "f32": (-0.1666666716337204, 0.008333378471434116, -0.00019852464902214706, 2.8243500764801865e-06),
    "f64": (-0.16666666666666624, 0.008333333333320266, -0.00019841269827993656, 2.7557313038477405e-06,
            -2.5050652892858917e-08, 1.5890562644201644e-10),
}
"""(sin(r) - r) / r**3 in r**2."""

_COS = {
    "f32": (0.04166664555668831, -0.0013887288514524698, 2.4428207325399853e-05),
    "f64": (0.04166666666666658, -0.0013888888888870792, 2.4801587287328488e-05, -2.7557313713160687e-07,
            2.0875634506868528e-09, -1.1354971943724773e-11),
}
"""(cos(r) - 1 + r**2 / 2) / r**4 in r**2."""

_TAN = (0.3333335518836975, 0.13332462310791016, 0.054083701223134995, 0.021155649796128273, 0.011171163991093636,
        -0.00034292752388864756, 0.004592500161379576)
"""(tan(r) - r) / r**3 in r**2, for f32."""


def _reduce(m: Arithmetic, x: Number) -> tuple[Number, Number, Number]:
    """(r, what r lost, k)."""
    first, second, third = _PARTS[m.short]
    k, integer = whole(m, x, 2.0 / math.pi)
    near = m.fma(k, -first, x)                  # exact
    step = k * -second
    step_lost = m.fma(k, -second, -step)
    r = near + step
    back = r - near
    lost = (near - (r - back)) + (step - back)
    return r, m.fma(k, -third, lost + step_lost), integer


def _sin_reduced(m: Arithmetic, r: Number, lost: Number) -> Number:
    z = r * r
    return r + m.fma(r * z, m.polynomial(z, _SIN[m.short]), lost)


def _cos_reduced(m: Arithmetic, r: Number, lost: Number) -> Number:
    z = r * r
    half = z * 0.5
    whole_part = 1.0 - half
    rounding = (1.0 - whole_part) - half
    return whole_part + m.fma(z * z, m.polynomial(z, _COS[m.short]), m.fma(-r, lost, rounding))


def _negated(m: Arithmetic, x: Number, k: Number) -> Number:
    """-x when bit 1 of k is set."""
    shape = FORMATS[m.short]
    sign = (k & 2) << (m.dtype.bits - 2)
    assert m.short_of(k) == shape.integer
    return m.from_bits(m.bits(x) ^ sign)


def _library(name: str) -> Callable[[Arithmetic, Number], Number]:
    def huge(m: Arithmetic, x: Number) -> Number:
        return m.convert(m.library(name, m.convert(x, "f64")), m.short)
    huge.__name__ = name
    return huge


_HUGE_SIN, _HUGE_COS, _HUGE_TAN = (_library(name) for name in ("sin", "cos", "tan"))


def moderate_sin(m: Arithmetic, x: Number) -> Number:
    """The sine of an argument that is not huge."""
    r, lost, k = _reduce(m, x)
    y = m.select((k & 1) == 0, _sin_reduced(m, r, lost), _cos_reduced(m, r, lost))
    return m.select(x == 0.0, x, _negated(m, y, k))


def moderate_cos(m: Arithmetic, x: Number) -> Number:
    """The cosine of an argument that is not huge."""
    r, lost, k = _reduce(m, x)
    y = m.select((k & 1) == 0, _cos_reduced(m, r, lost), _sin_reduced(m, r, lost))
    return _negated(m, y, k + 1)


def sin(m: Arithmetic, x: Number) -> Number:
    """The sine."""
    return m.rare(_HUGE_SIN, m.abs(x) > _LIMIT[m.short], moderate_sin(m, x), x)


def cos(m: Arithmetic, x: Number) -> Number:
    """The cosine."""
    return m.rare(_HUGE_COS, m.abs(x) > _LIMIT[m.short], moderate_cos(m, x), x)


def tan(m: Arithmetic, x: Number) -> Number:
    """The tangent: f32 by its own polynomial, f64 as a quotient."""
    r, lost, k = _reduce(m, x)
    even = (k & 1) == 0
    if m.single:
        z = r * r
        t = m.fma(r * z, m.polynomial(z, _TAN), lost)
        t = r + m.fma(lost, z, t)
        y = m.select(even, t, -1.0) / m.select(even, 1.0, t)
    else:
        s, c = _sin_reduced(m, r, lost), _cos_reduced(m, r, lost)
        y = m.select(even, s, -c) / m.select(even, c, s)
    y = m.select(x == 0.0, x, y)
    return m.rare(_HUGE_TAN, m.abs(x) > _LIMIT[m.short], y, x)
