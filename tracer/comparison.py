"""Comparisons, logic, bits, and choices between elements."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ir.errors import DTypeError
from ..ir.op import Op
from ..ir.ops import OPS
from ..ir.types import DType, bool_
from .dispatch import EMIT, apply, require_no_trace
from .dtypes import torch_name
from .inplace import in_place
from .location import error
from .promotion import (
    Operand,
    array_of,
    as_tensor_of,
    broadcast_all,
    common_shape,
    elementwise,
    is_operand,
    is_recorded,
    named,
    operand,
    result_type,
)
from .tensor import Tensor, method, wrap


def _name(function: Callable[..., Any], name: str, doc: str) -> None:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc


# ---- comparisons -----------------------------------------------------------------------------------------------------

def _comparison(op: Op, symbol: str, *aliases: str) -> Callable[[Operand, Operand], Tensor]:
    """The function, methods, in-place methods and operator of one comparison."""

    def compare(input: Operand, other: Operand) -> Tensor:
        return elementwise(op, op.name, (input, other))

    def operator(self: Tensor, other: Any) -> Any:
        return elementwise(op, op.name, (self, other)) if is_operand(other) else NotImplemented

    _name(compare, op.name, f"input {symbol} other, elementwise, as a bool tensor.")
    method(op.name, *aliases)(compare)
    for name in (op.name, *aliases):
        in_place(compare, name)
    setattr(Tensor, f"__{op.name}__", operator)
    return compare


eq = _comparison(OPS.eq, "==")
ne = _comparison(OPS.ne, "!=", "not_equal")
lt = _comparison(OPS.lt, "<", "less")
le = _comparison(OPS.le, "<=", "less_equal")
gt = _comparison(OPS.gt, ">", "greater")
ge = _comparison(OPS.ge, ">=", "greater_equal")
not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge
Tensor.__hash__ = object.__hash__  # type: ignore[method-assign]  # == compares elements; tensors in sets go by identity


@method()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and elements, as a Python bool."""
    require_no_trace("whether two tensors are equal", "use `(a == b).all()`, which is a tensor")
    return tuple(input.shape) == tuple(other.shape) and bool(eq(input, other)._memory().all())


@method()
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Whether |input - other| <= atol + rtol * |other|, elementwise; equal infinities are close."""
    if input.dtype is not other.dtype:
        raise error(DTypeError, f"{torch_name(input.dtype)} did not match {torch_name(other.dtype)}: isclose compares "
                                "tensors of one dtype")
    close = eq(input, other)
    if equal_nan and input.dtype.is_floating_point:
        close = close | (isnan(input) & isnan(other))
    if not input.dtype.is_floating_point:
        input, other = input.double(), other.double()
    difference = (input - other).abs()
    return close | (isfinite(difference) & (difference <= atol + rtol * other.abs()))


@method()
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close (see `isclose`), as a Python bool."""
    require_no_trace("whether two tensors are close", "use `weft.isclose(a, b).all()`, which is a tensor")
    return bool(isclose(input, other, rtol, atol, equal_nan)._memory().all())


# ---- predicates of floats --------------------------------------------------------------------------------------------

def _predicate(op: Op, otherwise: bool, doc: str) -> Callable[[Tensor], Tensor]:
    """A predicate that is `otherwise` everywhere for integers."""

    def test(input: Tensor) -> Tensor:
        if not input.dtype.is_floating_point:
            return EMIT.full(tuple(input.shape), otherwise, bool_)
        return elementwise(op, op.name, (input,), input.dtype)

    _name(test, op.name, doc)
    return method()(test)


isnan = _predicate(OPS.isnan, False, "Whether each element is not a number.")
isinf = _predicate(OPS.isinf, False, "Whether each element is an infinity.")
isfinite = _predicate(OPS.isfinite, True, "Whether each element is neither NaN nor infinite.")


