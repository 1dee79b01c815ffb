"""exp, exp2, expm1, sigmoid, and the reduction that they and other functions share.

x = k ln 2 + r with |r| <= ln 2 / 2; e**x = 2**k e**r. Rounding to the whole number k is done by adding and subtracting
1.5 * 2**mantissa bits: that leaves k in the low bits, and k + offset when `offset` is added as well, so that a shift
makes a power of two of it: the bits above fall out."""
from __future__ import annotations

from typing import NamedTuple

from ..arithmetic import Arithmetic, Number


class Format(NamedTuple):
    """Numbers that depend on the format of the float alone.

    Attributes:
        mantissa: bits of the mantissa, without the leading one.
        bias: of the exponent.
        round: 1.5 * 2**mantissa; adding it rounds to a whole number, which then stands in the low bits.
        integer, unsigned: the integer dtypes of the same width.
    """

    mantissa: int
    bias: int
    round: float
    integer: str
    unsigned: str

    @property
    def twice_bias(self) -> int:
        """The offset that `scale` expects."""
        return 2 * self.bias


FORMATS = {"f32": Format(23, 127, 1.5 * 2.0**23, "i32", "u32"), "f64": Format(52, 1023, 1.5 * 2.0**52, "i64", "u64")}

LOG2_E = 1.4426950408889634
LN2 = {"f32": (0.6931471824645996, -1.904654323148236e-09), "f64": (0.6931471805599453, 2.3190468138462996e-17)}
"""ln 2 in two parts of each format."""

_RANGE = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}
"""Beyond it exp underflows to zero or overflows."""

_EXP = {
    "f32": (1.0, 0.4999999403953552, 0.16666509211063385, 0.04166800528764725, 0.008370003663003445,
            0.0013847870286554098),
    "f64": (1.0, 0.5, 0.1666666666666668, 0.04166666666666672, 0.008333333333318942, 0.001388888888884262,
            0.00019841269893302614, 2.4801587426127416e-05, 2.7557236813336996e-06, 2.7557180127716516e-07,
            2.5111636378494128e-08, 2.0944001467379956e-09),
}
"""(e**r - 1) / r: minimax relative to e**r."""

_EXPM1 = {
    "f32": (0.5, 0.16666634380817413, 0.04166650399565697, 0.008341711945831776, 0.0013930656714364886,
            0.00015010642528068274),
    "f64": _EXP["f64"][1:],
}
"""(e**r - 1 - r) / r**2: minimax relative to e**r - 1."""

_DECAY = {"f32": _EXP["f32"][1:], "f64": _EXP["f64"][1:]}
"""The same for `decay`, where the error of e**r counts."""


def whole(m: Arithmetic, x: Number, factor: float, offset: int = 0) -> tuple[Number, Number]:
    """The whole number k nearest to x * factor, as a float, and an integer whose low bits are k + offset; |k| must be
    small."""
    round = FORMATS[m.short].round + offset
    shifted = m.fma(x, m.const(factor), m.const(round))
    return shifted - round, m.bits(shifted)


def power_of_two(m: Arithmetic, k: Number) -> Number:
    """2**k in the range of normal numbers; the low bits of the integer are k + bias."""
    return m.from_bits(k << FORMATS[m.short].mantissa)


def scale(m: Arithmetic, x: Number, k: Number) -> Number:
    """x * 2**k, rounded once, for k up to twice the range of the exponent; the low bits of the integer are k + 2 bias.

    In two steps, so that results that overflow or are denormal come out right."""
    k = m.bitcast(k, FORMATS[m.short].unsigned)
    half = k >> 1
    return x * power_of_two(m, half) * power_of_two(m, k - half)


def clamp(m: Arithmetic, x: Number, low: float, high: float) -> Number:
    """x moved into [low, high]; NaN stays."""
    x = m.select(x > high, high, x)
    return m.select(x < low, low, x)


