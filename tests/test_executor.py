"""The executor against the interpreter, on programs of int64 vectors whose kernels are written by hand in the
low-level language."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from weft.backends.base import KernelCall
from weft.ir.builder import Builder
from weft.ir.graph import Graph, Node, Value
from weft.ir.interpret import interpret
from weft.ir.loops import Site
from weft.ir.ops import OPS
from weft.ir.plan import Call
from weft.ir.types import TensorType, int64
from weft.runtime import planner, seam
from weft.runtime.check_plan import check_plan
from weft.runtime.executable import Executable, InterpretedExecutable
from weft.runtime.lowlevel import translate
from weft.runtime.memory import load, store, store8
from weft.runtime.planner import plan_program

N = 12
VECTOR, SCALAR = TensorType((N,), int64), TensorType((), int64)


def add(start, stop, buffers):
    """out[i] = x[i] + y[i]"""
    for i in range(start, stop):
        store(load(buffers, 3), i, load(load(buffers, 1), i) + load(load(buffers, 2), i))


def mul(start, stop, buffers):
    """out[i] = x[i] * y[i]"""
    for i in range(start, stop):
        store(load(buffers, 3), i, load(load(buffers, 1), i) * load(load(buffers, 2), i))


def flip(start, stop, buffers):
    """out[i] = x[stop - 1 - i], which is wrong in place"""
    for i in range(start, stop):
        store(load(buffers, 2), i, load(load(buffers, 1), stop - 1 - i))


def neg(start, stop, buffers):
    """out[i] = -x[i]"""
    for i in range(start, stop):
        store(load(buffers, 2), i, -load(load(buffers, 1), i))


def lt(start, stop, buffers):
    """out = x < y"""
    store8(load(buffers, 3), load(load(buffers, 1), 0) < load(load(buffers, 2), 0))


def dynamic_update(start, stop, buffers):
    """x[position] = u, in the memory of x; a bad position sets the status word"""
    position = load(load(buffers, 3), 0)
    if position < 0 or position >= 12:
        store(load(buffers, 0), 0, 1)
    else:
        store(load(buffers, 1), position, load(load(buffers, 2), 0))


def sum(start, stop, buffers):
    """out = the sum of x"""
    total = 0
    for i in range(12):
        total += load(load(buffers, 1), i)
    store(load(buffers, 2), 0, total)


KERNELS = (add, mul, flip, neg, lt, dynamic_update, sum)


@dataclass(frozen=True)
class Handwritten:
    """A kernel by name, as the plan sees it."""

    name: str
    sites: tuple[Site, ...] = (Site("dynamic_update", N),)


@pytest.fixture(scope="module")
def addresses():
    code = seam.loader().load_object(seam.codegen().emit_runtime(translate(KERNELS)))
    yield lambda kernels: [code.address(k.name) for k in kernels]
    code.free()


def kernel_calls(graph: Graph) -> dict[Node, tuple[KernelCall, ...]]:
    """A handwritten kernel for every node that has one; chunks of 5 where the kernel allows chunks."""
    calls: dict[Node, tuple[KernelCall, ...]] = {}
    for node in graph.nodes:
        for region in node.regions:
            calls.update(kernel_calls(region))
        if node.op.name not in {f.__name__ for f in KERNELS}:
            continue
        arguments = (*node.inputs[:3], *node.outputs)
        if node.op is OPS.dynamic_update:
            calls[node] = (KernelCall(Handwritten("dynamic_update"), arguments, 1, 1, shared=((3, 0),)),)
            continue
        size, last = node.outputs[0].type.size, len(arguments) - 1
        elementwise = node.op in (OPS.add, OPS.mul, OPS.neg)
        pairs = tuple((last, k) for k in range(last)) if elementwise else ()
        calls[node] = (
            KernelCall(Handwritten(node.op.name), arguments, size, 5 if elementwise else max(size, 1), in_place=pairs),
        )
    return calls


def build(graph, addresses):
    """The executable, its plan checked."""
    executable = Executable(plan_program(graph, kernel_calls(graph)), addresses)
    check_plan(executable.plan)
    return executable


def agree(graph, addresses, arrays):
    """Runs `graph` natively and by the interpreter: all results and all written params are equal. The plan."""
    executable = build(graph, addresses)
    for _ in range(2):  # the second call finds a used frame
        ours, theirs = [a.copy() for a in arrays], [a.copy() for a in arrays]
        for got, expected in zip(executable(ours), InterpretedExecutable(graph)(theirs), strict=True):
            np.testing.assert_array_equal(got, expected)
        for got, expected in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(got, expected)
    return executable.plan


class Programs:
    """Random programs: a pool of live values, from which each new node takes its inputs."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def graph(self, params: int, results: int, depth: int, scalars: int, name: str) -> Graph:
        """A graph of `params` vectors and `scalars` scalars with `results` vectors."""
        b = Builder(name)
        vectors, numbers = [b.param(VECTOR) for _ in range(params)], [b.param(SCALAR) for _ in range(scalars)]
        for _ in range(self.random.randrange(2, 7)):
            self.node(b, vectors, numbers, depth)
        return b.finish([self.random.choice(vectors) for _ in range(results)])

    def node(self, b: Builder, vectors: list[Value], numbers: list[Value], depth: int) -> None:
        """One more node."""
        pick, kind = (lambda: self.random.choice(vectors)), self.random.randrange(10 if depth else 6)
        if kind < 2:
            vectors.append(b.emit(self.random.choice([OPS.add, OPS.mul]), (pick(), pick()), {}))
        elif kind == 2:
            vectors.append(b.flip(pick(), dims=(0,)))
        elif kind == 3:
            numbers.append(b.index_scalar(self.random.randrange(N)))
            vectors.append(b.dynamic_update(pick(), b.reshape(self.random.choice(numbers), shape=(1,)), numbers[-1]))
        elif kind == 4:
            numbers.append(b.sum(pick(), dims=(0,)))
        elif kind == 5:
            vectors.append(b.reshape(b.reshape(b.neg(pick()), shape=(3, 4)), shape=(N,)))
        elif kind < 8:
            carried, lasts, invariants = self.random.randrange(1, 4), self.random.randrange(2), self.random.randrange(3)
            body = self.graph(carried + invariants, carried + lasts, depth - 1, 0, "body")
            body = Graph("body", (Value(SCALAR), *body.params), body.nodes, body.results)
            start, stop = b.index_scalar(0), b.index_scalar(self.random.randrange(1 if lasts else 0, 4))
            inputs = (start, stop, *(pick() for _ in range(carried + invariants)))
            vectors += b.add_node(OPS.loop, inputs, {"carried": carried}, regions=[body]).outputs
        elif kind == 8:
            operands, results = self.random.randrange(1, 4), self.random.randrange(1, 4)
            branches = [self.graph(operands, results, depth - 1, 0, name) for name in ("then", "otherwise")]
            predicate = b.lt(b.sum(pick(), dims=(0,)), b.index_scalar(0))
            vectors += b.add_node(OPS.cond, (predicate, *(pick() for _ in range(operands))), regions=branches).outputs
        else:
            self.counting(b, vectors, depth)

    def counting(self, b: Builder, vectors: list[Value], depth: int) -> None:
        """A while loop that counts to three."""
        carried = self.random.randrange(1, 3)
        body = self.graph(carried, carried, depth - 1, 1, "body")
        inner = Builder("body")
        inner.params, inner.nodes = [body.params[-1], *body.params[:-1]], list(body.nodes)
        following = inner.add(inner.params[0], inner.index_scalar(1))
        body = inner.finish([following, *body.results])
        test = Builder("condition")
        counter = test.param(SCALAR)
        for p in body.params[1:]:
            test.param(p.type)
        condition = test.finish([test.lt(counter, test.index_scalar(3))])
        inputs = (b.index_scalar(0), *(self.random.choice(vectors) for _ in range(carried)))
        vectors += b.add_node(OPS.while_loop, inputs, {"carried": carried + 1}, regions=[condition, body]).outputs[1:]


