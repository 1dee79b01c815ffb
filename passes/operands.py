"""Operands of large products put in order where they could not be read as they stand.

A rearranged operand is a `permute` node in front of the product: fusion lets the kernel that computes the operand
write it in that order, so that no copy is needed. What a loop does not change is put in order before the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..ir.access import strides_of
from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from ..ir.product_tiles import is_tiled
from .fusion_products import SIDES, direct_product, groups_of, is_large_product, is_readable
from .window_products import gathered


def arranged(graph: Graph) -> tuple[Graph, frozenset[Value]]:
    """The graph, and its regions, with products of windows gathered and operands in order; those that a kernel has to
    store in that order."""
    arranger = _Arranger(gathered(graph))
    return arranger.run(), frozenset(arranger.stored)


class _Arranger(Rebuilder):
    """Rebuilds a graph.

    Attributes:
        source: the graph.
        stored: the operands of tiled products that have to be stored.
    """

    def __init__(self, source: Graph) -> None:
        super().__init__(source)
        self.source = source
        self.producers = {v: n for n in source.nodes for v in n.outputs}
        self.stored: set[Value] = set()
        self._permuted: dict[tuple[Value, tuple[int, ...]], Value] = {}

    def run(self) -> Graph:
        """The graph in order."""
        for node in self.source.nodes:
            if is_large_product(node) and direct_product(node, self.producers) is None:
                self._product(node)
            elif node.regions and node.op is not OPS.fusion:
                self.copy(self._with_regions(node))
            else:
                self.copy(node)
        return self.done()

    def _product(self, node: Node) -> None:
        operands, attrs = list[Value](), dict(node.attrs)
        for operand, side in zip(node.inputs, SIDES, strict=True):
            order, new = _order(node, operand, side, self.producers), self.new(operand)
            if order is not None:
                new = self._permute(new, order, node)
                names = f"{side}_batch", f"{side}_contract"
                attrs |= {name: tuple(order.index(d) for d in attrs[name]) for name in names}
            operands.append(new)
        if all(a is b for a, b in zip(operands, node.inputs, strict=True)):
            self.copy(node)
            return
        product = self.add_node(OPS.dot_general, operands, attrs, loc=node.loc)
        self.replace(node, product.outputs)
        if is_tiled(product):
            self.stored.update(x for x in operands if x in self._permuted.values())

    def _permute(self, value: Value, order: tuple[int, ...], node: Node) -> Value:
        key = value, order
        if key not in self._permuted:
            self._permuted[key] = self.add_node(OPS.permute, (value,), {"dims": order}, loc=node.loc).output
        return self._permuted[key]

    # Regions

    def _with_regions(self, node: Node) -> Node:
        """A control node with regions in order."""
        regions = []
        for region in node.regions:
            inside, stored = arranged(region)
            self.stored |= stored
            regions.append(inside)
        node = replace(node, regions=tuple(regions))
        return self._moved_out(node) if node.op is OPS.loop else node

    def _moved_out(self, node: Node) -> Node:
        """A loop with the operands that it does not change put in order before it."""
        (body,), first = node.regions, 1 + node.attrs["carried"]
        outside = dict(zip(body.params[first:], node.inputs[first + 1 :], strict=True))
        moved = [n for n in body.nodes if n.outputs[0] in self.stored and n.inputs[0] in outside]
        for n in moved:
            made = self._permute(self.new(outside[n.inputs[0]]), n.attrs["dims"], n)
            self.stored.add(made)
            node = replace(node, inputs=(*node.inputs, made))
        params = (*body.params, *(n.output for n in moved))
        region = Graph(body.name, params, tuple(n for n in body.nodes if n not in moved), body.results, body.notes)
        return replace(node, regions=(region,)) if moved else node


def _order(node: Node, operand: Value, side: str, producers: Mapping[Value, Node]) -> tuple[int, ...] | None:
    """The order of the axes in which an operand of a product can be read; None when nothing changes."""
    groups = groups_of(operand, node.attrs, side)
    if not is_tiled(node):
        return None if is_readable(operand, groups, producers) else _library_order(operand, node.attrs, side)
    batch, free, contracted = groups
    if side == "lhs":
        return None  # number by number, from anywhere
    strides = strides_of(operand, producers)
    return None if strides is not None and strides[free[-1]] == 1 else (*batch, *contracted, *free)


def _library_order(operand: Value, attrs: Mapping[str, Any], side: str) -> tuple[int, ...] | None:
    """An order of the axes that BLAS can read: batch axes first, the others as they are if that will do."""
    batch, free, contracted = groups_of(operand, attrs, side)
    rest: Sequence[int] = sorted((*free, *contracted))
    order = (*batch, *rest)
    if rest not in ([*free, *contracted], [*contracted, *free]):
        order = (*batch, *free, *contracted)
    return None if order == tuple(range(operand.type.rank)) else order
