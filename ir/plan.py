"""The execution plan: a program as data. Slots say where values live, steps say what runs; printed as stage `plan`.

`runtime/planner.py` makes plans, `runtime/check_plan.py` checks them, `runtime/assemble.py` turns them into rows for
the executor.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from .routines import Routine
from .text import print_location
from .types import TensorType


class Space(enum.Enum):
    """The memory that a slot is part of."""

    INPUT = "in"
    OUTPUT = "out"
    ARENA = "arena"
    FRAME = "frame"
    ROW = "row"


EMPTY = "%empty"
"""The name of values that hold nothing yet: whatever stands in their memory will do."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Some bytes of one space, and the name of the value that they hold at this point of the program.

    `number` tells inputs and outputs apart; `offset` counts bytes, in the frame from the first word after its header.
    In the space ROW it is the number of one of the plan's rows, which are elsewhere in each iteration of a loop.
    """

    space: Space
    number: int
    offset: int
    nbytes: int
    value: str

    def __str__(self) -> str:
        match self.space:
            case Space.ARENA:
                where = f"arena[{self.offset}:{self.offset + self.nbytes}]"
            case Space.FRAME:
                where = (
                    f"word[{self.offset // 8}]"
                    if self.nbytes <= 8
                    else f"word[{self.offset // 8}:{-(-(self.offset + self.nbytes) // 8)}]"
                )
            case _:
                where = f"{self.space.value}{self.number}" + (f"+{self.offset}" if self.offset else "")
        return f"{self.value}@{where}"


class Code(Protocol):
    """What a call runs: a loop-IR kernel of a backend, or a routine of the runtime (`Routine`). Hashable by content."""

    @property
    def name(self) -> str:
        """What is printed."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """Calls a kernel over chunks of `[0, extent)`; a Slot is an extent known only at run time.

    `modes` has one letter an argument: `r` read, `w` written, `s` scratch. `may_share` has the pairs (written, read
    argument) that may be the same memory. `node` is the graph node, for messages.
    """

    code: Any
    arguments: tuple[Slot, ...]
    modes: str
    extent: int | Slot
    chunk: int
    may_share: tuple[tuple[int, int], ...] = ()
    node: Any = None

    def __str__(self) -> str:
        arguments = ", ".join(
            {"r": "", "w": "*", "s": "~"}[m] + str(a) for a, m in zip(self.arguments, self.modes, strict=True)
        )
        serial = isinstance(self.extent, int) and self.chunk >= self.extent
        over = f"over {self.extent}" + ("" if serial else f" by {self.chunk}")
        return f"call {self.code.name}({arguments}) {over}" + (
            f": {self.code.note}" if isinstance(self.code, Routine) else ""
        )


@dataclass(frozen=True, slots=True)
class Copy:
    """Copies the bytes of one slot to another; `reason` is for people who want it gone."""

    source: Slot
    target: Slot
    reason: str
    node: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes that are written."""
        return self.target.nbytes

    def __str__(self) -> str:
        return f"copy {self.source} to {self.target}: {self.nbytes} bytes, {self.reason}"


@dataclass(frozen=True, slots=True)
class Keep:
    """What stands in `row` stays there: the sequence in `base` has one row more. Nothing to be done."""

    row: Slot
    base: Slot
    node: Any = None

    def __str__(self) -> str:
        return f"keep {self.row} in {self.base}"


@dataclass(frozen=True, slots=True)
class Row:
    """Memory inside `base` that moves on with a loop: from byte `offset + stride * index` on."""

    base: Slot
    index: Slot
    offset: int
    stride: int

    def __str__(self) -> str:
        return f"{self.base} from {self.offset} by {self.stride} with {self.index}"


@dataclass(frozen=True, slots=True)
class Carry:
    """One carried value in an iteration: it is called `param` and stands in `slot`; the next one, `following`, is
    left in `target`."""

    slot: Slot
    param: str
    target: Slot
    following: str


@dataclass(frozen=True, slots=True)
class Last:
    """A value that every iteration or branch leaves in `slot` under one of the `inner` names, and that is called
    `slot.value` afterwards."""

    slot: Slot
    inner: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """One iteration of a loop."""

    carried: tuple[Carry, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """Runs `bodies` in turn with `index` counting from `start` to `stop`. With `lasts`, no iteration at all is an
    error.

    There are two bodies when a large value cannot be computed in its own memory: they are the same iteration, but
    read and write each other's memory; `odd` are the copies that bring the values home when the first body was the
    last to run. `starts` and `results` are the carried values before and after.
    """

    index: Slot
    start: Slot
    stop: Slot
    starts: tuple[Slot, ...]
    bodies: tuple[Body, ...]
    odd: tuple[Step, ...]
    results: tuple[Slot, ...]
    lasts: tuple[Last, ...]
    node: Any = None

    def __str__(self) -> str:
        return f"for {self.index} in {self.start} .. {self.stop}:"


@dataclass(frozen=True, slots=True)
class LoopCall:
    """A whole loop in one kernel, called with ranges of iterations of `[start, stop)`; its state is in the call's
    arguments."""

    call: Call
    start: Slot
    stop: Slot
    nonempty: bool = False
    node: Any = None

    def __str__(self) -> str:
        return f"loop from {self.start} to {self.stop}: {self.call}"


@dataclass(frozen=True, slots=True)
class Cond:
    """Runs `then` or `otherwise` after the byte in `predicate`."""

    predicate: Slot
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]
    results: tuple[Last, ...]
    node: Any = None

    def __str__(self) -> str:
        return f"if {self.predicate}:"


