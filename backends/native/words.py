"""The meaning of every elementwise word that is not an elementary function, over the abstract arithmetic.

`DEFINITIONS[word]` is `definition(m, *values)`; the dtype of the word is `m.short`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ...ir.types import BY_SHORT
from .arithmetic import Arithmetic, Number
from .elementary import ELEMENTARY

Unary = Callable[[Arithmetic, Number], Number]


def _neg(m: Arithmetic, x: Number) -> Number:
    return -x


def _abs(m: Arithmetic, x: Number) -> Number:
    match m.dtype.kind:
        case "float":
            return m.abs(x)
        case "int":
            return m.select(x < 0, -x, x)
        case _:
            return x


def _sign(m: Arithmetic, x: Number) -> Number:
    if m.dtype.kind == "uint":
        return m.select(x > 0, 1, m.const(0))
    signed = m.select(x > 0, m.const(1), m.select(x < 0, m.const(-1), m.const(0)))
    return m.select(m.isnan(x), x, signed) if m.dtype.kind == "float" else signed


def _rounding(name: str) -> Unary:
    def definition(m: Arithmetic, x: Number) -> Number:
        return m.unary(name, x) if m.dtype.kind == "float" else x
    return definition


def _float_test(floats: Unary, integers: bool) -> Unary:
    def definition(m: Arithmetic, x: Number) -> Number:
        return floats(m, x) if m.dtype.kind == "float" else m.const(integers, "bool")
    return definition


def _isinf(m: Arithmetic, x: Number) -> Number:
    return m.abs(x) == math.inf


def _isfinite(m: Arithmetic, x: Number) -> Number:
    return m.abs(x) < math.inf


def _signbit(m: Arithmetic, x: Number) -> Number:
    match m.dtype.kind:
        case "float":
            return m.bits(x) < 0
        case "int":
            return x < 0
        case _:
            return m.const(False, "bool")


# --- division of integers: never traps -------------------------------------------------------------------------------


def _safe_division(m: Arithmetic, x: Number, y: Number) -> tuple[Number, Number, Number]:
    """Quotient and remainder toward zero, and where the result is defined as 0; the least number / -1 wraps."""
    zero = y == 0
    negated = (y == -1) if m.dtype.kind == "int" else m.const(False, "bool")
    divisor = m.select(zero | negated, 1, y)
    quotient, remainder = m.divide(x, divisor), m.modulo(x, divisor)
    return m.select(negated, -x, quotient) if m.dtype.kind == "int" else quotient, remainder, zero


def _integer_floor_divide(m: Arithmetic, x: Number, y: Number) -> Number:
    quotient, remainder, zero = _safe_division(m, x, y)
    if m.dtype.kind == "int":
        below = (remainder != 0) & ((remainder < 0) ^ (y < 0))
        quotient = m.select(below, quotient - 1, quotient)
    return m.select(zero, 0, quotient)


def _integer_remainder(m: Arithmetic, x: Number, y: Number) -> Number:
    _, remainder, zero = _safe_division(m, x, y)
    if m.dtype.kind == "int":
        remainder = m.select((remainder != 0) & ((remainder < 0) ^ (y < 0)), remainder + y, remainder)
    return m.select(zero, 0, remainder)


def _integer_fmod(m: Arithmetic, x: Number, y: Number) -> Number:
    _, remainder, zero = _safe_division(m, x, y)
    return m.select(zero, 0, remainder)


# --- division of floats ----------------------------------------------------------------------------------------------


def _float_fmod(m: Arithmetic, x: Number, y: Number) -> Number:
    """Exact: through the C library, for quotients beyond 2**52 need long division; f32 is exact in f64."""
    wide = m.library("fmod", m.convert(x, "f64"), m.convert(y, "f64"))
    return m.convert(wide, m.short)


def _quick_fmod(m: Arithmetic, x: Number, y: Number) -> Number:
    """The fmod of |x| < 2**22 |y|: the truncated quotient is off by at most one, which fma shows exactly."""
    a, b = m.abs(x), m.abs(y)
    quotient = m.unary("trunc", a / b)
    rest = m.fma(-quotient, b, a)
    rest = m.select(rest < 0, rest + b, rest)
    rest = m.select(rest >= b, rest - b, rest)
    return m.copysign(rest, x)


def _fmod(m: Arithmetic, x: Number, y: Number) -> Number:
    if m.dtype.kind != "float":
        return _integer_fmod(m, x, y)
    tiny = 2.0 ** -100 if m.single else 2.0 ** -900
    usual = (m.abs(x) < m.abs(y) * 2.0 ** 20) & (m.abs(y) > tiny) & (m.abs(y) < 1 / tiny)
    return m.rare(_float_fmod, ~usual, _quick_fmod(m, x, y), x, y)


def _remainder(m: Arithmetic, x: Number, y: Number) -> Number:
    if m.dtype.kind != "float":
        return _integer_remainder(m, x, y)
    rest = _fmod(m, x, y)
    moved = m.select((rest < 0) ^ (y < 0), rest + y, rest)
    return m.select(rest == 0, m.copysign(0.0, y), moved)


def _floor_divide(m: Arithmetic, x: Number, y: Number) -> Number:
    if m.dtype.kind != "float":
        return _integer_floor_divide(m, x, y)
    rest = _fmod(m, x, y)
    other_side = (rest != 0) & ((rest < 0) ^ (y < 0))
    quotient = (x - rest) / y - m.select(other_side, 1.0, m.const(0.0))
    whole = m.floor(quotient)
    whole = m.select(quotient - whole > 0.5, whole + 1.0, whole)
    whole = m.select(quotient == 0, m.copysign(0.0, x / y), whole)
    return m.select(y == 0, x / y, whole)


# --- choosing --------------------------------------------------------------------------------------------------------


def _maximum(m: Arithmetic, x: Number, y: Number) -> Number:
    """The comparison alone passes on a NaN in x, and is one instruction on x86; a constant y needs no more."""
    if m.dtype.kind == "bool":
        return x | y
    larger = m.select(y > x, y, x)
    return m.select(m.isnan(y), x + y, larger) if m.dtype.kind == "float" else larger


def _minimum(m: Arithmetic, x: Number, y: Number) -> Number:
    """As for the maximum."""
    if m.dtype.kind == "bool":
        return x & y
    smaller = m.select(y < x, y, x)
    return m.select(m.isnan(y), x + y, smaller) if m.dtype.kind == "float" else smaller


def _fmax(m: Arithmetic, x: Number, y: Number) -> Number:
    if m.dtype.kind != "float":
        return _maximum(m, x, y)
    return m.select((x > y) | m.isnan(y), x, y)


def _fmin(m: Arithmetic, x: Number, y: Number) -> Number:
    if m.dtype.kind != "float":
        return _minimum(m, x, y)
    return m.select((x < y) | m.isnan(y), x, y)


# --- integers and bits -----------------------------------------------------------------------------------------------


def _add(m: Arithmetic, x: Number, y: Number) -> Number:
    return x | y if m.dtype.kind == "bool" else x + y


def _mul(m: Arithmetic, x: Number, y: Number) -> Number:
    return x & y if m.dtype.kind == "bool" else x * y


def _integer_power(m: Arithmetic, x: Number, y: Number) -> Number:
    """Squares and multiplies once per bit of the exponent: bits beyond the width of the type leave only 0, 1 and -1."""
    exponent = y
    result, base = m.const(1), x
    for _ in range(m.dtype.bits):
        result = m.select((exponent & 1) == 1, result * base, result)
        base = base * base
        exponent = exponent >> 1
    if m.dtype.kind == "uint":
        return result
    inverse = m.select(x == 1, 1, m.select(x == -1, m.select((y & 1) == 1, m.const(-1), m.const(1)), m.const(0)))
    return m.select(y < 0, inverse, result)


def _shift(left: bool) -> Callable[[Arithmetic, Number, Number], Number]:
    def definition(m: Arithmetic, x: Number, y: Number) -> Number:
        bits = m.dtype.bits
        inside = y < bits if m.dtype.kind == "uint" else (y >= 0) & (y < bits)
        amount = m.select(inside, y, 0)
        if left:
            return m.select(inside, x << amount, 0)
        if m.dtype.kind == "uint":
            return m.select(inside, x >> amount, 0)
        return m.select(inside, x >> amount, x >> m.const(bits - 1))
    return definition


def _nextafter(m: Arithmetic, x: Number, y: Number) -> Number:
    bits, signed = m.bits(x), {"f32": "i32", "f64": "i64"}[m.short]
    away = (y > x) ^ (x < 0)
    step = m.select(away, m.const(1, signed), m.const(-1, signed))
    moved = m.from_bits(bits + step)
    smallest = m.copysign(m.from_bits(m.const(1, signed)), y)
    result = m.select(x == 0, smallest, moved)
    result = m.select(x == y, y, result)
    return m.select(m.isnan(x) | m.isnan(y), x + y, result)


def _convert(m: Arithmetic, x: Number) -> Number:
    return m.convert(x, m.short)


def _threefry(m: Arithmetic, state0: Number, state1: Number, element: Number) -> Number:
    """Threefry-2x32, 20 rounds; key and counter as the op `random_bits` says: state0 is the seed, state1 the draw."""
    element = m.bitcast(element, "u64")
    low, high = (lambda v: m.convert(v, "u32")), (lambda v: m.convert(v >> 32, "u32"))
    key0, key1 = low(state0) ^ high(state1), high(state0) ^ high(element)
    key = (key0, key1, key0 ^ key1 ^ 0x1BD11BDA)
    x, y = low(element) + key[0], low(state1) + key[1]
    for block in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            x = x + y
            y = ((y << rotation) | (y >> (32 - rotation))) ^ x
        x, y = x + key[(block + 1) % 3], y + key[(block + 2) % 3] + (block + 1)
    if m.short == "u32":
        return x
    return m.convert(x, "u64") | (m.convert(y, "u64") << 32)


def _operator(compute: Callable[..., Any]) -> Callable[..., Any]:
    return lambda m, *values: compute(*values)


DEFINITIONS: Mapping[str, Callable[..., Any]] = {
    "neg": _neg, "abs": _abs, "sign": _sign,
    "ceil": _rounding("ceil"), "floor": _rounding("floor"), "round": _rounding("rint"), "trunc": _rounding("trunc"),
    "sqrt": lambda m, x: m.sqrt(x), "reciprocal": lambda m, x: 1.0 / x,
    "bitwise_not": _operator(lambda x: ~x), "logical_not": _operator(lambda x: ~x),
    "isnan": _float_test(lambda m, x: m.isnan(x), False), "isinf": _float_test(_isinf, False),
    "isfinite": _float_test(_isfinite, True), "signbit": _signbit,
    "add": _add, "sub": _operator(lambda x, y: x - y), "mul": _mul, "div": _operator(lambda x, y: x / y),
    "floor_divide": _floor_divide, "remainder": _remainder, "fmod": _fmod, "integer_pow": _integer_power,
    "maximum": _maximum, "minimum": _minimum, "fmax": _fmax, "fmin": _fmin,
    "copysign": lambda m, x, y: m.copysign(x, y), "nextafter": _nextafter,
    "bitwise_and": _operator(lambda x, y: x & y), "bitwise_or": _operator(lambda x, y: x | y),
    "bitwise_xor": _operator(lambda x, y: x ^ y), "logical_and": _operator(lambda x, y: x & y),
    "logical_or": _operator(lambda x, y: x | y), "logical_xor": _operator(lambda x, y: x ^ y),
    "shift_left": _shift(True), "shift_right": _shift(False),
    "eq": _operator(lambda x, y: x == y), "ne": _operator(lambda x, y: x != y), "lt": _operator(lambda x, y: x < y),
    "le": _operator(lambda x, y: x <= y), "gt": _operator(lambda x, y: x > y), "ge": _operator(lambda x, y: x >= y),
    "select": lambda m, condition, x, y: m.select(condition, x, y), "convert": _convert,
    "bitcast": lambda m, x: m.bitcast(x, m.short), "fma": lambda m, x, y, z: m.fma(x, y, z), "threefry": _threefry,
    **ELEMENTARY,
}
"""Word -> definition. `pow` of floats is elementary, of integers `integer_pow`."""


def definition_of(word: str, short: str) -> Callable[..., Any]:
    """The definition of a word for one dtype."""
    if word == "pow" and BY_SHORT[short].is_integer:
        return DEFINITIONS["integer_pow"]
    return DEFINITIONS[word]
