"""Turns a plan into what the executor walks: rows, the template of a frame, and where addresses go in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.plan import Call, Cond, Copy, Loop, LoopCall, Plan, Slot, Space, Step, While
from ..ir.routines import Routine
from . import layout as at

COPY_CHUNK = 1 << 18
"""Bytes of one chunk of a large copy, which runs on the pool."""
_COPIES = {1: at.COPY_BYTE, 4: at.COPY_HALF, 8: at.COPY_WORD}
BYTES_COPY = Routine("copy_bytes")


@dataclass(frozen=True, eq=False)
class Program:
    """A plan ready to run, but for the addresses of its kernels and of a frame's memory.

    Attributes:
        rows: the executor's rows, kernels numbered into `codes`.
        steps: the step that each row comes from, None for the end.
        codes: the kernels and routines.
        frame: the words of a new frame.
        own, arena: (word, byte offset) pairs: where the frame's own and its arena's addresses go.
        bindings: the table that binds a call's arguments (`layout.BIND_*`).
        parallel: whether anything runs on the pool.
        outermost: for each row the frame word where the state of the outermost loop around it begins, or 0.
    """

    rows: np.ndarray
    steps: tuple[Step | None, ...]
    codes: tuple[Any, ...]
    frame: np.ndarray
    own: np.ndarray
    arena: np.ndarray
    bindings: np.ndarray
    parallel: bool
    outermost: tuple[int, ...]


@dataclass
class Assembler:
    """Rows and frame words while they grow."""

    plan: Plan
    rows: list[list[int]] = field(default_factory=list)
    steps: list[Step | None] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    words: list[int] = field(default_factory=list)
    pointers: dict[tuple[Space, int], list[tuple[int, int]]] = field(default_factory=dict)
    cells: dict[Slot, int] = field(default_factory=dict)
    loops: list[int] = field(default_factory=list)
    outermost: list[int] = field(default_factory=list)

    def word(self, *values: int) -> int:
        """Appends words to the frame; the position of the first."""
        position = len(self.words)
        self.words.extend(values)
        return position

    def pointer(self, slot: Slot) -> int:
        """Appends a word that will hold the address of `slot`; for a row that moves, a step before each use sets it."""
        position = self.word(0)
        if slot.space is Space.ROW:
            row = self.plan.rows[slot.number]
            base, index = self.cell(row.base), self.cell(row.index)
            self.row(None, at.AIM, A=base, B=index, C=row.stride, E=row.offset, ARGUMENTS=position)
            return position
        offset = slot.offset + 8 * at.HEADER if slot.space is Space.FRAME else slot.offset
        self.pointers.setdefault((slot.space, slot.number), []).append((position, offset))
        return position

    def cell(self, slot: Slot) -> int:
        """A word that holds the address of `slot`, shared by all rows that need one."""
        if slot.space is Space.ROW:
            return self.pointer(slot)
        key = Slot(slot.space, slot.number, slot.offset, 0, "")
        if key not in self.cells:
            self.cells[key] = self.pointer(slot)
        return self.cells[key]

    def table(self, slots: Sequence[Slot]) -> int:
        """An argument table: the frame, then the slots."""
        for slot in slots:
            if slot.space is Space.ROW:  # words of its own, which must not come between those of the table
                self.cell(self.plan.rows[slot.number].base)
                self.cell(self.plan.rows[slot.number].index)
        position = self.word(0)
        self.pointers.setdefault((Space.FRAME, 0), []).append((position, 0))
        for slot in slots:
            self.pointer(slot)
        return position

    def row(self, step: Step | None, op: int, code: Any = None, **operands: int) -> int:
        """Appends a row; its number."""
        words = [0] * at.ROW_WORDS
        words[at.OP] = op
        words[at.KERNEL] = self.number(code) if code is not None else -1
        for name, value in operands.items():
            words[getattr(at, name)] = value
        self.rows.append(words)
        self.steps.append(step)
        self.outermost.append(self.loops[0] if self.loops else 0)
        return len(self.rows) - 1

    def number(self, code: Any) -> int:
        """The number of a kernel or routine; names tell them apart."""
        if code.name not in self.numbers:
            self.numbers[code.name] = len(self.codes)
            self.codes.append(code)
        return self.numbers[code.name]

    def land(self, row: int) -> None:
        """Lets the jump in `row` lead to the next row that is appended."""
        self.rows[row][at.D] = (len(self.rows) - row) * at.ROW_WORDS * 8

    def back(self, row: int) -> int:
        """The distance from the next row that is appended back to `row`."""
        return (row - len(self.rows)) * at.ROW_WORDS * 8

    def block(self, steps: Sequence[Step]) -> None:
        """Rows of a sequence of steps."""
        for step in steps:
            match step:
                case Call():
                    self.call(step)
                case Copy():
                    self.copy(step)
                case LoopCall():
                    state = self.word(0, 0, 0, at.SLICE_FIRST)
                    self.loops.append(state)
                    self.row(
                        step,
                        at.LOOP_CALL,
                        step.call.code,
                        ARGUMENTS=self.table(step.call.arguments),
                        A=self.cell(step.start),
                        B=self.cell(step.stop),
                        C=state,
                        E=int(step.nonempty),
                    )
                    self.loops.pop()
                case Loop():
                    self.loop(step)
                case While():
                    self.while_loop(step)
                case Cond():
                    branch = self.row(step, at.BRANCH, A=self.cell(step.predicate))
                    self.block(step.then)
                    jump = self.row(step, at.JUMP)
                    self.land(branch)
                    self.block(step.otherwise)
                    self.land(jump)

    def call(self, step: Call) -> None:
        """The row of a kernel call; one without anything to do has none."""
        if step.extent == 0:
            return
        table = self.table(step.arguments)
        if isinstance(step.extent, Slot):
            self.row(step, at.PARALLEL_DYNAMIC, step.code, ARGUMENTS=table, A=self.cell(step.extent), B=step.chunk)
        elif step.chunk < step.extent:
            self.row(step, at.PARALLEL, step.code, ARGUMENTS=table, A=step.extent, B=step.chunk)
        else:
            self.row(step, at.CALL, step.code, ARGUMENTS=table, A=step.extent)

    def copy(self, step: Copy) -> None:
        """The row of a copy."""
        if step.nbytes > COPY_CHUNK:
            self.row(
                step,
                at.PARALLEL,
                BYTES_COPY,
                ARGUMENTS=self.table((step.target, step.source)),
                A=step.nbytes,
                B=COPY_CHUNK,
            )
        elif step.nbytes:
            self.row(
                step,
                _COPIES.get(step.nbytes, at.COPY),
                A=self.cell(step.target),
                B=self.cell(step.source),
                C=step.nbytes,
            )

    def state(self, position: int) -> int:
        """Puts the start state of a loop that is no kernel at `position`."""
        self.words[position + at.LOOP_BUDGET] = self.words[position + at.LOOP_SIZE] = 1
        return position

    def loop(self, step: Loop) -> None:
        """The rows of a loop; the index is the first word of the loop's state, as the plan left room for."""
        state = self.state(at.HEADER + step.index.offset // 8)
        begin = self.row(
            step, at.LOOP_BEGIN, A=self.cell(step.start), B=self.cell(step.stop), C=state, E=int(bool(step.lasts))
        )
        first = len(self.rows)
        self.loops.append(state)
        self.block(step.bodies[0].steps)
        turn = self.row(step, at.LOOP_TURN, C=state) if len(step.bodies) == 2 else None
        self.block(step.bodies[-1].steps if turn is not None else ())
        self.row(step, at.LOOP_END, C=state, D=self.back(first), E=int(len(self.loops) == 1))
        self.loops.pop()
        if turn is not None:
            leave = self.row(step, at.JUMP)
            self.land(turn)
            self.block(step.odd)
            self.land(leave)
        self.land(begin)

    def while_loop(self, step: While) -> None:
        """The rows of a loop with a condition."""
        state, begin = self.state(self.word(*[0] * at.LOOP_WORDS)), len(self.rows)
        self.block(step.condition)
        leave = self.row(step, at.BRANCH, A=self.cell(step.predicate))
        self.loops.append(state)
        self.block(step.body.steps)
        self.row(step, at.WHILE_END, C=state, D=self.back(begin), E=int(len(self.loops) == 1))
        self.loops.pop()
        self.land(leave)

    def bindings(self) -> list[int]:
        """The table that binds a call's arguments; integers among the inputs get words of their own."""
        inputs, outputs = len(self.plan.inputs), len(self.plan.outputs)
        table = [inputs | outputs << 32, self.word(*[0] * inputs)]
        for key in [*((Space.INPUT, i) for i in range(inputs)), *((Space.OUTPUT, i) for i in range(outputs))]:
            positions = self.pointers.get(key, [])
            table += [len(positions), *(number for position, offset in positions for number in (8 * position, offset))]
        return table


def assemble(plan: Plan) -> Program:
    """The program of a plan."""
    a = Assembler(plan)
    a.words = [0] * (at.HEADER + -(-plan.frame_bytes // 8))
    for slot, data in plan.constants:
        first = at.HEADER + slot.offset // 8
        padded = np.frombuffer(data + bytes(-len(data) % 8), np.int64)
        a.words[first : first + len(padded)] = padded.tolist()
    a.block(plan.steps)
    a.row(None, at.END)
    bindings = a.bindings()
    pairs = {
        space: np.array(a.pointers.get((space, 0), []), np.int64).reshape(-1, 2) for space in (Space.FRAME, Space.ARENA)
    }
    rows = np.array(a.rows, np.int64)
    parallel = bool(np.isin(rows[:, at.OP], (at.PARALLEL, at.PARALLEL_DYNAMIC)).any())
    return Program(
        rows,
        tuple(a.steps),
        tuple(a.codes),
        np.array(a.words, np.int64),
        pairs[Space.FRAME],
        pairs[Space.ARENA],
        np.array(bindings, np.int64),
        parallel,
        tuple(a.outermost),
    )
