"""Gradients that flow out of a captured loop: the loop as one record on the tape.

The records that the operations of an iteration left on the tape speak of one iteration only. When a backward outside
the loop reaches one of them, it is sent to a record of the whole loop instead, whose derivative is that of the `loop`
node (passes/reverse_control.py). `detach` and `no_grad` inside the body live on tensors, not in the graph:
`stopped_nodes` writes them into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.errors import GradientError
from ..ir.graph import Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..passes.records import active_keys, steps_of
from .location import error
from .loop_draft import Carried, LoopDraft, close, close_nodes, free_values
from .tape import Edge, Placeholder, Record
from .tensor import Tensor

if TYPE_CHECKING:
    from .trace import Trace


class LoopRecord(Record):
    """The record of one captured loop; its inputs are the operands of the loop as it stands when it is read."""

    __slots__ = ("draft", "node")
    trace: Trace

    def __init__(self, trace: Trace, draft: LoopDraft, sequence: float) -> None:
        super().__init__(OPS.loop, {"carried": len(draft.carried)}, (), "LoopBackward0")
        self.draft, self.trace, self.loc, self.sequence = draft, trace, draft.loc, sequence
        self.renew()

    def renew(self) -> None:
        """Closes the loop as it is now: later reads may have asked for further values of the last iteration."""
        self.node: Node = close(with_stops(self.trace, self.draft), {})
        self.regions = self.node.regions
        self.edges = tuple(self.trace.value_edges.get(v) for v in self.node.inputs)
        self.saved_outputs = tuple(Placeholder(v.shape, v.dtype) for v in self.node.outputs)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The operands as tensors with their gradient edges."""
        handles = []
        for value, edge in zip(self.node.inputs, self.edges, strict=True):
            handle = self.trace.new_tensor(value)
            handle._edge, handle._requires_grad = edge, edge is not None
            handles.append(handle)
        return tuple(handles)

    @property
    def outputs(self) -> tuple[Any, ...]:
        return self.saved_outputs

    def position(self, value: Value) -> int:
        """Which output gives the value, of the recorded iteration, after the loop."""
        after = self.draft.last(value)
        if after not in self.node.outputs:
            self.renew()
        return self.node.outputs.index(after)

    def free(self) -> None:
        """Nothing is saved beyond the loop's operands, which the trace holds."""


def translate(trace: Trace, edge: Edge | None) -> Edge | None:
    """The edge itself, or, for one that leads into an iteration of a captured loop, the edge of the whole loop."""
    if edge is None:
        return None
    entry, k = edge
    if not isinstance(entry, Record):
        return edge
    if entry.freed:  # the body called backward on it: that is what its reader must be told
        return edge
    found = trace.captured_loop_of(entry.sequence)
    if found is None:
        return edge
    sequence, draft = found
    if draft.views.get(entry) is entry:
        return edge
    if isinstance(entry, LoopRecord):
        if entry.draft is draft:
            return edge
        value: Value | None = entry.node.outputs[k]
    else:
        value = entry.values[k] if entry.values else None
    if value is None and not (entry.op.has(Trait.VIEW) or entry.op is OPS.dynamic_slice):
        raise error(
            GradientError,
            f"a tensor from outside that the loop at {draft.loc} writes through a view has no gradient after it: write "
            "into the whole tensor, or into a clone()",
        )
    if value is None:
        return _view_after(trace, entry, draft), k
    if draft.record is None:
        draft.record = LoopRecord(trace, draft, sequence)
    inner = trace.forward.get(value)
    while inner is not None and inner is not draft:  # a value of an inner loop: what it is in the outer one's body
        value, inner = inner.last(value), inner.parent
    return draft.record, draft.record.position(value)


def _view_after(trace: Trace, entry: Record, draft: LoopDraft) -> Record:
    """The record, after the loop, of a view that the last iteration made: of what its base is then."""
    known = draft.views.get(entry)
    if known is None:
        known = draft.views[entry] = copy(entry)
        known.edges = tuple(translate(trace, e) for e in entry.edges)
        draft.views[known] = known
    return known


def edge_after(trace: Trace, draft: LoopDraft, value: Value) -> Edge:
    """The edge of the value after a captured loop of `value` in its last iteration."""
    if draft.record is None:
        sequence = next(first for first, _, captured in trace.captured if captured is draft)
        draft.record = LoopRecord(trace, draft, sequence)
    return draft.record, draft.record.position(value)


def tracked_values(trace: Trace, draft: LoopDraft) -> set[Value]:
    """The values of an iteration to which gradients flow, in some iteration if not in the recorded one."""
    if not trace.value_edges:
        return set()
    env: dict[Value, Value] = {}
    steps = steps_of(close_nodes(stopped_nodes(trace, draft.nodes, env), {}))
    sources = {v for v in free_values(draft) if v in trace.value_edges}
    sources |= {c.current for c in draft.carried if c.initial in trace.value_edges}
    while True:
        active = active_keys(steps, sources)
        grown = sources | {c.current for c in draft.carried if env.get(c.following, c.following) in active}
        if grown == sources:
            return {v for v in (*active, *env) if env.get(v, v) in active}
        sources = grown


def with_stops(trace: Trace, draft: LoopDraft, outer: Mapping[Value, Value] = MappingProxyType({})) -> LoopDraft:
    """The loop with `stop_gradient` written where its body cut the tape; what it reads of outside is renamed by
    `outer`."""
    env = dict(outer)
    nodes = stopped_nodes(trace, draft.nodes, env)
    carried = [
        Carried(outer.get(c.initial, c.initial), c.current, env.get(c.following, c.following)) for c in draft.carried
    ]
    copy = LoopDraft(
        draft.index, outer.get(draft.start, draft.start), outer.get(draft.stop, draft.stop), nodes, carried, draft.loc
    )
    copy.finals = {new.following: draft.finals[old.following] for new, old in zip(carried, draft.carried, strict=True)}
    copy.lasts = {env.get(v, v): after for v, after in draft.lasts.items()}
    return copy


def stopped_nodes(trace: Trace, nodes: Sequence[Any], env: dict[Value, Value]) -> list[Any]:
    """The nodes, reading through `env`, with a `stop_gradient` where a detached value is read or an untracked one was
    made."""
    b = Builder("stops")
    made: list[Any] = b.nodes  # drafts among them
    for node in nodes:
        if isinstance(node, LoopDraft):
            made.append(with_stops(trace, node, env))
            continue
        inputs = [env.get(v, v) for v in node.inputs]
        for i, value in enumerate(inputs):
            if (node, i) in trace.stopped_reads:
                inputs[i] = b.add_node(OPS.stop_gradient, (value,), {}, loc=node.loc).output
        same = all(a is z for a, z in zip(inputs, node.inputs, strict=True))
        made.append(node if same else replace(node, inputs=tuple(inputs)))
        for value in node.outputs:
            if value in trace.untracked and value.dtype.is_floating_point:
                env[value] = b.add_node(OPS.stop_gradient, (value,), {}, loc=node.loc).output
    return made
