"""lgamma and digamma. Both work in f64 inside; f32 takes shorter polynomials there.

lgamma: for 0 < x < 8 the argument is moved to z in [0.9, 2.5] by the recurrence, lgamma(z) = (z - 1)(z - 2) P(z);
above, Stirling's series. digamma: for 0 < x < 4 moved to [1, 2], (x - x0) P(x - 1.5) with its zero x0; above, moved
to 8 and beyond, where the asymptotic series holds. Negative arguments take a rare path by reflection, which loses
relative precision beside zeros."""
from __future__ import annotations

import math

from ..arithmetic import Arithmetic, Number, through_f64
from .logarithm import log
from .trigonometric import moderate_cos, moderate_sin

_LGAMMA = {
    "f32": (0.4577856094214833, -0.12527883679663965, 0.04830954535754497, -0.021423950235034895, 0.010230377839509804,
            -0.0051074097081145325, 0.0026176063590883127, -0.001374216799868375, 0.0007675795002949512,
            -0.00041082507062953404, 0.0001423089359475416, -8.248854175785093e-05, 0.0001370950318715411,
            -7.322524164259561e-05),
    "f64": (0.45778560919156, -0.12527883665074532, 0.04830958014903984, -0.02142396523508098, 0.010229521734434354,
            -0.005107051102833285, 0.00262545018348626, -0.0013776183576793852, 0.0007338035313700762,
            -0.000395378650936871, 0.00021496990057932395, -0.00011774168030399403, 6.488189983261915e-05,
            -3.593566613670369e-05, 1.9994075411783272e-05, -1.1177651501416826e-05, 6.258500726494399e-06,
            -3.4784801300269652e-06, 1.975595577303841e-06, -1.2148490698588516e-06, 6.572622888816436e-07,
            -1.9671545978302814e-07, 1.53898771114611e-07, -3.0521681282594243e-07, 1.3625071399697216e-07,
            9.917456709719641e-08, -3.6791302612825504e-08, -6.418772929405926e-08, 3.2114311546891344e-08),
}
"""lgamma(x) / ((x - 1) (x - 2)) in x - 1.6875 for x in [0.9, 2.5]."""

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
"""B(2k) / (2k (2k - 1)): the terms in 1 / x**(2k - 1)."""

_DIGAMMA = {
    "f32": (0.9510558754089729, -0.4236274193223814, 0.24054266148657696, -0.14840516421320138, 0.09498059008026205,
            -0.06191396648378377, 0.040896339191533376, -0.027091114124292263, 0.016901480634151176,
            -0.011138248554965173, 0.011246795674562295, -0.007636952369613298),
    "f64": (0.9510558760318328, -0.4236274212814606, 0.24054248424078725, -0.14840492305387867, 0.09498872445284676,
            -0.0619221332756938, 0.040760833943601214, -0.026975796651178153, 0.017907248228145774,
            -0.011908220303528302, 0.007927023479424073, -0.005279934538249694, 0.003518086780415794,
            -0.0023455181019661295, 0.0015635189536410453, -0.0010363319525490684, 0.000690201834802371,
            -0.0004863696476849062, 0.0003261369134408265, -0.00014403043225093607, 9.283539068930952e-05,
            -0.00017883333292766646, 0.00012152816662579734),
}
"""digamma(x) / (x - x0) in x - 1.5 for x in [1, 2]."""

_ZERO = (1.4616321449683622, 9.549995429965697e-17)
"""x0 in two parts."""

_ASYMPTOTIC = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160, 43867 / 14364,
               -174611 / 6600)
"""B(2k) / 2k: the terms in 1 / x**2k."""


def lgamma(m: Arithmetic, x: Number) -> Number:
    """log(|gamma(x)|)."""
    return through_f64(m, x, _lgamma)


def digamma(m: Arithmetic, x: Number) -> Number:
    """The derivative of lgamma."""
    return through_f64(m, x, _digamma)


def _lgamma(m: Arithmetic, x: Number, precision: str) -> Number:
    result = _positive_lgamma(m, m.abs(x), precision)
    return m.rare(_reflected_lgamma, x < 0.0, m.select(m.isnan(x), x, result), x)


