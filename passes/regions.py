"""Passes inside the regions of a graph: loops, branches and kernels have graphs of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node

Transform = Callable[[Graph], Graph]
"""A pass on one graph; it gives the same object back when there is nothing to change."""


def with_regions(node: Node, transform: Transform) -> Node:
    """The node with its regions transformed; the same object when none of them changed."""
    regions = tuple(transform(region) for region in node.regions)
    same = all(a is z for a, z in zip(regions, node.regions, strict=True))
    return node if same else replace(node, regions=regions)


def in_regions(graph: Graph, transform: Transform) -> Graph:
    """The graph with the regions of all its nodes transformed, itself unchanged otherwise."""
    b = Rebuilder(graph)
    for node in graph.nodes:
        b.copy(with_regions(node, transform))
    return b.done()
