"""RuntimeScalar: a Python number that is a run-time input of a compiled program.

It stands where the user's function expects a float or an int. Arithmetic on it is traced; anything that needs the
number itself (a comparison, `int(lr)`, `math.sqrt(lr)`) pins the program to the current value, so that another value is
traced again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..ir.errors import TraceError
from ..ir.ops import OPS
from ..ir.types import float64, int64
from .dispatch import EMIT, apply
from .location import error
from .state import STATE
from .tensor import Tensor

if TYPE_CHECKING:
    from .trace_inputs import ScalarInput

Formula = Callable[[Callable[[Any], Any]], Any]
"""Computes a number from the program's inputs; its argument gives the value of a `ScalarInput`."""


_BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor", "shift_right")


def _arithmetic(op_name: str, python: Any, real: bool = False) -> Any:
    """A binary method: traced in float64 when an operand is a float (or `real`), else in int64."""

    def compute(x: Any, y: Any) -> Any:
        left, right = _operand(x), _operand(y)
        if left is None or right is None or STATE.trace is None:
            return NotImplemented
        floating = real or float64 in (left[0].dtype, right[0].dtype)
        if floating and op_name in _BITWISE:
            return NotImplemented
        dtype = float64 if floating else int64
        result = apply(OPS[op_name], (EMIT.cast(left[0], dtype), EMIT.cast(right[0], dtype)))
        example = None if left[1] is None or right[1] is None else python(left[1], right[1])
        f, g = left[3], right[3]
        formula = None if example is None or f is None or g is None else lambda get: python(f(get), g(get))
        return RuntimeScalar(result, example, left[2] | right[2], formula)

    return compute


def _reflected(compute: Any) -> Any:
    """The method for the case that the traced number is the right operand."""
    return lambda self, other: compute(other, self)


def _unary(op_name: str, python: Any) -> Any:
    def compute(self: RuntimeScalar) -> RuntimeScalar:
        example, f = known_example(self), self.formula
        formula = None if example is None or f is None else lambda get: python(f(get))
        return RuntimeScalar(
            apply(OPS[op_name], (self.tensor,)), None if example is None else python(example), self.sources, formula
        )

    return compute


def _comparison(python: Any) -> Any:
    def compare(self: RuntimeScalar, other: Any) -> Any:
        if isinstance(other, Tensor):
            return NotImplemented
        if type(other) is RuntimeScalar:
            other = other.concrete("a comparison")
        return python(self.concrete("a comparison"), other)

    return compare


def _power(x: Any, y: Any) -> Any:
    """x ** y. A constant integer exponent of an integer stays an integer, as in Python; with another one the kind of
    the result depends on it.
    """
    whole = isinstance(x, int) and isinstance(y, int)  # holds for traced integers too
    if whole:
        if type(y) is RuntimeScalar:
            y = y.concrete("the exponent of an integer")
        if type(x) is not RuntimeScalar:
            return operator.pow(x, y)
        return _arithmetic("pow", operator.pow, real=y < 0)(x, y)
    return _arithmetic("pow", operator.pow, real=True)(x, y)


def _shift_left(x: Any, y: Any) -> Any:
    """x << y, which may leave 64 bits and so needs the numbers themselves."""
    return operator.lshift(*(v.concrete("<<") if type(v) is RuntimeScalar else v for v in (x, y)))


