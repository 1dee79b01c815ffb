"""exp, exp2, expm1, sigmoid, and the reduction that they and the hyperbolic functions share.

x = k ln 2 + r with |r| <= ln 2 / 2; e**r - 1 = r + r**2 P(r); the result is scaled by 2**k in two steps, so that
results that overflow or are denormal come out right. Rounding to the whole number k is done by adding and
subtracting 1.5 * 2**mantissa bits, which also leaves k in the low bits."""
from __future__ import annotations

from typing import NamedTuple

from ..arithmetic import Arithmetic, Number


class Format(NamedTuple):
    """Numbers that depend on the format of the float alone.

    Attributes:
        mantissa: bits of the mantissa, without the leading one.
        bias: of the exponent.
        round: 1.5 * 2**mantissa; adding it rounds to a whole number, which then stands in the low bits.
        integer: the signed integer dtype of the same width.
    """

    mantissa: int
    bias: int
    round: float
    integer: str


FORMATS = {"f32": Format(23, 127, 1.5 * 2.0**23, "i32"), "f64": Format(52, 1023, 1.5 * 2.0**52, "i64")}

LOG2_E = 1.4426950408889634
LN2 = {"f32": (0.6931471824645996, -1.904654323148236e-09), "f64": (0.6931471805599453, 2.3190468138462996e-17)}
"""ln 2 in two parts of each format."""

_RANGE = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}
"""Beyond it exp underflows to zero or overflows."""

_EXP = {
    "f32": (0.4999999403953552, 0.16666509211063385, 0.04166800528764725, 0.008370003663003445, 0.0013847870286554098),
    "f64": (0.5, 0.1666666666666668, 0.04166666666666672, 0.008333333333318942, 0.001388888888884262,
            0.00019841269893302614, 2.4801587426127416e-05, 2.7557236813336996e-06, 2.7557180127716516e-07,
            2.5111636378494128e-08, 2.0944001467379956e-09),
}
"""(e**r - 1 - r) / r**2: minimax relative to e**r."""

_EXPM1 = {
    "f32": (0.5, 0.16666634380817413, 0.04166650399565697, 0.008341711945831776, 0.0013930656714364886,
            0.00015010642528068274),
    "f64": _EXP["f64"],
}
"""The same, minimax relative to e**r - 1."""


def whole(m: Arithmetic, x: Number, factor: float) -> tuple[Number, Number]:
    """The whole number k nearest to x * factor, as a float and as an integer; |k| must be small."""
    shape = FORMATS[m.short]
    shifted = m.fma(x, m.const(factor), m.const(shape.round))
    return shifted - shape.round, m.bits(shifted) - m.bits(m.const(shape.round))


def power_of_two(m: Arithmetic, k: Number) -> Number:
    """2**k for an integer k in the range of normal numbers."""
    shape = FORMATS[m.short]
    return m.from_bits((k + shape.bias) << shape.mantissa)


def scale(m: Arithmetic, x: Number, k: Number) -> Number:
    """x * 2**k, rounded once, for k up to twice the range of the exponent."""
    half = k >> 1
    return x * power_of_two(m, half) * power_of_two(m, k - half)


def clamp(m: Arithmetic, x: Number, low: float, high: float) -> Number:
    """x moved into [low, high]; NaN stays."""
    x = m.select(x > high, high, x)
    return m.select(x < low, low, x)


def reduce(m: Arithmetic, x: Number) -> tuple[Number, Number]:
    """(r, k) with x = k ln 2 + r."""
    high, low = LN2[m.short]
    k, integer = whole(m, x, LOG2_E)
    return m.fma(k, -low, m.fma(k, -high, x)), integer


def exp_reduced(m: Arithmetic, r: Number) -> Number:
    """e**r for |r| <= ln 2 / 2."""
    return m.fma(r * r, m.polynomial(r, _EXP[m.short]), r) + 1.0


def exp_of_parts(m: Arithmetic, x: Number, low: Number) -> tuple[Number, Number]:
    """(e**r, k) with x + low = k ln 2 + r; `low` is less than the last place of x."""
    ln2, rest = LN2[m.short]
    k, integer = whole(m, x, LOG2_E)
    return exp_reduced(m, m.fma(k, -ln2, x) + m.fma(k, -rest, low)), integer


def expm1_reduced(m: Arithmetic, r: Number) -> Number:
    """e**r - 1 for |r| <= ln 2 / 2."""
    return m.fma(r * r, m.polynomial(r, _EXPM1[m.short]), r)


def exp(m: Arithmetic, x: Number) -> Number:
    """e**x."""
    r, k = reduce(m, clamp(m, x, *_RANGE[m.short]))
    return scale(m, exp_reduced(m, r), k)


def exp2(m: Arithmetic, x: Number) -> Number:
    """2**x."""
    low, high = {"f32": (-151.0, 129.0), "f64": (-1076.0, 1025.0)}[m.short]
    x = clamp(m, x, low, high)
    k, integer = whole(m, x, 1.0)
    ln2, rest = LN2[m.short]
    fraction = x - k
    return scale(m, exp_reduced(m, m.fma(fraction, rest, fraction * ln2)), integer)


def half_expm1(m: Arithmetic, x: Number) -> Number:
    """(e**x - 1) / 2, which overflows a little later than e**x; x at most the larger end of `exp`'s range."""
    r, k = reduce(m, m.select(x < -40.0, -40.0, x))
    quarter = power_of_two(m, k - 2)
    y = m.fma(quarter, expm1_reduced(m, r), quarter - 0.25)
    return y + y


def expm1(m: Arithmetic, x: Number) -> Number:
    """e**x - 1 without cancellation."""
    y = half_expm1(m, m.select(x > _RANGE[m.short][1], _RANGE[m.short][1], x))
    return m.copysign(y + y, x)


def sigmoid(m: Arithmetic, x: Number) -> Number:
    """1 / (1 + e**-x), by e**-|x|, which cannot overflow; what the sum and the quotient round off is put back."""
    decay = exp(m, -m.abs(x))
    negative = x < 0.0
    numerator = m.select(negative, decay, 1.0)
    divisor = decay + 1.0
    y = numerator / divisor
    residue = m.fma(-y, divisor, numerator) - y * (decay - (divisor - 1.0))
    return m.fma(residue, m.select(negative, 1.0 - y, y), y)
