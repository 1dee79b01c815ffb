"""Records of short ways into programs (`runtime/call_layout.py`) while they grow."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import seam
from .slots import EPOCH
from .tape import tensor_requires_grad
from .tensor import Tensor

MISS = object()
"""What a short way gives when it does not apply: nothing was run."""
_NAMES = ("_array", "_requires_grad", "_edge", "_base", "_storage_or_none", "_storage", "_frozen", "version", "item")


class NoShortWay(Exception):
    """A program, or its arguments, need more than the short way offers."""


def need(condition: Any) -> None:
    """Gives up unless the condition holds."""
    if not condition:
        raise NoShortWay


class Vocabulary(NamedTuple):
    """What all records need (`call_layout.NAMES`)."""

    words: np.ndarray
    things: tuple[Any, ...]


@functools.cache
def vocabulary() -> Vocabulary | None:
    """The only one; None where this Python keeps objects in other ways than native code knows."""
    cell = seam.calls().slot_address(EPOCH, "count")
    if not cell or not seam.calls().knows_objects():
        return None
    things = (EPOCH.numbers, Tensor, True, False, None, 1, *map(sys.intern, _NAMES), tensor_requires_grad)
    return Vocabulary(np.array([cell, *map(id, things)], np.int64), things)


class Memory(NamedTuple):
    """What a record remembers of an argument (`call_layout.MEMORY_*`)."""

    words: np.ndarray
    reference: list[Any]

    def open(self) -> None:
        """Lets the next tensor be remembered instead."""
        self.reference[0] = None
        self.words[seam.calls().layout.MEMORY_OPEN] = 1


class Record:
    """Rows, and registers with what they hold when a call begins."""

    def __init__(self) -> None:
        self.at: Any = seam.calls().layout
        self.rows: list[list[int]] = []
        self.contents: list[int] = []
        self.kept: list[Any] = []
        self.memories: list[Memory] = []
        self._constants: dict[int, int] = {}

    def registers(self, count: int) -> int:
        """The first of so many new registers."""
        self.contents += [0] * count
        return len(self.contents) - count

    def address(self, thing: Any) -> int:
        """Where an object is, which stays alive with the record."""
        self.kept.append(thing)
        return id(thing)

    def constant(self, thing: Any) -> int:
        """A register that holds an object in every call."""
        if id(thing) not in self._constants:
            self._constants[id(thing)] = register = self.registers(1)
            self.contents[register] = self.address(thing)
        return self._constants[id(thing)]

    def table(self, words: Sequence[int]) -> int:
        """The address of words, which stay alive with the record."""
        array = np.array(words, np.int64)
        self.kept.append(array)
        return array.ctypes.data

    def row(self, op: int, *operands: int) -> int:
        """Appends a row; its number."""
        self.rows.append([op, *operands, *[0] * (self.at.ROW_WORDS - 1 - len(operands))])
        return len(self.rows) - 1

    def skip(self, row: int) -> None:
        """Lets a KNOWN row lead past the rows that follow it."""
        self.rows[row][self.at.C] = 8 * self.at.ROW_WORDS * (len(self.rows) - row - 1)

    def memory(self, registers: Sequence[int]) -> int:
        """The address of a memory of what is in these registers."""
        reference: list[Any] = [None]
        words = np.array([1, id(reference), len(registers), *registers, *registers], np.int64)
        self.memories.append(Memory(words, reference))
        return words.ctypes.data

    def builtin(
        self, executable: Any, arguments: int, names: tuple[str, ...], inputs: Sequence[int], epochs: list[int]
    ) -> tuple[Callable[..., Any], np.ndarray]:
        """The function that the record describes, and what its registers hold when a call begins."""
        at, things = self.at, vocabulary()
        need(things is not None and len(self.contents) + len(inputs) + 6 * len(self.rows) < at.MOST)
        assert things is not None
        words, template = np.zeros(at.RECORD_WORDS, np.int64), np.array(self.contents, np.int64)
        words[at.PROCESS], words[at.ENTRY] = seam.calls().process(), executable.entry.ctypes.data
        words[at.ARGUMENTS], words[at.KEYWORDS] = arguments, self.address(names)
        words[at.REGISTERS] = len(template)
        words[at.TEMPLATE], words[at.NAMES] = template.ctypes.data, things.words.ctypes.data
        words[at.ROWS], words[at.INPUTS] = self.table([word for row in self.rows for word in row]), self.table(inputs)
        words[at.EPOCHS], words[at.MISS] = self.address(epochs), self.address(MISS)
        kept = (executable.kept, template, *self.memories, *self.kept)
        return seam.calls().short_call(words, *kept), template