def _positive_lgamma(m: Arithmetic, x: Number, precision: str) -> Number:
    """lgamma for x >= 0."""
    z, product = x, m.const(1.0)
    for _ in range(6):                          # down to at most 2.5
        above = z > 2.5
        product = m.select(above, product * (z - 1.0), product)
        z = m.select(above, z - 1.0, z)
    below = x < 0.9
    logarithm = log(m, m.select(below, x, product))
    first, second = m.select(below, x, z - 1.0), m.select(below, x - 1.0, z - 2.0)
    y = m.polynomial(first - 0.6875, _LGAMMA[precision])
    small = m.fma(first * second, y, m.select(below, -logarithm, logarithm))
    return m.select(x < 8.0, small, _stirling(m, x))


def _stirling(m: Arithmetic, x: Number) -> Number:
    """(x - 1/2) log(x) - x + log(2 pi) / 2 + series."""
    inverse = 1.0 / x
    series = inverse * m.polynomial(inverse * inverse, _STIRLING)
    logarithm = log(m, x)
    usual = (x - 0.5) * (logarithm - 1.0) + ((math.log(2 * math.pi) - 1.0) / 2 + series)
    return m.select(x < 1e300, usual, x * (logarithm - 1.0))


def _reflected_lgamma(m: Arithmetic, x: Number) -> Number:
    """log(pi / |sin(pi x)|) - lgamma(1 - x) for negative x."""
    a = -x
    fraction = a - m.floor(a)
    sine = moderate_sin(m, m.select(fraction > 0.5, 1.0 - fraction, fraction) * math.pi)
    result = log(m, math.pi / sine) - _positive_lgamma(m, a + 1.0, "f64")
    return m.select((fraction == 0.0) | (a == math.inf), math.inf, result)


def _digamma(m: Arithmetic, x: Number, precision: str) -> Number:
    result = _positive_digamma(m, m.abs(x), precision)
    result = m.select(x == 0.0, m.copysign(math.inf, -x), result)
    return m.rare(_reflected_digamma, x < 0.0, m.select(m.isnan(x), x, result), x)


def _positive_digamma(m: Arithmetic, x: Number, precision: str) -> Number:
    """digamma for x > 0."""
    low, high, higher = x < 1.0, x > 2.0, x > 3.0
    z = m.select(low, x + 1.0, m.select(higher, x - 2.0, m.select(high, x - 1.0, x)))
    shift = m.select(low, -1.0, m.select(high, 1.0, m.const(0.0))) / m.select(low, x, m.select(high, z, 1.0))
    shift = shift + m.select(higher, 1.0 / (x - 1.0), m.const(0.0))
    offset = m.select(low, x - (_ZERO[0] - 1.0), z - _ZERO[0]) - _ZERO[1]
    small = m.fma(offset, m.polynomial(z - 1.5, _DIGAMMA[precision]), shift)
    return m.select(x < 4.0, small, _asymptotic(m, x))


def _asymptotic(m: Arithmetic, x: Number) -> Number:
    """digamma for x >= 4: log(z) - 1 / 2z - series at z >= 8, less the terms of the recurrence."""
    z, terms = x, m.const(0.0)
    for _ in range(4):
        below = z < 8.0
        terms = terms + m.select(below, 1.0 / z, m.const(0.0))
        z = m.select(below, z + 1.0, z)
    inverse = 1.0 / z
    square = inverse * inverse
    series = m.fma(square, m.polynomial(square, _ASYMPTOTIC), inverse * 0.5)
    return log(m, z) - (series + terms)


def _reflected_digamma(m: Arithmetic, x: Number) -> Number:
    """digamma(1 - x) - pi / tan(pi x) for negative x."""
    fraction = x - m.rint(x)
    reduced = fraction * math.pi
    cotangent = moderate_cos(m, reduced) / moderate_sin(m, reduced)
    result = _positive_digamma(m, 1.0 - x, "f64") - cotangent * math.pi
    return m.select((fraction == 0.0) | (x == -math.inf), math.nan, result)
