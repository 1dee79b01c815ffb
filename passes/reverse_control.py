"""Derivatives of ops with regions. The rules emit ordinary ops only, so what they emit can be differentiated again.

`cond` becomes a `cond` over the reverse of each branch, which runs the branch again. `loop` becomes two loops: the
forward one again, now also writing what its reverse needs into stacked buffers, one row an iteration, and one that runs
through the iterations from the last to the first and reads those rows. That the first repeats a loop which the program
already has is left to `passes/loops.py`, which lets it take that one's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.builder import Builder
from ..ir.emitter import Emitter, Handle
from ..ir.errors import GradientError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Op, Trait
from ..ir.ops import OPS
from ..ir.types import TensorType, int64
from .records import ReverseBuilder, active_keys, seed, steps_of
from .sizes import bytes_of
from .sparse_sums import add_cotangents

Backpropagate = Callable[..., dict[Any, Handle]]
Cotangents = Sequence[Handle | None]
INDEX = TensorType((), int64)


def no_derivative(node: Any, why: str = "detach its input, or compute it under no_grad") -> GradientError:
    """The error for a derivative that does not exist, with the op, its place and a remedy."""
    place = f" (at {node.loc})" if node.loc is not None else ""
    return GradientError(f"{node.op.name} has no derivative{place}: {why}")


def replay(b: Emitter, nodes: Iterable[Node], env: dict[Value, Handle]) -> None:
    """Emits `nodes` again, reading and extending `env`."""
    for node in nodes:
        if isinstance(b, Builder):
            b.loc = node.loc
        inputs = [env[v] for v in node.inputs]
        if node.regions:
            outputs: Any = b.control(node.op, inputs, node.attrs, node.regions)
        else:
            emitted = b.emit(node.op, inputs, node.attrs)
            outputs = emitted if len(node.outputs) > 1 else (emitted,)
        env.update(zip(node.outputs, outputs, strict=True))


# cond and while -------------------------------------------------------------------------------------------------------


def cond_rule(
    b: Emitter, node: Any, arriving: Cotangents, targets: Sequence[int], backpropagate: Backpropagate
) -> Cotangents:
    """The reverse of whichever branch ran."""
    flowing = [k for k, g in enumerate(arriving) if g is not None]
    regions = [_reverse_branch(branch, flowing, [i - 1 for i in targets], backpropagate) for branch in node.regions]
    return b.control(OPS.cond, (*node.inputs, *(arriving[k] for k in flowing)), node.attrs, regions)


def _reverse_branch(
    branch: Graph, flowing: Sequence[int], wanted: Sequence[int], backpropagate: Backpropagate
) -> Graph:
    """(*operands, *cotangents of the results in `flowing`) -> cotangents of the operands in `wanted`."""
    b = ReverseBuilder(f"{branch.name}_vjp")
    env: dict[Value, Handle] = {p: b.param(p.type, p.hint) for p in branch.params}
    replay(b, branch.nodes, env)
    forward, keys = tuple(b.nodes), [env[branch.params[i]] for i in wanted]
    arriving = [(env[branch.results[k]], b.param(branch.results[k].type, f"g{k}")) for k in flowing]
    found = backpropagate(forward, seed(b, arriving), keys, b, accumulate=b.sum_up, on_node=b.follow)
    return b.finish([found[key] if key in found else b.full_like(key, 0) for key in keys])


def while_rule(
    b: Emitter, node: Any, arriving: Cotangents, targets: Sequence[int], backpropagate: Backpropagate
) -> Cotangents:
    """There is none."""
    raise no_derivative(
        node,
        "its number of iterations is known only when it runs; use weft.range with a fixed number of iterations, "
        "and weft.where to keep the values once the condition fails",
    )


# loop -----------------------------------------------------------------------------------------------------------------


def loop_rule(
    b: Emitter, node: Any, arriving: Cotangents, targets: Sequence[int], backpropagate: Backpropagate
) -> Cotangents:
    """The two loops of this page's first lines; start and stop must be constants."""
    start, stop = b.constant_value(node.inputs[0]), b.constant_value(node.inputs[1])
    if start is None or stop is None:
        raise no_derivative(
            node,
            "its number of iterations is known only when it runs, and its reverse stores one row an iteration; give "
            "weft.range a number that is not an argument of the compiled function, or call backward() inside the loop",
        )
    assert isinstance(start, int) and isinstance(stop, int)
    return LoopReverse(b, node, start, stop, targets, backpropagate).run(arriving)


