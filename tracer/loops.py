"""weft.range: a plain range in eager mode; under a trace, a `for` over it becomes one native loop.

The body is recorded for successive iterations until two of them are the same graph up to which values they read
(unify.py). Those before the pair stay as they are; the pair is replaced by a loop (loop_draft.py).
"""

from __future__ import annotations

import builtins
import ctypes
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from ..ir.builder import Builder
from ..ir.errors import TraceError
from ..ir.graph import Node, Value
from ..ir.ops import OPS
from ..ir.types import TensorType, int64
from .dispatch import EMIT, apply
from .location import error, user_location
from .loop_draft import Carried, LoopDraft
from .loop_gradient import edge_after, tracked_values
from .loop_places import Boundary, Transition, depends, python_change, shown
from .progress import progress_bar
from .scalars import RuntimeScalar, known_example
from .state import STATE
from .storage import Storage
from .tape import tensor_requires_grad
from .tensor import Tensor
from .trace import Trace, is_detached
from .unify import Mismatch, Unifier

MOST_RECORDED = 8
"""Iterations that are recorded in search of two equal ones; longer loops whose body still changes are an error."""


def range(*bounds: Any, progress: bool = False) -> Any:
    """`for i in weft.range(n)` or `(start, stop[, step])`: a plain range in eager mode, one native loop when compiled.

    Args:
        bounds: as for the builtin; in a compiled function the number of iterations may be an argument of the function.
        progress: show a progress bar on standard error.

    Raises:
        TraceError: in a compiled function, when the body does not become uniform, or a Python value changes from one
            iteration to the next; the text names the operation or the variable, and the remedy.
    """
    start, stop, step = _bounds(bounds)
    if STATE.trace is None:
        plain = builtins.range(start, stop, step)
        return progress_bar(plain) if progress else plain
    return _Capture(STATE.trace, start, stop, step, progress).iterations()


