"""log, log2, log10, log1p, logaddexp.

x = 2**e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - c, where c is small against f: in f32 a
polynomial, c = f**2 / 2 - f**3 P(f); in f64 by s = f / (2 + f) and the series of 2 artanh(s), which needs half the
terms."""
from __future__ import annotations

import math

from ..arithmetic import Arithmetic, Number
from .exponential import FORMATS, LN2, exp, power_of_two

_F32 = (0.3333333134651184, -0.2500082850456238, 0.2000126838684082, -0.16623105108737946, 0.14200544357299805,
        -0.1316152662038803, 0.12771540880203247, -0.07643836736679077)
_F64 = (0.6666666666666735, 0.3999999999940841, 0.2857142874404285, 0.22222198380552796, 0.18183575390933915,
        0.15313742833643001, 0.14799257657103995)

_SQRT_HALF = {"f32": 0.7071067690849304, "f64": 0.7071067811865476}
_SMALLEST_NORMAL = {"f32": 2.0**-126, "f64": 2.0**-1022}

_LOG2 = {"f32": (1.4426950216293335, 1.925963033500011519e-08), "f64": (1.4426950408889634, 2.0355273740931033e-17)}
_LOG10 = {"f32": (0.4342944920063019, -1.0103050118726031e-08), "f64": (0.4342944819032518, 1.098319650216765e-17)}
_LOG10_2 = {"f32": (0.3010300099849701, -1.4320989295152322e-08), "f64": (0.30102999566398120, -2.8037281277851704e-18)}
"""log2(e), log10(e) and log10(2) in two parts of each format."""


def split(m: Arithmetic, x: Number) -> tuple[Number, Number]:
    """(e, 1 + f) for a positive normal x, with the exponent e as an integer."""
    shape, root = FORMATS[m.short], m.bits(m.const(_SQRT_HALF[m.short]))
    offset = m.bits(x) - root
    e = offset >> shape.mantissa
    mantissa = (offset & ((1 << shape.mantissa) - 1)) + root
    return e, m.from_bits(mantissa)


def correction(m: Arithmetic, f: Number) -> Number:
    """c in log(1 + f) = f - c."""
    if m.single:
        return -(f * f * m.fma(f, m.polynomial(f, _F32), m.const(-0.5)))
    s = f / (f + 2.0)
    half = f * f * 0.5
    z = s * s
    return half - s * (half + z * m.polynomial(z, _F64))


def _parts(m: Arithmetic, x: Number) -> tuple[Number, Number, Number]:
    """(e, f, c) for a positive x, denormal or not, e as a float."""
    shape, smallest = FORMATS[m.short], _SMALLEST_NORMAL[m.short]
    denormal = x < smallest
    e, mantissa = split(m, m.select(denormal, x * 2.0**shape.mantissa, x))
    exponent = m.convert(m.select(denormal, e - shape.mantissa, e), m.short)
    f = mantissa - 1.0
    return exponent, f, correction(m, f)


def _ends(m: Arithmetic, x: Number, result: Number) -> Number:
    """The result, but for what lies outside (0, inf)."""
    result = m.select(x < math.inf, result, x)
    return m.select(x > 0.0, result, m.select(x == 0.0, -math.inf, m.const(math.nan)))


def log(m: Arithmetic, x: Number) -> Number:
    """The natural logarithm."""
    e, f, c = _parts(m, x)
    high, low = LN2[m.short]
    return _ends(m, x, m.fma(e, high, f - m.fma(e, -low, c)))


def _scaled(m: Arithmetic, f: Number, c: Number, factor: tuple[float, float]) -> tuple[Number, Number]:
    """(f - c) times a constant of two parts, in two parts."""
    high = f - c
    low = (f - high) - c
    product = high * factor[0]
    rest = m.fma(high, factor[0], -product)
    return product, m.fma(high, factor[1], m.fma(low, factor[0], rest))


def log2(m: Arithmetic, x: Number) -> Number:
    """The logarithm to base 2; exact for powers of 2."""
    e, f, c = _parts(m, x)
    product, rest = _scaled(m, f, c, _LOG2[m.short])
    total = e + product
    return _ends(m, x, total + ((product - (total - e)) + rest))


def log10(m: Arithmetic, x: Number) -> Number:
    """The logarithm to base 10."""
    e, f, c = _parts(m, x)
    product, rest = _scaled(m, f, c, _LOG10[m.short])
    high, low = _LOG10_2[m.short]
    first = e * high
    rest = m.fma(e, low, m.fma(e, high, -first)) + rest
    total = first + product
    return _ends(m, x, total + (_sum_error(first, product, total) + rest))


def _sum_error(x: Number, y: Number, total: Number) -> Number:
    """What x + y lost when it was rounded to `total`."""
    back = total - x
    return (x - (total - back)) + (y - back)


def log1p(m: Arithmetic, x: Number) -> Number:
    """log(1 + x): the mantissa of u = 1 + x plus what was rounded off."""
    u = x + 1.0
    lost = x - (u - 1.0)
    e, mantissa = split(m, m.select(u > 0.0, u, 1.0))
    f = (mantissa - 1.0) + lost * power_of_two(m, FORMATS[m.short].bias - m.select(e > 100, 100, e))
    high, low = LN2[m.short]
    exponent = m.convert(e, m.short)
    result = m.fma(exponent, high, f - m.fma(exponent, -low, correction(m, f)))
    result = m.copysign(m.select(x < math.inf, result, x), x)
    return m.select(x > -1.0, result, m.select(x == -1.0, -math.inf, m.const(math.nan)))


def logaddexp(m: Arithmetic, x: Number, y: Number) -> Number:
    """log(e**x + e**y); f32 by way of f64, for a result near zero cancels."""
    if m.single:
        wide = m.within("f64")
        return m.convert(logaddexp(wide, m.convert(x, "f64"), m.convert(y, "f64")), "f32")
    larger, smaller = m.select(x > y, x, y), m.select(x > y, y, x)
    result = larger + log1p(m, exp(m, smaller - larger))
    result = m.select(x == y, x + math.log(2.0), result)
    return m.select(m.isnan(x), x, m.select(m.isnan(y), y, result))
