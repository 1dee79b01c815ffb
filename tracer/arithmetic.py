"""Arithmetic of two operands: functions, Python operators, in-place forms, and the short way for plain eager
tensors."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, WeftError
from ..ir.op import Op
from ..ir.ops import OPS
from ..ir.types import DType, bool_, float64
from .dispatch import EMIT, apply, check_writable
from .inplace import in_place
from .location import error
from .promotion import Operand, broadcast_all, elementwise, floating_type, is_operand, named, operand, result_type
from .scalars import RuntimeScalar
from .state import STATE
from .tape import tensor_requires_grad
from .tensor import Tensor, method

_F32, _F64, _I64 = np.dtype("float32"), np.dtype("float64"), np.dtype("int64")


def is_literal(x: Any, value: float) -> bool:
    """Whether `x` is a Python number that equals `value` (a traced number is not: its value may change)."""
    return type(x) in (int, float) and x == value


# ---- functions -------------------------------------------------------------------------------------------------------

def _scaled(name: str, other: Operand, alpha: Operand, dtype: DType) -> Operand:
    if is_literal(alpha, 1):
        return other
    if isinstance(alpha, float) and not dtype.is_floating_point:
        raise error(DTypeError, f"{name}: For integral input tensors, argument alpha must not be a floating point "
                                "number.")
    return elementwise(OPS.logical_and if dtype is bool_ else OPS.mul, name, (other, alpha), dtype)


@method()
def add(input: Operand, other: Operand, *, alpha: Operand = 1) -> Tensor:
    """input + alpha * other, elementwise with broadcasting; `or` of two bool tensors."""
    input, other = operand("add", input), operand("add", other)
    dtype = result_type(input, other)
    return elementwise(OPS.logical_or if dtype is bool_ else OPS.add, "add",
                       (input, _scaled("add", other, alpha, dtype)), dtype)


@method("sub", "subtract")
def sub(input: Operand, other: Operand, *, alpha: Operand = 1) -> Tensor:
    """input - alpha * other, elementwise with broadcasting."""
    input, other = operand("sub", input), operand("sub", other)
    dtype = result_type(input, other)
    if dtype is bool_:
        raise error(DTypeError, "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` "
                                "or `logical_xor()` "
                                "operator instead.")
    return elementwise(OPS.sub, "sub", (input, _scaled("sub", other, alpha, dtype)), dtype)


def rsub(input: Operand, other: Operand, *, alpha: Operand = 1) -> Tensor:
    """other - alpha * input."""
    return named(sub(other, input, alpha=alpha), "RsubBackward1")


@method("mul", "multiply")
def mul(input: Operand, other: Operand) -> Tensor:
    """input * other, elementwise with broadcasting; `and` of two bool tensors."""
    input, other = operand("mul", input), operand("mul", other)
    dtype = result_type(input, other)
    return elementwise(OPS.logical_and if dtype is bool_ else OPS.mul, "mul", (input, other), dtype)


@method("div", "divide")
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, elementwise: true division, or rounded down (`"floor"`) or toward zero (`"trunc"`)."""
    input, other = operand("div", input), operand("div", other)
    if rounding_mode is None:
        result = elementwise(OPS.div, "div", (input, other), floating_type(input, other))
        # torch's name for number / tensor
        return result if isinstance(input, Tensor) else named(result, "MulBackward0")
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode == "trunc":
        return _trunc_divide(input, other)
    raise error(WeftError, "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
                           f"{rounding_mode!r}")


@method()
def true_divide(input: Operand, other: Operand) -> Tensor:
    """input / other, elementwise."""
    return div(input, other)


def _quotient_type(name: str, input: Operand, other: Operand) -> tuple[Operand, Operand, DType]:
    """The operands and dtype of an integer-like division, with a zero divisor refused where its value is known."""
    input, other = operand(name, input), operand(name, other)
    dtype = result_type(input, other)
    if dtype is bool_:
        raise error(DTypeError, f"{name} is not defined for bool tensors: convert one with `.to(weft.int64)`")
    if dtype.is_integer:
        divisor = other._array if isinstance(other, Tensor) and STATE.trace is None else other
        if divisor is not None and not isinstance(divisor, (Tensor, RuntimeScalar)) and np.any(np.equal(divisor, 0)):
            raise error(WeftError, f"{name}: ZeroDivisionError: an element of the integer divisor is 0")
    return input, other, dtype


@method()
def floor_divide(input: Operand, other: Operand) -> Tensor:
    """input / other rounded down, elementwise."""
    input, other, dtype = _quotient_type("floor_divide", input, other)
    return elementwise(OPS.floor_divide, "floor_divide", (input, other), dtype)


def _trunc_divide(input: Operand, other: Operand) -> Tensor:
    input, other, dtype = _quotient_type("div", input, other)
    if dtype.is_floating_point:
        return named(EMIT.trunc(elementwise(OPS.div, "div", (input, other), dtype)), "DivBackward1")
    exact = elementwise(OPS.sub, "div", (input, elementwise(OPS.fmod, "div", (input, other), dtype)), dtype)
    return elementwise(OPS.floor_divide, "div", (exact, other), dtype)


