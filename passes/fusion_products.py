"""Products for BLAS: which ones they are, whether it can read their operands where they stand, and operands rearranged
when it cannot.

A rearranged operand is a `permute` node in front of the product: fusion lets the kernel that computes the operand
write it in that order, so that no copy is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.index import IndexLike, affine, flatten, variables
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.sizes import typical
from ..ir.windows import WindowProduct, window_product

LIBRARY_WORK = 1 << 16
"""Multiplications from which a floating-point product is better left to BLAS than to a generated loop."""

SIDES = ("lhs", "rhs")

LEAST_USE = 0.3
"""A generated loop reads overlapping windows in place when so large a part of its lanes is of use; else they are stored
as a matrix for BLAS."""


def is_library_product(node: Node) -> bool:
    """Whether `node` is a product that BLAS should compute."""
    if node.op is not OPS.dot_general or not node.output.dtype.is_floating_point:
        return False
    contracted = prod(node.inputs[0].type.sizes[k] for k in node.attrs["lhs_contract"])
    return typical(node.output.type.size * contracted) >= LIBRARY_WORK


def direct_product(node: Node, producers: Mapping[Value, Node]) -> WindowProduct | None:
    """The record of a large product that a generated loop computes from overlapping windows where they stand."""
    if not is_library_product(node):
        return None
    product = window_product(node, producers)
    return product if product is not None and product.used >= LEAST_USE else None


def arranged(graph: Graph) -> Graph:
    """The graph with every operand of a library product that BLAS could not read where it stands put in order by a
    `permute`."""
    producers = {v: n for n in graph.nodes for v in n.outputs}
    builder = Rebuilder(graph)
    permuted: dict[tuple[Value, tuple[int, ...]], Value] = {}
    for node in graph.nodes:
        if not is_library_product(node) or direct_product(node, producers) is not None:
            builder.copy(node)
            continue
        operands, attrs = [], dict(node.attrs)
        for operand, side in zip(node.inputs, SIDES, strict=True):
            new, order = builder.new(operand), None
            if not is_readable(operand, _groups(operand, attrs, side), producers):
                order = _order(operand, attrs, side)
            if order is not None:
                key = (new, order)
                if key not in permuted:
                    permuted[key] = builder.add_node(OPS.permute, (new,), {"dims": order}, loc=node.loc).output
                new = permuted[key]
                attrs |= {
                    name: tuple(order.index(d) for d in attrs[name]) for name in (f"{side}_batch", f"{side}_contract")
                }
            operands.append(new)
        if all(a is b for a, b in zip(operands, node.inputs, strict=True)):
            builder.copy(node)
        else:
            builder.replace(node, builder.add_node(OPS.dot_general, operands, attrs, loc=node.loc).outputs)
    return builder.done()


def _order(operand: Value, attrs: Mapping[str, Any], side: str) -> tuple[int, ...] | None:
    """An order of the axes that BLAS can read: batch axes first, the others as they are if that will do; None when
    nothing changes."""
    batch, free, contracted = _groups(operand, attrs, side)
    rest = sorted((*free, *contracted))
    order = (*batch, *rest)
    if rest not in ([*free, *contracted], [*contracted, *free]):
        order = (*batch, *free, *contracted)
    return None if order == tuple(range(operand.type.rank)) else order


def _groups(operand: Value, attrs: Mapping[str, Any], side: str) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """The batch, free and contracted axes of an operand."""
    batch, contracted = attrs[f"{side}_batch"], attrs[f"{side}_contract"]
    return batch, [d for d in range(operand.type.rank) if d not in batch and d not in contracted], contracted


def reads_in_place(product: Node, operand: Value, producers: Mapping[Value, Node]) -> bool:
    """Whether BLAS can read `operand`, a view, where it stands."""
    return all(
        is_readable(x, _groups(x, product.attrs, side), producers)
        for x, side in zip(product.inputs, SIDES, strict=True)
        if x is operand
    )


def is_readable(operand: Value, groups: Sequence[Sequence[int]], producers: Mapping[Value, Node]) -> bool:
    """Whether each group of axes of a (view of a) value can be walked with one stride, and the free or the contracted
    ones without gaps."""
    axes = variables(operand.type.sizes)
    value: Value = operand
    indices: Sequence[IndexLike] = axes
    while (node := producers.get(value)) is not None and node.op.has(Trait.VIEW):
        assert node.op.index is not None
        value, indices = node.inputs[0], node.op.index(indices, node.inputs[0].type, node.attrs)
    steps = affine(flatten(indices, value.type.sizes), axes)
    if steps is None:
        return False
    sizes, stride = operand.type.sizes, steps[1]
    wide = [[d for d in group if sizes[d] != 1] for group in groups]
    merges = all(stride[a] == stride[b] * sizes[b] for group in wide for a, b in zip(group, group[1:], strict=False))
    return merges and (any(group and stride[group[-1]] == 1 for group in wide[1:]) or not (wide[1] and wide[2]))
