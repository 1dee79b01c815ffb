"""Records a function into a closed region: the branches of cond, the condition and body of while_loop.

While a region is recorded every storage that the trace knows holds a stand-in; what the region reads becomes an
operand, and a storage that it writes becomes one more result, so that mutation inside a branch means what it means in
eager mode.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.builder import Builder
from ..ir.errors import TraceError
from ..ir.graph import Graph, Value
from .location import error
from .loop_draft import LoopDraft, close_nodes, defined_values
from .state import STATE
from .storage import Storage
from .structure import flatten
from .tensor import Tensor
from .trace import Trace


@dataclass(eq=False)
class Region:
    """One recorded function: its nodes, what it returned, and the storages that it wrote."""

    trace: Trace
    nodes: list[Any]
    results: list[Tensor]
    structure: Any
    inside: dict[Storage, Value]
    """What each storage holds when the region begins: a stand-in."""
    stand_ins: dict[Value, Value]
    """Stand-in -> the value that it stands for."""
    written: dict[Storage, Value]
    """Written storage -> its value at the end, as the region knows it."""
    result_values: list[Value]
    readers: dict[Value, Tensor]
    """Outside value -> a tensor through which the region read it, for its gradient edge."""

    def operands(self, results: Sequence[Value]) -> dict[Value, None]:
        """The outside values that the region reads, in order of first use; `results` are values that it gives back."""
        own = defined_values(self.nodes)
        found: dict[Value, None] = {}
        for node in self.nodes:
            for value in node.operands() if isinstance(node, LoopDraft) else node.inputs:
                if value not in own:
                    found[self.stand_ins.get(value, value)] = None
        for value in results:
            if value not in own:
                found[self.stand_ins.get(value, value)] = None
        return found

    def end_value(self, storage: Storage) -> Value:
        """What a storage holds at the end: what was written, or the stand-in for what it held before."""
        return self.written.get(storage) or self.inside[storage]

    def graph(self, name: str, operands: Sequence[Value], results: Sequence[Value]) -> Graph:
        """The closed region: one parameter per operand."""
        b = Builder(name)
        env = {v: b.param(v.type, v.hint) for v in operands}
        env |= {s: env[v] for s, v in self.stand_ins.items() if v in env}
        b.nodes = close_nodes(self.nodes, env)
        return b.finish([env.get(r, r) for r in results])


def record_region(trace: Trace, function: Callable[..., Any], arguments: Sequence[Any], what: str) -> Region:
    """Runs `function` and takes what it recorded out of the trace again."""
    before = {storage: trace.resolve(state.value) for storage, state in trace.states.items()}
    inside = {storage: Value(value.type, value.hint) for storage, value in before.items()}
    for storage, value in inside.items():
        trace.states[storage].value = value
    position = len(trace.builder.nodes)
    outer = trace.in_region, trace.region_records, trace.readers
    trace.in_region, trace.region_records, trace.readers = True, outer[1] or STATE.grad_enabled, {}
    try:
        returned = function(*arguments)
        leaves: list[Any] = []
        structure = flatten(returned, leaves)
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise error(
                    TraceError, f"{what} must return tensors (in tuples, lists or dicts), got {type(leaf).__name__}"
                )
        values = [trace.read(leaf) for leaf in leaves]
        written = {s: trace.states[s].value for s in before if trace.states[s].value is not inside[s]}
        readers = trace.readers
    finally:
        trace.in_region, trace.region_records, trace.readers = outer
        nodes = trace.builder.nodes[position:]
        del trace.builder.nodes[position:]
        for storage, value in before.items():
            trace.states[storage].value = value
    stand_ins = {inside[s]: value for s, value in before.items()}
    return Region(
        trace,
        nodes,
        leaves,
        structure,
        inside,
        stand_ins,
        written,
        values,
        {stand_ins.get(v, v): t for v, t in readers.items()},
    )
