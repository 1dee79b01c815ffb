"""Fused graph to kernels: every `fusion` node becomes one or more kernel calls, every loop that is all in one fusion
becomes one."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph, Node
from ..ir.ops import OPS
from ..ir.sizes import Symbol
from .base import KernelCall
from .lower_bodies import lower_body
from .lower_loop import is_whole, lower_loop


def lower(graph: Graph) -> dict[Node, tuple[KernelCall, ...]]:
    """The kernel calls of every node of `graph`, and of the regions inside, that needs generated code."""
    calls: dict[Node, tuple[KernelCall, ...]] = {}
    for node in graph.nodes:
        if needs_code(node):
            calls[node] = lower_node(node)
        else:
            for region in node.regions:
                calls.update(lower(region))
    return calls


def needs_code(node: Node) -> bool:
    """Whether a node of a fused graph becomes kernels."""
    return node.op is OPS.fusion or is_whole(node)


def lower_node(node: Node, symbols: Sequence[Symbol] = ()) -> tuple[KernelCall, ...]:
    """The kernel calls of one node: `SymbolicCall`s with `symbols`, the sizes that have no value yet."""
    if node.op is OPS.fusion:
        return lower_body(node.regions[0], node.inputs, node.outputs, symbols)
    return (lower_loop(node, symbols),)
