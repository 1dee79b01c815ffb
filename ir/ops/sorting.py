"""sort: the sorted values and where they came from."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..op import Trait
from ..types import TensorType, int64
from .infer import check_axis
from .registry import OPS


def _infer(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> tuple[TensorType, TensorType]:
    check_axis("sort", attrs["dim"], types[0].rank)
    return types[0], types[0].with_dtype(int64)


def _sort(x: np.ndarray, dim: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
    if (
        descending
    ):  # the ascending order of the reversed axis, reversed: equal elements keep their order, and NaN comes first
        order = x.shape[dim] - 1 - np.flip(np.argsort(np.flip(x, dim), axis=dim, kind="stable"), dim)
    else:
        order = np.argsort(x, axis=dim, kind="stable")
    return np.take_along_axis(x, order, dim), order


def _rule(b: Any, node: Any, g: Any) -> Any:
    values, shape, dim = g[0], node.inputs[0].shape, node.attrs["dim"]
    if values is None:
        return None
    places = [node.outputs[1] if k == dim else b.iota(shape=shape, dim=k, dtype=int64) for k in range(len(shape))]
    return b.scatter(b.full(shape, 0, values.dtype), values, *places, dims=tuple(range(len(shape))), mode="add")


OPS.declare(
    "sort",
    infer=_infer,
    evaluate=_sort,
    vjp=(_rule,),
    attrs={"descending": bool, "dim": int},
    traits=[Trait.LIBRARY],
    torch_name="Sort",
)
