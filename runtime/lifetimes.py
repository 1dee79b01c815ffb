"""Which piece of the arena holds what, from which step of a plan to which: for people who look for memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..ir.graph import Location
from ..ir.plan import Body, Call, Cond, Copy, Loop, LoopCall, Plan, Slot, Space, Step, While

Place = tuple[int, int]
"""(first byte, end byte) in the arena."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A value, or several of one size after another in place, in the arena.

    Steps are counted from 1 in the order in which the plan prints them; a loop and each step of its body count.
    """

    value: str
    offset: int
    nbytes: int
    first: int
    last: int
    loc: Location | None


def lifetimes(plan: Plan) -> tuple[Lifetime, ...]:
    """What the arena holds, in order of time."""
    walk = _Walk()
    walk.block(plan.steps)
    return tuple(sorted([*walk.ended, *walk.current.values()], key=lambda x: (x.first, x.offset)))


class _Walk:
    """One walk through a plan."""

    def __init__(self) -> None:
        self.time = 0
        self.current: dict[Place, Lifetime] = {}
        self.ended: list[Lifetime] = []
        self.held: set[Place] = set()  # carried by loops around this step

    def block(self, steps: Sequence[Step]) -> None:
        """Steps in order."""
        for step in steps:
            self.time += 1
            match step:
                case Call():
                    self.call(step)
                case LoopCall():
                    self.call(step.call)
                case Copy():
                    self.use([step.source], [step.target], step)
                case Loop():
                    self.loop([step.index, step.start, step.stop], step.starts, step.bodies, step)
                    self.block(step.odd)
                    self.use([], [*step.results, *(last.slot for last in step.lasts)], step)
                case While():
                    self.block(step.condition)
                    self.loop([step.predicate], step.starts, [step.body], step)
                    self.use([], step.results, step)
                case Cond():
                    self.use([step.predicate], [], step)
                    self.block(step.then)
                    self.block(step.otherwise)
                    self.use([], [last.slot for last in step.results], step)

    def call(self, call: Call) -> None:
        """A kernel call."""
        arguments = list(zip(call.arguments, call.modes, strict=True))
        read = [a for a, mode in arguments if mode == "r"]
        self.use(read, [a for a, mode in arguments if mode != "r"], call)

    def loop(self, read: Sequence[Slot], starts: Sequence[Slot], bodies: Sequence[Body], step: Step) -> None:
        """A loop: what lives since before it, and is used in it, lives until its end."""
        begin = self.time
        carried = [slot for body in bodies for c in body.carried for slot in (c.slot, c.target)]
        self.use([*read, *starts], carried, step)
        outer, self.held = self.held, self.held | {place_of(s) for s in carried if s.space is Space.ARENA}
        for body in bodies:
            self.block(body.steps)
        self.held = outer
        for place, x in self.current.items():
            if x.first <= begin and x.last >= begin:
                self.current[place] = extended(x, self.time)

    def use(self, read: Iterable[Slot], written: Iterable[Slot], step: Step) -> None:
        """One step: a write to a place that the step does not read, under another name, begins a new lifetime."""
        seen = {place_of(s) for s in read if s.space is Space.ARENA and s.nbytes} | self.held
        for place in seen & self.current.keys():
            self.current[place] = extended(self.current[place], self.time)
        for slot in written:
            if slot.space is not Space.ARENA or not slot.nbytes:
                continue
            place = place_of(slot)
            now = self.current.get(place)
            if now is not None and (place in seen or now.first == self.time or now.value == slot.value != SCRATCH):
                self.current[place] = extended(now, self.time)
            else:
                self.begin(place, slot, step)

    def begin(self, place: Place, slot: Slot, step: Step) -> None:
        """A new lifetime; whatever it overlaps is over."""
        for other in [p for p in self.current if p[0] < place[1] and place[0] < p[1]]:
            self.ended.append(self.current.pop(other))
        loc = step.node.loc if step.node is not None else None
        self.current[place] = Lifetime(slot.value, slot.offset, slot.nbytes, self.time, self.time, loc)


SCRATCH = "%scratch"
"""The name of memory that one call needs, which has no contents afterwards."""


def place_of(slot: Slot) -> Place:
    """The bytes of a slot in its space."""
    return slot.offset, slot.offset + slot.nbytes


def extended(lifetime: Lifetime, last: int) -> Lifetime:
    """The same until step `last`."""
    x = lifetime
    return x if x.last >= last else Lifetime(x.value, x.offset, x.nbytes, x.first, last, x.loc)
