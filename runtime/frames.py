"""Frames: the memory of one call of a program. They are made from a template, kept, and used again by later calls."""

from __future__ import annotations

import numpy as np

from . import layout as at
from .assemble import Program
from .buffers import ALIGNMENT


class Frame:
    """One frame and its arena. `address` is what native code gets."""

    __slots__ = ("words", "arena", "address")

    def __init__(self, program: Program, rows: np.ndarray, arena_bytes: int, process: np.ndarray) -> None:
        self.words = aligned(8 * len(program.frame)).view(np.int64)
        self.arena = aligned(arena_bytes)
        base = self.words.ctypes.data
        self.address = base
        self.words[:] = program.frame
        self.words[at.PROGRAM] = rows.ctypes.data
        self.words[at.BINDINGS] = program.bindings.ctypes.data
        self.words[at.PROCESS] = process.ctypes.data
        for pairs, start in ((program.own, base), (program.arena, self.arena.ctypes.data)):
            self.words[pairs[:, 0]] = start + pairs[:, 1]


def aligned(nbytes: int) -> np.ndarray:
    """Uninitialised bytes that start on a cache line."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % ALIGNMENT
    return memory[skip : skip + nbytes]
