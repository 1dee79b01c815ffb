"""Places in the arena, and the independent check of plans: every broken plan is found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from weft.backends.base import KernelCall
from weft.ir.builder import Builder
from weft.ir.errors import VerifyError
from weft.ir.graph import Value
from weft.ir.ops import OPS
from weft.ir.plan import Call, Copy, Loop, Slot, Space
from weft.ir.routines import Routine
from weft.ir.types import TensorType, float32, int64
from weft.runtime.buffers import Buffer, place_in_arena
from weft.runtime.check_plan import check_plan
from weft.runtime.planner import plan_program

VECTOR, SCALAR = TensorType((100,), float32), TensorType((), int64)


def plan_of(graph, in_place=True):
    """The plan of a graph whose ops all have a kernel; `in_place` lets outputs take the memory of inputs."""
    calls = {}
    for node in (*graph.nodes, *(n for outer in graph.nodes for region in outer.regions for n in region.nodes)):
        if not node.regions and node.op not in (OPS.constant, OPS.reshape):
            arguments = (*node.inputs, *node.outputs)
            pairs = tuple((len(node.inputs), k) for k in range(len(node.inputs))) if in_place else ()
            calls[node] = (KernelCall(Routine(node.op.name), arguments, 100, 100, in_place=pairs),)
    plan = plan_program(graph, calls)
    check_plan(plan)
    return plan


def chain(length):
    """x -> a chain of unary ops."""
    b = Builder("chain")
    x = b.param(VECTOR)
    for _ in range(length):
        x = b.neg(x)
    return b.finish([x])


def loop():
    """A loop over two carried values, whose body has one value of its own."""
    body = Builder("body")
    _, x, y = body.param(SCALAR), body.param(VECTOR), body.param(VECTOR)
    inner = body.finish([body.add(body.exp(body.exp(x)), x), body.mul(x, y)])
    b = Builder("main")
    x, y = b.param(VECTOR), b.param(VECTOR)
    bounds = b.index_scalar(0), b.index_scalar(5)
    return b.finish(b.add_node(OPS.loop, (*bounds, x, y), {"carried": 2}, regions=[inner]).outputs, {"writes": {1: 1}})


@pytest.mark.parametrize("seed", range(20))
def test_places_do_not_overlap(seed):
    choice = random.Random(seed)
    buffers = []
    for _ in range(60):
        first = choice.randrange(100)
        nbytes = choice.choice([0, 9, 64, 100, 1000, 5000])
        buffers.append(Buffer(Space.ARENA, 0, nbytes, first=first, last=first + choice.randrange(20)))
    size = place_in_arena(buffers)
    for k, a in enumerate(buffers):
        assert a.offset % 64 == 0 and a.offset + a.nbytes <= size
        for b in buffers[:k]:
            together = a.nbytes and b.nbytes and a.first <= b.last and b.first <= a.last
            assert not together or a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
    assert size <= sum(-(-b.nbytes // 64) * 64 for b in buffers)


def test_dead_memory_is_used_again():
    """A chain needs two pieces of memory at a time, one when it works in place, and none when its result does."""
    assert plan_of(chain(10), in_place=False).arena_bytes == 2 * 448
    assert plan_of(chain(10)).arena_bytes == 448
    assert plan_of(chain(1)).arena_bytes == 0


def test_scratch_lives_for_one_call():
    b = Builder("main")
    x = b.param(VECTOR)
    y = b.neg(x)
    graph = b.finish([b.neg(y)])
    calls = {n: (KernelCall(Routine("neg"), (*n.inputs, *n.outputs, VECTOR), 100, 100),) for n in graph.nodes}
    plan = plan_program(graph, calls)
    check_plan(plan)
    assert plan.arena_bytes == 2 * 448


def test_values_between_the_calls_of_a_node():
    """Partial results of the first call are read by the second, and do not share memory with the result."""
    b = Builder("main")
    x = b.param(VECTOR)
    graph = b.finish([b.neg(x)])
    (node,) = graph.nodes
    part = Value(VECTOR)
    calls = (KernelCall(Routine("first"), (x, part), 100, 10), KernelCall(Routine("second"), (part, node.output), 1, 1))
    plan = plan_program(graph, {node: calls})
    check_plan(plan)
    assert [step.modes for step in plan.steps] == ["rw", "rw"] and plan.arena_bytes == 448


def moved(slot: Slot, by: int) -> Slot:
    return replace(slot, offset=slot.offset + by)


def broken_chain(plan):
    """The second call writes 64 bytes into memory that the first one's result still needs."""
    first, second, third, *rest = plan.steps
    second = replace(second, arguments=(second.arguments[0], moved(first.arguments[1], 64)))
    third = replace(third, arguments=(second.arguments[1], third.arguments[1]))
    return replace(plan, steps=(first, second, third, *rest), arena_bytes=plan.arena_bytes + 64)


def without(plan, kind):
    """The plan without its first step of one kind, at any depth."""
    for k, step in enumerate(plan.steps):
        if isinstance(step, kind):
            return replace(plan, steps=plan.steps[:k] + plan.steps[k + 1 :])
        if isinstance(step, Loop):
            body = step.bodies[0]
            kept = [s for s in body.steps if not isinstance(s, kind)] if kind is Copy else body.steps[1:]
            changed = replace(step, bodies=(replace(body, steps=tuple(kept)),))
            return replace(plan, steps=plan.steps[:k] + (changed,) + plan.steps[k + 1 :])
    raise AssertionError("no such step")


@pytest.mark.parametrize(
    "breaks",
    [
        lambda: broken_chain(plan_of(chain(4), in_place=False)),
        lambda: without(plan_of(chain(3)), Call),
        lambda: without(plan_of(loop()), Call),
        lambda: without(plan_of(loop()), Copy),
        lambda: replace(plan_of(chain(2)), results=(replace(plan_of(chain(2)).results[0], value="%other"),)),
        lambda: replace(plan_of(chain(3)), arena_bytes=64),
        lambda: replace(plan_of(chain(3)), steps=tuple(replace(s, may_share=()) for s in plan_of(chain(3)).steps)),
    ],
    ids=["overlap", "missing", "missing in loop", "no copy", "wrong result", "outside", "not allowed in place"],
)
def test_broken_plans_are_found(breaks):
    with pytest.raises(VerifyError):
        check_plan(breaks())
