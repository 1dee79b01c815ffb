"""LoopDraft: a captured loop inside a trace that is still going on, and its closing into a `loop` node.

While the trace runs, a draft stands among the builder's nodes. Values of the loop's last iteration that later code
reads become further results of the draft; `close` makes the closed region when the trace ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.builder import Builder
from ..ir.graph import Graph, Location, Node, Value
from ..ir.op import Op
from ..ir.ops import OPS


@dataclass(eq=False)
class Carried:
    """One value that an iteration hands to the next.

    `initial` is what the first iteration of the loop reads, `current` what the recorded iteration reads in its place,
    `following` what the iteration after it will read (a value of the recorded iteration, or the `current` of a slot).
    """

    initial: Value
    current: Value
    following: Value


@dataclass(eq=False)
class LoopDraft:
    """One captured loop: the nodes of one iteration, what is carried, and what is wanted of the last iteration."""

    index: Value
    start: Value
    stop: Value
    nodes: list[Any]
    carried: list[Carried]
    loc: Location | None
    lasts: dict[Value, Value] = field(default_factory=dict)
    """Value of the recorded iteration -> the value after the loop."""
    finals: dict[Value, Value] = field(init=False)
    """Value that a slot carries on -> the final value of the slot."""
    parent: LoopDraft | None = None
    """The loop whose body this one is part of, once that was captured."""
    record: Any = None
    """The loop's record on the tape, once a gradient has flowed to it (loop_gradient.py)."""
    views: dict[Any, Any] = field(default_factory=dict)
    """Records of views made in the last iteration -> what stands for them after the loop (loop_gradient.py)."""
    vanished: str = ""
    """Why no value of this loop exists any more: it was part of an iteration that another one stands for."""

    def __post_init__(self) -> None:
        self.finals = {c.following: Value(c.current.type, c.current.hint) for c in self.carried}

    def last(self, value: Value) -> Value:
        """The value after the loop of `value` in its last iteration."""
        if value in self.finals:
            return self.finals[value]
        if value not in self.lasts:
            self.lasts[value] = Value(value.type, value.hint)
        return self.lasts[value]

    @property
    def op(self) -> Op:
        """A draft is a loop."""
        return OPS.loop

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values after the loop that were asked for so far."""
        return (*self.finals.values(), *self.lasts.values())

    def operands(self) -> list[Value]:
        """The values from outside that the loop reads, carried or not."""
        return [self.start, self.stop, *(c.initial for c in self.carried), *free_values(self)]


def defined_values(nodes: Sequence[Any]) -> set[Value]:
    """The values that the nodes define, at this level."""
    found: set[Value] = set()
    for node in nodes:
        found.update(node.outputs)
    return found


def free_values(draft: LoopDraft) -> list[Value]:
    """The values that the loop's body reads from outside as they are, in order of first use."""
    own = defined_values(draft.nodes) | {draft.index} | {c.current for c in draft.carried}
    found: dict[Value, None] = {}
    for node in draft.nodes:
        for value in node.operands() if isinstance(node, LoopDraft) else node.inputs:
            if value not in own:
                found[value] = None
    for value in (*(c.following for c in draft.carried), *draft.lasts):
        if value not in own:
            found[value] = None
    return list(found)


def close_nodes(nodes: Sequence[Any], env: dict[Value, Value]) -> list[Node]:
    """The nodes with every draft closed, reading through `env`."""
    closed = []
    for node in nodes:
        if isinstance(node, LoopDraft):
            closed.append(close(node, env))
        elif any(v in env for v in node.inputs):
            closed.append(
                Node(
                    node.op, tuple(env.get(v, v) for v in node.inputs), node.attrs, node.outputs, node.loc, node.regions
                )
            )
        else:
            closed.append(node)
    return closed


def _claim(unclaimed: dict[Value, None], final: Value) -> Value:
    """`final` for the first slot that carries a value on, a value that nobody reads for further slots with the same
    one."""
    if final in unclaimed:
        del unclaimed[final]
        return final
    return Value(final.type, final.hint)


def close(draft: LoopDraft, env: dict[Value, Value]) -> Node:
    """The `loop` node of a draft. Its outputs are the final carried values, then the wanted values of the last
    iteration."""
    invariants = free_values(draft)
    body = Builder("body")
    index = body.param(draft.index.type, draft.index.hint or "i")
    inner: dict[Value, Value] = {draft.index: index}
    for c in draft.carried:
        inner[c.current] = body.param(c.current.type, c.current.hint)
    for value in invariants:
        inner[value] = body.param(value.type, value.hint)
    body.nodes = close_nodes(draft.nodes, inner)
    follows = [inner.get(c.following, c.following) for c in draft.carried]
    lasts = [inner.get(v, v) for v in draft.lasts]
    region: Graph = body.finish([*follows, *lasts])
    inputs = [draft.start, draft.stop, *(c.initial for c in draft.carried), *invariants]
    finals = dict.fromkeys(draft.finals.values())
    outputs = (*(_claim(finals, draft.finals[c.following]) for c in draft.carried), *draft.lasts.values())
    attrs = {"carried": len(draft.carried)}
    return Node(OPS.loop, tuple(env.get(v, v) for v in inputs), attrs, outputs, draft.loc, (region,))
