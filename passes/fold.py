"""Constant folding: nodes whose inputs are all known become constants, by the ops' own reference meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.emitter import Emitter
from ..ir.errors import WeftError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.ops.constants import LITERAL_LIMIT
from ..ir.sizes import memory_of
from ..ir.types import BY_NUMPY
from .options import Options
from .rewrite import Pattern, Rewriter, RuleTable, number_of, rewrite, rules, same_number, trait
from .sizes import fixed_sizes

REDUCED_LIMIT = 1 << 16
"""Constants of one number are reduced up to this many elements."""


def known_array(b: Rewriter, value: Value) -> np.ndarray | None:
    """The elements of `value` when they are known and few."""
    node = b.producer.get(value)
    if node is None or not fixed_sizes(value) or value.type.size > LITERAL_LIMIT:
        return None
    if value in b.numbers:
        return np.full(value.type.sizes, b.numbers[value], value.dtype.numpy)
    known = node.op.has(Trait.CONSTANT) and all(memory_of(attr) is None for attr in node.attrs.values())
    return node.op.evaluate(**node.attrs) if known else None


def emit_array(b: Emitter, array: np.ndarray) -> Value:
    """A small array as a constant or a literal."""
    dtype, elements = BY_NUMPY[array.dtype], array.reshape(-1)
    if elements.size and all(same_number(e, elements[0]) for e in elements):
        return b.full(array.shape, elements[0].item(), dtype)
    return b.literal(values=tuple(e.item() for e in elements), shape=array.shape, dtype=dtype)


def _evaluate(node: Node, arrays: list[Any]) -> np.ndarray | None:
    """What the node computes; None when it fails, which is then the program's business."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(node.op.evaluate(*arrays, **node.attrs))
    except WeftError:
        return None


def _elementwise_of_numbers(b: Rewriter, node: Node) -> Value | None:
    """Elementwise ops of constants with one number each: computed once, whatever the shape."""
    numbers = [b.numbers.get(v) for v in node.inputs]
    if any(n is None for n in numbers):
        return None
    result = _evaluate(node, [np.asarray(n) for n in numbers])
    return None if result is None else b.full(node.output.shape, result.item(), node.output.dtype)


def _small(b: Rewriter, node: Node) -> Value | None:
    if node.op.has(Trait.VIEW) and node.inputs[0] in b.numbers:
        return None  # already the simplest form
    arrays = [known_array(b, v) for v in node.inputs]
    if (
        any(a is None for a in arrays)
        or len(node.outputs) != 1
        or node.regions
        or not fixed_sizes(node.output)
        or node.output.type.size > LITERAL_LIMIT
    ):
        return None
    result = _evaluate(node, arrays)
    return None if result is None else emit_array(b, result)


def _reduction_of_number(b: Rewriter, node: Node) -> Value | None:
    (value,) = node.inputs
    if value not in b.numbers or not fixed_sizes(value) or value.type.size > REDUCED_LIMIT:
        return None
    result = _evaluate(node, [np.broadcast_to(b.numbers[value], value.type.sizes)])
    if result is None or not result.size:
        return None
    first = result.reshape(-1)[0]
    return b.full(node.output.shape, first.item(), node.output.dtype)


def _uniform_literal(b: Rewriter, node: Node) -> Value | None:
    known = number_of(node, {})
    return None if known is None else b.full(node.output.shape, known.item(), node.output.dtype)


def _iota_of_one(b: Rewriter, node: Node) -> Value | None:
    size = node.attrs["shape"][node.attrs["dim"]]
    return b.full(node.output.shape, 0, node.output.dtype) if size == 1 else None


_FOLDABLE = frozenset(o for o in OPS if not any(o.has(t) for t in (Trait.CONSTANT, Trait.CONTROL, Trait.RANDOM)))

RULES = rules(
    ("fold elementwise", trait(Trait.ELEMENTWISE), _elementwise_of_numbers),
    ("fold reduction", trait(Trait.REDUCTION), _reduction_of_number),
    ("fold small", Pattern(ops=_FOLDABLE), _small),
    ("uniform literal", Pattern(ops=frozenset({OPS.literal})), _uniform_literal),
    ("iota of one", Pattern(ops=frozenset({OPS.iota})), _iota_of_one),
)


@dataclass(frozen=True)
class Fold:
    """Folds constants, in regions too. Meaning unchanged to the bit, but for the payload of NaNs."""

    name: str = field(default="fold", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The folded graph; the same object when there is nothing to fold."""
        return rewrite(graph, RuleTable(RULES, options.disabled))
