"""Prints graphs: one line a node, regions indented below it; always the same bytes, which `ir/parse.py` reads back.

This file imports no graph module, because the records print themselves with it.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .types import DType

if TYPE_CHECKING:
    from .graph import Graph, Location, Node, Value

INDENT = "  "


def print_graph(graph: Graph, indent: str = "") -> str:
    """The whole graph as text, without a final newline."""
    return "\n".join(_graph_lines(graph, indent))


def print_node(node: Node, names: Mapping[Value, str]) -> str:
    """The one line of `node`, without its regions. Values that are not in `names` print as `%?`."""
    outputs = ", ".join(f"{_name(v, names)}: {v.type}" for v in node.outputs) or "()"
    inputs = ", ".join(_name(v, names) for v in node.inputs)
    attrs = ", ".join(f"{k}={print_attr(node.attrs[k])}" for k in sorted(node.attrs))
    parts = [outputs, "=", node.op.name] + [inputs] * bool(inputs) + [f"{{{attrs}}}"] * bool(attrs)
    return " ".join(parts) + print_location(node.loc)


def print_location(loc: Location | None) -> str:
    """The user's line behind a line of text: `  # file:line`, the file without its folders; nothing when unknown."""
    return f"  # {base_name(loc.file)}:{loc.line}" if loc else ""


def print_attr(value: Any) -> str:
    """An attribute's value as text: numbers as Python writes them, dtypes by their short name."""
    if isinstance(value, tuple):
        inner = ", ".join(map(print_attr, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, DType):
        return value.short
    if isinstance(value, float):
        return "nan" if math.isnan(value) else float.__repr__(value)
    return repr(value)


def value_names(graph: Graph) -> dict[Value, str]:
    """A name for each value of `graph` itself: its hint made unique, else `p0` (params), `c0` (constants), a number."""
    names: dict[Value, str] = {}
    taken: set[str] = set()
    for position, param in enumerate(graph.params):
        names[param] = _unique(identifier(param.hint) or f"p{position}", taken)
    numbered = constants = 0
    for node in graph.nodes:
        for value in node.outputs:
            if hint := identifier(value.hint):
                names[value] = _unique(hint, taken)
            elif node.op.name == "constant":
                names[value] = _unique(f"c{constants}", taken)
                constants += 1
            else:
                names[value] = str(numbered)
                numbered += 1
    return names


def identifier(text: str) -> str:
    """`text` as a plain name: other characters than letters, digits and `_` become `_`."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return f"_{plain}" if plain[:1].isdigit() else plain


def base_name(path: str) -> str:
    """The last part of a path of any system."""
    return re.split(r"[/\\]", path)[-1]


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _name(value: Value, names: Mapping[Value, str]) -> str:
    return f"%{names.get(value, '?')}"


def _graph_lines(graph: Graph, indent: str) -> Iterable[str]:
    names = value_names(graph)
    params = ", ".join(f"%{names[p]}: {p.type}" for p in graph.params)
    yield f"{indent}graph {identifier(graph.name)}({params}) {{"
    inner = indent + INDENT
    for node in graph.nodes:
        yield inner + print_node(node, names)
        for region in node.regions:
            yield from _graph_lines(region, inner + INDENT)
    yield f"{inner}return {print_results(graph, names)}".rstrip()
    yield f"{indent}}}"


def print_results(graph: Graph, names: Mapping[Value, str]) -> str:
    """The results; one that must end in a param's memory reads `%new writes %param`."""
    writes = graph.notes.get("writes", {})
    return ", ".join(
        _name(r, names) + (f" writes {_name(graph.params[writes[i]], names)}" if i in writes else "")
        for i, r in enumerate(graph.results)
    )
