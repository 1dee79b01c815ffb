"""asin, acos, atan, atan2.

atan: |x| is brought into [-(sqrt(2) - 1), sqrt(2) - 1] by x, (x - 1) / (x + 1) or -1 / x, whose angles differ by 0,
pi/4, pi/2; then an odd polynomial. asin: an odd polynomial on [0, 1/2]; above, asin(x) = pi/2 - 2 asin(sqrt((1 - x)
/ 2))."""
from __future__ import annotations

import math

from ..arithmetic import Arithmetic, Number

_ATAN = {
    "f32": (-0.3333331346511841, 0.19998352229595184, -0.1424107402563095, 0.10574360191822052, -0.06026170402765274),
    "f64": (-0.33333333333333187, 0.1999999999995005, -0.14285714279801717, 0.11111110762227572, -0.0909089711200888,
            0.07692048197773206, -0.06662962202173861, 0.0584682344310017, -0.050343661727521485, 0.03793597510520198,
            -0.0177633027429919),
}
"""(atan(t) - t) / t**3 in t**2."""

_ASIN = {
    "f32": (0.16666659712791443, 0.07500521838665009, 0.04451339691877365, 0.03183864802122116, 0.014317584224045277,
            0.0376913845539093),
    "f64": (0.1666666666666676, 0.07499999999970687, 0.04464285717482805, 0.03038194269407442, 0.022372215439141942,
            0.017351603046019574, 0.013980935871720338, 0.011397918365339056, 0.010786050785986934,
            0.003683798017543451, 0.021763919755465624, -0.021080755059392334, 0.03268068209175248),
}
"""(asin(t) - t) / t**3 in t**2."""

HALF_PI = {"f32": (1.5707963705062866, -4.3711388286737929e-08), "f64": (1.5707963267948966, 6.123233995736766e-17)}
"""pi/2 in two parts of each format."""


def _atan_positive(m: Arithmetic, a: Number) -> Number:
    """The arc tangent of a number that is not negative."""
    high, low = HALF_PI[m.short]
    steep, middle = a > math.sqrt(2.0) + 1.0, a > math.sqrt(2.0) - 1.0
    numerator = m.select(steep, -1.0, m.select(middle, a - 1.0, a))
    denominator = m.select(steep, a, m.select(middle, a + 1.0, m.const(1.0)))
    t = numerator / denominator
    z = t * t
    offset = m.select(steep, high, m.select(middle, high / 2, m.const(0.0)))
    rest = m.select(steep, low, m.select(middle, low / 2, m.const(0.0)))
    return offset + (t + m.fma(t * z, m.polynomial(z, _ATAN[m.short]), rest))


def atan(m: Arithmetic, x: Number) -> Number:
    """The arc tangent."""
    return m.copysign(_atan_positive(m, m.abs(x)), x)


def atan2(m: Arithmetic, y: Number, x: Number) -> Number:
    """The angle of the point (x, y); f32 by way of f64, for the quotient alone would cost half of its bound."""
    if m.single:
        wide = m.within("f64")
        return m.convert(atan2(wide, m.convert(y, "f64"), m.convert(x, "f64")), "f32")
    high, low = HALF_PI[m.short]
    a, b = m.abs(x), m.abs(y)
    ratio = m.select((b == 0.0) & (a == 0.0), 0.0, m.select((a == b), 1.0, b / a))
    angle = _atan_positive(m, ratio)
    left = m.bits(x) < 0
    angle = m.select(left, 2 * high - (angle - 2 * low), angle)
    angle = m.copysign(angle, y)
    return m.select(m.isnan(x) | m.isnan(y), x + y, angle)


def _folded(m: Arithmetic, x: Number) -> tuple[Number, Number, Number]:
    """(whether |x| > 1/2, t, c): asin of t = |x| or t = sqrt((1 - |x|) / 2) is t + c."""
    a = m.abs(x)
    large = a > 0.5
    z = m.select(large, m.fma(a, -0.5, m.const(0.5)), a * a)
    t = m.select(large, m.sqrt(z), a)
    return large, t, t * z * m.polynomial(z, _ASIN[m.short])


def _less(x: float, low: float, t: Number, c: Number) -> Number:
    """(x + low) - (t + c), where x exceeds t, rounded about once."""
    rest = x - t
    lost = (x - rest) - t
    return rest - ((c - low) - lost)


def asin(m: Arithmetic, x: Number) -> Number:
    """The arc sine."""
    high, low = HALF_PI[m.short]
    large, t, c = _folded(m, x)
    return m.copysign(m.select(large, _less(high, low, t + t, c + c), t + c), x)


def acos(m: Arithmetic, x: Number) -> Number:
    """The arc cosine."""
    high, low = HALF_PI[m.short]
    large, t, c = _folded(m, x)
    far = m.select(x < 0.0, _less(2 * high, 2 * low, t + t, c + c), (t + c) + (t + c))
    return m.select(large, far, _less(high, low, m.copysign(t, x), m.copysign(c, x)))