@pytest.mark.parametrize("seed", range(80))
def test_random_programs(addresses, seed, monkeypatch):
    """Loops, conds, updates, aliases and written params in any mixture; carried values of any size alternate in every
    other program."""
    monkeypatch.setattr(planner, "ALTERNATE_BYTES", 4096 * (seed % 2))
    programs = Programs(seed)
    graph = programs.graph(3, 3, 2, 0, "main")
    writes = dict(zip(programs.random.sample(range(3), 2), programs.random.sample(range(3), 2), strict=True))
    graph = Graph(graph.name, graph.params, graph.nodes, graph.results, {"writes": writes})
    agree(graph, addresses, [np.random.default_rng(seed + k).integers(-5, 5, N) for k in range(3)])


def loop_graph(body: Graph, carried: int, trips: int, writes: bool = True) -> Graph:
    """`carried` vectors through a loop, and back into the memory where they came from."""
    b = Builder("main")
    params = [b.param(VECTOR) for _ in range(carried)]
    results = b.add_node(
        OPS.loop, (b.index_scalar(0), b.index_scalar(trips), *params), {"carried": carried}, regions=[body]
    ).outputs
    return b.finish(results, {"writes": {i: i for i in range(carried)}} if writes else {})


def test_fibonacci(addresses):
    """`a, b = b, a + b`"""
    body = Builder("body")
    _, x, y = body.param(SCALAR), body.param(VECTOR), body.param(VECTOR)
    plan = agree(loop_graph(body.finish([y, body.add(x, y)]), 2, 10), addresses, [np.arange(N), np.ones(N, np.int64)])
    assert all(depth == 1 for _, depth in plan.copies)


