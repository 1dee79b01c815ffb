"""pow, hypot, rsqrt.

pow = e**(y log|x|), with the logarithm and the product in two parts: y log|x| goes up to 709, so its absolute error
is what counts. f32 goes through f64, where one part is enough."""
from __future__ import annotations

import math

from ..arithmetic import Arithmetic, Number
from .exponential import FORMATS, LN2, clamp, exp, exp_reduced, reduce, scale
from .logarithm import log, split

_SERIES = (0.39999999999999997, 0.2857142857143489, 0.22222222219605742, 0.1818181865756192, 0.15384569093963982,
           0.13335920047215064, 0.11681647239323846, 0.11940859093702291)
"""(log(1 + f) - 2 s - 2 s**3 / 3) / s**5 in s**2, s = f / (2 + f)."""

_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def _two_sum(x: Number, y: Number) -> tuple[Number, Number]:
    total = x + y
    back = total - x
    return total, (x - (total - back)) + (y - back)


def _two_product(m: Arithmetic, x: Number, y: Number) -> tuple[Number, Number]:
    product = x * y
    return product, m.fma(x, y, -product)


def _log_in_parts(m: Arithmetic, a: Number) -> tuple[Number, Number]:
    """log(a) for a positive finite f64, to about 2**-66."""
    denormal = a < 2.0**-1022
    e, mantissa = split(m, m.select(denormal, a * 2.0**52, a))
    exponent = m.convert(m.select(denormal, e - FORMATS["f64"].mantissa, e), "f64")
    f = mantissa - 1.0
    divisor = f + 2.0
    divisor_low = f - (divisor - 2.0)
    s = f / divisor
    s_low = (m.fma(-s, divisor, f) - s * divisor_low) / divisor
    z, z_low = _two_product(m, s, s)
    z_low = m.fma(s + s, s_low, z_low)
    third, third_low = _two_product(m, z, m.const(_TWO_THIRDS[0]))
    third_low = third_low + m.fma(z_low, _TWO_THIRDS[0], z * _TWO_THIRDS[1])
    cube, cube_low = _two_product(m, third, s)
    cube_low = cube_low + m.fma(third, s_low, third_low * s)
    tail = s * (z * z) * m.polynomial(z, _SERIES)
    first, first_low = _two_product(m, exponent, m.const(LN2["f64"][0]))
    first_low = m.fma(exponent, LN2["f64"][1], first_low)
    total, lost = _two_sum(first, s + s)
    total, lost2 = _two_sum(total, cube)
    low = lost + (lost2 + (first_low + (s_low + s_low + (cube_low + tail))))
    high = total + low
    return high, low - (high - total)


def _power_of_size(m: Arithmetic, a: Number, y: Number) -> Number:
    """a**y for a >= 0 in f64."""
    high, low = _log_in_parts(m, a)
    high = m.select(a == 0.0, -math.inf, m.select(a == math.inf, math.inf, high))
    product, lost = _two_product(m, y, high)
    lost = m.select(m.abs(product) < 1e4, m.fma(y, low, lost), 0.0)
    r, k = reduce(m, clamp(m, product, -746.0, 710.0), FORMATS["f64"].twice_bias)
    return scale(m, exp_reduced(m, r + lost), k)


def pow_(m: Arithmetic, x: Number, y: Number) -> Number:
    """x**y, with IEEE 754's special cases."""
    a = m.abs(x)
    if m.single:
        wide = m.within("f64")
        size = m.convert(exp(wide, m.convert(y, "f64") * log(wide, m.convert(a, "f64"))), "f32")
    else:
        size = _power_of_size(m, a, y)
    is_whole = m.unary("trunc", y) == y
    half = y * 0.5
    is_odd = is_whole & (m.unary("trunc", half) != half)
    result = m.select(is_odd, m.copysign(size, x), size)
    result = m.select((x < 0.0) & ~is_whole & (a != math.inf), math.nan, result)
    result = m.select(m.isnan(x) | m.isnan(y), x + y, result)
    one = (y == 0.0) | (x == 1.0) | ((x == -1.0) & (m.abs(y) == math.inf))
    return m.select(one, 1.0, result)


def hypot(m: Arithmetic, x: Number, y: Number) -> Number:
    """sqrt(x**2 + y**2): f32 by way of f64, which holds the squares exactly; f64 scaled, with its residue put back."""
    infinite = (m.abs(x) == math.inf) | (m.abs(y) == math.inf)
    if m.single:
        a, b = m.convert(x, "f64"), m.convert(y, "f64")
        return m.select(infinite, math.inf, m.convert(m.sqrt(m.fma(a, a, b * b)), "f32"))
    a, b = m.abs(x), m.abs(y)
    a, b = m.select(a > b, a, b), m.select(a > b, b, a)
    up = m.select(a > 2.0**500, 2.0**-600, m.select(a < 2.0**-400, 2.0**600, m.const(1.0)))
    down = m.select(a > 2.0**500, 2.0**600, m.select(a < 2.0**-400, 2.0**-600, m.const(1.0)))
    a, b = a * up, b * up
    h = m.sqrt(m.fma(a, a, b * b))
    square, lost = _two_product(m, h, h)
    other, other_lost = _two_product(m, a, a)
    residue = (other - square) + b * b + (other_lost - lost)
    corrected = h + m.select(h > 0.0, residue / (h + h), 0.0)
    result = m.select(a + b == a, a, corrected) * down
    return m.select(infinite, math.inf, m.select(m.isnan(x) | m.isnan(y), x + y, result))


def rsqrt(m: Arithmetic, x: Number) -> Number:
    """1 / sqrt(x)."""
    return 1.0 / m.sqrt(x)