class RuntimeScalar:
    """A traced Python number: `tensor` is a 0-d float64 or int64 traced tensor, `example` its value in this trace.

    `example` is None for a loop index, whose value changes while the program runs.
    """

    __slots__ = ("tensor", "example", "sources", "formula")

    def __init__(
        self,
        tensor: Tensor,
        example: int | float | None,
        sources: frozenset[ScalarInput],
        formula: Formula | None = None,
    ) -> None:
        self.tensor, self.example, self.sources, self.formula = tensor, example, sources, formula

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> type:  # isinstance(lr, float) holds in user code
            return float if self.tensor.dtype is float64 else int

    def concrete(self, why: str) -> Any:
        """The number itself; the program is from now on valid for this value only."""
        if known_example(self) is None:
            raise error(
                TraceError,
                f"{why} needs the value of a loop index, or of a number that a loop computes, which changes while the "
                "compiled loop runs: use tensor operations on it (`weft.where`), or a plain `range` for a loop that "
                "should be unrolled",
            )
        if STATE.trace is not None:
            STATE.trace.note_look(self.tensor, why)
        for source in self.sources:
            source.pinned = True
        return self.example

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.concrete(f"`.{name}`"), name)

    def __repr__(self) -> str:
        return f"RuntimeScalar({self.example})"

    def __format__(self, spec: str) -> str:
        return format(self.concrete("formatting"), spec)

    def __str__(self) -> str:
        return str(self.concrete("str()"))

    def __bool__(self) -> bool:
        return bool(self.concrete("a condition"))

    def __float__(self) -> float:
        return float(self.concrete("float()"))

    def __int__(self) -> int:
        return int(self.concrete("int()"))

    def __index__(self) -> int:
        return operator.index(self.concrete("use as a size or index"))

    def __hash__(self) -> int:
        return hash(self.concrete("hash()"))

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.concrete("round()"), digits)

    # ---- arithmetic ------------------------------------------------------------------------------------------------

    __add__ = _arithmetic("add", operator.add)
    __radd__ = _reflected(__add__)
    __sub__ = _arithmetic("sub", operator.sub)
    __rsub__ = _reflected(__sub__)
    __mul__ = _arithmetic("mul", operator.mul)
    __rmul__ = _reflected(__mul__)
    __truediv__ = _arithmetic("div", operator.truediv, real=True)
    __rtruediv__ = _reflected(__truediv__)
    __floordiv__ = _arithmetic("floor_divide", operator.floordiv)
    __rfloordiv__ = _reflected(__floordiv__)
    __mod__ = _arithmetic("remainder", operator.mod)
    __rmod__ = _reflected(__mod__)
    __and__ = _arithmetic("bitwise_and", operator.and_)
    __rand__ = _reflected(__and__)
    __or__ = _arithmetic("bitwise_or", operator.or_)
    __ror__ = _reflected(__or__)
    __xor__ = _arithmetic("bitwise_xor", operator.xor)
    __rxor__ = _reflected(__xor__)
    __rshift__ = _arithmetic("shift_right", operator.rshift)
    __rrshift__ = _reflected(__rshift__)
    __pow__ = _power
    __rpow__ = _reflected(_power)
    __lshift__ = _shift_left
    __rlshift__ = _reflected(_shift_left)
    __neg__ = _unary("neg", operator.neg)
    __abs__ = _unary("abs", abs)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pos__(self) -> RuntimeScalar:
        return self

    def __invert__(self) -> RuntimeScalar:
        if self.tensor.dtype is float64:
            raise TypeError("bad operand type for unary ~: 'float'")
        return -self - 1

    # ---- comparisons, which need the number itself -----------------------------------------------------------------

    __eq__ = _comparison(operator.eq)
    __ne__ = _comparison(operator.ne)
    __lt__ = _comparison(operator.lt)
    __le__ = _comparison(operator.le)
    __gt__ = _comparison(operator.gt)
    __ge__ = _comparison(operator.ge)


def known_example(number: RuntimeScalar) -> int | float | None:
    """The value of the number in this trace; None when a captured loop computes it."""
    trace = STATE.trace
    return None if trace is not None and trace.is_loop_value(number.tensor) else number.example


def _operand(value: Any) -> tuple[Tensor, Any, frozenset[Any], Formula | None] | None:
    """(0-d tensor, example, sources, formula) of a number; None when it is no number."""
    if type(value) is RuntimeScalar:
        return value.tensor, known_example(value), value.sources, value.formula
    if type(value) in (int, bool) and -(2**63) <= value < 2**63:
        return EMIT.scalar(int(value), int64), value, frozenset(), lambda _: value
    if type(value) is float:
        return EMIT.scalar(value, float64), value, frozenset(), lambda _: value
    return None


def is_number(value: Any) -> bool:
    """Whether `value` is a Python number or a traced one (bool is not)."""
    return type(value) in (int, float, RuntimeScalar)