@pytest.mark.parametrize("trips", [0, 1, 4, 5])
def test_large_values_alternate(addresses, trips, monkeypatch):
    """`u = flip(u) + v, v = u` cannot be computed in place: u alternates between two memories and v is copied, no
    more."""
    monkeypatch.setattr(planner, "ALTERNATE_BYTES", 8 * N)
    body = Builder("body")
    _, u, v = body.param(SCALAR), body.param(VECTOR), body.param(VECTOR)
    new = body.flip(body.add(body.flip(u, dims=(0,)), v), dims=(0,))
    plan = agree(loop_graph(body.finish([new, u]), 2, trips), addresses, [np.arange(N), np.ones(N, np.int64)])
    reasons = [(depth, copy.reason) for copy, depth in plan.copies]
    assert (
        [depth for depth, _ in reasons] == [1, 1, 0] and "odd number" in reasons[-1][1] and "and in turn" in str(plan)
    )


def test_recording_in_a_loop_copies_nothing(addresses):
    """`losses[i] = loss` costs what it writes, whatever the size of `losses`."""
    body = Builder("body")
    i, x = body.param(SCALAR), body.param(VECTOR)
    plan = agree(
        loop_graph(body.finish([body.dynamic_update(x, body.reshape(body.mul(i, i), shape=(1,)), i)]), 1, N),
        addresses,
        [np.zeros(N, np.int64)],
    )
    assert plan.copies == [] and plan.arena_bytes == 0


def test_accumulation_works_in_place(addresses):
    """A carried value that is updated elementwise stays in the caller's memory."""
    body = Builder("body")
    _, x = body.param(SCALAR), body.param(VECTOR)
    plan = agree(loop_graph(body.finish([body.add(x, body.mul(x, x))]), 1, 3), addresses, [np.arange(N)])
    assert plan.copies == [] and plan.arena_bytes == 128


def test_a_loop_begins_where_it_ends(addresses):
    """What a carried value starts from is computed in the memory where the loop has to leave it."""
    body = Builder("body")
    _, x = body.param(SCALAR), body.param(VECTOR)
    region = body.finish([body.add(x, body.mul(x, x))])
    b = Builder("main")
    x = b.param(VECTOR)
    bounds = b.index_scalar(0), b.index_scalar(3)
    (result,) = b.control(OPS.loop, (*bounds, b.neg(x)), {"carried": 1}, (region,))
    plan = agree(b.finish([result], {"writes": {0: 0}}), addresses, [np.arange(N)])
    assert plan.copies == [] and plan.arena_bytes == 128


def test_readers_of_a_written_param_come_first(addresses):
    """The old value is read after the new one is computed: the reader moves up, and nothing is copied."""
    b = Builder("main")
    x = b.param(VECTOR)
    new, late = b.neg(x), b.flip(x, dims=(0,))
    plan = agree(b.finish([new, late], {"writes": {0: 0}}), addresses, [np.arange(N)])
    assert plan.copies == []


def test_late_reader_of_a_written_param(addresses):
    """A reader of the old value needs the new one too: the new one waits elsewhere, and the plan says so."""
    b = Builder("main")
    x = b.param(VECTOR)
    new = b.neg(x)
    plan = agree(b.finish([new, b.add(x, b.flip(new, dims=(0,)))], {"writes": {0: 0}}), addresses, [np.arange(N)])
    ((copy, depth),) = plan.copies
    assert depth == 0 and copy.nbytes == 8 * N and "must end" in copy.reason


def test_index_out_of_range_stops_the_program(addresses):
    b = Builder("main")
    x, position = b.param(VECTOR), b.param(SCALAR)
    graph = b.finish([b.dynamic_update(x, b.reshape(position, shape=(1,)), position)])
    executable = build(graph, addresses)
    with pytest.raises(IndexError, match="dynamic_update: an index is out of range for an axis of size 12"):
        executable([np.zeros(N, np.int64), np.array(N)])
    np.testing.assert_array_equal(
        executable([np.zeros(N, np.int64), np.array(3)])[0], np.where(np.arange(N) == 3, 3, 0)
    )