@method()
def signbit(input: Tensor) -> Tensor:
    """Whether the sign bit is set, elementwise (true for -0.0)."""
    if input.dtype.is_floating_point:
        return elementwise(OPS.signbit, "signbit", (input,), input.dtype)
    return lt(input, 0)


@method()
def isposinf(input: Tensor) -> Tensor:
    """Whether each element is +inf."""
    return eq(input, float("inf")) if input.dtype.is_floating_point else isinf(input)


@method()
def isneginf(input: Tensor) -> Tensor:
    """Whether each element is -inf."""
    return eq(input, float("-inf")) if input.dtype.is_floating_point else isinf(input)


@method()
def isreal(input: Tensor) -> Tensor:
    """True for every element: there are no complex tensors."""
    return EMIT.full(tuple(input.shape), True, bool_)


# ---- logic -----------------------------------------------------------------------------------------------------------

def truth(x: Operand) -> Operand:
    """An operand as bool: whether it is not zero."""
    return ne(x, 0) if isinstance(x, Tensor) and x.dtype is not bool_ else x


def _logical(op: Op, doc: str) -> Callable[[Operand, Operand], Tensor]:
    def combine(input: Operand, other: Operand) -> Tensor:
        return elementwise(op, op.name, (truth(operand(op.name, input)), truth(operand(op.name, other))), bool_)

    _name(combine, op.name, doc)
    in_place(combine)
    return method()(combine)


logical_and = _logical(OPS.logical_and, "Whether both elements are nonzero.")
logical_or = _logical(OPS.logical_or, "Whether one of the elements is nonzero.")
logical_xor = _logical(OPS.logical_xor, "Whether exactly one of the elements is nonzero.")


