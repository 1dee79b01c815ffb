"""The short way into a program for a call with the very objects of the last one: a training step called repeatedly.

What a program is specialised on cannot have changed then, unless something moved the epoch (slots.py): tensors that are
the same objects have the same shape, layout and gradient state. Numbers may differ.
"""
from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from .capture_values import is_own_object
from .program import Program
from .slots import EPOCH
from .state import STATE
from .tensor import Tensor
from .trace_inputs import Lifted, ScalarInput, SlotLog

_BIG = 1 << 63


class RepeatedCall:
    """The arguments of one call, and how to find a program's inputs in those of the next."""

    __slots__ = ("program", "structure", "kept", "grad_enabled", "epoch", "numbers", "inputs")

    def __init__(self, program: Program, structure: Any, kept: list[Any]) -> None:
        self.program, self.structure, self.kept = program, structure, kept
        self.grad_enabled, self.epoch = STATE.grad_enabled, program.epoch
        pairs = list(zip(program.inputs, program.sources, strict=True))
        self.numbers = [
            (e, s) for e, s in pairs if type(e) is ScalarInput and (e.pinned or e.at_least is not None)
        ]
        self.inputs = [(_quick_source(e, s), e, s) for e, s in pairs]

    def fits(self, leaves: Sequence[Any]) -> bool:
        """Whether a call with these leaves is such a repetition."""
        if EPOCH.count != self.epoch or STATE.grad_enabled is not self.grad_enabled:
            return False
        for leaf, kept in zip(leaves, self.kept, strict=True):
            if type(kept) is weakref.ref:
                if kept() is not leaf:
                    return False
            elif kept is float or kept is int:
                if type(leaf) is not kept or (kept is int and not -_BIG <= leaf < _BIG):
                    return False
            elif leaf is not kept:
                return False
        program = self.program
        for entry, source in self.numbers:
            if program._number_mismatch(entry, program._number(entry, leaves, source)):
                return False
        return all([guard.holds() for guard in program.guards])

    def arrays(self, leaves: Sequence[Any]) -> list[Any]:
        """The program's inputs."""
        found = []
        for quick, entry, source in self.inputs:
            if quick is None:
                found.append(self.program._array(entry, leaves, source))
            elif type(entry) is ScalarInput:
                found.append(leaves[quick])
            else:
                found.append(leaves[quick]._array)
        return found

    def ran(self) -> None:
        """Notes the epoch after a run, whose own effects may have moved it."""
        self.epoch = self.program.epoch


def _quick_source(entry: Lifted | ScalarInput, source: int | SlotLog | None) -> Any:
    """The leaf that an input is as it stands; None when `Program` must look for it."""
    if type(source) is not int:
        return None
    if isinstance(entry, ScalarInput):
        return source
    return source if not entry.whole and entry.tensor._memory().flags.c_contiguous else None


def repeated_call(program: Program, structure: Any, leaves: Sequence[Any]) -> RepeatedCall | None:
    """The short way for calls with these leaves; None when an argument may change unseen."""
    read = {id(s) for s in program.leaf_slots}
    if any(id(slot) in read for slot, _ in program.effects) or program.edges or program.aliased or program.requirements:
        return None
    kept: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            if leaf._base is not None or leaf._array is None:
                return None
            kept.append(weakref.ref(leaf))
        elif type(leaf) is float or type(leaf) is int:
            kept.append(type(leaf))
        elif leaf is None or type(leaf) in (bool, str) or is_own_object(leaf):
            kept.append(leaf)
        else:
            return None
    return RepeatedCall(program, structure, kept)
