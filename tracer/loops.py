"""weft.range: a plain range in eager mode; under a trace, a `for` over it becomes one native loop.

The body is recorded for successive iterations until two of them are the same graph up to which values they read
(unify.py). Those before the pair stay as they are; the pair is replaced by a loop (loop_draft.py).
"""
from __future__ import annotations

import builtins
import ctypes
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from ..ir.errors import TraceError
from ..ir.graph import Value
from ..ir.ops import OPS
from ..ir.types import int64
from .dispatch import EMIT, apply
from .location import error, user_location
from .loop_draft import LoopDraft
from .progress import progress_bar
from .scalars import RuntimeScalar
from .state import STATE
from .tape import next_record
from .tensor import Tensor
from .trace import Trace
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


class _Boundary:
    """What stood between two iterations: the position in the trace, and the caller's variables."""

    def __init__(self, trace: Trace, frame: FrameType) -> None:
        self.position = len(trace.builder.nodes)
        self.records = next_record()
        self.locals = dict(frame.f_locals)
        self.tensors = {name: value for name, value in self.locals.items() if isinstance(value, Tensor)}
        self.held = {name: _held_value(trace, value) for name, value in self.tensors.items()}
        self.stored = {storage: state.value for storage, state in trace.states.items()}
        self.plain = {name: _snapshot(value) for name, value in self.locals.items() if not isinstance(value, (Tensor,))}


def _held_value(trace: Trace, tensor: Tensor) -> Value | None:
    """The value that a tensor's whole storage holds, when the trace knows the tensor."""
    state = trace.states.get(tensor._storage)
    if state is None or (tensor._array is None and tensor._trace is not trace):
        return None
    return state.value


def _snapshot(value: Any) -> Any:
    """What of a Python value can be compared between two iterations; lists and dicts one level deep."""
    if type(value) in (int, float, bool, str, bytes, complex) or value is None:
        return value
    if type(value) in (list, tuple):
        return (type(value), len(value), tuple(v if type(v) in (int, float, bool, str) else type(v) for v in value))
    if type(value) is dict:
        return (
            dict,
            tuple(
                (k if isinstance(k, (int, str)) else id(k), v if type(v) in (int, float, bool, str) else type(v))
                for k, v in value.items()
            ),
        )
    return None


def _handed_on(before: _Boundary, after: _Boundary) -> dict[Value, Value]:
    """Value held by a variable or a storage at one boundary -> what the same one holds at the next."""
    found: dict[Value, Value] = {}
    places: list[tuple[Mapping[Any, Value | None], Mapping[Any, Value | None]]]
    places = [(before.held, after.held), (before.stored, after.stored)]
    for old, new in places:
        for place, value in old.items():
            now = new.get(place)
            if value is not None and now is not None and now is not value:
                found.setdefault(value, now)
    return found