@method()
def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero."""
    return eq(input, 0) if input.dtype is not bool_ else elementwise(OPS.logical_not, "logical_not", (input,), bool_)


def _bits(op: Op, name: str, symbol: str, bools: bool, doc: str) -> Callable[[Operand, Operand], Tensor]:
    """A bitwise function with its operators; `bools` when it is defined for bool tensors too."""

    def combine(input: Operand, other: Operand) -> Tensor:
        input, other = operand(name, input), operand(name, other)
        dtype = result_type(input, other)
        if dtype.is_floating_point or (dtype is bool_ and not bools):
            raise error(DTypeError, f"{name} is not implemented for {torch_name(dtype)}: it takes "
                                    f"integer{' and bool' if bools else ''} tensors")
        return elementwise(op, name, (input, other), dtype)

    _name(combine, name, doc)
    method()(combine)
    assign = in_place(combine)
    setattr(Tensor, f"__{symbol}__", lambda self, other: combine(self, other) if is_operand(other) else NotImplemented)
    setattr(Tensor, f"__r{symbol}__", lambda self, other: combine(other, self) if is_operand(other) else NotImplemented)
    setattr(Tensor, f"__i{symbol}__", lambda self, other: assign(self, other) if is_operand(other) else NotImplemented)
    return combine


bitwise_and = _bits(OPS.bitwise_and, "bitwise_and", "and", True, "The bitwise and, elementwise.")
bitwise_or = _bits(OPS.bitwise_or, "bitwise_or", "or", True, "The bitwise or, elementwise.")
bitwise_xor = _bits(OPS.bitwise_xor, "bitwise_xor", "xor", True, "The bitwise exclusive or, elementwise.")
bitwise_left_shift = _bits(OPS.shift_left, "bitwise_left_shift", "lshift", False, "input << other, elementwise.")
bitwise_right_shift = _bits(OPS.shift_right, "bitwise_right_shift", "rshift", False,
                            "input >> other, elementwise; keeps the sign.")


@method("bitwise_not", "__invert__")
def bitwise_not(input: Tensor) -> Tensor:
    """The bitwise complement; `not` of a bool tensor."""
    if input.dtype.is_floating_point:
        raise error(DTypeError, "~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return elementwise(OPS.bitwise_not, "bitwise_not", (input,), input.dtype)


for _function in (logical_not, bitwise_not):
    in_place(_function)


# ---- choices ---------------------------------------------------------------------------------------------------------

def select_by(condition: Tensor, x: Operand, y: Operand, dtype: DType, name: str = "where") -> Tensor:
    """`x` where the bool `condition` holds, else `y`, in `dtype`; all three broadcast."""
    operands = (condition, operand(name, x), operand(name, y))
    if is_recorded(operands):
        return apply(OPS.select, broadcast_all(name, [condition, as_tensor_of(operands[1], dtype),
                                                      as_tensor_of(operands[2], dtype)]))
    arrays = condition._memory(), array_of(operands[1], dtype), array_of(operands[2], dtype)
    try:
        return wrap(OPS.select.evaluate(*arrays))
    except ValueError:
        common_shape(name, [a.shape for a in arrays])
        raise


def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Any:
    """`input` where `condition` holds, else `other`, elementwise with broadcasting; with `condition` alone, the indices
    of its nonzeros."""
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    if condition.dtype is not bool_:
        raise error(DTypeError, "where expected condition to be a boolean tensor, but got a tensor with dtype "
                                f"{torch_name(condition.dtype)}: "
                                "compare it, for example `condition != 0`")
    input, other = operand("where", input), operand("where", other)
    return select_by(condition, input, other, result_type(input, other))


@method("where")
def _where_method(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """This tensor where `condition` holds, else `other`."""
    return where(condition, self, other)


def _extreme(op: Op, doc: str) -> Callable[[Tensor, Operand], Tensor]:
    def choose(input: Tensor, other: Operand) -> Tensor:
        return elementwise(op, op.name, (input, other))

    _name(choose, op.name, doc)
    return method()(choose)


maximum = _extreme(OPS.maximum, "The larger of two elements; NaN if one is NaN.")
minimum = _extreme(OPS.minimum, "The smaller of two elements; NaN if one is NaN.")
fmax = _extreme(OPS.fmax, "The larger of two elements; a NaN is ignored.")
fmin = _extreme(OPS.fmin, "The smaller of two elements; a NaN is ignored.")


@method("clamp", "clip")
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """The elements limited to [min, max]; each bound is a number, a tensor, or absent."""
    if min is None and max is None:
        raise error(DTypeError, "clamp: At least one of 'min' or 'max' must not be None")
    bounds = [operand("clamp", b) for b in (min, max) if b is not None]
    dtype = result_type(input, *bounds)
    result = input
    if min is not None:
        result = select_by(lt(result, min), min, result, dtype, "clamp")
    if max is not None:
        result = select_by(gt(result, max), max, result, dtype, "clamp")
    return named(result, "ClampBackward0" if any(isinstance(b, Tensor) for b in bounds) else "ClampBackward1")


@method()
def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """The elements, but at least `min`."""
    return clamp(input, min=min)


@method()
def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """The elements, but at most `max`."""
    return clamp(input, max=max)


@method()
def relu(input: Tensor) -> Tensor:
    """The elements, with 0 in place of negative ones; the gradient at 0 is 0."""
    array = input._array
    if array is not None and array.dtype.kind == "f" and not is_recorded((input,)):
        zero = array.dtype.type(0)
        return wrap(OPS.select.evaluate(OPS.le.evaluate(array, zero), zero, array))
    if not input.dtype.is_floating_point:
        return select_by(le(input, 0), 0, input, input.dtype, "relu")
    zero = EMIT.full_like(input, 0)
    return named(EMIT.select(EMIT.le(input, zero), zero, input), "ReluBackward0")


@method()
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """`value` where the bool `mask` holds, else the elements."""
    if mask.dtype is not bool_:
        raise error(DTypeError, "masked_fill only supports boolean masks, but got mask with dtype "
                                f"{torch_name(mask.dtype)}")
    return named(select_by(mask, value, input, input.dtype, "masked_fill"), "MaskedFillBackward0")


clip = clamp
for _choice in (clamp, clamp_min, clamp_max, relu, masked_fill):
    in_place(_choice)
in_place(clamp, "clip")
