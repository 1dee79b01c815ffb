"""Fused graph to kernels: every `fusion` node becomes one or more kernel calls, every loop that is all in one fusion
becomes one."""

from __future__ import annotations

from ..ir.graph import Graph, Node
from ..ir.ops import OPS
from .base import KernelCall
from .lower_bodies import lower_body
from .lower_loop import is_whole, lower_loop


def lower(graph: Graph) -> dict[Node, tuple[KernelCall, ...]]:
    """The kernel calls of every node of `graph`, and of the regions inside, that needs generated code."""
    calls: dict[Node, tuple[KernelCall, ...]] = {}
    for node in graph.nodes:
        if node.op is OPS.fusion:
            calls[node] = lower_body(node.regions[0], node.inputs, node.outputs)
        elif is_whole(node):
            calls[node] = (lower_loop(node),)
        else:
            for region in node.regions:
                calls.update(lower(region))
    return calls
