"""Elementwise functions of one operand, and the mathematical functions that are made of several ops."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..ir.errors import DTypeError
from ..ir.ops import OPS
from ..ir.types import bool_
from .arithmetic import add, div, mul, sub
from .comparison import eq, gt, isnan, lt, select_by
from .dispatch import EMIT, apply_copy
from .inplace import in_place
from .location import error
from .promotion import (
    Operand,
    as_tensor_of,
    elementwise,
    floating_type,
    is_recorded,
    named,
    operand,
    result_type,
    strict,
)
from .tensor import Tensor, method, wrap


def _float_function(op_name: str, doc: str, *aliases: str, torch_name: str = "") -> Callable[[Tensor], Tensor]:
    """A function of floats; integers and bools are converted to the default dtype first."""
    op = OPS[op_name]
    evaluate = op.evaluate

    def function(input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            raise error(DTypeError, f"{op_name}(): the argument must be a tensor, not {type(input).__name__}")
        array = input._array
        if array is not None and array.dtype.kind == "f" and not is_recorded((input,)):
            return wrap(evaluate(array))
        return elementwise(op, op_name, (input,), floating_type(input))

    function.__name__ = function.__qualname__ = op_name
    function.__doc__ = doc
    method(op_name, *aliases)(function)
    for name in (op_name, *aliases):
        in_place(function, name)
    return function


exp = _float_function("exp", "e ** input, elementwise.")
exp2 = _float_function("exp2", "2 ** input, elementwise.")
expm1 = _float_function("expm1", "exp(input) - 1, exact near 0.")
log = _float_function("log", "The natural logarithm.")
log2 = _float_function("log2", "The logarithm to base 2.")
log10 = _float_function("log10", "The logarithm to base 10.")
log1p = _float_function("log1p", "log(1 + input), exact near 0.")
sqrt = _float_function("sqrt", "The square root.")
rsqrt = _float_function("rsqrt", "1 / sqrt(input).")
reciprocal = _float_function("reciprocal", "1 / input.")
sin = _float_function("sin", "The sine.")
cos = _float_function("cos", "The cosine.")
tan = _float_function("tan", "The tangent.")
asin = arcsin = _float_function("asin", "The inverse sine.", "arcsin")
acos = arccos = _float_function("acos", "The inverse cosine.", "arccos")
atan = arctan = _float_function("atan", "The inverse tangent.", "arctan")
sinh = _float_function("sinh", "The hyperbolic sine.")
cosh = _float_function("cosh", "The hyperbolic cosine.")
tanh = _float_function("tanh", "The hyperbolic tangent.")
asinh = arcsinh = _float_function("asinh", "The inverse hyperbolic sine.", "arcsinh")
acosh = arccosh = _float_function("acosh", "The inverse hyperbolic cosine.", "arccosh")
atanh = arctanh = _float_function("atanh", "The inverse hyperbolic tangent.", "arctanh")
sigmoid = expit = _float_function("sigmoid", "1 / (1 + exp(-input)).")
erf = _float_function("erf", "The error function.")
erfc = _float_function("erfc", "1 - erf(input), exact for large input.")
erfinv = _float_function("erfinv", "The inverse of the error function.")
lgamma = _float_function("lgamma", "The logarithm of |gamma(input)|.")
digamma = _float_function("digamma", "The derivative of lgamma.")


def copy_of(input: Tensor) -> Tensor:
    """The same values in memory of their own."""
    return apply_copy(OPS.reshape, input, {"shape": tuple(input.shape)})


def _rounding(op_name: str, doc: str, *aliases: str) -> Callable[[Tensor], Tensor]:
    """A rounding function; integers are returned unchanged, as a copy."""
    op = OPS[op_name]

    def function(input: Tensor) -> Tensor:
        if input.dtype is bool_:
            raise error(DTypeError, f"{op_name} is not implemented for bool tensors")
        return elementwise(op, op_name, (input,), input.dtype) if input.dtype.is_floating_point else copy_of(input)

    function.__name__ = function.__qualname__ = op_name
    function.__doc__ = doc
    method(op_name, *aliases)(function)
    for name in (op_name, *aliases):
        in_place(function, name)
    return function


floor = _rounding("floor", "Rounded down.")
ceil = _rounding("ceil", "Rounded up.")
trunc = fix = _rounding("trunc", "Rounded toward zero.", "fix")
_round_to_even = _rounding("round", "Rounded to the nearest integer, halves to even.")


@method()
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounded to `decimals` places (negative ones: to tens, hundreds ...), halves to even."""
    if decimals == 0:
        return _round_to_even(input)
    scale = 10.0 ** builtin_abs(decimals)
    if decimals > 0:
        return named(div(_round_to_even(mul(input, scale)), scale), "RoundBackward1")
    return named(mul(_round_to_even(div(input, scale)), scale), "RoundBackward1")


