"""Ops with regions: loop, cond, while_loop, fusion. Regions are closed: what they use of outside is an operand.

Their derivatives are the work of the reverse-mode pass, which alone can differentiate a region.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError, WeftError
from ..interpret import interpret
from ..op import NOT_DIFFERENTIABLE, Trait
from ..types import TensorType, bool_, int64
from .registry import OPS

if TYPE_CHECKING:
    from ..graph import Graph

Types = Sequence[TensorType]
SCALAR_INDEX = TensorType((), int64)
SCALAR_BOOL = TensorType((), bool_)


def _listed(types: Types) -> str:
    return f"({', '.join(map(str, types))})"


def _check_params(name: str, region: Graph, operands: Types) -> None:
    params = [p.type for p in region.params]
    if params != list(operands):
        raise ShapeError(f"{name}: the region {region.name} takes {_listed(params)} and is given {_listed(operands)}")


def _check_results(name: str, region: Graph, expected: Types) -> None:
    results = [r.type for r in region.results]
    if results != list(expected):
        raise ShapeError(f"{name}: the region {region.name} gives {_listed(results)}, not {_listed(expected)}")


def _regions(name: str, attrs: Mapping[str, Any], count: int) -> tuple[Graph, ...]:
    regions = attrs.get("regions", ())
    if len(regions) != count:
        raise ShapeError(f"{name} takes {count} regions, got {len(regions)}")
    return regions


def _carried(name: str, attrs: Mapping[str, Any], available: int) -> int:
    if not 0 <= attrs["carried"] <= available:
        raise ShapeError(f"{name}: {attrs['carried']} carried values of {available} operands")
    return attrs["carried"]


# loop


def _infer_loop(types: Types, attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
    (body,) = _regions("loop", attrs, 1)
    if list(types[:2]) != [SCALAR_INDEX] * 2:
        raise ShapeError(f"loop: the bounds must be two i64[], got {_listed(types[:2])}")
    carried = _carried("loop", attrs, len(types) - 2)
    _check_params("loop", body, [SCALAR_INDEX, *types[2:]])
    results = [r.type for r in body.results]
    if results[:carried] != list(types[2 : 2 + carried]):
        given, wanted = _listed(results[:carried]), _listed(types[2 : 2 + carried])
        raise ShapeError(f"loop: the body's next values {given} are not of the types {wanted} carried")
    return tuple(results)


def _loop(
    start: np.ndarray, stop: np.ndarray, *operands: np.ndarray, carried: int, regions: tuple[Graph, ...]
) -> tuple[np.ndarray, ...]:
    body, state, invariant = regions[0], list(operands[:carried]), operands[carried:]
    indices = range(int(start), int(stop))
    if not indices and len(body.results) > carried:
        raise WeftError(
            f"loop: values of the last iteration are wanted of a loop from {int(start)} to {int(stop)} that has none"
        )
    outputs = state
    for i in indices:
        outputs = interpret(body, [np.asarray(i, np.int64), *state, *invariant])
        state = outputs[:carried]
    return tuple(outputs)


# cond


def _infer_cond(types: Types, attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
    then, otherwise = _regions("cond", attrs, 2)
    if types[0] != SCALAR_BOOL:
        raise ShapeError(f"cond: the predicate must be bool[], got {types[0]}")
    for region in (then, otherwise):
        _check_params("cond", region, types[1:])
    _check_results("cond", otherwise, [r.type for r in then.results])
    return tuple(r.type for r in then.results)


def _cond(predicate: np.ndarray, *operands: np.ndarray, regions: tuple[Graph, ...]) -> tuple[np.ndarray, ...]:
    return tuple(interpret(regions[0] if predicate else regions[1], operands))


# while_loop


def _infer_while_loop(types: Types, attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
    condition, body = _regions("while_loop", attrs, 2)
    carried = _carried("while_loop", attrs, len(types))
    for region in (condition, body):
        _check_params("while_loop", region, types)
    _check_results("while_loop", condition, [SCALAR_BOOL])
    _check_results("while_loop", body, types[:carried])
    return tuple(types[:carried])


def _while_loop(*operands: np.ndarray, carried: int, regions: tuple[Graph, ...]) -> tuple[np.ndarray, ...]:
    condition, body = regions
    state, invariant = list(operands[:carried]), operands[carried:]
    while interpret(condition, [*state, *invariant])[0]:
        state = interpret(body, [*state, *invariant])
    return tuple(state)


# fusion


def _infer_fusion(types: Types, attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
    (body,) = _regions("fusion", attrs, 1)
    _check_params("fusion", body, types)
    return tuple(r.type for r in body.results)


def _fusion(*operands: np.ndarray, regions: tuple[Graph, ...]) -> tuple[np.ndarray, ...]:
    return tuple(interpret(regions[0], operands))


OPS.declare(
    "loop",
    infer=_infer_loop,
    evaluate=_loop,
    vjp=NOT_DIFFERENTIABLE,
    attrs={"carried": int},
    traits=[Trait.CONTROL],
    arity=None,
    torch_name="Loop",
)
OPS.declare(
    "cond",
    infer=_infer_cond,
    evaluate=_cond,
    vjp=NOT_DIFFERENTIABLE,
    traits=[Trait.CONTROL],
    arity=None,
    torch_name="Cond",
)
OPS.declare(
    "while_loop",
    infer=_infer_while_loop,
    evaluate=_while_loop,
    vjp=NOT_DIFFERENTIABLE,
    attrs={"carried": int},
    traits=[Trait.CONTROL],
    arity=None,
    torch_name="WhileLoop",
)
OPS.declare(
    "fusion",
    infer=_infer_fusion,
    evaluate=_fusion,
    vjp=NOT_DIFFERENTIABLE,
    traits=[Trait.CONTROL],
    arity=None,
    torch_name="Fusion",
)
