"""An independent check of a plan: walks its steps and knows, byte range by byte range, which value stands there.

A read must find the value that it names, whole; so no two live values overlap, nothing is overwritten before its last
reader, and nothing is read before it is written. Loops are walked twice: what the second iteration reads, the first
must have left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..ir.errors import VerifyError
from ..ir.plan import EMPTY, Body, Call, Cond, Copy, Keep, Loop, LoopCall, Plan, Slot, Space, Step, While, walk

Place = tuple[Space, int, int, int]
"""(space, number, first byte, end byte)."""


class Memory:
    """What stands where: names of values by place; places that hold something never overlap."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.held: dict[Place, set[str]] = {}

    def copy(self) -> Memory:
        """An independent copy."""
        other = Memory(self.plan)
        other.held = {place: set(names) for place, names in self.held.items()}
        return other

    def write(self, slot: Slot, step: object) -> None:
        """`slot.value` is written; whatever overlaps is gone."""
        place = self.place(slot, step)
        space, number, start, end = place
        for other in [o for o in self.held if o[:2] == (space, number) and o[2] < end and start < o[3]]:
            del self.held[other]
        if slot.nbytes:
            self.held[place] = {slot.value}

    def read(self, slot: Slot, step: object) -> None:
        """`slot.value` is read."""
        if slot.nbytes and slot.value != EMPTY and slot.value not in self.held.get(self.place(slot, step), ()):
            there = {
                p: n
                for p, n in self.held.items()
                if p[:2] == (slot.space, slot.number) and p[2] < slot.offset + slot.nbytes and slot.offset < p[3]
            }
            raise VerifyError(f"the plan reads {slot}, where {there or 'nothing'} stands, in: {step}")

    def holds(self, slot: Slot, value: str) -> bool:
        """Whether `value` stands in `slot`."""
        return not slot.nbytes or value in self.held.get(self.place(slot, "a question"), ())

    def keep_common(self, other: Memory) -> None:
        """Only what stands in both memories is left."""
        self.held = {
            place: common for place, names in self.held.items() if (common := names & other.held.get(place, set()))
        }

    def rename(self, slot: Slot, names: Iterable[str]) -> None:
        """What stands in `slot` is also called by other names."""
        if slot.nbytes:
            self.held[self.place(slot, None)] |= set(names)

    def forget(self, names: set[str]) -> None:
        """Values of a finished iteration no longer exist."""
        for place in list(self.held):
            self.held[place] -= names
            if not self.held[place]:
                del self.held[place]

    def place(self, slot: Slot, step: object) -> Place:
        """The place of a slot, inside its space."""
        limit = {Space.ARENA: self.plan.arena_bytes, Space.FRAME: self.plan.frame_bytes}.get(slot.space)
        if slot.offset < 0 or (limit is not None and slot.offset + slot.nbytes > limit):
            raise VerifyError(f"{slot} lies outside its memory, in: {step}")
        return slot.space, slot.number, slot.offset, slot.offset + slot.nbytes


def check_plan(plan: Plan) -> None:
    """Raises VerifyError when a step reads anything but the value that it names."""
    memory = Memory(plan)
    for slot in (*plan.params, *(slot for slot, _ in plan.constants)):
        memory.write(slot, "the start")
    _block(memory, plan.steps)
    for result in plan.results:
        memory.read(result, "the end")


def _block(memory: Memory, steps: Sequence[Step]) -> None:
    for step in steps:
        match step:
            case Call():
                _call(memory, step)
            case LoopCall():
                memory.read(step.start, step)
                memory.read(step.stop, step)
                _call(memory, step.call)
            case Copy():
                memory.read(step.source, step)
                if step.source.nbytes != step.target.nbytes:
                    raise VerifyError(f"a copy of different sizes: {step}")
                memory.write(step.target, step)
            case Keep():
                memory.read(step.row, step)
            case Loop():
                _loop(memory, step)
            case While():
                _while(memory, step)
            case Cond():
                _cond(memory, step)


def _call(memory: Memory, call: Call) -> None:
    places = [memory.place(a, call) for a in call.arguments]
    for k, (slot, mode) in enumerate(zip(call.arguments, call.modes, strict=True)):
        if mode == "r":
            memory.read(slot, call)
            continue
        for other, (place, their) in enumerate(zip(places, call.modes, strict=True)):
            if (
                other != k
                and _overlap(place, places[k])
                and not (mode == "w" and their == "r" and (k, other) in call.may_share)
            ):
                raise VerifyError(f"arguments {k} and {other} overlap in: {call}")
    if isinstance(call.extent, Slot):
        memory.read(call.extent, call)
    for slot, mode in zip(call.arguments, call.modes, strict=True):
        if mode != "r":
            memory.write(slot, call)


