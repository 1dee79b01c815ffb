"""Large products: which ones they are, and whether BLAS can read their operands where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from ..ir.access import strides_of
from ..ir.graph import Node, Value
from ..ir.ops import OPS
from ..ir.product_tiles import TILED_WORK
from ..ir.sizes import typical
from ..ir.windows import WindowProduct, window_product

SIDES = ("lhs", "rhs")

LEAST_USE = 0.3
"""A generated loop reads overlapping windows in place when so large a part of its lanes is of use; else they are stored
as a matrix for BLAS."""


def is_large_product(node: Node) -> bool:
    """Whether `node` is a product so large that BLAS should compute it, if no kernel does so better."""
    if node.op is not OPS.dot_general or not node.output.dtype.is_floating_point:
        return False
    contracted = prod(node.inputs[0].type.sizes[k] for k in node.attrs["lhs_contract"])
    return typical(node.output.type.size * contracted) >= TILED_WORK


def direct_product(node: Node, producers: Mapping[Value, Node]) -> WindowProduct | None:
    """The record of a large product that a generated loop computes from overlapping windows where they stand."""
    if not is_large_product(node):
        return None
    product = window_product(node, producers)
    return product if product is not None and product.used >= LEAST_USE else None


Groups = tuple[Sequence[int], Sequence[int], Sequence[int]]


def groups_of(operand: Value, attrs: Mapping[str, Any], side: str) -> Groups:
    """The batch, free and contracted axes of an operand."""
    batch, contracted = attrs[f"{side}_batch"], attrs[f"{side}_contract"]
    return batch, [d for d in range(operand.type.rank) if d not in batch and d not in contracted], contracted


def reads_in_place(product: Node, operand: Value, producers: Mapping[Value, Node]) -> bool:
    """Whether BLAS can read `operand`, a view, where it stands."""
    return all(
        is_readable(x, groups_of(x, product.attrs, side), producers)
        for x, side in zip(product.inputs, SIDES, strict=True)
        if x is operand
    )


def is_readable(operand: Value, groups: Sequence[Sequence[int]], producers: Mapping[Value, Node]) -> bool:
    """Whether each group of axes of a (view of a) value can be walked with one stride, and the free or the contracted
    ones without gaps."""
    stride = strides_of(operand, producers)
    if stride is None:
        return False
    sizes = operand.type.sizes
    wide = [[d for d in group if sizes[d] != 1] for group in groups]
    merges = all(stride[a] == stride[b] * sizes[b] for group in wide for a, b in zip(group, group[1:], strict=False))
    return merges and (any(group and stride[group[-1]] == 1 for group in wide[1:]) or not (wide[1] and wide[2]))
