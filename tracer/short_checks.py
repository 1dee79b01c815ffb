"""What a short way into a program checks of a call, as rows of its record."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .capture import Guard
from .capture_values import Is, freeze, is_immutable
from .program import Program
from .short_record import Record, need
from .state import STATE
from .structure import LEAF
from .tape import tensor_requires_grad
from .tensor import Tensor
from .trace_inputs import Lifted, ScalarInput, SlotLog


@dataclass(eq=False)
class Found:
    """Registers of an argument, or of what is in a slot of one: tensor, array, what it shares memory through."""

    tensor: int
    array: int
    share: int
    contiguous: bool


class Checks:
    """The first rows of a record: a call is of the kind of one that the program may serve, which has these leaves."""

    def __init__(self, record: Record, program: Program, leaves: Sequence[Any]) -> None:
        self.record, self.at = record, record.at
        self.program, self.leaves = program, leaves
        self.registers: list[int] = []
        """By the number of the argument leaf."""
        self.found: dict[Any, Found] = {}
        """By the number of the argument leaf, or the slot of one."""
        self.numbers: list[tuple[int, ScalarInput]] = []
        """Registers of numbers that are in captured slots."""
        self._guards: dict[Guard, int] = {}
        self._written = {place for entry in program.written if (place := program.sources[entry.position]) is not None}

    def write(self, structure: Any, names: tuple[str, ...]) -> None:
        """All of it, for arguments of this structure; those with names come last, in this order."""
        record, program = self.record, self.program
        need(not (program.edges or program.aliased or program.aliases or program.requirements or program.identical))
        plain = structure[1] if names else structure
        count = len(plain) - 1
        first, epoch = record.registers(count + len(names)), record.registers(1)
        self.state()
        record.row(self.at.EPOCH, epoch)
        for guard in program.guards:
            self.guard(guard)
        self.take_apart(plain[1:], range(first, first + count))
        if names:
            _, sorted_names, *parts = structure[2]
            self.take_apart(parts, [first + count + names.index(name) for name in sorted_names])
        for k, leaf in enumerate(self.leaves):
            self.leaf(k, leaf)
        self.distinct()
        record.row(self.at.UNMOVED, epoch)

    def state(self) -> None:
        """No trace is in progress; gradients are recorded, or not, as before."""
        for name, expected in (("trace", None), ("grad_enabled", STATE.grad_enabled)):
            found = self.record.registers(1)
            self.record.row(self.at.ATTRIBUTE, self.record.constant(STATE), self.record.address(name), found)
            self.record.row(self.at.SAME, found, self.record.address(expected))

    def guard(self, guard: Guard) -> None:
        """A place outside the function holds what the trace relied on."""
        at, record, now = self.at, self.record, guard.current()
        if not (guard.scalar or is_immutable(now) or type(guard.expected) is Is or guard.elements is not None):
            record.row(at.HOLDS, record.address(guard.holds))
            return
        owner, name = guard.read.args
        found = self._guards[guard] = record.registers(1)
        if guard.read.func is not getattr:
            record.row(at.ENTRY_OF, record.address(owner), record.address(name), found)
        elif type(owner) is types.CellType:
            record.row(at.CONTENT, record.address(owner), found)
        else:
            record.row(at.ATTRIBUTE, record.constant(owner), record.address(name), found)
        if guard.scalar:
            self.number(found, type(now), guard)
        elif guard.elements is not None:
            record.row(at.ELEMENTS, found, record.address(guard.elements))
        else:
            record.row(at.SAME, found, record.address(now))

    def number(self, found: int, kind: type, source: int | Guard) -> None:
        """A number of the type, and with the value, that the trace relied on."""
        at, record = self.at, self.record
        entry = next((e for e in self.program.inputs if self.source(e) == source), None)
        if isinstance(entry, ScalarInput) and entry.pinned:
            record.row(at.EQUAL, found, record.address(entry.example), record.address(kind))
        elif kind is int:
            least = entry.at_least if isinstance(entry, ScalarInput) else None
            record.row(at.WHOLE, found, -(1 << 60) if least is None else least)
        else:
            record.row(at.KIND, found, record.address(kind))

    def source(self, entry: Lifted | ScalarInput) -> Any:
        """Where an input comes from: an argument leaf, a slot, a guarded place; None for captured memory."""
        source = self.program.sources[entry.position]
        return entry.source if source is None and isinstance(entry, ScalarInput) else source

    def take_apart(self, structures: Sequence[Any], registers: Sequence[int]) -> None:
        """Nested tuples, lists and dicts, which are in these registers."""
        record = self.record
        for register, (kind, *parts) in zip(registers, structures, strict=True):
            if kind == LEAF:
                self.registers.append(register)
                continue
            need(kind in (tuple, list, dict))
            keys = parts.pop(0) if kind is dict else None
            inner = record.registers(len(parts))
            if keys is None:
                record.row(self.at.UNPACK, register, record.address(kind), len(parts), inner)
            else:
                record.row(self.at.UNPACK_DICT, register, record.address(keys), len(parts), inner)
            self.take_apart(parts, range(inner, inner + len(parts)))

    def leaf(self, k: int, leaf: Any) -> None:
        """An argument is of the kind that it was."""
        register = self.registers[k]
        if isinstance(leaf, Tensor):
            first = next(i for i, other in enumerate(self.leaves) if other is leaf)
            if first == k:
                self.argument(k, leaf)
            else:
                self.record.row(self.at.TWIN, register, self.registers[first])
                self.found[k] = self.found[first]
        elif type(leaf) in (int, float):
            self.number(register, type(leaf), k)
        else:
            need(is_immutable(leaf) or type(freeze(leaf)) is Is)
            self.record.row(self.at.SAME, register, self.record.address(leaf))

    def argument(self, k: int, leaf: Tensor) -> None:
        """A tensor and what is in those of its slots that the program looks at; remembered, unless the program itself
        changes that."""
        record, register = self.record, self.registers[k]
        slots = [slot for slot in self.program.leaf_slots if slot.leaf == k]
        lasting = not any(slot is written for slot in slots for written, _ in self.program.effects)
        known = record.row(self.at.KNOWN, register) if lasting else 0
        self.tensor(k, leaf, register)
        for slot in slots:
            self.slot(slot, register)
        if lasting:
            found = [self.found[place] for place in (k, *slots) if place in self.found]
            memory = record.memory([n for f in found for n in (f.tensor, f.array, f.share)])
            record.row(self.at.LEARN, memory, register)
            record.rows[known][self.at.B] = memory
            record.skip(known)

    def slot(self, slot: SlotLog, owner: int) -> None:
        """What is in a slot of an argument."""
        need(slot.read_kind == "value" and slot.scalar is None and not isinstance(slot.container, dict))
        record, now = self.record, slot.now(self.leaves)
        found = record.registers(1)
        record.row(self.at.ATTRIBUTE, owner, record.address(sys.intern(f"_{slot.key}")), found)
        if isinstance(now, Tensor):
            self.tensor(slot, now, found)
        else:
            need(is_immutable(now) or type(slot.contents) is Is)
            record.row(self.at.SAME, found, record.address(now))

    def tensor(self, place: Any, tensor: Tensor, register: int) -> None:
        """A tensor has the type, dtype, layout and gradient state that it had."""
        record, array = self.record, tensor._memory()
        grad, written, contiguous = tensor_requires_grad(tensor), place in self._written, array.flags.c_contiguous
        view = not (grad or written)
        need(tensor._base is None or view)
        kinds = (record.address(type(tensor)), record.address(array.dtype), array.ndim, id(grad), tensor._edge is None)
        table = record.table([*kinds, view, written, not contiguous, *array.shape, *array.strides])
        first = record.registers(2)
        self.found[place] = Found(register, first, first + 1, contiguous)
        record.row(self.at.FITS, register, first, table, first + 1)

    def distinct(self) -> None:
        """No two arguments share memory, nor one with a captured tensor."""
        shares = list(dict.fromkeys(found.share for found in self.found.values()))
        captured = [id(entry.tensor._storage) for entry in self.program.captured]
        if len(shares) + bool(captured) > 1:
            table = self.record.table
            self.record.row(self.at.DISTINCT, table(shares), len(shares), table(captured), len(captured))

    def input(self, entry: Lifted | ScalarInput) -> int | None:
        """The register of an input; None when only `Program.run` can make it."""
        source = self.source(entry)
        if isinstance(entry, ScalarInput):
            if not isinstance(source, SlotLog):
                return self.registers[source] if type(source) is int else self._guards[source]
            need(source.leaf is None)
            register = self.record.registers(1)
            self.numbers.append((register, entry))
            return register
        if source is None:
            return self.record.constant(self.program._array(entry, (), None))
        need(not entry.whole and source in self.found)
        return self.found[source].array if self.found[source].contiguous else None
