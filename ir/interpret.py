"""The reference interpreter: runs a graph node by node with the NumPy meaning of each op. Slow and obviously right."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import WeftError
from .sizes import Polynomial
from .types import TensorType

if TYPE_CHECKING:
    from .graph import Graph, Node, Value


def interpret(graph: Graph, arrays: Sequence[Any]) -> list[np.ndarray]:
    """The results of `graph` for an array of each param. Raises WeftError when an array is not of the declared type."""
    if len(arrays) != len(graph.params):
        raise WeftError(f"{graph.name} takes {len(graph.params)} arrays, got {len(arrays)}")
    env: dict[Value, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for number, (param, array) in enumerate(zip(graph.params, arrays, strict=True)):
            env[param] = _checked(f"argument {number} of {graph.name}", np.asarray(array), param.type)
        for node in graph.nodes:
            for value, array in zip(node.outputs, run_node(node, [env[v] for v in node.inputs]), strict=True):
                env[value] = _checked(f"the result of {node.op.name}", np.asarray(array), value.type)
    return [env[r] for r in graph.results]


def run_node(node: Node, arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
    """The outputs of one node; NumPy scalars may stand for arrays of shape []."""
    try:
        regions = {"regions": node.regions} if node.regions else {}
        result = node.op.evaluate(*arrays, **node.attrs, **regions)
    except WeftError as error:
        if node.loc is not None:
            error.add_note(f"at {node.loc}")
        raise
    return result if isinstance(result, tuple) else (result,)


def _checked(what: str, array: np.ndarray, type: TensorType) -> np.ndarray:
    pairs = zip(type.shape, array.shape, strict=False)
    fits = array.ndim == type.rank and all(d == n or isinstance(d, Polynomial) for d, n in pairs)
    if not fits or array.dtype != type.dtype.numpy:
        raise WeftError(f"{what} is {array.dtype} of shape {array.shape}, declared as {type}")
    return array
