"""What an iteration of a loop can hand to the next: the caller's variables, what they hold, tracked slots, storages.

A place is named as the user would write it (`state[0]`, `self.h`). At each boundary between two iterations every place
is looked at. A captured loop must move values between places in the same way in every iteration; `Transition` finds out
whether two do.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType, MethodType
from typing import Any

from ..ir.graph import Value
from .capture_values import SIMPLE, attributes, is_own_object, is_plain
from .location import is_user_file
from .scalars import RuntimeScalar
from .slots import MISSING
from .storage import Storage
from .tape import next_record
from .tensor import Tensor
from .trace import Trace
from .trace_inputs import restore
from .unify import Mismatch, Unifier

DEEPEST = 5
"""How far the walk from a variable into what it holds goes."""
MOST_PLACES = 20_000

Key = str | Storage
"""A place: its name, or a storage, whose contents are handed on by writes."""


def tensor_in(holder: Tensor | RuntimeScalar) -> Tensor:
    """The tensor itself, or the one behind a traced number."""
    return holder if isinstance(holder, Tensor) else holder.tensor


class Boundary:
    """What stood between two iterations."""

    def __init__(self, trace: Trace, frame: FrameType) -> None:
        self.trace = trace
        self.position = len(trace.builder.nodes)
        self.records = next_record()
        self.looked = len(trace.looked)
        self.holders: dict[str, Tensor | RuntimeScalar] = {}
        """Places that hold a tensor or a traced number."""
        self.setters: dict[str, Callable[[Any], None]] = {}
        self.plain: dict[str, Any] = {}
        """Places that hold a simple Python value, and the extents of containers."""
        self.paths: dict[str, Any] = {}
        """Place -> the kind of view that it is of what is in its storage."""
        self._values: dict[Key, Value | Storage] = {}
        """Place -> the value in its storage, or the storage when the trace has not met it yet."""
        self._versions = {storage: storage.version for storage in trace.states}
        self.variables = frame.f_locals  # one snapshot: before 3.13 every look makes a new one
        walk = _Walk(self)
        for name, value in self.variables.items():
            walk.visit(name, value, functools.partial(self.variables.__setitem__, name), 0)
        for slot in list(trace.slots.values()):
            walk.slot(slot)
        self._values.update((storage, state.value) for storage, state in trace.states.items())

    def hold(self, name: str, value: Tensor | RuntimeScalar, setter: Callable[[Any], None]) -> None:
        """Notes a place that holds a tensor or a traced number."""
        tensor = tensor_in(value)
        if tensor._array is None and tensor._trace is not self.trace:
            return
        state = self.trace.states.get(tensor._storage)
        self.holders[name], self.setters[name] = value, setter
        self._values[name] = tensor._storage if state is None else state.value
        self.paths[name] = [
            (op, {k: v for k, v in attrs.items() if k != "positions"}) for op, attrs in self.trace.path_of(tensor)
        ]

    def held(self) -> dict[Key, Value]:
        """Place -> the value in its storage, as the trace names it now."""
        found: dict[Key, Value] = {}
        for storage, state in self.trace.states.items():
            if state.lifted is not None:
                found[storage] = state.lifted.param  # until the trace met it
        for place, value in self._values.items():
            if isinstance(value, Storage):
                known = self.trace.states.get(value)
                if known is None or known.lifted is None:
                    continue
                value = known.lifted.param
            found[place] = self.trace.settled(value)
        return found

    @functools.cached_property
    def roots(self) -> set[str]:
        """The variables that something was noted of."""
        return {_root(name) for name in (*self.plain, *self.holders)}

    def storages(self) -> set[Storage]:
        """The storages behind the places."""
        return {tensor_in(holder)._storage for holder in self.holders.values()}

    def version(self, storage: Storage) -> int | None:
        """The version of a storage at this boundary."""
        return self._versions.get(storage, self.trace.versions.get(storage))


class _Walk:
    """One walk through the variables at a boundary."""

    def __init__(self, boundary: Boundary) -> None:
        self.boundary = boundary
        self.seen: dict[int, Any] = {}
        self.count = 0

    def visit(self, name: str, value: Any, setter: Callable[[Any], None], depth: int) -> None:
        """Notes the place `name` and, within limits, those inside what it holds."""
        if isinstance(value, Tensor) or type(value) is RuntimeScalar:
            self.boundary.hold(name, value, setter)
        elif isinstance(value, SIMPLE):
            self.boundary.plain[name] = value
        elif id(value) not in self.seen and depth < DEEPEST and self.count < MOST_PLACES:
            self.seen[id(value)] = value
            self.count += 1
            self._inside(name, value, setter, depth + 1)

    def _inside(self, name: str, value: Any, setter: Callable[[Any], None], depth: int) -> None:
        if isinstance(value, (list, tuple, deque)):
            self.boundary.plain[name] = Extent(type(value), len(value))
            set_part = _TupleParts(value, setter).set if isinstance(value, tuple) else value.__setitem__
            for k, part in enumerate(value):
                self.visit(f"{name}[{k}]", part, functools.partial(set_part, k), depth)
        elif is_own_object(value):
            return  # what these hold is in tracked slots
        elif isinstance(value, dict):
            self.boundary.plain[name] = Extent(type(value), len(value))
            for key, part in value.items():
                self.visit(f"{name}[{key!r}]", part, functools.partial(value.__setitem__, key), depth)
        elif isinstance(value, (set, frozenset)):
            self.boundary.plain[name] = Extent(type(value), len(value))
        elif type(value) is FunctionType:
            if is_user_file(value.__code__.co_filename):
                for cell_name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                    self._cell(f"{name}.<{cell_name}>", cell, depth)
        elif type(value) is MethodType:
            self.visit(f"{name}.__self__", value.__self__, _no_setter, depth)
        elif is_plain(type(value)):
            for key, part in list(attributes(value)):
                self.visit(f"{name}.{key}", part, functools.partial(setattr, value, key), depth)

    def _cell(self, name: str, cell: Any, depth: int) -> None:
        try:
            value = cell.cell_contents
        except ValueError:
            return
        self.visit(name, value, functools.partial(setattr, cell, "cell_contents"), depth)

    def slot(self, slot: Any) -> None:
        """Notes a slot of tracked state that the trace has met."""
        value = slot.now(())
        name = f"{type(slot.container).__name__}.{slot.key}#{id(slot.container)}"
        if value is not MISSING:
            self.visit(name, value, functools.partial(restore, slot.container, slot.key), DEEPEST - 2)


class Extent:
    """The kind and length of a container; how many elements it has must not change in a loop."""

    __slots__ = ("kind", "length")

    def __init__(self, kind: type, length: int) -> None:
        self.kind, self.length = kind, length

    def __eq__(self, other: object) -> bool:
        return type(other) is Extent and (other.kind, other.length) == (self.kind, self.length)

    def __hash__(self) -> int:
        return hash((self.kind, self.length))


class _TupleParts:
    """A tuple whose elements are to be replaced: it is made anew, and set in turn."""

    def __init__(self, value: tuple[Any, ...], setter: Callable[[Any], None]) -> None:
        self.kind, self.parts, self.setter = type(value), list(value), setter

    def set(self, k: int, value: Any) -> None:
        """Replaces one element."""
        self.parts[k] = value
        self.setter(self.kind(*self.parts) if hasattr(self.kind, "_fields") else self.kind(self.parts))


def _no_setter(value: Any) -> None:
    raise Mismatch("a method was bound to another object")


# ---- Python values ---------------------------------------------------------------------------------------------------


def python_change(before: Boundary, after: Boundary) -> tuple[str, str] | None:
    """(what, remedy) when a plain Python value differs between two boundaries; None when none does."""
    for name, value in after.plain.items():
        earlier = before.plain.get(name, MISSING)
        if type(value) is Extent and type(earlier) is Extent and value != earlier:
            what = (
                f"the {value.kind.__name__} `{shown(name)}` {'grows' if value.length > earlier.length else 'changes'}"
            )
            return what, f"write into a tensor made before the loop, `{shown(name)}[i] = value`"
        if name in before.holders or earlier is MISSING and _root(name) in before.roots:
            return _other_kind(name)
        if earlier is not MISSING and not _equal(value, earlier):
            return (
                f"the Python value `{shown(name)}` changes (from {earlier!r} to {value!r})",
                f"compute it from the loop's index, or keep it in a tensor (`{shown(name)} = weft.tensor(...)` before "
                f"the loop, `{shown(name)} += 1` in it)",
            )
    return next((_other_kind(name) for name in after.holders if name in before.plain), None)


def _other_kind(name: str) -> tuple[str, str]:
    return f"`{shown(name)}` changes its kind", "let it hold the same kind of value in every iteration"


def _root(name: str) -> str:
    """The variable that a place belongs to."""
    return name.split("[")[0].split(".")[0]


def _equal(a: Any, b: Any) -> bool:
    return a == b if isinstance(a, Extent) else type(a) is type(b) and (a == b or a != a and b != b)


def shown(place: str) -> str:
    """A place as messages name it."""
    return place.split("#")[0]


# ---- tensors ---------------------------------------------------------------------------------------------------------


class Transition:
    """How values move between places in two successive iterations, `a` and `b`.

    A place that ends `b` with a value that `b` did not make holds what some place held before `b`. It must be the same
    place that gave it its value in `a`; where several come into question, they must all hold the same value after `b`.
    """

    def __init__(self, before_a: Boundary, before_b: Boundary, end: Boundary, unifier: Unifier) -> None:
        self.before_a, self.before_b, self.end, self.unifier = before_a, before_b, end, unifier
        self._meet_what_moves()
        self.first, self.middle, self.last = before_a.held(), before_b.held(), end.held()
        self.made = set(unifier.match.values())
        self._holders: dict[Value, list[Key]] = {}
        """Value before `b` -> the places that hold it then."""
        for place, value in self.middle.items():
            self._holders.setdefault(value, []).append(place)
        states = end.trace.states
        self._alive = {s for s, state in states.items() if state.lifted is not None} | end.storages()
        """The storages that code after the loop may still read, as far as can be seen."""
        self.moved: dict[Key, Value] = {}
        """Place -> the value before `b` that it ends up with, where that is handed on from another place."""
        for place in self.last:
            self._check(place)
        for value in unifier.invariant:
            if any(self.last.get(q, value) is not value for q in self._holders.get(value, ())):
                raise Mismatch("it is not clear yet which of two variables an iteration reads")

    def _meet_what_moves(self) -> None:
        """Makes tensors from outside that go from place to place inputs of the program, read or not."""
        boundaries = (self.before_a, self.before_b, self.end)
        for place in self.end.holders:
            held = [b.holders[place] for b in boundaries if place in b.holders]
            if any(holder is not held[0] for holder in held):
                for holder in held:
                    if isinstance(holder, Tensor) and holder._array is not None:
                        self.end.trace.locate(holder)

    def _check(self, place: Key) -> None:
        middle, last = self.middle.get(place), self.last[place]
        if middle is None or isinstance(place, Storage) and (place not in self.first or place not in self._alive):
            return  # made in these iterations, or not reached any more
        match = self.unifier.match
        if middle in match or last in self.made:
            if match.get(middle) is not last:
                raise Mismatch(f"{self._name(place)} is computed in one iteration and not in the next")
            self._check_path(place)
            return
        if isinstance(place, Storage) and place.version == self.before_a.version(place):
            return
        self._check_path(place)
        sources = [q for q in self._holders.get(last, ()) if self.first.get(q) is middle]
        following = {self.last.get(q) for q in sources}
        if not sources:
            raise Mismatch(
                f"{self._name(place)} gets its value from one place in one iteration and from another in the next"
            )
        if len(following) > 1 or last is middle and following != {last}:
            raise Mismatch(f"it is not clear yet where {self._name(place)} gets its value from")
        if last is not middle:
            self.moved[place] = last

    def _check_path(self, place: Key) -> None:
        if isinstance(place, str) and self.before_b.paths.get(place) != self.end.paths[place]:
            raise Mismatch(f"`{shown(place)}` is another view from one iteration to the next")

    def _name(self, place: Key) -> str:
        if isinstance(place, str):
            return f"`{shown(place)}`"
        names = [n for n, holder in self.end.holders.items() if isinstance(holder, Tensor) and holder._storage is place]
        return f"the memory of `{shown(names[0])}`" if names else "a tensor that the loop writes"

    def slots(self) -> Iterator[tuple[Value, Value]]:
        """(value before `a`, value before `b`) of the values that are handed on from place to place."""
        for place, last in self.moved.items():
            yield self.middle[place], last

    def note_edges(self, initial: set[Value]) -> None:
        """Lets the trace know where cotangents of the values that a loop starts from go: its body may not read them."""
        trace = self.end.trace
        for place, holder in self.before_a.holders.items():
            value = self.first.get(place)
            if value in initial and isinstance(holder, Tensor) and trace.states[holder._storage].value is value:
                trace.note_storage_edge(holder, value)

    def computed(self, values: set[Value]) -> Iterator[tuple[Tensor, Value]]:
        """(tensor, value) of the places that `b` gave one of `values`, which it computed."""
        for place, value in self.last.items():
            holder = self.end.holders.get(place) if isinstance(place, str) else None
            if value in values and value in self.made and isinstance(holder, Tensor):
                yield holder, value

    def following(self, first: Value, middle: Value) -> Value:
        """What the places hold after `b` that held `first` before `a` and `middle` before `b`."""
        values = {self.last[q] for q in self._holders.get(middle, ()) if self.first.get(q) is first and q in self.last}
        if not values:
            raise Mismatch("an iteration reads an outside value that the one before it did not read")
        if len(values) > 1:
            raise Mismatch("it is not clear yet which of two variables an iteration reads")
        (value,) = values
        if value in self.made:
            raise Mismatch("a value is computed in one iteration and not in the next")
        return value


def depends(nodes: Any, changing: set[Value]) -> set[Value]:
    """The values of the nodes that depend on those in `changing`, which are included."""
    found = set(changing)
    for node in nodes:
        inputs = node.operands() if hasattr(node, "operands") else node.inputs
        if any(v in found for v in inputs):
            found.update(node.outputs)
    return found
