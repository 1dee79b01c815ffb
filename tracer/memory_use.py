"""fn.memory(): where a compiled program's bytes are, and why: arena, lifetimes, what waits for the backward, copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.graph import Graph, Location, Value
from ..ir.plan import Call, Copy, LoopCall, Plan, Slot, Space
from ..ir.text import print_location, value_names
from ..ir.types import TensorType
from ..passes.saved import saved_values
from ..runtime.lifetimes import Lifetime, lifetimes
from .explain import copied

SHOWN = 8
"""The text lists so many of the biggest."""


@dataclass(frozen=True)
class SavedValue:
    """A value that the forward computes and that waits for the backward."""

    name: str
    type: TensorType
    loc: Location | None

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.type.nbytes

    def __str__(self) -> str:
        return f"{self.nbytes} bytes: {self.name}: {self.type}{print_location(self.loc)}"


@dataclass(frozen=True)
class CopyMade:
    """A copy that the program makes, in each of how many nested loops, and why."""

    value: str
    nbytes: int
    loops: int
    reason: str

    def __str__(self) -> str:
        often = ("", " in every iteration")[self.loops] if self.loops < 2 else f" in {self.loops} nested loops"
        return f"{self.nbytes} bytes of {self.value}{often}: {self.reason}"


@dataclass(frozen=True)
class MemoryUse:
    """The memory of one program. `str()` is the text for people.

    Attributes:
        name: of the function.
        arena_bytes: temporary memory of a call, reused as values die.
        frame_bytes: single numbers and bookkeeping of a call.
        input_bytes, output_bytes: what a call is given, and the new memory that it returns.
        steps: how many the plan has; lifetimes are in these.
        lifetimes: what the arena holds when, in order of time.
        saved: what the forward leaves for the backward, the biggest first.
        donated_bytes: results that end in the memory of an input.
        donated_copied_bytes: those of them that are computed elsewhere and copied there.
        in_place_bytes: results in the arena that a kernel writes over one of its inputs.
        copies: every copy, and why.
        kept_input_bytes: inputs that a call keeps for `backward` from outside, all of them; 0 when no gradient flows.
        kept_copy_bytes: those of them that have to be copied, because the program overwrites them.
    """

    name: str
    arena_bytes: int
    frame_bytes: int
    input_bytes: int
    output_bytes: int
    steps: int
    lifetimes: tuple[Lifetime, ...]
    saved: tuple[SavedValue, ...]
    donated_bytes: int
    donated_copied_bytes: int
    in_place_bytes: int
    copies: tuple[CopyMade, ...]
    kept_input_bytes: int = 0
    kept_copy_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """The bytes of all that the forward leaves for the backward."""
        return sum(v.nbytes for v in self.saved)

    def biggest(self, count: int = SHOWN) -> list[Lifetime]:
        """The biggest pieces of the arena, of equal ones the first."""
        return sorted(self.lifetimes, key=lambda x: (-x.nbytes, x.first, x.offset))[:count]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"memory of {self.name}: arena {self.arena_bytes} bytes, frame {self.frame_bytes} bytes"
        yield f"inputs: {self.input_bytes} bytes, new outputs: {self.output_bytes} bytes"
        if self.lifetimes:
            yield f"arena, the biggest of {len(self.lifetimes)} in {self.steps} steps:"
        for x in self.biggest():
            when = f"steps {x.first} to {x.last}" if x.last > x.first else f"step {x.first}"
            yield f"  {x.nbytes} bytes at {x.offset}: {x.value}, {when}{print_location(x.loc)}"
        yield f"saved for the backward: {self.saved_bytes} bytes" + (":" if self.saved else "")
        yield from (f"  {v}" for v in self.saved[:SHOWN])
        if len(self.saved) > SHOWN:
            yield f"  and {len(self.saved) - SHOWN} smaller"
        if self.kept_input_bytes:
            copied = f", {self.kept_copy_bytes} of them as copies" if self.kept_copy_bytes else ""
            yield f"kept for a backward from outside: inputs of {self.kept_input_bytes} bytes{copied}"
        copied = f", {self.donated_copied_bytes} of them copied there" if self.donated_copied_bytes else ""
        yield f"results in the memory of inputs: {self.donated_bytes} bytes{copied}"
        yield f"written over a dying value: {self.in_place_bytes} bytes"
        yield "copies: none" if not self.copies else "copies:"
        yield from (f"  {copy}" for copy in self.copies)


def memory_use(plan: Plan, fused: Graph) -> MemoryUse:
    """What the plan of the fused graph uses."""
    donated = {s for s in plan.results if s.space is Space.INPUT}
    homes = {(s.space, s.number) for s in donated}
    copies = [(step, loops) for step, loops in plan.copies]
    brought = [s for s, _ in copies if isinstance(s, Copy) and (s.target.space, s.target.number) in homes]
    return MemoryUse(
        plan.name,
        plan.arena_bytes,
        plan.frame_bytes,
        sum(t.nbytes for t in plan.inputs),
        sum(t.nbytes for t in plan.outputs),
        sum(1 for _ in plan.walk()),
        lifetimes(plan),
        tuple(sorted(_saved(fused), key=lambda v: -v.nbytes)),
        sum(s.nbytes for s in donated),
        sum(s.target.nbytes for s in brought),
        sum(_in_place(step) for step, _ in plan.walk()),
        tuple(_copy_made(step, loops) for step, loops in copies),
    )


def _copy_made(step: Copy | Call, loops: int) -> CopyMade:
    slot, reason = copied(step)
    return CopyMade(slot.value, slot.nbytes, loops, reason)


def _in_place(step: object) -> int:
    """The bytes in the arena that a call writes where it reads another value."""
    call = step.call if isinstance(step, LoopCall) else step
    if not isinstance(call, Call):
        return 0

    def places(mode: str) -> dict[tuple[int, int], Slot]:
        pairs = zip(call.arguments, call.modes, strict=True)
        return {(a.offset, a.nbytes): a for a, m in pairs if m == mode and a.space is Space.ARENA and a.nbytes}

    read, written = places("r"), places("w")
    return sum(nbytes for offset, nbytes in read.keys() & written.keys())


def _saved(fused: Graph) -> Iterator[SavedValue]:
    names: dict[Graph, dict[Value, str]] = {}
    for region, value, maker in saved_values(fused):
        if region not in names:
            names[region] = value_names(region)
        yield SavedValue(f"%{names[region][value]}", value.type, maker.loc)
