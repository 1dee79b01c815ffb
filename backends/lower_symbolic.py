"""Kernels that serve every size: fused graphs with symbols for some sizes to kernels whose code does not know them.

The sizes of a call reach such a kernel as its last argument, a constant of the plan. Where the code depends on a size
after all, the kernel is that of the call's own sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.graph import Graph, Node, Value
from ..ir.loops import Kernel
from ..ir.resize import resized, resized_type, symbols_in
from ..ir.sizes import Symbol, Undecided, value_of
from ..ir.types import TensorType
from .base import KernelCall
from .lower import lower_node, needs_code


def lower_symbolic(
    graph: Graph, concrete: Graph, sizes: Mapping[Symbol, int], fixed: dict[Node, str]
) -> dict[Node, tuple[KernelCall, ...]]:
    """The kernel calls of every node of `concrete`, and of the regions inside, that needs generated code.

    `graph` is `concrete` with symbols, whose values are `sizes`; nodes whose code depends on the values are added to
    `fixed`, with the reason.
    """
    calls: dict[Node, tuple[KernelCall, ...]] = {}
    for node, known in zip(graph.nodes, concrete.nodes, strict=True):
        if needs_code(node):
            try:
                calls[known] = _lowered(node, known, sizes)
            except Undecided as reason:
                fixed[known] = str(reason)
                calls[known] = lower_node(known)
        else:
            for region, known_region in zip(node.regions, known.regions, strict=True):
                calls.update(lower_symbolic(region, known_region, sizes, fixed))
    return calls


def _lowered(node: Node, known: Node, sizes: Mapping[Symbol, int]) -> tuple[KernelCall, ...]:
    """The calls of one node. Symbols are numbered by the node, so that nodes that differ in their names alone share
    code."""
    symbols = symbols_in(node)
    if not symbols:
        return lower_node(known)
    names = {s: Symbol(f"n{k}", s.hint, s.least) for k, s in enumerate(symbols)}
    alone = Graph("", tuple(dict.fromkeys(node.inputs)), (node,), node.outputs)
    (renamed,) = resized(alone, names)[0].nodes
    values = {names[s]: sizes[s] for s in symbols}
    calls = lower_node(renamed, values)
    outside = dict(zip((*renamed.inputs, *renamed.outputs), (*known.inputs, *known.outputs), strict=True))
    return tuple(_concrete(call, outside, values) for call in calls)


def _concrete(call: KernelCall, outside: dict[Value, Value], values: Mapping[Symbol, int]) -> KernelCall:
    """The call with the values and sizes of the call at hand. `outside` gets values that pass between calls."""

    def argument(value: Value | TensorType | bytes) -> Value | TensorType | bytes:
        if isinstance(value, TensorType):
            return resized_type(value, values)
        if isinstance(value, Value) and value not in outside:
            outside[value] = Value(resized_type(value.type, values), value.hint)
        return outside[value] if isinstance(value, Value) else value

    kernel = call.kernel
    if isinstance(kernel, Kernel) and kernel.sites:
        sites = tuple(replace(site, size=value_of(site.size, values)) for site in kernel.sites)
        kernel = replace(kernel, sites=sites)
    extent = outside[call.extent] if isinstance(call.extent, Value) else call.extent
    return replace(call, kernel=kernel, arguments=tuple(map(argument, call.arguments)), extent=extent)
