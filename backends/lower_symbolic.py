"""Kernels that serve every size: fused graphs with symbols for some sizes to kernels whose code does not know them.

A graph with symbols is lowered once. For the sizes of a call only the numbers are filled in that are no part of the
code: a kernel gets the values of its symbols as its last argument, a constant of the plan. Where the code depends on a
size after all, the kernel is that of the call's own sizes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..ir.graph import Graph, Node, Value
from ..ir.loops import Kernel
from ..ir.resize import resized, resized_type, symbols_in
from ..ir.sizes import Symbol, Undecided, value_of
from ..ir.types import TensorType
from .base import KernelCall
from .lower import lower_node, needs_code
from .lower_sizes import SymbolicCall


@dataclass(frozen=True)
class Lowered:
    """One node of a fused graph, lowered.

    Attributes:
        node: the node with its symbols numbered, so that nodes that differ in their names alone share code.
        names: symbol of the graph -> symbol of the node.
        calls: its calls.
    """

    node: Node
    names: Mapping[Symbol, Symbol]
    calls: tuple[KernelCall, ...]


@dataclass(frozen=True)
class SymbolicProgram:
    """A fused graph with symbols, and what became of its nodes that need code, of regions too: lowered, or why that
    takes the sizes."""

    fused: Graph
    nodes: Mapping[Node, Lowered | str]


def lower_symbolic(graph: Graph) -> SymbolicProgram:
    """Lowers a fused graph with symbols for all their values."""
    return SymbolicProgram(graph, dict(_lowered_nodes(graph)))


def _lowered_nodes(graph: Graph) -> Iterator[tuple[Node, Lowered | str]]:
    for node in graph.nodes:
        if not needs_code(node):
            for region in node.regions:
                yield from _lowered_nodes(region)
        else:
            try:
                yield node, _lowered(node)
            except Undecided as reason:
                yield node, str(reason)


def _lowered(node: Node) -> Lowered:
    names = {s: Symbol(f"n{k}", s.hint, s.least) for k, s in enumerate(symbols_in(node))}
    alone = Graph("", tuple(dict.fromkeys(node.inputs)), (node,), node.outputs)
    (renamed,) = resized(alone, names)[0].nodes
    return Lowered(renamed, names, lower_node(renamed, tuple(names.values())))


def calls_for(
    program: SymbolicProgram, concrete: Graph, sizes: Mapping[Symbol, int], fixed: dict[Node, str]
) -> dict[Node, tuple[KernelCall, ...]]:
    """The kernel calls of every node of `concrete`, the program's graph with the values `sizes` for its symbols.

    Nodes whose code depends on the values are added to `fixed`, with the reason.
    """
    calls: dict[Node, tuple[KernelCall, ...]] = {}
    for node, known in _pairs(program, program.fused, concrete):
        lowered = program.nodes[node]
        try:
            if isinstance(lowered, str):
                raise Undecided(lowered)
            calls[known] = _filled_in(lowered, known, sizes)
        except Undecided as reason:
            fixed[known] = str(reason)
            calls[known] = lower_node(known)
    return calls


def _pairs(program: SymbolicProgram, graph: Graph, concrete: Graph) -> Iterator[tuple[Node, Node]]:
    """The nodes of a graph that need code, with and without symbols."""
    for node, known in zip(graph.nodes, concrete.nodes, strict=True):
        if node in program.nodes:
            yield node, known
        else:
            for region, known_region in zip(node.regions, known.regions, strict=True):
                yield from _pairs(program, region, known_region)


def _filled_in(lowered: Lowered, known: Node, sizes: Mapping[Symbol, int]) -> tuple[KernelCall, ...]:
    """The calls of one node, for the sizes of the call at hand."""
    values = {name: sizes[symbol] for symbol, name in lowered.names.items()}
    inner, outer = (*lowered.node.inputs, *lowered.node.outputs), (*known.inputs, *known.outputs)
    outside = dict(zip(inner, outer, strict=True))
    return tuple(_concrete(call, outside, values) for call in lowered.calls)


def _concrete(call: KernelCall, outside: dict[Value, Value], values: dict[Symbol, int]) -> KernelCall:
    """The call for `values`, which get those of the call's own symbols; `outside` has the values outside, and gets
    those that pass between calls."""
    extent = outside[call.extent] if isinstance(call.extent, Value) else value_of(call.extent, values)
    chunk, in_place = call.chunk, call.in_place
    if isinstance(call, SymbolicCall):
        for size, most in call.fits:
            if value_of(size, values) > most:
                raise Undecided(f"{size} is more than {most}")
        if isinstance(extent, int) and call.chunks is not None:
            chunk = call.chunks.size(extent, values)
            in_place = call.in_place_by_chunks if chunk < extent else call.in_place
            if call.split is not None:
                values.update(zip(call.split, (chunk, -(-extent // chunk)), strict=True))

    def argument(value: Value | TensorType | bytes) -> Value | TensorType | bytes:
        if isinstance(value, TensorType):
            return resized_type(value, values)
        if isinstance(value, Value) and value not in outside:
            outside[value] = Value(resized_type(value.type, values), value.hint)
        return outside[value] if isinstance(value, Value) else value

    kernel = call.kernel
    assert isinstance(kernel, Kernel)
    arguments = [argument(value) for value in call.arguments]
    if kernel.symbols:
        arguments.append(array("q", [values[symbol] for symbol in kernel.symbols]).tobytes())
    if kernel.sites:
        sites = tuple(replace(site, size=value_of(site.size, values)) for site in kernel.sites)
        kernel = replace(kernel, sites=sites)
    return KernelCall(kernel, tuple(arguments), extent, chunk, in_place, call.shared)
