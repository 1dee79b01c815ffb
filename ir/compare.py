"""Structural equality of graphs: the same computation written the same way, whatever names values and folders have."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .graph import Graph, Location, Node, Value
from .text import base_name, print_attr

Numbers = dict[Value, int]


def same_graph(a: Graph, b: Graph) -> bool:
    """Whether both graphs do the same operations in the same order on the same values. Names and hints do not count."""
    return difference(a, b) is None


def difference(a: Graph, b: Graph) -> str | None:
    """The first difference between two graphs in words, None when there is none."""
    if [p.type for p in a.params] != [p.type for p in b.params]:
        return f"params: {_types(a.params)} and {_types(b.params)}"
    left: Numbers = {p: k for k, p in enumerate(a.params)}
    right: Numbers = {p: k for k, p in enumerate(b.params)}
    for position, (m, n) in enumerate(zip(a.nodes, b.nodes, strict=False)):
        if found := _node_difference(m, n, left, right):
            return f"node {position}: {found}"
        for numbers, node in ((left, m), (right, n)):
            for value in node.outputs:
                numbers[value] = len(numbers)
    if len(a.nodes) != len(b.nodes):
        return f"{len(a.nodes)} and {len(b.nodes)} nodes"
    if _numbers(a.results, left) != _numbers(b.results, right):
        return "the results are different values"
    if dict(a.notes.get("writes", {})) != dict(b.notes.get("writes", {})):
        return f"writes: {a.notes.get('writes', {})} and {b.notes.get('writes', {})}"
    return None


def _node_difference(m: Node, n: Node, left: Numbers, right: Numbers) -> str | None:
    if m.op is not n.op:
        return f"{m.op.name} and {n.op.name}"
    if _attributes(m.attrs) != _attributes(n.attrs):
        return f"{m.op.name}: attributes {_attributes(m.attrs)} and {_attributes(n.attrs)}"
    if [v.type for v in m.outputs] != [v.type for v in n.outputs]:
        return f"{m.op.name}: outputs {_types(m.outputs)} and {_types(n.outputs)}"
    if _numbers(m.inputs, left) != _numbers(n.inputs, right):
        return f"{m.op.name}: the inputs are different values"
    if _place(m.loc) != _place(n.loc):
        return f"{m.op.name}: places {m.loc} and {n.loc}"
    if len(m.regions) != len(n.regions):
        return f"{m.op.name}: {len(m.regions)} and {len(n.regions)} regions"
    for k, (region, other) in enumerate(zip(m.regions, n.regions, strict=True)):
        if found := difference(region, other):
            return f"{m.op.name}, region {k}: {found}"
    return None


def _numbers(values: tuple[Value, ...], numbers: Numbers) -> list[int]:
    return [numbers.get(v, -1) for v in values]


def _attributes(attrs: Mapping[str, Any]) -> dict[str, str]:
    """As printed: 1, 1.0 and True differ, 0.0 and -0.0 too, nan equals itself."""
    return {name: print_attr(value) for name, value in attrs.items()}


def _place(loc: Location | None) -> tuple[str, int] | None:
    return (base_name(loc.file), loc.line) if loc else None


def _types(values: tuple[Value, ...]) -> str:
    return f"({', '.join(str(v.type) for v in values)})"