def builtin_abs(x: int) -> int:
    """|x| of a Python number (`abs` names the tensor function here)."""
    return x if x >= 0 else -x


@method()
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1, elementwise; NaN stays NaN."""
    return copy_of(input) if input.dtype is bool_ else elementwise(OPS.sign, "sign", (input,), input.dtype)


@method()
def sgn(input: Tensor) -> Tensor:
    """As `sign` for real tensors."""
    return sign(input)


@method()
def angle(input: Tensor) -> Tensor:
    """0 for positive numbers, pi for negative ones (tensors are real)."""
    x = EMIT.cast(input, floating_type(input))
    return select_by(isnan(x), x, select_by(lt(x, 0), math.pi, 0, x.dtype), x.dtype)


@method("conj", "conj_physical")
def conj(input: Tensor) -> Tensor:
    """The tensor itself (tensors are real)."""
    return input


def real(input: Tensor) -> Tensor:
    """The tensor itself (tensors are real)."""
    return input


@method()
def frac(input: Tensor) -> Tensor:
    """The part after the decimal point, with the sign of the element."""
    return named(sub(input, trunc(input)), "FracBackward0")


@method()
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return named(mul(input, math.pi / 180), "Deg2RadBackward0")


@method()
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return named(mul(input, 180 / math.pi), "Rad2DegBackward0")


@method()
def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), and 1 at 0."""
    x = EMIT.cast(input, floating_type(input))
    angle = mul(select_by(eq(x, 0), 1e-20, x, x.dtype), math.pi)
    return named(div(sin(angle), angle), "SincBackward0")


@method()
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), with x limited to [eps, 1 - eps] when `eps` is given."""
    x = EMIT.cast(input, floating_type(input))
    if eps is not None:
        x = x.clamp(eps, 1 - eps)
    return named(log(div(x, sub(1, x))), "LogitBackward0")


@method()
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN becomes `nan` (0), infinities become `posinf` and `neginf` (the largest and lowest finite numbers)."""
    if not input.dtype.is_floating_point:
        return copy_of(input)
    limit = _largest(input)
    result = select_by(isnan(input), 0.0 if nan is None else nan, input, input.dtype)
    result = select_by(eq(input, math.inf), limit if posinf is None else posinf, result, input.dtype)
    return named(select_by(eq(input, -math.inf), -limit if neginf is None else neginf, result, input.dtype),
                 "NanToNumBackward0")


def _largest(x: Tensor) -> float:
    return 3.4028234663852886e38 if x.dtype.bits == 32 else 1.7976931348623157e308


def _binary_float(op_name: str, doc: str, *aliases: str) -> Callable[[Operand, Operand], Tensor]:
    """A function of two floats; integers are converted to the default dtype."""
    op = OPS[op_name]

    def function(input: Operand, other: Operand) -> Tensor:
        input, other = operand(op_name, input), operand(op_name, other)
        return elementwise(op, op_name, (input, other), floating_type(input, other))

    function.__name__ = function.__qualname__ = op_name
    function.__doc__ = doc
    method(op_name, *aliases)(function)
    for name in (op_name, *aliases):
        in_place(function, name)
    return function


