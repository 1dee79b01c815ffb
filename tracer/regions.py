"""Records a function into a closed region: the branches of cond, the condition and body of while_loop.

While a region is recorded every storage that the trace knows holds a stand-in; what the region reads becomes an
operand, and a storage that it writes becomes one more result, so that mutation inside a branch means what it means in
eager mode. Nothing inside is recorded on the tape: the region as a whole is, with gradient edges for what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

from ..ir.builder import Builder
from ..ir.errors import TraceError
from ..ir.graph import Graph, Value
from .capture_values import freeze
from .location import error
from .loop_draft import LoopDraft, close_nodes, defined_values
from .slots import MISSING
from .state import STATE
from .storage import Storage
from .structure import flatten
from .tape import Edge
from .tensor import Tensor
from .trace import Trace
from .trace_inputs import restore


@dataclass(eq=False)
class Region:
    """One recorded function: its nodes, what it returned, and the storages that it wrote."""

    trace: Trace
    nodes: list[Any]
    results: list[Tensor | None]
    structure: Any
    inside: dict[Storage, Value]
    """What each storage holds when the region begins: a stand-in."""
    stand_ins: dict[Value, Value]
    """Stand-in -> the value that it stands for."""
    written: dict[Storage, Value]
    """Written storage -> its value at the end, as the region knows it."""
    result_values: list[Value]
    """The values of the results that are tensors."""
    edges: dict[Value, Edge]
    """Outside value -> where its cotangent goes."""
    tracked: dict[int, Tensor]
    """Tensors that were written while gradients were recorded."""

    @property
    def result_types(self) -> list[Any]:
        """The types of the results, None for None."""
        return [None if t is None else t.type_ for t in self.results]

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
        value = self.written.get(storage, self.inside.get(storage))
        return self.trace.states[storage].value if value is None else value

    def graph(self, name: str, operands: Sequence[Value], results: Sequence[Value]) -> Graph:
        """The closed region: one parameter per operand."""
        b = Builder(name)
        env = {v: b.param(v.type, v.hint) for v in operands}
        env |= {s: env[v] for s, v in self.stand_ins.items() if v in env}
        b.nodes = close_nodes(self.nodes, env)
        return b.finish([env.get(r, r) for r in results])


def record_region(trace: Trace, function: Callable[..., Any], arguments: Sequence[Any], what: str) -> Region:
    """Runs `function` and takes what it recorded out of the trace again."""
    before = {
        s: trace.settled(state.value)
        for s, state in trace.states.items()
        if trace.settled(state.value) not in trace.dead
    }
    inside = {storage: Value(value.type, value.hint) for storage, value in before.items()}
    for storage, value in inside.items():
        trace.states[storage].value = value
    position, python, slots = len(trace.builder.nodes), _python_state(function), _slots(trace)
    outer = trace.in_region, trace.region_records, trace.region_edges, trace.region_tracked, trace.region_untracked
    trace.in_region, trace.region_records = True, outer[1] or STATE.grad_enabled
    trace.region_edges, trace.region_tracked, trace.region_untracked = {}, {}, set()
    try:
        returned = function(*arguments)
        leaves: list[Any] = []
        structure = flatten(returned, leaves)
        for leaf in leaves:
            if leaf is not None and not isinstance(leaf, Tensor):
                raise error(
                    TraceError, f"{what} must return tensors (in tuples, lists or dicts), got {type(leaf).__name__}"
                )
        values = [trace.read(leaf) for leaf in leaves if leaf is not None]
        _check_python(trace, function, python, slots, what)
        written = {}
        for storage, state in trace.states.items():
            known = inside.get(storage, None if state.lifted is None else state.lifted.param)
            if known is not None and state.value is not known:
                written[storage] = state.value
        edges, tracked = trace.region_edges, trace.region_tracked
    finally:
        trace.in_region, trace.region_records, trace.region_edges, trace.region_tracked, trace.region_untracked = outer
        nodes = trace.builder.nodes[position:]
        del trace.builder.nodes[position:]
        for storage, state in trace.states.items():
            if storage in before:
                state.value = before[storage]
            elif state.lifted is not None:
                state.value = state.lifted.param
        _bury(trace, nodes, inside, what)
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
        {stand_ins.get(v, v): e for v, e in edges.items()},
        tracked,
    )


def _bury(trace: Trace, nodes: Sequence[Any], inside: Mapping[Storage, Value], what: str) -> None:
    """From now on the values of the region mean nothing outside."""
    gone = f"a value made in {what} is used outside of it: return it, or write it into a tensor that exists before"
    for value in (*defined_values(nodes), *inside.values()):
        trace.dead[value] = gone


# ---- Python state that a branch must not change ----------------------------------------------------------------------


def _python_state(function: Any) -> dict[str, Any]:
    """What the variables of the enclosing functions hold, and the object of a method."""
    if type(function) is MethodType:
        return {"self": freeze(function.__self__), **_python_state(function.__func__)}
    if type(function) is not FunctionType:
        return {}
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = freeze(cell.cell_contents)
        except ValueError:
            found[name] = MISSING
    return found


def _slots(trace: Trace) -> dict[int, Any]:
    """What the tracked slots hold that the trace has met."""
    return {id(slot): slot.now(()) for slot in trace.slots.values()}


def _check_python(trace: Trace, function: Any, python: Mapping[str, Any], slots: Mapping[int, Any], what: str) -> None:
    """Refuses to go on when the function changed Python state: that would happen whichever branch is taken."""
    remedy = "which would happen whether or not the program runs it. Return the value, or write it into a tensor"
    for name, value in _python_state(function).items():
        if value != python[name] and python[name] is not MISSING:
            raise error(TraceError, f"{what} changes `{name}`, a Python variable outside of it, {remedy}")
    changed = ""
    for slot in trace.slots.values():
        earlier = slots.get(id(slot), slot.initial)
        if slot.written and slot.now(()) is not earlier:
            restore(slot.container, slot.key, earlier)
            changed = changed or f"`{slot.key}` of a {type(slot.container).__name__}"
    if changed:
        raise error(TraceError, f"{what} sets {changed}, {remedy}")