@dataclass(frozen=True, slots=True)
class While:
    """Runs `condition`, then, while the byte in `predicate` is set, `body` and `condition` again; see `Loop`."""

    condition: tuple[Step, ...]
    predicate: Slot
    starts: tuple[Slot, ...]
    body: Body
    results: tuple[Slot, ...]
    node: Any = None

    def __str__(self) -> str:
        return f"while {self.predicate}:"


Step = Call | Copy | Keep | Loop | LoopCall | Cond | While


@dataclass(frozen=True, eq=False)
class Plan:
    """A whole program.

    Attributes:
        inputs, outputs: types of the call's arguments; outputs are new buffers, one for each result that is written
            nowhere else.
        params: the inputs as slots, with the names of their values.
        results: where each result of the graph stands at the end.
        constants: contents of frame words before the first step.
        frame_bytes, arena_bytes: sizes of the two memories of a call.
        rows: the memory of slots in the space ROW, by their numbers.
    """

    name: str
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    params: tuple[Slot, ...]
    results: tuple[Slot, ...]
    constants: tuple[tuple[Slot, bytes], ...]
    frame_bytes: int
    arena_bytes: int
    steps: tuple[Step, ...]
    rows: tuple[Row, ...] = ()

    def walk(self) -> Iterator[tuple[Step, int]]:
        """Every step with the number of loops around it, in order."""
        return walk(self.steps, 0)

    @property
    def copies(self) -> list[tuple[Copy | Call, int]]:
        """Every copy with the number of loops around it; the copy of a view is a call of a routine."""
        return [
            (s, depth)
            for s, depth in self.walk()
            if isinstance(s, Copy)
            or (isinstance(s, Call) and isinstance(s.code, Routine) and s.code.name == "copy_view")
        ]

    def __str__(self) -> str:
        return print_plan(self)


def walk(steps: tuple[Step, ...], depth: int) -> Iterator[tuple[Step, int]]:
    """Every step below `steps` with the number of loops around it, in order."""
    for step in steps:
        yield step, depth
        match step:
            case Loop():
                for body in step.bodies:
                    yield from walk(body.steps, depth + 1)
                yield from walk(step.odd, depth)
            case While():
                yield from walk(step.condition, depth + 1)
                yield from walk(step.body.steps, depth + 1)
            case Cond():
                yield from walk(step.then, depth)
                yield from walk(step.otherwise, depth)


def _location(step: Step) -> str:
    return print_location(step.node.loc) if step.node is not None else ""


def _lines(steps: tuple[Step, ...], indent: str) -> Iterator[str]:
    inner = indent + "  "
    for step in steps:
        yield f"{indent}{step}{_location(step)}"
        match step:
            case Loop():
                for number, body in enumerate(step.bodies):
                    if number:
                        yield f"{indent}and in turn:"
                    yield from _body(body, inner)
                if step.odd:
                    yield f"{indent}after an odd number of iterations:"
                    yield from _lines(step.odd, inner)
                yield from (f"{indent}leave {slot}" for slot in step.results)
                yield from _lasts(step.lasts, indent)
            case While():
                yield from _lines(step.condition, indent + "  ? ")
                yield from _body(step.body, inner)
                yield from (f"{indent}leave {slot}" for slot in step.results)
            case Cond():
                yield from _lines(step.then, inner)
                yield f"{indent}else:"
                yield from _lines(step.otherwise, inner)
                yield from _lasts(step.results, indent)


def _body(body: Body, indent: str) -> Iterator[str]:
    for carry in body.carried:
        yield f"{indent}carry {carry.param} = {carry.slot}, next {carry.following} in {carry.target}"
    yield from _lines(body.steps, indent)


def _lasts(lasts: tuple[Last, ...], indent: str) -> Iterator[str]:
    for last in lasts:
        yield f"{indent}leave {last.slot} = {' or '.join(last.inner)}"


def print_plan(plan: Plan) -> str:
    """The plan as text: one line a step."""
    head = [
        f"plan {plan.name}: arena {plan.arena_bytes} bytes, frame {plan.frame_bytes} bytes",
        *(f"  {slot}: {t}" for slot, t in zip(plan.params, plan.inputs, strict=True)),
        *(f"  out{i}: {t}" for i, t in enumerate(plan.outputs)),
        *(f"  constant {slot} = {data.hex()}" for slot, data in plan.constants),
        *(f"  row{i}: {row}" for i, row in enumerate(plan.rows)),
    ]
    return (
        "\n".join([*head, *_lines(plan.steps, "  "), *(f"  result {i}: {slot}" for i, slot in enumerate(plan.results))])
        + "\n"
    )
