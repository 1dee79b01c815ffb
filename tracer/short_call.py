"""The short way into a program: a builtin that takes calls of a kind that was seen before.

What it checks (`short_checks.py`) and what it does then (`short_results.py`) is drafted from the program, as rows of a
record that native code follows (`runtime/call_native.py`). It gives MISS to whatever differs, and has no answer of its
own for it: such calls go the general way (`Program.holds` and `Program.run`), which says all of this in full. Programs
whose results take more than it can do are finished by `Program.run`, on the inputs that it found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .program import Program
from .short_checks import Checks
from .short_record import MISS, Memory, NoShortWay, Record, need, vocabulary
from .short_results import Results
from .slots import EPOCH
from .tensor import Tensor
from .trace_inputs import Lifted, ScalarInput


@dataclass(eq=False)
class ShortCall:
    """A short way: `call(*arguments)` is the result or MISS."""

    call: Callable[..., Any]
    epochs: list[int]
    """Its only element is the epoch that it holds for."""
    template: np.ndarray
    numbers: list[tuple[int, ScalarInput]]
    """Registers of numbers that are in captured slots."""
    memories: list[Memory]
    captured: list[tuple[Lifted, Tensor]]
    kept: dict[int, Any]
    """The numbers by register."""

    @property
    def is_stale(self) -> bool:
        """Whether tracked state was written since."""
        return self.epochs[0] is not EPOCH.count

    def renew(self, program: Program) -> bool:
        """Lets it hold for the present epoch, when nothing was written that matters but numbers: whether that is so."""
        epoch = EPOCH.count
        if EPOCH.tensors > self.epochs[0] or any(entry.tensor is not tensor for entry, tensor in self.captured):
            return False
        if not all([slot.stands() for slot in program.slots]):
            return False
        for register, entry in self.numbers:
            now = entry.source.now(())
            if program._number_mismatch(entry, now):
                return False
            self.kept[register], self.template[register] = now, id(now)
        for memory in self.memories:
            memory.open()
        program.epoch = self.epochs[0] = epoch
        return True


def short_call(
    program: Program, structure: Any, names: tuple[str, ...], leaves: Sequence[Any]
) -> ShortCall | None:
    """The short way for calls like this one, which the program is about to serve; None when there is none.

    `names` are those of the arguments that were given by name, in the order in which they were.
    """
    try:
        return _draft(program, structure, names, leaves)
    except NoShortWay:
        return None


def _draft(program: Program, structure: Any, names: tuple[str, ...], leaves: Sequence[Any]) -> ShortCall:
    executable, epochs = program.build.executable, [program.epoch]
    need(hasattr(executable, "entry") and vocabulary() is not None)
    record = Record()
    checks = Checks(record, program, leaves)
    checks.write(structure, names)
    inputs = [checks.input(entry) for entry in program.inputs]
    kept = {register: entry.source.now(()) for register, entry in checks.numbers}
    for register, number in kept.items():
        record.contents[register] = id(number)
    Results(record, program, checks).write(None not in inputs, epochs)
    record.kept.append(kept)
    count = len(structure[1] if names else structure) - 1
    call, template = record.builtin(executable, count, names, [r or 0 for r in inputs], epochs)
    captured = [(entry, entry.tensor) for entry in program.captured]
    return ShortCall(call, epochs, template, checks.numbers, record.memories, captured, kept)


__all__ = ["MISS", "ShortCall", "short_call"]