def reduce(m: Arithmetic, x: Number, offset: int) -> tuple[Number, Number]:
    """(r, an integer whose low bits are k + offset) with x = k ln 2 + r."""
    high, low = LN2[m.short]
    k, integer = whole(m, x, LOG2_E, offset)
    return m.fma(k, -low, m.fma(k, -high, x)), integer


def exp_reduced(m: Arithmetic, r: Number) -> Number:
    """e**r for |r| <= ln 2 / 2."""
    return m.polynomial(r, (1.0, *_EXP[m.short]))


def exp_of_parts(m: Arithmetic, x: Number, low: Number) -> tuple[Number, Number]:
    """(e**r, k for `scale`) with x + low = k ln 2 + r; `low` is less than the last place of x."""
    ln2, rest = LN2[m.short]
    k, integer = whole(m, x, LOG2_E, FORMATS[m.short].twice_bias)
    return exp_reduced(m, m.fma(k, -ln2, x) + m.fma(k, -rest, low)), integer


def expm1_reduced(m: Arithmetic, r: Number) -> Number:
    """e**r - 1 for |r| <= ln 2 / 2."""
    return m.fma(r * r, m.polynomial(r, _EXPM1[m.short]), r)


def decay(m: Arithmetic, x: Number) -> tuple[Number, Number]:
    """(s, q) with e**-x = s + s q for x >= 0 that is not large: 1 - e**-x is (1 - s) - s q, without cancellation.

    One part of ln 2 is enough: when k is large, s is small."""
    k, integer = whole(m, x, -LOG2_E, FORMATS[m.short].bias)
    r = m.fma(k, -LN2[m.short][0], -x)
    return power_of_two(m, integer), m.fma(r * r, m.polynomial(r, _DECAY[m.short]), r)


def exp(m: Arithmetic, x: Number) -> Number:
    """e**x."""
    r, k = reduce(m, clamp(m, x, *_RANGE[m.short]), FORMATS[m.short].twice_bias)
    return scale(m, exp_reduced(m, r), k)


def exp2(m: Arithmetic, x: Number) -> Number:
    """2**x."""
    low, high = {"f32": (-151.0, 129.0), "f64": (-1076.0, 1025.0)}[m.short]
    x = clamp(m, x, low, high)
    k, integer = whole(m, x, 1.0, FORMATS[m.short].twice_bias)
    ln2, rest = LN2[m.short]
    fraction = x - k
    return scale(m, exp_reduced(m, m.fma(fraction, rest, fraction * ln2)), integer)


def half_expm1(m: Arithmetic, x: Number) -> Number:
    """(e**x - 1) / 2, which overflows a little later than e**x; x at most the larger end of `exp`'s range."""
    r, k = reduce(m, m.select(x < -40.0, -40.0, x), FORMATS[m.short].bias - 2)
    quarter = power_of_two(m, k)
    y = m.fma(quarter, expm1_reduced(m, r), quarter - 0.25)
    return y + y


def expm1(m: Arithmetic, x: Number) -> Number:
    """e**x - 1 without cancellation."""
    y = half_expm1(m, m.select(x > _RANGE[m.short][1], _RANGE[m.short][1], x))
    return m.copysign(y + y, x)


def sigmoid(m: Arithmetic, x: Number) -> Number:
    """1 / (1 + e**-x) as c / (c + c 2**k (1 + r Q(r))): with c the last place of 1, nothing overflows.

    e**-x is not rounded before it is added, else the quotient would be off by more than two units."""
    shape = FORMATS[m.short]
    last = 2.0 ** -(shape.mantissa + 1)
    r, k = reduce(m, -clamp(m, x, _RANGE[m.short][0], 40.0), shape.bias - shape.mantissa - 1)
    power = power_of_two(m, k)
    return last / (m.fma(m.polynomial(r, _EXP[m.short]) * power, r, m.const(last)) + power)