@dataclass(frozen=True)
class ReverseStep:
    """The reverse of one iteration. Its nodes read values of the body and `params`, and define the cotangents."""

    params: tuple[Value, ...]
    """The cotangents that come in: of the next values of some slots, then of some `lasts`."""
    nodes: tuple[Node, ...]
    """Cheap nodes of the body again, then the reverse."""
    slot_cotangents: Mapping[int, Value]
    """Slot -> the cotangent that goes out to the iteration before."""
    invariant_cotangents: Mapping[int, Value]
    """Invariant -> what this iteration adds to its cotangent."""
    stored: tuple[Value, ...]
    """Values of the body that are read and must have been stored."""
    outside: tuple[int, ...]
    """Invariants that are read."""
    reads_index: bool


class OpenBuilder(ReverseBuilder):
    """Collects the reverse of a region's nodes; its own nodes may read the region's values."""

    def __init__(self, region: Graph) -> None:
        super().__init__(region.name)
        self.region = region

    def constant_value(self, x: Value) -> float | int | bool | None:
        """Looks into the region too."""
        for node in self.region.nodes:
            if x in node.outputs:
                return node.attrs["value"] if node.op is OPS.constant else None
        return super().constant_value(x)


class LoopReverse:
    """The reverse of one loop of `stop - start` iterations."""

    def __init__(
        self, b: Emitter, node: Any, start: int, stop: int, targets: Sequence[int], backpropagate: Backpropagate
    ) -> None:
        self.b, self.targets, self.backpropagate = b, targets, backpropagate
        self.start, self.count = start, max(stop - start, 0)
        self.body: Graph = node.regions[0]
        self.carried: int = node.attrs["carried"]
        self.steps = steps_of(self.body.nodes)
        self.index, *rest = self.body.params
        self.slots, self.invariants = rest[: self.carried], rest[self.carried :]
        self.next, self.lasts = self.body.results[: self.carried], self.body.results[self.carried :]
        self.inputs: Sequence[Handle] = tuple(node.inputs)
        self.operands = self.inputs[2 + self.carried :]
        self.wanted_invariants = [i - 2 - self.carried for i in targets if i >= 2 + self.carried]
        self.wanted_slots = self._wanted_slots({i - 2 for i in targets if i < 2 + self.carried})
        self.free = _free_values(self.body, {self.index, *self.invariants})

    def run(self, arriving: Cotangents) -> Cotangents:
        """The cotangents of the operands in `targets`, from those of the loop's outputs.

        Only the last iteration's reverse sees cotangents of `lasts`. It stands before the reverse loop then: a
        cotangent of zero in the other iterations would not be the same, since zero times infinity is not zero.
        """
        flowing = {j: arriving[j] for j in self.wanted_slots if arriving[j] is not None}
        lasts = {k: g for k, g in enumerate(arriving[self.carried :]) if g is not None}
        if self.count == 0:
            return self._answer(flowing, {})
        last = self._step(list(flowing), list(lasts)) if lasts else None
        slots = self._slots_reached(last.slot_cotangents if last else flowing)
        others = self._step(slots, []) if self.count > 1 or last is None else None
        stacks = self._stacks([step for step in (last, others) if step is not None])
        sums: dict[int, Handle] = {}
        if last is not None:
            position = self.b.index_scalar(self.count - 1)
            outside = dict(zip(self.invariants, self.operands, strict=True))
            flowing, sums = self._emit(self.b, last, [*flowing.values(), *lasts.values()], position, outside, stacks)
        if others is not None:
            flowing, sums = self._reverse_loop(others, slots, flowing, sums, stacks, self.count - (last is not None))
        return self._answer(flowing, sums)

    def _answer(self, flowing: Mapping[int, Handle], sums: Mapping[int, Handle]) -> Cotangents:
        border = 2 + self.carried
        return [flowing.get(i - 2) if i < border else sums.get(i - border) for i in self.targets]

    def _wanted_slots(self, slots: set[int]) -> list[int]:
        """The slots that depend on the targets, be it through other slots and in later iterations."""
        while True:
            sources = [*(self.slots[j] for j in slots), *(self.invariants[i] for i in self.wanted_invariants)]
            active = active_keys(self.steps, sources)
            grown = slots | {j for j, value in enumerate(self.next) if value in active}
            if grown == slots:
                return sorted(slots)
            slots = grown

    def _slots_reached(self, flowing: Iterable[int]) -> list[int]:
        """The wanted slots that get a cotangent in some iteration when it starts in `flowing`."""
        reach = {j: active_keys(self.steps, (self.slots[j],)) for j in self.wanted_slots}
        through = set(flowing)
        while True:
            grown = through | {j for j in self.wanted_slots if any(self.next[k] in reach[j] for k in through)}
            if grown == through:
                return sorted(through)
            through = grown

    def _step(self, slots: Sequence[int], lasts: Sequence[int]) -> ReverseStep:
        """The reverse of an iteration, given cotangents of the next values of `slots` and of `lasts`."""
        b = OpenBuilder(self.body)
        keys = [*(self.next[j] for j in slots), *(self.lasts[k] for k in lasts)]
        arriving = [(key, b.param(key.type, "g")) for key in keys]
        wanted = [*(self.slots[j] for j in self.wanted_slots), *(self.invariants[i] for i in self.wanted_invariants)]
        found = self.backpropagate(self.body.nodes, seed(b, arriving), wanted, b, accumulate=b.sum_up, on_node=b.follow)
        to_slots = {j: found[self.slots[j]] for j in self.wanted_slots if self.slots[j] in found}
        to_invariants = {i: found[self.invariants[i]] for i in self.wanted_invariants if self.invariants[i] in found}
        again, needed = self._needs(b, (*to_slots.values(), *to_invariants.values()))
        held_outside = {self.index, *self.invariants}
        return ReverseStep(
            tuple(b.params),
            (*again, *b.nodes),
            to_slots,
            to_invariants,
            tuple(v for v in self._values() if v in needed and v not in held_outside),
            tuple(i for i, v in enumerate(self.invariants) if v in needed),
            self.index in needed,
        )

    def _values(self) -> list[Value]:
        return [*self.body.params, *(v for node in self.body.nodes for v in node.outputs)]

    def _needs(self, b: Builder, results: Iterable[Value]) -> tuple[list[Node], set[Value]]:
        """(cheap nodes of the body to run again, other values of the body that these and the reverse in `b` read)."""
        own = {*b.params, *(v for node in b.nodes for v in node.outputs)}
        needed = {v for node in b.nodes for v in node.inputs if v not in own} | {v for v in results if v not in own}
        again: list[Node] = []
        for node in reversed(self.body.nodes):
            if any(v in needed for v in node.outputs) and self._is_cheap(node, needed):
                again.insert(0, node)
                needed.difference_update(node.outputs)
                needed.update(node.inputs)
        return again, needed

    def _is_cheap(self, node: Node, needed: set[Value]) -> bool:
        """Whether running `node` again costs no more than storing its outputs."""
        if node.op.has(Trait.VIEW):
            return node.inputs[0] in needed or bytes_of(node.inputs[0]) <= bytes_of(node.output)
        return all(v in self.free for v in node.outputs)

    def _stacks(self, steps: Iterable[ReverseStep]) -> dict[Value, Handle]:
        """Runs the forward loop with a buffer for each stored value; value of the body -> rows, one an iteration."""
        needed = {v for step in steps for v in step.stored}
        stored = [v for v in self._values() if v in needed]
        if not stored:
            return {}
        buffers = [self.b.full((self.count, *v.shape), False if v.dtype.kind == "bool" else 0, v.dtype) for v in stored]
        first, rest = 2 + self.carried, self.inputs
        operands = (*rest[:first], *buffers, *rest[first:])
        outputs = self.b.control(
            OPS.loop, operands, {"carried": self.carried + len(stored)}, (self._storing_body(stored),)
        )
        return dict(zip(stored, outputs[self.carried :], strict=False))

    def _storing_body(self, stored: Sequence[Value]) -> Graph:
        """The body with one more carried buffer for each of `stored`, into which it writes a row."""
        b = Builder(self.body.name)
        env: dict[Value, Handle] = {p: b.param(p.type, p.hint) for p in (self.index, *self.slots)}
        buffers = [
            b.param(v.type.with_shape((self.count, *v.shape)), f"{v.hint}_rows" if v.hint else "rows") for v in stored
        ]
        env.update((p, b.param(p.type, p.hint)) for p in self.invariants)
        replay(b, self.body.nodes, env)
        b.loc = None
        position = b.sub(env[self.index], b.index_scalar(self.start)) if self.start else env[self.index]
        written = [
            b.dynamic_update(rows, b.view_as(env[v], (1, *v.shape)), position, *_zeros(b, len(v.shape)))
            for v, rows in zip(stored, buffers, strict=True)
        ]
        return b.finish([*(env[v] for v in self.next), *written, *(env[v] for v in self.lasts)])

    def _emit(
        self,
        b: Emitter,
        step: ReverseStep,
        arriving: Sequence[Handle],
        position: Handle,
        outside: Mapping[Value, Handle],
        stacks: Mapping[Value, Handle],
    ) -> tuple[dict[int, Handle], dict[int, Handle]]:
        """The reverse of the iteration whose rows are at `position`: (slot -> cotangent, invariant -> cotangent)."""
        env: dict[Value, Handle] = {**outside, **dict(zip(step.params, arriving, strict=True))}
        if step.reads_index:
            env[self.index] = b.add(position, b.index_scalar(self.start)) if self.start else position
        for value in step.stored:
            zeros = _zeros(b, len(value.shape))
            row = b.dynamic_slice(stacks[value], position, *zeros, sizes=(1, *value.shape))
            env[value] = b.view_as(row, value.shape)
        replay(b, step.nodes, env)
        return (
            {j: env[v] for j, v in step.slot_cotangents.items()},
            {i: env[v] for i, v in step.invariant_cotangents.items()},
        )

    def _reverse_loop(
        self,
        step: ReverseStep,
        slots: Sequence[int],
        flowing: Mapping[int, Handle],
        sums: Mapping[int, Handle],
        stacks: Mapping[Value, Handle],
        count: int,
    ) -> tuple[dict[int, Handle], dict[int, Handle]]:
        """The loop from the last iteration to the first; carries the cotangents of `slots`, sums invariants' ones."""
        summed = list(step.invariant_cotangents)
        carried = [*(self.slots[j] for j in slots), *(self.invariants[i] for i in summed)]
        known = [*(flowing.get(j) for j in slots), *(sums.get(i) for i in summed)]
        initial = [self.b.full(v.shape, 0, v.dtype) if g is None else g for v, g in zip(carried, known, strict=True)]

        r = Builder(f"{self.body.name}_vjp")
        index, *state = (r.param(INDEX, "k"), *(r.param(v.type, "g") for v in carried))
        outside = {self.invariants[i]: r.param(self.invariants[i].type, self.invariants[i].hint) for i in step.outside}
        rows = {v: r.param(v.type.with_shape((self.count, *v.shape)), "rows") for v in step.stored}
        position = r.sub(r.index_scalar(count - 1), index)
        to_slots, to_invariants = self._emit(r, step, state[: len(slots)], position, outside, rows)
        r.loc = None
        following = [
            to_slots[j] if j in to_slots else r.full(self.slots[j].shape, 0, self.slots[j].dtype) for j in slots
        ]
        totals = zip(summed, state[len(slots) :], strict=True)
        following += [add_cotangents(r, total, to_invariants[i]) for i, total in totals]

        operands = (
            self.b.index_scalar(0),
            self.b.index_scalar(count),
            *initial,
            *(self.operands[i] for i in step.outside),
            *(stacks[v] for v in step.stored),
        )
        outputs = self.b.control(OPS.loop, operands, {"carried": len(carried)}, (r.finish(following),))
        return dict(zip(slots, outputs, strict=False)), {
            **sums,
            **dict(zip(summed, outputs[len(slots) :], strict=True)),
        }


def _zeros(b: Emitter, count: int) -> list[Handle]:
    return [b.index_scalar(0)] * count if count else []


def _free_values(body: Graph, outside: set[Value]) -> set[Value]:
    """The values that follow from index and invariants alone, by ops that cost no more than reading values back."""
    cheap = (Trait.ELEMENTWISE, Trait.VIEW, Trait.CONSTANT, Trait.PIECEWISE, Trait.INDEXED)
    free = set(outside)
    for node in body.nodes:
        if any(node.op.has(trait) for trait in cheap) and all(v in free for v in node.inputs):
            free.update(node.outputs)
    return free


CONTROL_RULES: Mapping[Op, Callable[..., Cotangents]] = {
    OPS.cond: cond_rule,
    OPS.loop: loop_rule,
    OPS.while_loop: while_rule,
}
"""(b, node, cotangents of the outputs, numbers of the inputs wanted, backpropagate) -> cotangents of those inputs."""