def _bounds(bounds: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    if not 1 <= len(bounds) <= 3:
        raise error(TraceError, f"weft.range takes 1 to 3 bounds, got {len(bounds)}")
    start, stop, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    for bound in (start, stop, step):
        if not isinstance(bound, int):
            raise TypeError(f"weft.range: bounds must be integers, got {type(bound).__name__}")
    if type(step) is int and step == 0:
        raise ValueError("weft.range: the step must not be zero")
    return start, stop, step


class _Capture:
    """One loop being captured."""

    def __init__(self, trace: Trace, start: Any, stop: Any, step: Any, progress: bool) -> None:
        self.trace, self.start, self.step, self.progress = trace, start, step, progress
        self.loc = user_location()
        self.trips = _trip_count(start, stop, step)
        self.stop_value = trace.read(self.trips.tensor) if type(self.trips) is RuntimeScalar else None
        self.boundaries: list[Boundary] = []
        self.indices: list[Value] = []
        self.reason = self.python_reason = ""
        """Why the last try failed; the second where a Python value was to blame."""

    def _not_uniform(self) -> str:
        return (
            f"the body of the loop at {self.loc} does not become uniform in {MOST_RECORDED} iterations, so it cannot "
            f"be one compiled loop: {self.reason}. Make the body the same in every iteration (keep state in tensors "
            "made before the loop), or use a plain `range` to unroll it"
        )

    def iterations(self) -> Iterator[Any]:
        """Yields the index of each recorded iteration, then leaves one loop in their place."""
        example = known_example(self.trips) if type(self.trips) is RuntimeScalar else self.trips
        if example is None:
            raise error(
                TraceError,
                "weft.range: the number of iterations depends on the index of an outer loop, or on a number that a "
                "loop computes, which changes while the program runs; use a fixed number and `weft.where`, or a plain "
                "`range`",
            )
        frame = sys._getframe(1)
        example = int(example)
        recorded = max(0, min(example, MOST_RECORDED))
        try:
            for count in builtins.range(recorded):
                self.boundaries.append(Boundary(self.trace, frame))
                yield self._index(count)
                if self._captured(count + 1, example, frame):
                    return
        except GeneratorExit:
            self._pin_trips()  # `break` or `return`: right for this number of iterations only
            raise
        if example > MOST_RECORDED:
            raise error(TraceError, self.python_reason or self._not_uniform())
        self._pin_trips()

    def _index(self, count: int) -> Any:
        """The index of iteration `count`, as a traced number that is a loop index once the loop is captured."""
        value = self.trace.constant(count, int64)
        self.indices.append(value)
        number: Any = RuntimeScalar(self.trace.new_tensor(value), None, frozenset())
        plain = type(self.start) is int and type(self.step) is int
        return number if plain and (self.start, self.step) == (0, 1) else number * self.step + self.start

    def _pin_trips(self) -> None:
        if type(self.trips) is RuntimeScalar:
            self.trips.concrete("a loop that was unrolled")

    # ---- two iterations into a loop ----------------------------------------------------------------------------------

    def _captured(self, done: int, trips: int, frame: FrameType) -> bool:
        """Tries to replace the last iterations by a loop over single ones, or over pairs (swapped buffers)."""
        end = Boundary(self.trace, frame)
        if done >= 2 and self._capture(1, done - 2, end, frame):
            return True
        even = done >= 4 and (trips - done) % 2 == 0
        return even and self._capture(2, done - 4, end, frame)

    def _capture(self, period: int, first: int, end: Boundary, frame: FrameType) -> bool:
        """Tries to replace the last two rounds of `period` iterations, which begin with number `first`, by a loop."""
        before_a, before_b = self.boundaries[-2 * period], self.boundaries[-period]
        indices = dict(zip(self.indices[-2 * period : -period], self.indices[-period:], strict=True))
        a, b = self._nodes(before_a, before_b, indices), self._nodes(before_b, end, indices.values())
        unifier = Unifier(indices)
        try:
            unifier.segments(a, b)
            transition = Transition(before_a, before_b, end, unifier)
            carried = unifier.carried(transition.slots(), transition.following)
            self._check_python(before_b, end, b, {*indices.values(), *(c.current for c in carried)})
        except Mismatch as mismatch:
            if period == 1:
                self.reason, self.python_reason = str(mismatch), self._python_reason(before_b, end)
            return False
        nodes: list[Any] = self.trace.builder.nodes  # drafts of loops among them
        del nodes[before_a.position :]
        draft = self._draft(period, first, b, carried)
        nodes += [*unifier.before, draft]
        self._forward(draft, unifier, a)
        self.trace.captured.append((before_a.records, end.records, draft))
        self._rebind(draft, transition, end, frame)
        return True

    def _nodes(self, begin: Boundary, end: Boundary, indices: Iterable[Value]) -> list[Any]:
        """The nodes between two boundaries, without the indices of the iterations."""
        skipped = set(indices)
        return [n for n in self.trace.builder.nodes[begin.position : end.position] if skipped.isdisjoint(n.outputs)]

    def _check_python(self, before: Boundary, end: Boundary, nodes: list[Any], changing: set[Value]) -> None:
        """Refuses rounds after which a Python value differs, or in which Python looked at a number that changes."""
        change = self._python_reason(before, end)
        if change:
            raise Mismatch(change)
        changing = depends(nodes, changing)
        for value, why in self.trace.looked[before.looked : end.looked]:
            if value in changing:
                raise Mismatch(f"{why} needs the value of a number that changes from one iteration to the next")

    def _python_reason(self, before: Boundary, end: Boundary) -> str:
        change = python_change(before, end)
        if change is None:
            return ""
        what, remedy = change
        return (
            f"{what} in the loop at {self.loc}, but the compiled loop runs the body's Python code only once: {remedy}"
        )

    def _draft(self, period: int, first: int, nodes: list[Any], carried: list[Carried]) -> LoopDraft:
        """The loop, over single iterations from `first` on, or over pairs of them."""
        trace, trips = self.trace, self.trips
        if self.progress:
            trace.progress = trips.formula if type(trips) is RuntimeScalar else lambda _: trips
        if period == 1:
            if type(trips) is RuntimeScalar:
                trace.require_at_least(trips, first + 1)
            start = trace.constant(first, int64)
            stop = self.stop_value if self.stop_value is not None else trace.constant(trips, int64)
            return LoopDraft(self.indices[-1], start, stop, nodes, carried, self.loc)
        if type(trips) is RuntimeScalar:
            trips = trips.concrete("a loop whose iterations differ in pairs")
        pair = Value(TensorType((), int64))
        even, odd = self.indices[-2:]
        prefix = self._affine(pair, period, first, even) + self._affine(even, 1, 1, odd)
        start, stop = trace.constant(0, int64), trace.constant((trips - first) // period, int64)
        return LoopDraft(pair, start, stop, prefix + nodes, carried, self.loc)

    def _affine(self, x: Value, factor: int, offset: int, result: Value) -> list[Node]:
        """Nodes that give `x * factor + offset` under the name `result`."""
        b = Builder("pairs")
        b.loc = self.loc
        scaled = b.mul(x, b.index_scalar(factor))
        offset_value = b.index_scalar(offset)
        return [*b.nodes, Node(OPS.add, (scaled, offset_value), {}, (result,), self.loc)]

    def _forward(self, draft: LoopDraft, unifier: Unifier, a: list[Any]) -> None:
        """Values of the last iteration are results of the loop from now on; those of the vanished ones are gone."""
        trace = self.trace
        vanished = (
            f"a value of an earlier iteration of the loop at {self.loc} is used after it, but that iteration is one of "
            "many that the compiled loop runs: store it with `out[i] = value` into a tensor made before the loop"
        )
        for u in unifier.top:
            trace.forward_value(unifier.match[u], draft)
            trace.dead[u] = vanished
        for inner in a:
            if isinstance(inner, LoopDraft):
                inner.vanished = vanished
        for inner in draft.nodes:
            if isinstance(inner, LoopDraft):
                inner.parent = draft

    def _rebind(self, draft: LoopDraft, transition: Transition, end: Boundary, frame: FrameType) -> None:
        """Gives the places that end an iteration with another place's old value (`a, b = b, a`) their value after the
        loop.
        """
        trace = self.trace
        transition.note_edges({c.initial for c in draft.carried})
        tracked = tracked_values(trace, draft)
        for place, value in transition.moved.items():
            last = draft.last(value)
            trace.after_loops.add(last)
            if isinstance(place, Storage):
                trace.states[place].value = last
                continue
            holder = end.holders[place]
            if not isinstance(holder, Tensor):
                end.setters[place](RuntimeScalar(trace.new_tensor(last), None, holder.sources))
                continue
            fresh = trace.over(holder, last)
            trace.states[fresh._storage].reason_read_only = (
                f"a write into `{shown(place)}`: which tensor it is depends on the number of iterations of the loop at "
                f"{self.loc}; clone() it before it is written"
            )
            if value in tracked and not is_detached(holder):
                fresh._edge, fresh._requires_grad = edge_after(trace, draft, value), True
            end.setters[place](fresh)
        for holder, value in transition.computed(tracked):
            if not tensor_requires_grad(holder) and not is_detached(holder):
                holder._edge, holder._requires_grad = edge_after(trace, draft, value), True
        if transition.moved and sys.version_info < (3, 13):
            # the variables were set in a snapshot of the frame's
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def _trip_count(start: Any, stop: Any, step: Any) -> Any:
    """The number of iterations, traced when a bound is."""
    if type(start) is type(stop) is type(step) is int:
        return len(builtins.range(start, stop, step))
    if type(start) is int and type(step) is int and (start, step) == (0, 1):
        return stop
    trips = (stop - start + step - (1 if step > 0 else -1)) // step
    clamped = apply(OPS.maximum, (trips.tensor, EMIT.scalar(0, int64)))
    example = None if trips.example is None else max(trips.example, 0)
    return RuntimeScalar(clamped, example, trips.sources, lambda get: max(trips.formula(get), 0))


__all__ = ["range"]