@method()
def remainder(input: Operand, other: Operand) -> Tensor:
    """The remainder with the sign of the divisor (Python's `%`), elementwise."""
    input, other, dtype = _quotient_type("remainder", input, other)
    return elementwise(OPS.remainder, "remainder", (input, other), dtype)


@method()
def fmod(input: Operand, other: Operand) -> Tensor:
    """The remainder with the sign of the dividend (C's fmod), elementwise."""
    input, other, dtype = _quotient_type("fmod", input, other)
    return elementwise(OPS.fmod, "fmod", (input, other), dtype)


@method()
def pow(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent, elementwise. Constant exponents 2, 3, 0.5, 1, -1 are products, roots and reciprocals."""
    input, exponent = operand("pow", input), operand("pow", exponent)
    dtype = result_type(input, exponent)
    if dtype is bool_:
        dtype = result_type(input, 1)
    if isinstance(input, Tensor) and type(exponent) in (int, float):
        if dtype.is_integer and exponent < 0:
            raise error(WeftError, "Integers to negative integer powers are not allowed.")
        return named(_constant_power(input, exponent, dtype), "PowBackward0")
    result = elementwise(OPS.pow, "pow", (input, exponent), dtype)
    return named(result, "PowBackward1" if isinstance(input, Tensor) else "PowBackward2")


def _constant_power(x: Tensor, exponent: float, dtype: DType) -> Tensor:
    x = EMIT.cast(x, dtype)
    if exponent == 2:
        return EMIT.mul(x, x)
    if exponent == 3:
        return EMIT.mul(EMIT.mul(x, x), x)
    if exponent == 0.5:
        return elementwise(OPS.sqrt, "pow", (x,), dtype)
    if exponent == -1:
        return elementwise(OPS.reciprocal, "pow", (x,), dtype)
    return elementwise(OPS.pow, "pow", (x, exponent), dtype)


@method()
def square(input: Tensor) -> Tensor:
    """input ** 2, elementwise."""
    return pow(input, 2)


@method()
def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent computed in float64."""
    base, power = operand("float_power", input), operand("float_power", exponent)
    if isinstance(base, Tensor):
        return pow(EMIT.cast(base, float64), EMIT.cast(power, float64) if isinstance(power, Tensor) else power)
    return pow(base, EMIT.cast(power, float64))


@method("neg", "negative")
def neg(input: Tensor) -> Tensor:
    """-input, elementwise."""
    if input.dtype is bool_:
        raise error(DTypeError, "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to "
                                "invert a mask, use the "
                                "`~` or `logical_not()` operator instead.")
    return elementwise(OPS.neg, "neg", (input,), input.dtype)


@method()
def positive(input: Tensor) -> Tensor:
    """The tensor itself; an error for bool."""
    if input.dtype is bool_:
        raise error(DTypeError, "The `+` operator, on a bool tensor is not supported.")
    return input


@method("abs", "absolute")
def abs(input: Tensor) -> Tensor:
    """The absolute value, elementwise."""
    if input.dtype is bool_:
        raise error(DTypeError, "abs is not defined for bool tensors: convert it with `.to(weft.int64)`")
    return elementwise(OPS.abs, "abs", (input,), input.dtype)


@method()
def addcmul(input: Tensor, tensor1: Operand, tensor2: Operand, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 * tensor2, elementwise."""
    return named(add(input, mul(tensor1, tensor2), alpha=value), "AddcmulBackward0")


@method()
def addcdiv(input: Tensor, tensor1: Operand, tensor2: Operand, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 / tensor2, elementwise."""
    return named(add(input, div(tensor1, tensor2), alpha=value), "AddcdivBackward0")


# ---- operators -------------------------------------------------------------------------------------------------------

def _records(t: Tensor) -> bool:
    return t._requires_grad or (t._base is not None and tensor_requires_grad(t))


def _operator(function: Callable[[Any, Any], Tensor], op: Op, reflected: bool = False,
              integers: bool = False) -> Callable[..., Any]:
    """An operator method. Plain eager operands of one dtype are evaluated at once; all others take `function`.

    The short way applies when no trace is on, no operand wants a gradient, and NumPy's result is promoted as torch's:
    tensors of one floating dtype (or int64 when `integers`), or such a tensor and a Python number of no higher
    category.
    """
    evaluate = op.evaluate

    def general(self: Tensor, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        return function(other, self) if reflected else function(self, other)

    def recorded(self: Tensor, other: Tensor) -> Any:
        """For tensors of one floating dtype."""
        operands = (other, self) if reflected else (self, other)
        return apply(op, operands if self.shape == other.shape else broadcast_all(op.name, operands))

    def operate(self: Tensor, other: Any) -> Any:
        x = self._array
        if x is None or STATE.trace is not None:
            return general(self, other)
        dtype = x.dtype
        recording = STATE.grad_enabled
        if isinstance(other, Tensor):
            y = other._array
            if y is None or y.dtype is not dtype:
                return general(self, other)
            if recording and (_records(self) or _records(other)):
                return recorded(self, other)
        else:
            y = other
            kind = type(other)
            if kind is not float and kind is not int or (kind is float and dtype is _I64):
                return general(self, other)
            if recording and _records(self):
                return general(self, other) if reflected else recorded(self, EMIT.full_like(self, float(other)))
        if not (dtype is _F32 or dtype is _F64 or (integers and dtype is _I64)):
            return general(self, other)
        try:
            value = evaluate(y, x) if reflected else evaluate(x, y)
        # shapes that do not broadcast, a number that does not fit: the long way explains
        except (ValueError, OverflowError):
            return general(self, other)
        result = Tensor()
        result._array = value if type(value) is np.ndarray else np.asarray(value)
        return result

    return operate


def _in_place(function: Callable[[Any, Any], Tensor], op: Op, integers: bool = False) -> Callable[..., Any]:
    """An in-place method with the same short way as `_operator`, writing straight into the tensor's memory."""
    evaluate = op.evaluate
    general = in_place(function)
    name = general.__name__

    def method_(self: Tensor, other: Any, **options: Any) -> Tensor:
        x, recording = self._array, STATE.grad_enabled
        if x is None or options or STATE.trace is not None or self._frozen or (recording and _records(self)):
            return general(self, other, **options)
        dtype = x.dtype
        if isinstance(other, Tensor):
            y = other._array
            if y is None or y.dtype is not dtype or (recording and _records(other)):
                return general(self, other)
        else:
            y = other
            kind = type(other)
            if kind is not float and kind is not int or (kind is float and dtype is _I64):
                return general(self, other)
        if not (dtype is _F32 or dtype is _F64 or (integers and dtype is _I64)):
            return general(self, other)
        check_writable(self, name)
        try:
            evaluate(x, y, out=x)
        except (ValueError, OverflowError):
            return general(self, other)
        self._storage.version += 1
        return self

    method_.__name__ = method_.__qualname__ = name
    method_.__doc__ = general.__doc__
    setattr(Tensor, name, method_)
    return method_


def _install(symbol: str, function: Callable[[Any, Any], Tensor], op: Op, integers: bool = False,
             commutative: bool = False) -> None:
    """Attaches `__symbol__` and `__rsymbol__` to Tensor."""
    setattr(Tensor, f"__{symbol}__", _operator(function, op, integers=integers))
    setattr(Tensor, f"__r{symbol}__", _operator(function, op, reflected=not commutative, integers=integers))


def _long_operator(function: Callable[[Any, Any], Tensor], reflected: bool = False) -> Callable[[Tensor, Any], Any]:
    """An operator method without a short way."""

    def operate(self: Tensor, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        return function(other, self) if reflected else function(self, other)

    return operate


def _augmented(method_: Callable[..., Tensor]) -> Callable[[Tensor, Any], Any]:
    """`x += y` as the in-place method."""
    return lambda self, other: method_(self, other) if is_operand(other) else NotImplemented


def _subtract(x: Operand, y: Operand) -> Tensor:
    return sub(x, y) if isinstance(x, Tensor) else rsub(y, x)


_install("add", add, OPS.add, integers=True, commutative=True)
_install("sub", _subtract, OPS.sub, integers=True)
_install("mul", mul, OPS.mul, integers=True, commutative=True)
_install("truediv", div, OPS.div)

for _symbol, _function in (("floordiv", floor_divide), ("mod", remainder), ("pow", pow)):
    setattr(Tensor, f"__{_symbol}__", _long_operator(_function))
    setattr(Tensor, f"__r{_symbol}__", _long_operator(_function, reflected=True))

add_ = _in_place(add, OPS.add, integers=True)
sub_ = _in_place(sub, OPS.sub, integers=True)
mul_ = _in_place(mul, OPS.mul, integers=True)
div_ = _in_place(div, OPS.div)
for _operation in (true_divide, floor_divide, remainder, fmod, pow, square, float_power, neg, abs, addcmul, addcdiv):
    in_place(_operation)
for _alias, _name in (("subtract_", "sub_"), ("multiply_", "mul_"), ("divide_", "div_"), ("negative_", "neg_"),
                      ("absolute_", "abs_")):
    setattr(Tensor, _alias, getattr(Tensor, _name))
for _symbol, _name in (("add", "add_"), ("sub", "sub_"), ("mul", "mul_"), ("truediv", "div_"),
                       ("floordiv", "floor_divide_"), ("mod", "remainder_"), ("pow", "pow_")):
    setattr(Tensor, f"__i{_symbol}__", _augmented(getattr(Tensor, _name)))

method("__neg__")(neg)
method("__pos__")(positive)
method("__abs__")(abs)

subtract, multiply, divide, negative, absolute = sub, mul, div, neg, abs