atan2 = arctan2 = _binary_float("atan2", "The angle of the point (other, input), in (-pi, pi].", "arctan2")
hypot = _binary_float("hypot", "sqrt(input ** 2 + other ** 2).")
copysign = _binary_float("copysign", "The magnitude of input with the sign of other.")
nextafter = _binary_float("nextafter", "The next number after input toward other.")
logaddexp = _binary_float("logaddexp", "log(exp(input) + exp(other)), without overflow.")


@method()
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2 ** input + 2 ** other), without overflow."""
    scale = math.log(2)
    return named(div(logaddexp(mul(input, scale), mul(other, scale)), scale), "Logaddexp2Backward0")


@method()
def xlogy(input: Operand, other: Operand) -> Tensor:
    """input * log(other), and 0 where input is 0."""
    input, other = operand("xlogy", input), operand("xlogy", other)
    dtype = floating_type(input, other)
    x, y = as_tensor_of(input, dtype), as_tensor_of(other, dtype)
    product = mul(x, log(y))
    return named(select_by(isnan(y), math.nan, select_by(eq(x, 0), 0, product, dtype), dtype), "XlogyBackward0")


@method()
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 for negative elements, 1 for positive ones, `values` at 0."""
    if input.dtype is not values.dtype:
        raise error(DTypeError, "heaviside is not yet implemented for tensors with different dtypes.")
    step = select_by(gt(input, 0), 1, 0, input.dtype)
    return select_by(eq(input, 0), values, select_by(isnan(input), 0, step, input.dtype), input.dtype)


@method()
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input); exact at both ends."""
    span = sub(end, input)
    near = add(input, mul(span, weight))
    far = sub(end, mul(span, sub(1, weight) if isinstance(weight, Tensor) else 1 - weight))
    if type(weight) in (int, float):
        return named(near if builtin_abs(weight) < 0.5 else far, "LerpBackward0")
    if isinstance(weight, Tensor):
        small = lt(weight.abs(), 0.5)
        return named(select_by(small, near, far, result_type(near, far)), "LerpBackward1")
    return named(near, "LerpBackward0")


@method()
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2 ** other."""
    return mul(input, exp2(EMIT.cast(other, floating_type(other))))


@method()
def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers, by as many steps of Euclid's algorithm as the width of the dtype can
    need."""
    dtype = result_type(input, other)
    if not dtype.is_integer:
        raise error(DTypeError, f"gcd is not implemented for {dtype}: it takes integer tensors")
    a, b = strict("gcd", (input.abs(), other.abs()), dtype)
    for _ in range(int(dtype.bits * 1.45) + 1):
        done = eq(b, 0)
        a, b = select_by(done, a, b, dtype), select_by(done, b, elementwise(OPS.remainder, "gcd", (a, b), dtype), dtype)
    return a


@method()
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers."""
    divisor = gcd(input, other)
    quotient = elementwise(OPS.floor_divide, "lcm", (input.abs(), divisor))
    return mul(quotient, other.abs())


def _below_maximum(x: Tensor, dim: int) -> Tensor:
    """`x` less its maximum along `dim`; where there are no elements, there is none."""
    return sub(x, x.detach().amax(dim, keepdim=True)) if x.numel() else x


def softmax_parts(input: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """(x - max, log of the sum of its exponentials), both with `dim` kept: what softmax and log_softmax are made of."""
    shifted = _below_maximum(input, dim)
    return shifted, exp(shifted).sum(dim, keepdim=True)


@method()
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, computed without overflow."""
    x = EMIT.cast(input, dtype if dtype is not None else floating_type(input))
    numerator = exp(_below_maximum(x, dim))
    return named(div(numerator, numerator.sum(dim, keepdim=True)), "SoftmaxBackward0")


@method()
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along `dim`, computed without overflow."""
    x = EMIT.cast(input, dtype if dtype is not None else floating_type(input))
    shifted, total = softmax_parts(x, dim)
    return named(sub(shifted, log(total)), "LogSoftmaxBackward0")


for _function in (round, sign, sgn, frac, deg2rad, rad2deg, sinc, logit, nan_to_num, xlogy, heaviside, lerp,
                  logaddexp2, ldexp, gcd, lcm):
    in_place(_function)
