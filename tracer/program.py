"""One specialisation of a compiled function: where its inputs come from, what it relied on, what a call returns and
leaves behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.errors import TraceError
from ..ir.graph import Value
from .capture import Guard
from .compiled_backward import BackwardProgram, attach_record
from .dispatch import view
from .driver import Build
from .location import error
from .progress import ProgressBar
from .scalars import RuntimeScalar
from .slots import EPOCH, MISSING
from .storage import Storage
from .structure import unflatten
from .tape import tensor_requires_grad
from .tensor import Step, Tensor, wrap
from .trace import Lifted, ScalarInput, SlotLog, Trace, fingerprint, restore


@dataclass(frozen=True)
class FreshOutput:
    """A tensor over memory that the call makes: result number, and the geometry in it (None: all of it)."""

    result: int
    geometry: tuple[tuple[int, ...], tuple[int, ...], int] | None
    requires_grad: bool
    record_output: int | None
    """Its position among the outputs of the call's record, when a gradient can flow through it."""


@dataclass(frozen=True)
class OutsideOutput:
    """A tensor that exists outside, or a view of one: the input it comes from, and the steps to take at each call."""

    source: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class NumberOutput:
    """A Python number that the program computes."""

    result: int


@dataclass(frozen=True)
class ConstantOutput:
    """Any other Python value: the same at every call."""

    value: Any


Output = FreshOutput | OutsideOutput | NumberOutput | ConstantOutput


@dataclass
class Harvest:
    """Collects the graph's results while outputs are described."""

    trace: Trace
    results: list[Value] = field(default_factory=list)
    by_storage: dict[Storage, int] = field(default_factory=dict)
    differentiable: list[Tensor] = field(default_factory=list)

    def describe(self, leaf: Any) -> Output:
        """The recipe for one returned or stored value."""
        if isinstance(leaf, Tensor):
            return self._tensor(leaf)
        if type(leaf) is RuntimeScalar:
            return NumberOutput(self.add(self.trace.read(leaf.tensor)))
        return ConstantOutput(leaf)

    def add(self, value: Value) -> int:
        """Makes a value a result; its number."""
        self.results.append(value)
        return len(self.results) - 1

    def _tensor(self, leaf: Tensor) -> Output:
        if leaf._array is not None:
            return self._outside(leaf)
        state, path = self.trace.locate(leaf)
        if state.lifted is not None:
            return OutsideOutput(state.lifted.position, path)
        storage = leaf._storage
        if storage not in self.by_storage:
            self.by_storage[storage] = self.add(self.trace.resolve(state.value))
        geometry = (tuple(leaf.shape), leaf.stride(), leaf._offset) if path else None
        number = None
        if tensor_requires_grad(leaf) and leaf._current_edge() is not None:
            number = len(self.differentiable)
            self.differentiable.append(leaf)
        return FreshOutput(self.by_storage[storage], geometry, tensor_requires_grad(leaf), number)

    def _outside(self, leaf: Tensor) -> Output:
        known = self.trace.paths.get(id(leaf))
        if known is None:
            self.trace.locate(leaf)
            known = self.trace.paths[id(leaf)]
        lifted = self.trace.states[leaf._storage].lifted
        assert lifted is not None
        if leaf is lifted.tensor:
            return OutsideOutput(lifted.position, ())
        own = self.trace.paths[id(lifted.tensor)][1]
        return OutsideOutput(lifted.position, known[1][len(own) :])


