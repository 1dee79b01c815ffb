"""Elementwise ops of one operand: signs, rounding, exponentials, logarithms, roots, trigonometry."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..op import ZERO_GRAD, GradientRule, Op, Trait
from ..types import bool_
from .infer import BITS, BOOLS, FLOATS, NUMBERS, elementwise
from .registry import OPS

Rule = Callable[..., Any]


def unary(
    name: str, evaluate: Callable[..., Any], rule: Rule | GradientRule, torch_name: str, kinds: frozenset[str] = FLOATS
) -> Op:
    """Declares an elementwise op of one operand whose result has the operand's type."""
    vjp = rule if isinstance(rule, GradientRule) else (rule,)
    return OPS.declare(
        name,
        infer=elementwise(name, kinds),
        evaluate=evaluate,
        vjp=vjp,
        traits=[Trait.ELEMENTWISE],
        torch_name=torch_name,
    )


def _predicate(name: str, evaluate: Callable[..., Any], torch_name: str) -> None:
    OPS.declare(
        name,
        infer=elementwise(name, FLOATS, bool_),
        evaluate=evaluate,
        vjp=ZERO_GRAD,
        traits=[Trait.ELEMENTWISE],
        torch_name=torch_name,
    )


def _rsqrt(x: np.ndarray) -> np.ndarray:
    return np.reciprocal(np.sqrt(x))


def _times_output(b: Any, node: Any, g: Any) -> Any:
    return b.mul(g, node.outputs[0])


def _over_input(factor: float) -> Rule:
    """The rule of a logarithm whose derivative is 1 / (factor x)."""
    return lambda b, node, g: b.div(g, node.inputs[0] if factor == 1 else b.scale(node.inputs[0], factor))


def _square_plus(b: Any, x: Any, constant: float, sign: int = 1) -> Any:
    """constant + sign x^2."""
    return (b.add if sign > 0 else b.sub)(b.full_like(x, constant), b.mul(x, x))


# signs and rounding
unary("neg", np.negative, lambda b, node, g: b.neg(g), "Neg", NUMBERS)
unary("abs", np.absolute, lambda b, node, g: b.mul(g, b.sign(node.inputs[0])), "Abs", NUMBERS)
unary("sign", np.sign, ZERO_GRAD, "Sign", NUMBERS)
unary("ceil", np.ceil, ZERO_GRAD, "Ceil")
unary("floor", np.floor, ZERO_GRAD, "Floor")
unary("round", np.rint, ZERO_GRAD, "Round")
unary("trunc", np.trunc, ZERO_GRAD, "Trunc")

# exponentials and logarithms
unary("exp", np.exp, _times_output, "Exp")
unary("exp2", np.exp2, lambda b, node, g: b.scale(_times_output(b, node, g), math.log(2)), "Exp2")
unary("expm1", np.expm1, lambda b, node, g: b.add(g, _times_output(b, node, g)), "Expm1")
unary("log", np.log, _over_input(1), "Log")
unary("log2", np.log2, _over_input(math.log(2)), "Log2")
unary("log10", np.log10, _over_input(math.log(10)), "Log10")
unary("log1p", np.log1p, lambda b, node, g: b.div(g, b.add(node.inputs[0], b.full_like(g, 1))), "Log1P")

# roots and powers
unary("sqrt", np.sqrt, lambda b, node, g: b.div(g, b.scale(node.outputs[0], 2)), "Sqrt")
unary(
    "rsqrt",
    _rsqrt,
    lambda b, node, g: b.mul(b.scale(g, -0.5), b.mul(node.outputs[0], b.mul(node.outputs[0], node.outputs[0]))),
    "Rsqrt",
)
unary(
    "reciprocal",
    np.reciprocal,
    lambda b, node, g: b.mul(b.neg(g), b.mul(node.outputs[0], node.outputs[0])),
    "Reciprocal",
)

# circular functions
unary("sin", np.sin, lambda b, node, g: b.mul(g, b.cos(node.inputs[0])), "Sin")
unary("cos", np.cos, lambda b, node, g: b.mul(b.neg(g), b.sin(node.inputs[0])), "Cos")
unary("tan", np.tan, lambda b, node, g: b.mul(g, _square_plus(b, node.outputs[0], 1)), "Tan")
unary("asin", np.arcsin, lambda b, node, g: b.mul(g, b.rsqrt(_square_plus(b, node.inputs[0], 1, -1))), "Asin")
unary("acos", np.arccos, lambda b, node, g: b.mul(b.neg(g), b.rsqrt(_square_plus(b, node.inputs[0], 1, -1))), "Acos")
unary("atan", np.arctan, lambda b, node, g: b.div(g, _square_plus(b, node.inputs[0], 1)), "Atan")

# hyperbolic functions
unary("sinh", np.sinh, lambda b, node, g: b.mul(g, b.cosh(node.inputs[0])), "Sinh")
unary("cosh", np.cosh, lambda b, node, g: b.mul(g, b.sinh(node.inputs[0])), "Cosh")
unary("tanh", np.tanh, lambda b, node, g: b.mul(g, _square_plus(b, node.outputs[0], 1, -1)), "Tanh")
unary("asinh", np.arcsinh, lambda b, node, g: b.mul(g, b.rsqrt(_square_plus(b, node.inputs[0], 1))), "Asinh")
unary("acosh", np.arccosh, lambda b, node, g: b.mul(g, b.rsqrt(_square_plus(b, node.inputs[0], -1))), "Acosh")
unary("atanh", np.arctanh, lambda b, node, g: b.div(g, _square_plus(b, node.inputs[0], 1, -1)), "Atanh")

# logic and predicates
unary("logical_not", np.logical_not, ZERO_GRAD, "LogicalNot", BOOLS)
unary("bitwise_not", np.invert, ZERO_GRAD, "BitwiseNot", BITS)
_predicate("isnan", np.isnan, "Isnan")
_predicate("isinf", np.isinf, "Isinf")
_predicate("isfinite", np.isfinite, "Isfinite")
_predicate("signbit", np.signbit, "Signbit")