class _Capture:
    """One loop being captured."""

    def __init__(self, trace: Trace, start: Any, stop: Any, step: Any, progress: bool) -> None:
        self.trace, self.start, self.step, self.progress = trace, start, step, progress
        self.loc = user_location()
        self.trips = _trip_count(start, stop, step)
        self.stop_value = trace.read(self.trips.tensor) if type(self.trips) is RuntimeScalar else None
        self.boundaries: list[_Boundary] = []
        self.indices: list[Value] = []
        self.reason = ""

    def iterations(self) -> Iterator[Any]:
        """Yields the index of each recorded iteration, then leaves one loop in their place."""
        example = self.trips.example if type(self.trips) is RuntimeScalar else self.trips
        if example is None:
            raise error(
                TraceError,
                "weft.range: the number of iterations depends on the index of an outer loop, which changes while the "
                "program runs; use a fixed number and `weft.where`, or a plain `range`",
            )
        frame = sys._getframe(1)
        recorded = max(0, min(int(example), MOST_RECORDED))
        for count in builtins.range(recorded):
            self.boundaries.append(_Boundary(self.trace, frame))
            yield self._index(count)
            if count > 0 and self._capture(_Boundary(self.trace, frame), count - 1, frame):
                return
        if example > MOST_RECORDED:
            raise error(
                TraceError,
                f"the body of the loop at {self.loc} does not become uniform in {MOST_RECORDED} iterations, so it "
                f"cannot be one compiled loop: {self.reason}. Make the body the same in every iteration (keep state in "
                "tensors made before the loop), or use a plain `range` to unroll it",
            )
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

    def _capture(self, end: _Boundary, first: int, frame: FrameType) -> bool:
        """Tries to replace the last two iterations, of which `first` is the earlier, by a loop."""
        nodes: list[Any] = self.trace.builder.nodes  # drafts of loops among them
        before_a, before_b = self.boundaries[-2:]
        a, b = nodes[before_a.position + 1:before_b.position], nodes[before_b.position + 1:end.position]
        unifier = Unifier(self.indices[-2], self.indices[-1])
        try:
            unifier.segments(a, b)
            carried = unifier.carried(self._rebound(before_a, before_b, end, unifier), _handed_on(before_a, before_b))
        except Mismatch as mismatch:
            self.reason = str(mismatch)
            return False
        self._check_python_values(before_b, end)
        del nodes[before_a.position:]
        start = self.trace.constant(first, int64)
        stop = self.stop_value if self.stop_value is not None else self.trace.constant(self.trips, int64)
        draft = LoopDraft(self.indices[-1], start, stop, b, carried, self.loc)
        self.trace.progress |= self.progress
        nodes.append(draft)
        self._forward(draft, unifier, a)
        self._rebind(draft, before_b, end, frame)
        self._require(first + 1)
        self.trace.captured.append((before_a.records, end.records, draft))
        return True

    def _rebound(
        self, before_a: _Boundary, before_b: _Boundary, end: _Boundary, unifier: Unifier
    ) -> list[tuple[Value, Value]]:
        """The pairs of values that a variable held at the two boundaries, for variables that end up holding an older
        value."""
        made = set(unifier.match.values())
        pairs = []
        for name, tensor in end.tensors.items():
            u, v, last = before_a.held.get(name), before_b.held.get(name), end.held.get(name)
            if (
                tensor is not before_b.tensors.get(name)
                and u is not None
                and v is not None
                and last is not None
                and last not in made
            ):
                pairs.append((u, v))
        return pairs

    def _check_python_values(self, before: _Boundary, end: _Boundary) -> None:
        for name, value in end.plain.items():
            earlier = before.plain.get(name)
            if (
                isinstance(value, tuple)
                and isinstance(earlier, tuple)
                and value[:2] != earlier[:2]
                and value[0] in (list, dict)
            ):
                raise error(
                    TraceError,
                    f"the {value[0].__name__} `{name}` grows in the loop at {self.loc}, but the compiled loop runs the "
                    "body's "
                    f"Python code only once: write into a tensor made before the loop, `{name}[i] = value`",
                )
            if name in before.plain and repr(value) != repr(earlier):
                raise error(
                    TraceError,
                    f"the Python value `{name}` changes in the loop at {self.loc} (from {earlier!r} to {value!r}), but "
                    "the compiled "
                    "loop runs the body's Python code only once: compute it from the loop's index, or keep it in a "
                    "tensor "
                    f"(`{name} = weft.tensor(...)` before the loop, `{name} += 1` in it)",
                )

    def _forward(self, draft: LoopDraft, unifier: Unifier, a: list[Any]) -> None:
        """Values of the last iteration are results of the loop from now on; those of the vanished one are gone."""
        trace, currents = self.trace, {c.current for c in draft.carried}
        vanished = (
            f"a value of an earlier iteration of the loop at {self.loc} is used after it, but that iteration is one of "
            "many that the "
            "compiled loop runs: store it with `out[i] = value` into a tensor made before the loop"
        )
        for u in unifier.top:
            trace.forward_value(unifier.match[u], draft)
            if u in currents:
                trace.forward_value(u, draft)
            else:
                trace.dead[u] = vanished
        for inner in a:
            if isinstance(inner, LoopDraft):
                inner.vanished = vanished
        for inner in draft.nodes:
            if isinstance(inner, LoopDraft):
                inner.parent = draft

    def _rebind(self, draft: LoopDraft, before_b: _Boundary, end: _Boundary, frame: FrameType) -> None:
        """Gives variables that end an iteration holding another variable's old value (`a, b = b, a`) their value after
        the loop."""
        currents = {c.current for c in draft.carried}
        changed = False
        variables = frame.f_locals               # one snapshot: before 3.13 every look makes a new one
        for name, tensor in end.tensors.items():
            value = end.held.get(name)
            if tensor is before_b.tensors.get(name) or value not in currents or value in self.trace.forward:
                continue
            assert value is not None
            after = self.trace.new_tensor(draft.last(value))
            after._requires_grad = False
            variables[name] = after
            changed = True
        if changed and sys.version_info < (3, 13):
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))

    def _require(self, trips: int) -> None:
        if type(self.trips) is RuntimeScalar:
            self.trace.require_at_least(self.trips, trips)


def _trip_count(start: Any, stop: Any, step: Any) -> Any:
    """The number of iterations, traced when a bound is."""
    if type(start) is type(stop) is type(step) is int:
        return len(builtins.range(start, stop, step))
    if type(start) is int and type(step) is int and (start, step) == (0, 1):
        return stop
    trips = (stop - start + step - (1 if step > 0 else -1)) // step
    clamped = apply(OPS.maximum, (trips.tensor, EMIT.scalar(0, int64)))
    return RuntimeScalar(clamped, max(trips.example, 0), trips.sources)


__all__ = ["range"]
