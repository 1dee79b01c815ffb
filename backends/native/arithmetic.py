"""The small abstract arithmetic in which every word of the vocabulary is defined once: `def word(m, x, y): ...`.

A definition takes the arithmetic `m` and values, combines them with Python operators and the methods below, and
returns a value. It runs against two instances: `llvm_arithmetic.LlvmArithmetic`, where values are registers and
operators emit instructions, and `plain.NumpyArithmetic`, where values are NumPy arrays. Definitions are
branch-free: both sides of every `select` are computed, so that LLVM can vectorise them.

Operators on values: `+ - *` (integers wrap), `/` (floats), unary `-`; `& | ^ ~` on integers and bools; `<< >>` by
an amount within the width (`>>` follows the sign of the dtype); comparisons, which give bools and are false for NaN
(`!=` is true). A Python number on one side takes the dtype of the other."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from ...ir.types import BY_SHORT, DType

Number = Any
"""A value of the arithmetic: a register or a NumPy array."""

SIGNED = {8: "i8", 16: "i16", 32: "i32", 64: "i64"}
"""Width -> the signed integer dtype of that width."""


class Arithmetic(ABC):
    """Operations on values, each of which has one dtype.

    Attributes:
        short: the dtype that the definition is being instantiated for; definitions pick their constants by it.
    """

    def __init__(self, short: str) -> None:
        self.short = short

    @property
    def dtype(self) -> DType:
        """The dtype of `short`."""
        return BY_SHORT[self.short]

    @property
    def single(self) -> bool:
        """Whether the definition is being instantiated for f32, as against f64."""
        return self.short == "f32"

    @abstractmethod
    def within(self, short: str) -> Arithmetic:
        """This arithmetic with another `short`, for definitions that work in another precision inside."""

    @abstractmethod
    def const(self, value: float | int | bool, short: str | None = None) -> Number:
        """A constant, of dtype `m.short` unless another is named."""

    @abstractmethod
    def short_of(self, x: Number) -> str:
        """The dtype of a value."""

    @abstractmethod
    def select(self, condition: Number, x: Number, y: Number) -> Number:
        """x where the condition holds, else y; a Python number takes the dtype of the other side."""

    @abstractmethod
    def convert(self, x: Number, short: str) -> Number:
        """The value in another dtype, as the word `convert`."""

    @abstractmethod
    def bitcast(self, x: Number, short: str) -> Number:
        """The bits in another dtype of the same width."""

    @abstractmethod
    def fma(self, x: Number, y: Number, z: Number) -> Number:
        """x * y + z with one rounding."""

    @abstractmethod
    def unary(self, name: str, x: Number) -> Number:
        """One of sqrt, abs, floor, ceil, trunc, rint (ties to even) on a float."""

    @abstractmethod
    def copysign(self, x: Number, y: Number) -> Number:
        """The size of x with the sign of y."""

    @abstractmethod
    def divide(self, x: Number, y: Number) -> Number:
        """x / y of integers, toward zero; y must not be 0, and not -1 when x is the least number."""

    @abstractmethod
    def modulo(self, x: Number, y: Number) -> Number:
        """What `divide` leaves, under the same conditions."""

    @abstractmethod
    def library(self, name: str, *arguments: Number) -> Number:
        """A function of the C library's `double -> double`, element by element: slow, for what is rare."""

    @abstractmethod
    def rare(self, function: Any, condition: Number, usual: Number, *arguments: Number) -> Number:
        """`usual`, but `function(m, *arguments)` where `condition` holds; computed only when it holds somewhere."""

    # --- derived -----------------------------------------------------------------------------------------------------

    def sqrt(self, x: Number) -> Number:
        """The square root, correctly rounded."""
        return self.unary("sqrt", x)

    def abs(self, x: Number) -> Number:
        """The absolute value of a float."""
        return self.unary("abs", x)

    def floor(self, x: Number) -> Number:
        """Down to a whole number."""
        return self.unary("floor", x)

    def rint(self, x: Number) -> Number:
        """To the nearest whole number, ties to even."""
        return self.unary("rint", x)

    def bits(self, x: Number) -> Number:
        """The bits of a float as a signed integer of its width."""
        return self.bitcast(x, SIGNED[BY_SHORT[self.short_of(x)].bits])

    def from_bits(self, x: Number) -> Number:
        """The float whose bits are the integer x."""
        return self.bitcast(x, {32: "f32", 64: "f64"}[BY_SHORT[self.short_of(x)].bits])

    def polynomial(self, x: Number, coefficients: Sequence[float]) -> Number:
        """sum of coefficients[i] * x**i by Horner's rule with fma."""
        result = self.const(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            result = self.fma(result, x, self.const(c))
        return result

    def isnan(self, x: Number) -> Number:
        """Whether x is NaN."""
        return x != x


def through_f64(m: Arithmetic, x: Number, function: Callable[[Arithmetic, Number, str], Number]) -> Number:
    """`function(m64, x, precision)` in f64, rounded to the dtype of `m`, which `precision` names."""
    return m.convert(function(m.within("f64"), m.convert(x, "f64"), m.short), m.short)