def _overlap(a: Place, b: Place) -> bool:
    return a[:2] == b[:2] and a[2] < b[3] and b[2] < a[3]


def _loop(memory: Memory, loop: Loop) -> None:
    memory.read(loop.start, loop)
    memory.read(loop.stop, loop)
    memory.write(loop.index, loop)
    homes = [c.slot for c in loop.bodies[0].carried]
    _enter(memory, loop.starts, loop.bodies[0])
    made = set().union(*(_written(body.steps) for body in loop.bodies))
    exits = [] if loop.lasts else [memory.copy()]
    for number in range(4):
        body, after = loop.bodies[number % len(loop.bodies)], loop.bodies[(number + 1) % len(loop.bodies)]
        _block(memory, body.steps)
        memory.read(loop.index, loop)
        found = all(memory.holds(last.slot, last.inner[number % len(loop.bodies)]) for last in loop.lasts)
        if not found:
            raise VerifyError(f"an iteration does not leave the last values in: {loop}")
        _next_iteration(memory, body, after, made)
        exits.append(memory.copy())
        if after is not loop.bodies[0]:
            _block(exits[-1], loop.odd)
    # However many iterations there were, the carried values have come home; their names differ.
    for state, body in zip(reversed(exits), _cycle_back(loop), strict=False):
        for home, carry, result in zip(homes, body.carried, loop.results, strict=True):
            state.read(_named(home, carry.param), f"the end of {loop}")
            state.write(result, loop)
        for last in loop.lasts:
            state.write(last.slot, loop)
    memory.held = exits[0].held
    for state in exits[1:]:
        memory.keep_common(state)


def _cycle_back(loop: Loop) -> list[Body]:
    """The bodies that would run next at the exits of the walk, the last exit first."""
    return [loop.bodies[k % len(loop.bodies)] for k in range(4, -1, -1)]


def _while(memory: Memory, loop: While) -> None:
    _enter(memory, loop.starts, loop.body)
    made = _written(loop.body.steps) | _written(loop.condition)
    for _ in range(2):
        _block(memory, loop.condition)
        memory.read(loop.predicate, loop)
        skipped = memory.copy()
        _block(memory, loop.body.steps)
        _next_iteration(memory, loop.body, loop.body, made)
    memory.keep_common(skipped)
    for carry, result in zip(loop.body.carried, loop.results, strict=True):
        memory.read(_named(carry.slot, carry.param), f"the end of {loop}")
        memory.write(result, loop)


def _enter(memory: Memory, starts: Sequence[Slot], body: Body) -> None:
    for start in starts:
        memory.read(start, "the start of a loop")
    for carry in body.carried:
        memory.write(_named(carry.slot, carry.param), carry)


def _next_iteration(memory: Memory, body: Body, after: Body, made: set[str]) -> None:
    for carry in body.carried:
        memory.read(_named(carry.target, carry.following), f"the end of an iteration, {carry}")
    memory.forget(made)
    for carry, following in zip(body.carried, after.carried, strict=True):
        memory.write(_named(carry.target, following.param), carry)


def _cond(memory: Memory, cond: Cond) -> None:
    memory.read(cond.predicate, cond)
    other = memory.copy()
    for number, (state, steps) in enumerate(((memory, cond.then), (other, cond.otherwise))):
        _block(state, steps)
        for result in cond.results:
            state.read(_named(result.slot, result.inner[number]), f"the end of a branch, {result}")
        for result in cond.results:
            state.rename(result.slot, {result.slot.value})
    memory.keep_common(other)


def _named(slot: Slot, value: str) -> Slot:
    return replace(slot, value=value)


def _written(steps: tuple[Step, ...]) -> set[str]:
    """Names of the values that steps make; copies make none."""
    made: set[str] = set()
    for step, _ in walk(steps, 0):
        match step:
            case Call():
                made |= {a.value for a, mode in zip(step.arguments, step.modes, strict=True) if mode != "r"}
            case LoopCall():
                made |= _written((step.call,))
            case Loop():
                made |= {c.param for body in step.bodies for c in body.carried} | {r.value for r in step.results}
                made |= {last.slot.value for last in step.lasts}
            case While():
                made |= {c.param for c in step.body.carried} | {r.value for r in step.results}
            case Cond():
                made |= {result.slot.value for result in step.results}
    return made