def test_last_values_of_an_empty_loop(addresses):
    body = Builder("body")
    body.param(SCALAR)
    x = body.param(VECTOR)
    b = Builder("main")
    start, trips = b.param(VECTOR), b.param(SCALAR)
    inner = body.finish([x, body.neg(x)])
    results = b.add_node(OPS.loop, (b.index_scalar(0), trips, start), {"carried": 1}, regions=[inner]).outputs
    executable = build(b.finish(results), addresses)
    with pytest.raises(RuntimeError, match="ran no iteration"):
        executable([np.arange(N), np.array(0)])
    np.testing.assert_array_equal(executable([np.arange(N), np.array(2)])[1], -np.arange(N))


def test_python_numbers_as_scalars(addresses):
    """The fast way in takes Python ints for i64[] params, to the ends of their range, and says when they are too
    large."""
    b = Builder("main")
    x, y = b.param(SCALAR), b.param(SCALAR)
    executable = build(b.finish([b.add(x, y)]), addresses)
    for value in (0, 1, -1, 2**30, -(2**30), 2**62 + 12345, -(2**62), 2**63 - 1, 1 - 2**63):
        assert executable.run((value, 0))[0] == value and executable.run([np.array(0), value])[0] == value
    with pytest.raises(TypeError, match="at most 64 bits"):
        executable.run((2**63, 0))
    with pytest.raises(TypeError, match="takes ndarrays"):
        executable.run(("1", 0))


def test_wrong_arrays_are_refused(addresses):
    b = Builder("main")
    executable = build(b.finish([b.neg(b.param(VECTOR))], {"writes": {0: 0}}), addresses)
    with pytest.raises(TypeError, match="argument 0 of main is float64, declared as i64"):
        executable([np.zeros(N)])
    with pytest.raises(ValueError, match="shape"):
        executable([np.zeros(N + 1, np.int64)])
    with pytest.raises(RuntimeError, match="writable contiguous"):
        executable([np.zeros(2 * N, np.int64)[::2]])
    with pytest.raises(RuntimeError, match="takes 1 arrays, got 0"):
        executable([])
    with pytest.raises(RuntimeError, match="takes contiguous arrays"):
        executable.run((np.zeros(2 * N, np.int64)[::2],))
    with pytest.raises(RuntimeError, match="wrong number of arguments"):
        executable.run(())


def test_the_plan_prints_every_step():
    body = Builder("body")
    _, x, y = body.param(SCALAR), body.param(VECTOR, "x"), body.param(VECTOR, "y")
    graph = loop_graph(body.finish([y, body.add(x, y)]), 2, 10)
    executable = Executable(plan_program(graph, kernel_calls(graph)), lambda kernels: [0] * len(kernels))
    text = str(executable.plan)
    assert "for %i2@word[2] in" in text and "carry %x'1 = " in text and "call add(" in text and "copy " in text


def test_interpreter_behind_the_same_interface():
    b = Builder("main")
    x, y = b.param(VECTOR), b.param(VECTOR)
    oracle = InterpretedExecutable(b.finish([b.add(x, y), b.mul(x, y)], {"writes": {0: 1}}))
    arrays = [np.arange(N), np.ones(N, np.int64)]
    (product,) = oracle.run(arrays)
    np.testing.assert_array_equal(product, np.arange(N))
    np.testing.assert_array_equal(arrays[1], np.arange(N) + 1)
    assert interpret(oracle.graph, arrays)


@pytest.mark.parametrize("chunk", [5, 100])
def test_extent_known_at_run_time(addresses, chunk):
    """The kernel is called for as many elements as a scalar of the program says, in chunks or at once."""
    b = Builder("main")
    x, n = b.param(VECTOR), b.param(SCALAR)
    total = b.add(n, n)
    graph = b.finish([b.neg(x)], {"writes": {0: 0}})
    calls = kernel_calls(graph)
    (node,) = (node for node in graph.nodes if node.op is OPS.neg)
    calls[node] = (KernelCall(Handwritten("neg"), (x, node.output), total, chunk, in_place=((1, 0),)),)
    executable = Executable(plan_program(graph, calls), addresses)
    check_plan(executable.plan)
    for count in (0, 1, 3, 6):
        array = np.arange(N)
        executable.run((array, count))
        np.testing.assert_array_equal(array, np.where(np.arange(N) < 2 * count, -np.arange(N), np.arange(N)))


def test_profile_counts_every_step(addresses):
    """Steps are timed from the first question on, those of a loop once an iteration."""
    body = Builder("body")
    _, x = body.param(SCALAR), body.param(VECTOR)
    executable = build(loop_graph(body.finish([body.add(x, body.flip(x, dims=(0,)))]), 1, 10), addresses)
    executable([np.arange(N)])
    assert executable.profile() == []
    executable([np.arange(N)])
    executable([np.arange(N)])
    counts = {step.code.name: count for step, count, _ in executable.profile() if isinstance(step, Call)}
    assert counts == {"flip": 20, "add": 20} and all(ns >= 0 for _, _, ns in executable.profile())