@dataclass(eq=False)
class Program:
    """A traced, lowered specialisation.

    `Program.run(leaves)` is a call; `Program.holds(leaves)` says whether it may serve one.
    """

    key: tuple[Any, ...]
    build: Build
    inputs: list[Lifted | ScalarInput]
    sources: list[int | SlotLog | None]
    """Per input, where a call finds it: an argument leaf, a slot of one, or (None) the place where the trace found it.
    """
    guards: list[Guard]
    slots: list[SlotLog]
    """Captured slots: looked at again only when the epoch has moved."""
    leaf_slots: list[SlotLog]
    """Slots of arguments (their `.grad`): looked at in every call, since every call may bring other tensors."""
    structure: Any
    outputs: list[Output]
    effects: list[tuple[SlotLog, Output]]
    written: list[Lifted]
    backward: BackwardProgram | None
    keep: list[Any]
    """Objects whose identity is part of the key."""
    progress: bool
    epoch: int = -1
    aliases: tuple[int, ...] = ()
    """Pairs (leaf, input): argument tensors that share memory with captured ones."""

    def __post_init__(self) -> None:
        self.captured = [
            e for e, source in zip(self.inputs, self.sources, strict=True) if type(e) is Lifted and source is None
        ]

    # ---- may this program serve the call? --------------------------------------------------------------------------

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Whether everything that the trace relied on still holds; captured tensors are rebound where they were
        replaced.
        """
        return self.mismatch(leaves) is None

    def mismatch(self, leaves: Sequence[Any]) -> str | None:
        """What does not hold any more, in words; None when all does."""
        for entry, source in zip(self.inputs, self.sources, strict=True):
            if type(entry) is ScalarInput and (entry.pinned or entry.at_least is not None):
                reason = self._number_mismatch(entry, self._number(entry, leaves, source))
                if reason:
                    return reason
        for guard in self.guards:
            if not guard.holds():
                return f"{guard.label} changed"
        if self.captured and self.shared_with_captured(leaves) != self.aliases:
            return "an argument shares memory with a captured tensor, or no longer does"
        reason = self._leaf_mismatch(leaves)
        if reason is None and self.epoch != EPOCH.count:
            reason = self._slot_mismatch()
            if reason is None:
                self.epoch = EPOCH.count
        return reason

    @staticmethod
    def _number_mismatch(entry: ScalarInput, now: Any) -> str | None:
        name = entry.param.hint or "a number"
        if entry.pinned and (type(now) is not type(entry.example) or now != entry.example):
            return f"the number `{name}`, which Python code looked at, was {entry.example} and is {now}"
        if entry.at_least is not None and now < entry.at_least:
            return f"the number of iterations `{name}` is {now}, the program needs at least {entry.at_least}"
        return None

    def shared_with_captured(self, leaves: Sequence[Any]) -> tuple[int, ...]:
        """See `aliases`."""
        captured = {id(e.tensor._storage): e.position for e in self.captured}
        found: list[int] = []
        for k, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and id(leaf._storage) in captured:
                found += (k, captured[id(leaf._storage)])
        return tuple(found)

    def _leaf_mismatch(self, leaves: Sequence[Any]) -> str | None:
        for entry in self.leaf_slots:
            now = entry.now(leaves)
            if now is entry.initial:
                continue
            both = isinstance(now, Tensor) and isinstance(entry.initial, Tensor)
            if not both or fingerprint(now, False) != fingerprint(entry.initial, False):
                return f"`{entry.key}` of an argument was {brief(entry.initial)} and is {brief(now)}"
        return None

    def _slot_mismatch(self) -> str | None:
        replaced: dict[int, Tensor] = {}
        for entry in self.slots:
            now = entry.now(())
            if isinstance(entry.initial, Tensor) and isinstance(now, Tensor) and entry.read_kind == "value":
                if replaced.setdefault(id(entry.initial), now) is not now:
                    return f"`{entry.key}` was replaced in one place only"
            elif not entry.holds(now):
                return f"`{entry.key}` was {brief(entry.initial)} and is {brief(now)}"
        return self._rebind(replaced)

    def _rebind(self, replaced: dict[int, Tensor]) -> str | None:
        """Lets captured tensors be the ones that the slots hold now; a reason when those do not fit."""
        captured = self.captured
        held = {id(guard.expected) for guard in self.guards}
        for entry in captured:
            tensor = replaced.get(id(entry.tensor), entry.tensor)
            if tensor is not entry.tensor and (id(entry.tensor) in held or self._in_list(entry.tensor)):
                return f"`{entry.param.hint or 'a tensor'}` was replaced in one place, and is still used from another"
            if entry.fingerprint != fingerprint(tensor, entry.whole):
                return (
                    f"the captured tensor `{entry.param.hint or '?'}` changed its shape, layout, dtype or requires_grad"
                )
        storages = [id(replaced.get(id(e.tensor), e.tensor)._storage) for e in captured]
        if len(set(storages)) != len(storages):
            return "two captured tensors share memory now"
        for entry in captured:
            entry.tensor = replaced.get(id(entry.tensor), entry.tensor)
        for slot in self.slots:
            if isinstance(slot.initial, Tensor) and id(slot.initial) in replaced:
                slot.initial = replaced[id(slot.initial)]
        return None

    def _in_list(self, tensor: Tensor) -> bool:
        return any(type(s.initial) in (list, tuple) and any(v is tensor for v in s.initial) for s in self.slots)

    # ---- the call --------------------------------------------------------------------------------------------------

    def run(self, leaves: Sequence[Any]) -> list[Any]:
        """Executes the program; the output leaves as the function would return them."""
        arrays = [self._array(entry, leaves, source) for entry, source in zip(self.inputs, self.sources, strict=True)]
        saved = self.backward.save(arrays) if self.backward is not None else None
        results = self.build.run(arrays) if not self.progress else self._run_with_bar(arrays)
        for lifted in self.written:
            self._tensor_at(lifted.position, leaves)._storage.version += 1
        made: dict[int, Tensor] = {}
        values = [self._output(o, results, leaves, made) for o in self.outputs]
        self._leave_behind(results, leaves, made)
        if self.backward is not None and saved is not None:
            wanted = [self._tensor_at(position, leaves) for position in self.backward.wanted]
            attach_record(self.backward, saved, wanted, self.outputs, values)
        return values

    def rebuild(self, values: Sequence[Any]) -> Any:
        """The returned structure with these leaves."""
        return unflatten(self.structure, values)

    def _run_with_bar(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        bar = ProgressBar()
        results = self.build.run(arrays, bar.show)
        bar.finish()
        return results

    def _tensor_at(self, position: int, leaves: Sequence[Any]) -> Tensor:
        entry = self.inputs[position]
        assert type(entry) is Lifted
        return self._tensor(entry, leaves, self.sources[position])

    @staticmethod
    def _tensor(entry: Lifted, leaves: Sequence[Any], source: int | SlotLog | None) -> Tensor:
        if source is None:
            return entry.tensor
        return leaves[source] if type(source) is int else source.now(leaves)  # type: ignore[union-attr]

    def _array(self, entry: Lifted | ScalarInput, leaves: Sequence[Any], source: int | SlotLog | None) -> Any:
        if type(entry) is ScalarInput:
            return self._number(entry, leaves, source)
        assert type(entry) is Lifted
        tensor = self._tensor(entry, leaves, source)
        array = tensor._storage.array if entry.whole else tensor._memory()
        assert array is not None
        if array.flags.c_contiguous:
            return array
        return np.lib.stride_tricks.as_strided(array, entry.param.type.sizes, (array.itemsize,))

    @staticmethod
    def _number(entry: ScalarInput, leaves: Sequence[Any], source: int | SlotLog | None) -> Any:
        if type(source) is int:
            return leaves[source]
        return entry.source.current() if type(entry.source) is Guard else entry.source.now(leaves)

    def _output(
        self, output: Output, results: Sequence[np.ndarray], leaves: Sequence[Any], made: dict[int, Tensor]
    ) -> Any:
        match output:
            case FreshOutput(result, geometry, requires_grad, record):
                tensor = fresh_tensor(results, result, geometry, made)
                if requires_grad and record is None:
                    tensor._requires_grad = True
                return tensor
            case OutsideOutput(position, steps):
                tensor = self._tensor_at(position, leaves)
                for op, attrs in steps:
                    tensor = view(op, tensor, attrs)
                return tensor
            case NumberOutput(result):
                return results[result].item()
            case ConstantOutput(value):
                return value
        raise error(TraceError, f"an output of kind {type(output).__name__}")

    def _leave_behind(self, results: Sequence[np.ndarray], leaves: Sequence[Any], made: dict[int, Tensor]) -> None:
        """Sets the tracked slots that the function wrote."""
        if not self.effects:
            return
        current = self.epoch == EPOCH.count
        for slot, output in self.effects:
            restore(slot.owner(leaves), slot.key, self._output(output, results, leaves, made))
        EPOCH.bump()
        if current and not any(slot.read and slot.leaf is None for slot, _ in self.effects):
            self.epoch = EPOCH.count


def fresh_tensor(results: Sequence[np.ndarray], result: int, geometry: Any, made: dict[int, Tensor]) -> Tensor:
    """A tensor over a result's memory; tensors of one call that share a storage share it here too."""
    base = made.get(result)
    if base is None:
        base = made[result] = wrap(results[result])
        if geometry is None:
            return base
    alias = Tensor()
    alias._storage_or_none = base._storage
    array = base._memory()
    if geometry is None:
        alias._array = array
    else:
        shape, strides, offset = geometry
        flat = base._storage.flat[offset:]
        alias._array = np.lib.stride_tricks.as_strided(flat, shape, tuple(s * array.itemsize for s in strides))
    return alias


def brief(value: Any) -> str:
    """A value in a recompile reason."""
    text = (
        "missing"
        if value is MISSING
        else repr(value)
        if isinstance(value, (bool, str, int, float, type(None)))
        else type(value).__name__
    )
    return text if len(text) < 60 else text[:57] + "..."


def fits(entry: Lifted, tensor: Tensor) -> bool:
    """Whether a program can read this tensor in place of the one that it was traced with."""
    return entry.fingerprint == fingerprint(tensor, entry.whole)
