"""What a short way into a program does with a call that it takes, as rows of its record."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator
from typing import Any

from .outputs import ArgumentOutput, ConstantOutput, FreshOutput, NumberOutput, Output, OutsideOutput, Place
from .program import Program
from .short_checks import Checks
from .short_record import MISS, NoShortWay, Record, need
from .slots import KEYS, MISSING
from .structure import LEAF
from .tensor import Tensor
from .trace_inputs import Lifted, SlotLog


class Results:
    """The last rows of a record: the program runs, and its results become what the function returns and leaves
    behind."""

    def __init__(self, record: Record, program: Program, checks: Checks) -> None:
        self.record, self.at = record, record.at
        self.program, self.checks = program, checks
        self.first = 0
        """The register of the program's first result."""
        self._values: dict[Output, int] = {}

    def write(self, ready: bool, epochs: list[int]) -> None:
        """All of it; by `Program.run` where native code cannot, or when the inputs are not all `ready`."""
        rows = self.record.rows
        mark = len(rows)
        try:
            need(ready)
            self.run()
        except NoShortWay:
            del rows[mark:]
            self.finish(ready, epochs)

    def run(self) -> None:
        """The program and everything after it."""
        record, program, found = self.record, self.program, self.checks.found
        need(program.progress is None and (program.backward is None or program.backward.refusal))
        for place in found:
            if isinstance(place, SlotLog):
                record.row(self.at.HOLD, found[place].tensor)
        self.first = record.registers(len(program.build.executable.plan.outputs))
        record.row(self.at.RUN, self.first)
        for entry in program.written:
            source = program.sources[entry.position]
            record.row(self.at.WRITTEN, record.constant(entry.tensor) if source is None else found[source].tensor)
        values = iter([self.value(output) for output in program.outputs])
        for slot, output in program.effects:
            self.leave_behind(slot, self.value(output))
        if program.effects:
            record.row(self.at.MOVE, not any(slot.read and slot.leaf is None for slot, _ in program.effects))
        record.row(self.at.RETURN, self.gathered(program.structure, values))

    def finish(self, ready: bool, epochs: list[int]) -> None:
        """Leaves the rest to the program."""
        record, leaves = self.record, self.checks.registers
        goes_on = record.address(functools.partial(_finish, weakref.ref(self.program), epochs))
        record.row(self.at.FINISH, goes_on, record.table(leaves), len(leaves), ready)

    def value(self, output: Output) -> int:
        """The register of a value that the call makes or hands on."""
        if output not in self._values:
            self._values[output] = self._value(output)
        return self._values[output]

    def _value(self, output: Output) -> int:
        record = self.record
        match output:
            case FreshOutput(result, None, requires_grad, number):
                need(not any(isinstance(o, FreshOutput) and o.result == result for o in self._values))
                made, backward = record.registers(1), self.program.backward
                edge = 0 if number is None or backward is None else record.address((backward.refused, number))
                record.row(self.at.TENSOR, made, self.first + result, id(True) if requires_grad else 0, edge)
                return made
            case NumberOutput(result):
                made = record.registers(1)
                record.row(self.at.NUMBER, made, self.first + result)
                return made
            case ConstantOutput(value) if value is not MISSING:
                return record.constant(value)
            case ArgumentOutput(leaf):
                return self.checks.registers[leaf]
            case OutsideOutput(place, (), False):
                return self.outside(place)
        raise NoShortWay

    def outside(self, place: Place) -> int:
        """The register of a tensor that exists before the call."""
        if isinstance(place, (Lifted, Tensor)):
            return self.record.constant(place.tensor if isinstance(place, Lifted) else place)
        need(place in self.checks.found)
        return self.checks.found[place].tensor

    def leave_behind(self, slot: SlotLog, value: int) -> None:
        """Sets a tracked slot."""
        need(slot.key is not KEYS)
        record = self.record
        owner = record.constant(slot.container) if slot.leaf is None else self.checks.registers[slot.leaf]
        if isinstance(slot.container, dict):
            record.row(self.at.SET_ENTRY, owner, record.address(slot.key), value)
        else:
            record.row(self.at.SET_ATTRIBUTE, owner, record.address(sys.intern(f"_{slot.key}")), value)

    def gathered(self, structure: Any, values: Iterator[int]) -> int:
        """The register of the returned structure."""
        if structure == LEAF:
            return next(values)
        need(structure[0] is tuple or structure[0] is list)
        parts = [self.gathered(part, values) for part in structure[1:]]
        made = self.record.registers(1)
        self.record.row(self.at.GATHER, made, structure[0] is list, self.record.table(parts), len(parts))
        return made


def _finish(
    reference: weakref.ref[Program], epochs: list[int], leaves: list[Any], arrays: list[Any] | None
) -> Any:
    """The result of a call that fits."""
    program = reference()
    if program is None:  # forgotten meanwhile
        return MISS
    result = program.rebuild(program.run(leaves, arrays))
    epochs[0] = program.epoch
    return result
