"""One specialisation of a compiled function: where its inputs come from, what it relied on, what a call returns and
leaves behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .capture import Guard
from .capture_values import identities
from .compiled_backward import BackwardProgram
from .dispatch import check_not_frozen
from .outputs import Made, Output, Place, tensor_at
from .progress import ProgressBar
from .scalars import Formula
from .slots import EPOCH, KEYS, MISSING
from .structure import unflatten
from .tensor import Tensor
from .trace_inputs import Lifted, ScalarInput, SlotLog, base_of, fingerprint, restore, run_type

if TYPE_CHECKING:
    from .driver import Build
    from .memory_use import MemoryUse
    from .short_call import ShortCall
    from .tape import Record


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
    edges: list[tuple[Place, int | None]]
    """Tensors from outside that the function wrote tracked values into: the output of the call's record that each holds
    now, None for one that was detached."""
    written: list[Lifted]
    backward: BackwardProgram | None
    known: set[int]
    """ids of the tensors from outside that the trace read."""
    progress: Formula | None
    """The number of iterations that a progress bar shows; None without one."""
    requirements: list[tuple[Formula, int]] = field(default_factory=list)
    """Numbers of iterations computed from inputs, and the least that the program is right for."""
    epoch: int = -1
    aliases: tuple[Any, ...] = ()
    """See `shared_memory`."""
    identical: list[tuple[int, Tensor]] = field(default_factory=list)
    """Argument leaves that are tensors which the function also reads from outside."""
    aliased: list[tuple[Place, Place, int]] = field(default_factory=list)
    """Tensors that are parts of a whole storage which is an input: where each is found, where another part of the same
    storage, and the first one's offset."""
    bases: list[tuple[int, tuple[Any, ...] | None]] = field(default_factory=list)
    """Per argument leaf that the function writes, what it is a view of: see `base_of`."""
    short: ShortCall | None = None
    """The short way into the program."""
    may_shorten: bool = True
    """False when there is none."""

    def __post_init__(self) -> None:
        self.captured = [
            e for e, source in zip(self.inputs, self.sources, strict=True) if type(e) is Lifted and source is None
        ]
        self._captured_storages = {id(e.tensor._storage): e.position for e in self.captured}
        pairs = list(zip(self.inputs, self.sources, strict=True))
        self._numbers = [
            (e, s) for e, s in pairs if type(e) is ScalarInput and (e.pinned or e.at_least is not None)
        ]
        self._wholes = [(e, s) for e, s in pairs if type(e) is Lifted and e.whole and s is not None]
        self.held = set(identities([g.expected for g in self.guards if not g.scalar]))
        self.held |= set(identities([s.contents for s in self.slots if not isinstance(s.initial, Tensor)]))
        """ids of objects that guards and containers hold."""

    def memory(self) -> MemoryUse:
        """Where the bytes of a call are, those kept for a backward from outside included."""
        use, backward = self.build.memory(), self.backward
        if backward is None or backward.graph is None:
            return use
        kept = {k: self.inputs[k].param.type.nbytes for k in backward.inputs}
        copied = sum(nbytes for k, nbytes in kept.items() if k in backward.overwritten)
        return replace(use, kept_input_bytes=sum(kept.values()), kept_copy_bytes=copied)

    # ---- may this program serve the call? --------------------------------------------------------------------------

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Whether everything that the trace relied on still holds; captured tensors are rebound where they were
        replaced.
        """
        return self.mismatch(leaves) is None

    def mismatch(self, leaves: Sequence[Any]) -> str | None:
        """What does not hold any more, in words; None when all does."""
        for entry, source in self._numbers:
            reason = self._number_mismatch(entry, self._number(entry, leaves, source))
            if reason:
                return reason
        for lifted, whole in self._wholes:
            if run_type(tensor_at(whole, leaves), True) != lifted.param.type:
                return f"the memory that `{lifted.param.hint or 'an argument'}` is part of changed its shape"
        for formula, least in self.requirements:
            if self._computed(formula, leaves) < least:
                return f"a computed number of iterations is less than {least}"
        for guard in self.guards:
            if not guard.holds():
                return f"{guard.label} changed"
        for k, tensor in self.identical:
            if leaves[k] is not tensor:
                return "an argument was a tensor that the function also captured"
        for place, storage_of, offset in self.aliased:
            tensor, first = tensor_at(place, leaves), tensor_at(storage_of, leaves)
            if tensor._storage is not first._storage or tensor.storage_offset() != offset:
                return "tensors that shared memory no longer do so in the same way"
        for k, base in self.bases:
            if base_of(leaves[k]) != base:
                return "a written argument is a view of another kind of tensor"
        reason, epoch = self._leaf_mismatch(leaves), EPOCH.count
        if reason is None and self.epoch != epoch:
            reason = self._slot_mismatch()
        if reason is None and self.shared_memory(leaves) != self.aliases:
            reason = "an argument shares memory with a captured tensor or a gradient, or no longer does"
        if reason is None:
            self.epoch = epoch
        return reason

    @staticmethod
    def _number_mismatch(entry: ScalarInput, now: Any) -> str | None:
        name = entry.param.hint or "a number"
        if entry.pinned and (type(now) is not type(entry.example) or now != entry.example):
            return f"the number `{name}`, which Python code looked at, was {entry.example} and is {now}"
        if entry.at_least is not None and now < entry.at_least:
            return f"the number of iterations `{name}` is {now}, the program needs at least {entry.at_least}"
        return None

    def shared_memory(self, leaves: Sequence[Any], slot_values: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """Which arguments, and which tensors in slots of arguments, share memory with captured ones or with one
        another's slots.

        Two arguments that share memory are told apart by the key of the call.
        """
        captured = self._captured_storages
        found: list[tuple[int | None, ...]] = []
        for k, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and id(leaf._storage) in captured:
                found.append((k, captured[id(leaf._storage)], leaf.storage_offset()))
        if self.leaf_slots:
            given = {id(leaf._storage): k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
            values = [slot.now(leaves) for slot in self.leaf_slots] if slot_values is None else slot_values
            for n, value in enumerate(values):
                if isinstance(value, Tensor):
                    storage = id(value._storage)
                    if storage in captured or storage in given:
                        found.append((-1 - n, captured.get(storage), given.get(storage), value.storage_offset()))
                    given[storage] = -1 - n
        return tuple(found)

    def _leaf_mismatch(self, leaves: Sequence[Any]) -> str | None:
        for entry in self.leaf_slots:
            now = entry.now(leaves)
            if not entry.fits(now):
                return f"`{entry.key}` of an argument was {brief(entry.initial)} and is {brief(now)}"
        return None

    def _slot_mismatch(self) -> str | None:
        if EPOCH.tensors <= self.epoch and all([slot.stands() for slot in self.slots]):
            return None
        replaced: dict[int, Tensor] = {}
        for entry in self.slots:
            now = entry.now(())
            tensor = isinstance(entry.initial, Tensor) and entry.read_kind == "value"
            if tensor and replaced.setdefault(id(entry.initial), now) is not now:
                return f"`{name_of(entry)}` was replaced in one place only"
            if not entry.fits(now):
                return f"`{name_of(entry)}` was {brief(entry.initial)} and is {brief(now)}"
        return self._rebind(replaced)

    def _rebind(self, replaced: dict[int, Tensor]) -> str | None:
        """Lets captured tensors be the ones that the slots hold now; a reason when those do not fit."""
        captured = self.captured
        bound = {id(e.tensor) for e in captured if not e.whole}
        for old, tensor in replaced.items():
            if old != id(tensor) and (old in self.held or old in self.known and old not in bound):
                return "a captured tensor was replaced in one place, and is still used from another"
        now = [replaced.get(id(e.tensor), e.tensor) for e in captured]
        for entry, tensor in zip(captured, now, strict=True):
            if entry.fingerprint != fingerprint(tensor, entry.whole):
                hint = entry.param.hint or "?"
                return f"the captured tensor `{hint}` changed its shape, layout, dtype or requires_grad"
        storages = {id(t._storage): e.position for t, e in zip(now, captured, strict=True)}
        if len(storages) != len(captured):
            return "two captured tensors share memory now"
        for entry, tensor in zip(captured, now, strict=True):
            entry.tensor = tensor
        for slot in self.slots:
            if isinstance(slot.initial, Tensor):
                slot.initial = replaced.get(id(slot.initial), slot.initial)
        self._captured_storages = storages
        return None

    # ---- the call --------------------------------------------------------------------------------------------------

    def run(self, leaves: Sequence[Any], arrays: list[Any] | None = None) -> list[Any]:
        """Executes the program; the output leaves as the function would return them.

        `arrays` are the inputs, for a caller that has them already.
        """
        if arrays is None:
            pairs = zip(self.inputs, self.sources, strict=True)
            arrays = [self._array(entry, leaves, source) for entry, source in pairs]
        written = [self._tensor_at(lifted, leaves) for lifted in self.written]
        for tensor in written:
            check_not_frozen(tensor, self.build.traced.name)
        backward = self.backward
        record: Record | None = None  # made before the call writes: it leads to the edges that the inputs have now
        if backward is not None and backward.refusal:
            record = backward.refused
        elif backward is not None:
            record = backward.record(backward.save(arrays, self._tensors(leaves)), leaves)
        results = self.build.run(arrays) if self.progress is None else self._run_with_bar(arrays, leaves)
        for tensor in written:
            tensor._storage.version += 1
        made = Made(results, leaves, record)
        for place, number in self.edges:
            tensor = tensor_at(place, leaves)
            tensor._edge = None if number is None or record is None else (record, number)
            tensor._requires_grad = tensor._edge is not None
        if self.edges:
            EPOCH.bump_tensors()
        values = [made.value(o) for o in self.outputs]
        self._leave_behind(made)
        return values

    def rebuild(self, values: Sequence[Any]) -> Any:
        """The returned structure with these leaves."""
        return unflatten(self.structure, values)

    def _computed(self, formula: Formula, leaves: Sequence[Any]) -> Any:
        """What a formula gives for the inputs of a call; -1 where Python's arithmetic fails."""
        try:
            return formula(lambda entry: self._number(entry, leaves, self.sources[entry.position]))
        except ArithmeticError:
            return -1

    def _run_with_bar(self, arrays: Sequence[Any], leaves: Sequence[Any]) -> list[np.ndarray]:
        bar = ProgressBar()
        assert self.progress is not None
        bar.total = self._computed(self.progress, leaves)
        results = self.build.run(arrays, bar.show)
        bar.finish()
        return results

    def _tensors(self, leaves: Sequence[Any]) -> list[Tensor | None]:
        """The tensor behind each input; None for numbers."""
        return [self._tensor_at(e, leaves) if type(e) is Lifted else None for e in self.inputs]

    def _tensor_at(self, entry: Lifted, leaves: Sequence[Any]) -> Tensor:
        source = self.sources[entry.position]
        return entry.tensor if source is None else tensor_at(source, leaves)

    def _array(self, entry: Lifted | ScalarInput, leaves: Sequence[Any], source: int | SlotLog | None) -> Any:
        if type(entry) is ScalarInput:
            return self._number(entry, leaves, source)
        assert type(entry) is Lifted
        tensor = entry.tensor if source is None else tensor_at(source, leaves)
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

    def _leave_behind(self, made: Made) -> None:
        """Sets the tracked slots that the function wrote."""
        if not self.effects:
            return
        seen = self.epoch
        for slot, output in self.effects:
            restore(slot.owner(made.leaves), slot.key, made.value(output))
        epoch = EPOCH.bump()
        if epoch == seen + 1 and not any(slot.read and slot.leaf is None for slot, _ in self.effects):
            self.epoch = epoch  # nobody else wrote meanwhile


def name_of(slot: SlotLog) -> str:
    """A slot in a recompile reason."""
    return "the keys of a tracked dict" if slot.key is KEYS else str(slot.key)


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
