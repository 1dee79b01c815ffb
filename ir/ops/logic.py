"""Elementwise logic: bitwise and logical ops, comparisons, select."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import ZERO_GRAD, Trait
from ..types import TensorType, bool_
from .binary import binary
from .infer import ANY, BITS, BOOLS, INTEGERS, check_same, elementwise
from .registry import OPS


def _comparison(name: str, evaluate: Callable[..., Any], torch_name: str, commutative: bool = False) -> None:
    traits = [Trait.ELEMENTWISE, Trait.COMPARISON] + [Trait.COMMUTATIVE] * commutative
    OPS.declare(
        name,
        infer=elementwise(name, ANY, bool_),
        evaluate=evaluate,
        vjp=ZERO_GRAD,
        traits=traits,
        arity=2,
        torch_name=torch_name,
    )


def _infer_select(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    condition, a, b = types
    check_same("select", a, b)
    if condition.dtype is not bool_:
        raise DTypeError(f"select: the condition must be bool, got {condition.dtype.name}")
    if condition.shape != a.shape:
        raise ShapeError(
            f"select: the condition and the operands have different shapes, {condition.shape} and {a.shape}"
        )
    return a


def _zero(b: Any, g: Any) -> Any:
    return b.full_like(g, 0)


# bits: a shift by a negative number or by at least the width gives 0, or -1 for a negative number shifted right
binary("bitwise_and", np.bitwise_and, ZERO_GRAD, "BitwiseAnd", BITS, commutative=True, unit=-1, absorbing=0)
binary("bitwise_or", np.bitwise_or, ZERO_GRAD, "BitwiseOr", BITS, commutative=True, unit=0, absorbing=-1)
binary("bitwise_xor", np.bitwise_xor, ZERO_GRAD, "BitwiseXor", BITS, commutative=True, unit=0)
binary("shift_left", np.left_shift, ZERO_GRAD, "BitwiseLeftShift", INTEGERS, unit=0)
binary("shift_right", np.right_shift, ZERO_GRAD, "BitwiseRightShift", INTEGERS, unit=0)

binary("logical_and", np.logical_and, ZERO_GRAD, "LogicalAnd", BOOLS, commutative=True, unit=True, absorbing=False)
binary("logical_or", np.logical_or, ZERO_GRAD, "LogicalOr", BOOLS, commutative=True, unit=False, absorbing=True)
binary("logical_xor", np.logical_xor, ZERO_GRAD, "LogicalXor", BOOLS, commutative=True, unit=False)

_comparison("eq", np.equal, "Eq", commutative=True)
_comparison("ne", np.not_equal, "Ne", commutative=True)
_comparison("lt", np.less, "Lt")
_comparison("le", np.less_equal, "Le")
_comparison("gt", np.greater, "Gt")
_comparison("ge", np.greater_equal, "Ge")

OPS.declare(
    "select",
    infer=_infer_select,
    evaluate=np.where,
    arity=3,
    traits=[Trait.ELEMENTWISE],
    torch_name="Where",
    vjp=(
        ZERO_GRAD,
        lambda b, node, g: b.select(node.inputs[0], g, _zero(b, g)),
        lambda b, node, g: b.select(node.inputs[0], _zero(b, g), g),
    ),
)
