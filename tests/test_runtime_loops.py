"""Long loops: they return to Python for interrupts and progress, and go on where they were; loop kernels run in
slices."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from weft.backends.base import KernelCall
from weft.ir.builder import Builder
from weft.ir.ops import OPS
from weft.ir.types import TensorType, int64
from weft.runtime import seam
from weft.runtime.check_plan import check_plan
from weft.runtime.executable import Executable
from weft.runtime.lowlevel import translate
from weft.runtime.memory import load, store
from weft.runtime.planner import plan_program

SCALAR = TensorType((), int64)
FOREVER = 1 << 50


def add(start, stop, buffers):
    """out = x + y"""
    store(load(buffers, 3), 0, load(load(buffers, 1), 0) + load(load(buffers, 2), 0))


def slow(start, stop, buffers):
    """out = x + y, after some milliseconds"""
    x = load(load(buffers, 1), 0) + load(load(buffers, 2), 0)
    spins = 0
    while spins < 3000000:
        store(load(buffers, 3), 0, spins)
        spins += 1
    store(load(buffers, 3), 0, x)


def whole_loop(start, stop, buffers):
    """count += 1 and total += index, once an iteration; carried values stand in the outputs' memory"""
    for i in range(start, stop):
        store(load(buffers, 3), 0, load(load(buffers, 3), 0) + 1)
        store(load(buffers, 4), 0, load(load(buffers, 4), 0) + i)


@dataclass(frozen=True)
class Handwritten:
    """A kernel by name."""

    name: str


@pytest.fixture(scope="module")
def resolve():
    code = seam.loader().load_object(seam.codegen().emit_runtime(translate([add, slow, whole_loop])))
    yield lambda kernels: [code.address(k.name) for k in kernels]
    code.free()


def make(graph, calls, resolve):
    """The executable, its plan checked."""
    executable = Executable(plan_program(graph, calls), resolve)
    check_plan(executable.plan)
    return executable


def adding(b, x, y, calls, kernel="add"):
    """x + y by a kernel of ours."""
    node = b.add_node(OPS.add, (x, y))
    calls[node] = (KernelCall(Handwritten(kernel), (x, y, node.output), 1, 1, in_place=((2, 0),)),)
    return node.output


def counting(resolve, kernel="add"):
    """(limit, x, y) -> x and y plus one in every iteration, in the caller's memory."""
    calls = {}
    body = Builder("body")
    _, x, y, one = (body.param(SCALAR) for _ in range(4))
    inner = body.finish([adding(body, x, one, calls, kernel), adding(body, y, one, calls)])
    b = Builder("main")
    limit, x, y = (b.param(SCALAR) for _ in range(3))
    zero, one = b.index_scalar(0), b.index_scalar(1)
    results = b.add_node(OPS.loop, (zero, limit, x, y, one), {"carried": 2}, regions=[inner]).outputs
    return make(b.finish(results, {"writes": {0: 1, 1: 2}}), calls, resolve)


def nested(resolve):
    """The same with a loop of a thousand iterations inside each."""
    calls = {}
    deep = Builder("deep")
    _, x, one = (deep.param(SCALAR) for _ in range(3))
    deep = deep.finish([adding(deep, x, one, calls)])
    body = Builder("body")
    _, x, y, one = (body.param(SCALAR) for _ in range(4))
    (new_x,) = body.add_node(
        OPS.loop, (body.index_scalar(0), body.index_scalar(1000), x, one), {"carried": 1}, regions=[deep]
    ).outputs
    inner = body.finish([new_x, adding(body, y, one, calls)])
    b = Builder("main")
    limit, x, y = (b.param(SCALAR) for _ in range(3))
    results = b.add_node(
        OPS.loop, (b.index_scalar(0), limit, x, y, b.index_scalar(1)), {"carried": 2}, regions=[inner]
    ).outputs
    return make(b.finish(results, {"writes": {0: 1, 1: 2}}), calls, resolve)


def in_one_kernel(resolve):
    """(start, limit, count, total): a whole loop as one kernel."""
    body = Builder("body")
    i, count, total = (body.param(SCALAR) for _ in range(3))
    region = body.finish([body.add(count, body.index_scalar(1)), body.add(total, i)])
    b = Builder("main")
    start, limit, count, total = (b.param(SCALAR) for _ in range(4))
    node = b.add_node(OPS.loop, (start, limit, count, total), {"carried": 2}, regions=[region])
    call = KernelCall(Handwritten("whole_loop"), (count, total, *node.outputs), limit, 1, shared=((2, 0), (3, 1)))
    return make(b.finish(node.outputs, {"writes": {0: 2, 1: 3}}), {node: (call,)}, resolve)


def interrupt(executable, inputs):
    """Ctrl-C while the program runs."""
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        executable.run(inputs)
    timer.join()


@pytest.mark.parametrize("kernel", ["add", "slow"])
def test_interrupt_leaves_a_completed_iteration(resolve, kernel):
    """Whatever one iteration costs; afterwards the program runs as before."""
    executable = counting(resolve, kernel)
    x, y = np.array(0), np.array(0)
    interrupt(executable, (FOREVER, x, y))
    assert x == y > 0
    executable.run((7, x, y))
    executable.run((5, x, y))
    assert x == y > 12


def test_interrupt_of_nested_loops(resolve):
    executable = nested(resolve)
    x, y = np.array(0), np.array(0)
    interrupt(executable, (FOREVER, x, y))
    assert x == 1000 * y > 0


def test_interrupt_of_a_loop_kernel(resolve):
    executable = in_one_kernel(resolve)
    count, total = np.array(0), np.array(0)
    interrupt(executable, (0, FOREVER, count, total))
    n = int(count)
    assert n > 0 and total == (n * (n - 1) // 2 + 2**63) % 2**64 - 2**63
    count[...], total[...] = 0, 0
    executable.run((5, 1000, count, total))
    assert count == 995 and total == sum(range(5, 1000))


@pytest.mark.parametrize("make_program, first", [(counting, ()), (in_one_kernel, (0,))])
def test_progress_is_told_and_may_stop(resolve, make_program, first):
    """The callback sees a growing number of iterations; what it raises comes out of the call."""
    executable, seen = make_program(resolve), []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise LookupError("enough")

    x, y = np.array(0), np.array(0)
    with pytest.raises(LookupError, match="enough"):
        executable.run((*first, FOREVER, x, y), progress)
    assert [total for _, total in seen] == [FOREVER] * 2 and 0 < seen[0][0] < seen[1][0] == x


def test_concurrent_calls_share_only_code(resolve):
    """Two loops of one program at once, each in its own frame."""
    executable = counting(resolve)
    states = [(np.array(0), np.array(k)) for k in range(4)]
    threads = [threading.Thread(target=executable.run, args=((300000 + k, x, y),)) for k, (x, y) in enumerate(states)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(int(x), int(y)) for x, y in states] == [(300000 + k, 300000 + 2 * k) for k in range(4)]
