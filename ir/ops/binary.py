"""Elementwise arithmetic of two operands."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..op import NOT_DIFFERENTIABLE, ZERO_GRAD, Op, Trait, Vjp
from .infer import ANY, FLOATS, NUMBERS, elementwise
from .registry import OPS


def binary(
    name: str,
    evaluate: Callable[..., Any],
    vjp: Vjp,
    torch_name: str,
    kinds: frozenset[str] = FLOATS,
    commutative: bool = False,
    **facts: Any,
) -> Op:
    """Declares an elementwise op of two operands of one type, which is also the result's."""
    traits = [Trait.ELEMENTWISE, Trait.COMMUTATIVE] if commutative else [Trait.ELEMENTWISE]
    return OPS.declare(
        name,
        infer=elementwise(name, kinds),
        evaluate=evaluate,
        vjp=vjp,
        traits=traits,
        arity=2,
        torch_name=torch_name,
        **facts,
    )


def _pow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "i":
        negative = y < 0
        if negative.any():  # NumPy refuses; as in torch, 1 / x**n truncated to an integer
            inverse = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0))
            return np.where(negative, inverse, np.power(x, np.where(negative, 0, y))).astype(x.dtype)
    return np.power(x, y)


def _pass(b: Any, node: Any, g: Any) -> Any:
    return g


def _zero(b: Any, g: Any) -> Any:
    return b.full_like(g, 0)


def _pow_base(b: Any, node: Any, g: Any) -> Any:
    x, y = node.inputs
    slope = b.mul(y, b.pow(x, b.sub(y, b.full_like(y, 1))))
    return b.select(b.eq(y, _zero(b, y)), _zero(b, g), b.mul(g, slope))


def _pow_exponent(b: Any, node: Any, g: Any) -> Any:
    x, y = node.inputs
    flat = b.logical_and(b.eq(x, _zero(b, x)), b.ge(y, _zero(b, y)))
    return b.select(flat, _zero(b, g), b.mul(g, b.mul(node.outputs[0], b.log(x))))


def _shared_at_ties(loses: str, mine: int) -> Callable[..., Any]:
    """The rule of maximum and minimum: nothing to the operand that `loses` to the other, half to each of two equals."""

    def rule(b: Any, node: Any, g: Any) -> Any:
        own, other = node.inputs[mine], node.inputs[1 - mine]
        return b.select(getattr(b, loses)(own, other), _zero(b, g), b.select(b.eq(own, other), b.scale(g, 0.5), g))

    return rule


def _first_at_ties(wins: str, mine: int) -> Callable[..., Any]:
    """The rule of fmax and fmin: all to the first operand when it `wins` or the second is NaN, else to the second."""

    def rule(b: Any, node: Any, g: Any) -> Any:
        x, y = node.inputs
        first = b.logical_or(getattr(b, wins)(x, y), b.isnan(y))
        return b.select(first, *((g, _zero(b, g)) if mine == 0 else (_zero(b, g), g)))

    return rule


def _square_sum(b: Any, node: Any) -> Any:
    x, y = node.inputs
    return b.add(b.mul(x, x), b.mul(y, y))


def _copysign_rule(b: Any, node: Any, g: Any) -> Any:
    x, y = node.inputs
    one = b.full_like(x, 1)
    same = b.mul(b.copysign(one, x), b.copysign(one, y))
    return b.select(b.eq(x, _zero(b, x)), _zero(b, g), b.mul(g, same))


def _logaddexp_rule(mine: int) -> Callable[..., Any]:
    return lambda b, node, g: b.mul(g, b.sigmoid(b.sub(node.inputs[mine], node.inputs[1 - mine])))


# the four operations
binary("add", np.add, (_pass, _pass), "Add", NUMBERS, commutative=True, unit=0)
binary("sub", np.subtract, (_pass, lambda b, node, g: b.neg(g)), "Sub", NUMBERS, unit=0)
binary(
    "mul",
    np.multiply,
    (lambda b, node, g: b.mul(g, node.inputs[1]), lambda b, node, g: b.mul(g, node.inputs[0])),
    "Mul",
    NUMBERS,
    commutative=True,
    unit=1,
    absorbing=0,
)
binary(
    "div",
    np.true_divide,
    (
        lambda b, node, g: b.div(g, node.inputs[1]),
        lambda b, node, g: b.neg(b.div(b.mul(g, node.outputs[0]), node.inputs[1])),
    ),
    "Div",
    unit=1,
)

# integer division by zero gives 0 (NumPy's own value), also for the remainders
binary("floor_divide", np.floor_divide, ZERO_GRAD, "FloorDivide", NUMBERS)
binary(
    "remainder",
    np.remainder,
    (_pass, lambda b, node, g: b.neg(b.mul(g, b.floor_divide(*node.inputs)))),
    "Remainder",
    NUMBERS,
)
binary("fmod", np.fmod, (_pass, lambda b, node, g: b.neg(b.mul(g, b.trunc(b.div(*node.inputs))))), "Fmod", NUMBERS)

# powers, norms, logarithms
binary("pow", _pow, (_pow_base, _pow_exponent), "Pow", NUMBERS, unit=1)
binary(
    "hypot",
    np.hypot,
    (
        lambda b, node, g: b.mul(g, b.div(node.inputs[0], node.outputs[0])),
        lambda b, node, g: b.mul(g, b.div(node.inputs[1], node.outputs[0])),
    ),
    "Hypot",
)
binary(
    "atan2",
    np.arctan2,
    (
        lambda b, node, g: b.mul(g, b.div(node.inputs[1], _square_sum(b, node))),
        lambda b, node, g: b.neg(b.mul(g, b.div(node.inputs[0], _square_sum(b, node)))),
    ),
    "Atan2",
)
binary("logaddexp", np.logaddexp, (_logaddexp_rule(0), _logaddexp_rule(1)), "Logaddexp")

# choices: maximum and minimum propagate NaN, fmax and fmin ignore it
binary("maximum", np.maximum, (_shared_at_ties("lt", 0), _shared_at_ties("lt", 1)), "Maximum", ANY, unit=-math.inf)
binary("minimum", np.minimum, (_shared_at_ties("gt", 0), _shared_at_ties("gt", 1)), "Minimum", ANY, unit=math.inf)
binary("fmax", np.fmax, (_first_at_ties("ge", 0), _first_at_ties("ge", 1)), "Fmax", ANY, unit=-math.inf)
binary("fmin", np.fmin, (_first_at_ties("le", 0), _first_at_ties("le", 1)), "Fmin", ANY, unit=math.inf)

# bits of a float
binary("copysign", np.copysign, (_copysign_rule, ZERO_GRAD), "Copysign")
binary("nextafter", np.nextafter, NOT_DIFFERENTIABLE, "Nextafter")
