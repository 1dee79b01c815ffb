"""Kernels of whole programs: as plain Python and as machine code against the interpreter, and some of their sources as
golden text.

Set WEFT_UPDATE_GOLDEN=1 to write the golden files anew.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from weft.backends.llvm_source import llvm_source
from weft.backends.lower import lower
from weft.backends.native.compiler import compile_kernel
from weft.backends.native.loader import call_kernel, load_objects
from weft.backends.native.plain import run_kernel
from weft.backends.python_source import python_source
from weft.backends.reference import run_fused
from weft.ir import OPS, interpret
from weft.ir.builder import Builder, inline
from weft.ir.graph import Location
from weft.ir.types import TensorType, float32, int64, uint32, uint64
from weft.passes.fusion import fuse

GOLDEN = Path(__file__).parent / "golden" / "kernels"

source_of = functools.cache(lambda kernel: python_source(kernel, locations=False))


def of(*shape, dtype=float32):
    return TensorType(shape, dtype)


def dot(b, x, y, left=1, right=0):
    return b.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(left,), rhs_contract=(right,))


def along_rows(b, x, shape):
    return b.expand(b.view_as(x, (shape[0], 1)), shape)


def softmax(rows, columns):
    b, shape = Builder("softmax"), (rows, columns)
    x = b.param(of(*shape), "x")
    e = b.exp(b.sub(x, along_rows(b, b.amax(x, dims=(1,)), shape)))
    return b.finish([b.div(e, along_rows(b, b.sum(e, dims=(1,)), shape))])


def layer_norm(rows, columns):
    b, shape = Builder("layer_norm"), (rows, columns)
    x, gain = b.param(of(*shape), "x"), b.param(of(columns), "gain")
    centered = b.sub(x, along_rows(b, b.scale(b.sum(x, dims=(1,)), 1 / columns), shape))
    variance = b.scale(b.sum(b.mul(centered, centered), dims=(1,)), 1 / columns)
    scale = along_rows(b, b.rsqrt(b.add(variance, b.full_like(variance, 1e-5))), shape)
    return b.finish([b.mul(b.mul(centered, scale), b.expand(gain, shape)), b.sum(centered, dims=(0,))])


def cross_entropy(rows, classes):
    """The loss, its gradient, and the predictions."""
    b, shape = Builder("cross_entropy"), (rows, classes)
    x, target = b.param(of(*shape), "x"), b.param(of(rows, dtype=int64), "target")
    shifted = b.sub(x, along_rows(b, b.amax(x, dims=(1,)), shape))
    e = b.exp(shifted)
    total = b.sum(e, dims=(1,))
    picked = b.gather(shifted, b.iota(shape=(rows,), dim=0, dtype=int64), target, dims=(0, 1))
    loss = b.scale(b.sum(b.sub(b.log(total), picked), dims=(0,)), 1 / rows)
    hot = b.cast(b.eq(along_rows(b, target, shape), b.iota(shape=shape, dim=1, dtype=int64)), float32)
    gradient = b.scale(b.sub(b.div(e, along_rows(b, total, shape)), hot), 1 / rows)
    return b.finish([loss, gradient, b.argmax(x, dim=1)])


def network(rows, inputs, hidden):
    """One training step of a network with one hidden layer: the loss and the new parameters."""
    b = Builder("network")
    x, y, w1 = b.param(of(rows, inputs), "x"), b.param(of(rows, 1), "y"), b.param(of(inputs, hidden), "w1")
    b1, w2, b2 = b.param(of(1, hidden), "b1"), b.param(of(hidden, 1), "w2"), b.param(of(1, 1), "b2")
    b.loc = Location("network.py", 1)
    z = b.add(dot(b, x, w1), b.expand(b1, (rows, hidden)))
    r = b.maximum(z, b.full_like(z, 0))
    b.loc = Location("network.py", 2)
    error = b.sub(b.add(dot(b, r, w2), b.expand(b2, (rows, 1))), y)
    loss = b.scale(b.sum(b.mul(error, error), dims=(0, 1)), 1 / rows)
    b.loc = Location("network.py", 3)
    slope = b.scale(error, 2 / rows)
    dr = dot(b, slope, w2, 1, 1)
    dz = b.select(b.gt(z, b.full_like(z, 0)), dr, b.full_like(dr, 0))
    slopes = (
        dot(b, x, dz, 0, 0),
        b.view_as(b.sum(dz, dims=(0,)), (1, hidden)),
        dot(b, r, slope, 0, 0),
        b.view_as(b.sum(slope, dims=(0,)), (1, 1)),
    )
    b.loc = Location("network.py", 4)
    return b.finish([loss, *(b.sub(p, b.scale(g, 0.01)) for p, g in zip((w1, b1, w2, b2), slopes, strict=True))])


def columns(rows, width):
    """Elementwise results, and folds of them along columns and of everything."""
    b = Builder("columns")
    x, y = b.param(of(rows, width), "x"), b.param(of(rows, width), "y")
    g = b.mul(x, b.cos(y))
    return b.finish([g, b.sum(g, dims=(0,)), b.sum(g, dims=(0, 1)), b.amax(g, dims=(0,))])


def pointwise(n):
    b = Builder("pointwise")
    x, y, z = (b.param(of(n), name) for name in "xyz")
    s = b.sigmoid(b.add(b.mul(x, y), z))
    return b.finish([s, b.sum(s, dims=(0,)), b.mul(s, b.sub(b.full_like(s, 1), s))])


def embedding():
    """Lookups, and what flows back into the table by scatter into zeros; running sums of that."""
    b = Builder("embedding")
    table, i = b.param(of(20, 4), "table"), b.param(of(7, dtype=int64), "i")
    g = b.exp(b.gather(table, i, dims=(0,)))
    s = b.scatter(b.full((20, 4), 0, float32), g, i, dims=(0,), mode="add")
    return b.finish([b.sub(table, s), b.cumsum(s, dim=0), b.sum(b.cumsum(b.exp(s), dim=1), dims=(1,))])


def shifted_update():
    """x[1:-1] = x[:-2] + x[2:], with x read again."""
    b = Builder("shifted_update")
    x = b.param(of(10), "x")
    ends = [b.slice(x, starts=(k,), stops=(k + 8,), steps=(1,)) for k in (0, 2)]
    return b.finish([b.slice_update(x, b.add(*ends), starts=(1,), steps=(1,)), b.sum(x, dims=(0,))])


def pieces():
    """Pads, joins, flips and transposes in one expression."""
    b = Builder("pieces")
    x, y = b.param(of(6, 5), "x"), b.param(of(5, 6), "y")
    padded = b.add(
        b.pad(b.slice(x, starts=(1, 0), stops=(6, 5), steps=(1, 1)), low=(0, 0), high=(1, 0), value=0.5),
        b.permute(y, dims=(1, 0)),
    )
    joined = b.concatenate(b.exp(padded), b.flip(x, dims=(0,)), padded, dim=1)
    return b.finish([joined, b.sum(joined, dims=(0,)), b.reshape(b.permute(joined, dims=(1, 0)), shape=(9, 10))])


def transposed(rows, columns):
    b = Builder("transposed")
    x, y = b.param(of(columns, rows), "x"), b.param(of(rows, columns), "y")
    turned = b.permute(x, dims=(1, 0))
    down, across = (b.mul(v, y) for v in (b.flip(turned, dims=(0, 1)), turned))
    return b.finish([b.add(turned, y), down, b.sum(across, dims=(0,))])


def bordered(n):
    """A long vector with a border on both sides, and two vectors joined."""
    b = Builder("bordered")
    x = b.param(of(n), "x")
    padded = b.pad(x, low=(3,), high=(20,), value=1.5)
    return b.finish([b.exp(padded), b.concatenate(x, b.neg(x), dim=0), b.sum(padded, dims=(0,))])


def channels():
    """Sums over all axes but the second, as a batch norm takes them."""
    b = Builder("channels")
    x = b.param(of(6, 20, 9, 8), "x")
    return b.finish([b.sum(x, dims=(0, 2, 3)), b.sum(b.mul(x, x), dims=(0, 2, 3))])


def loop(name, body_of, carried, invariants=()):
    """A loop of `steps` iterations; body_of(b, i, carried values, invariants) -> (next values, last values)."""
    r = Builder("body")
    i = r.param(of(dtype=int64), "i")
    state, rest = [r.param(t) for t in carried], [r.param(t) for t in invariants]
    following, lasts = body_of(r, i, state, rest)
    b = Builder(name)
    operands = [b.param(t) for t in (*carried, *invariants)]
    steps = b.param(of(dtype=int64), "steps")
    outputs = b.control(
        OPS.loop, (b.index_scalar(0), steps, *operands), {"carried": len(carried)}, (r.finish([*following, *lasts]),)
    )
    return b.finish(outputs)


def rosenbrock():
    def body(b, i, state, rest):
        (x,), (rate,) = state, rest
        x0, x1 = (b.view_as(b.slice(x, starts=(k,), stops=(k + 1,), steps=(1,)), ()) for k in (0, 1))
        u, v = b.sub(b.full_like(x0, 1), x0), b.sub(x1, b.mul(x0, x0))
        value = b.add(b.mul(u, u), b.scale(b.mul(v, v), 5.0))
        g0 = b.neg(b.add(b.scale(u, 2.0), b.mul(b.scale(v, 20.0), x0)))
        gradient = b.concatenate(b.view_as(g0, (1,)), b.view_as(b.scale(v, 10.0), (1,)), dim=0)
        return [b.sub(x, b.mul(b.expand(rate, (2,)), gradient))], [value]

    return loop("rosenbrock", body, [of(2)], [of()])


def fibonacci():
    return loop("fibonacci", lambda b, i, state, rest: ([state[1], b.add(*state)], []), [of(dtype=int64)] * 2)


def swapped():
    """Arrays that change places, and one that becomes another's transpose."""

    def body(b, i, state, rest):
        return [state[1], b.add(state[0], b.permute(state[1], dims=(1, 0))), state[3], state[2]], []

    return loop("swapped", body, [of(6, 6), of(6, 6), of(7), of(7)])


def training():
    """The network's steps, with the losses written down."""

    def body(b, i, state, rest):
        *weights, losses = state
        loss, *weights = inline(b, network(20, 3, 32), [*rest, *weights])
        return [*weights, b.dynamic_update(losses, b.view_as(loss, (1,)), i)], [loss]

    return loop("training", body, [of(3, 32), of(1, 32), of(32, 1), of(1, 1), of(10)], [of(20, 3), of(20, 1)])


def power_iteration():
    def body(b, i, state, rest):
        y = dot(b, rest[0], state[0])
        norm = b.sqrt(b.sum(b.mul(y, y), dims=(0,)))
        return [b.div(y, b.expand(norm, (8,)))], [norm]

    return loop("power_iteration", body, [of(8)], [of(8, 8)])


def heat():
    def body(b, i, state, rest):
        left, middle, right = (b.slice(state[0], starts=(k,), stops=(10 + k,), steps=(1,)) for k in range(3))
        bend = b.add(b.sub(right, b.scale(middle, 2.0)), left)
        return [b.slice_update(state[0], b.add(middle, b.scale(bend, 0.1)), starts=(1,), steps=(1,))], []

    return loop("heat", body, [of(12)])


def sampling():
    """Random bits whose stream is carried, and scatter into a carried array."""

    def body(b, i, state, rest):
        stream, total = state
        bits = b.random_bits(stream, shape=(20,), dtype=uint32)
        chosen = b.remainder(b.cast(bits, int64), b.full((20,), 5, int64))
        uniform = b.add(b.scale(b.cast(bits, float32), 2.0**-32), b.gather(total, chosen, dims=(0,)))
        stream = b.add(stream, b.literal(values=(0, 1), shape=(2,), dtype=uint64))
        return [stream, b.scatter(total, uniform, chosen, dims=(0,), mode="add")], [b.sum(uniform, dims=(0,))]

    return loop("sampling", body, [of(2, dtype=uint64), of(5)])


STRAIGHT = {
    "softmax": softmax(8, 40),
    "softmax of short rows": softmax(9, 7),
    "softmax in chunks": softmax(600, 64),
    "layer norm": layer_norm(8, 33),
    "layer norm in chunks": layer_norm(400, 48),
    "cross entropy": cross_entropy(10, 12),
    "cross entropy in chunks": cross_entropy(2000, 10),
    "network": network(30, 3, 32),
    "columns": columns(20, 17),
    "columns in chunks": columns(3000, 33),
    "pointwise": pointwise(100),
    "pointwise in chunks": pointwise(50_001),
    "embedding": embedding(),
    "shifted update": shifted_update(),
    "pieces": pieces(),
    "transposed": transposed(32, 50),
    "transposed, odd sizes": transposed(35, 21),
    "transposed in chunks": transposed(400, 300),
    "bordered": bordered(100),
    "bordered in chunks": bordered(70_000),
    "channels": channels(),
}
LOOPS = [rosenbrock, fibonacci, swapped, training, power_iteration, heat, sampling]
LARGE = 10_000


def arrays_of(graph, seed=0):
    """Arguments: floats around 0, integers that are small indices."""
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal(t.sizes) if t.dtype is float32 else rng.integers(2, 5, t.sizes)).astype(t.dtype.numpy)
        for t in (p.type for p in graph.params)
    ]


def run_plain(kernel, start, stop, arrays):
    return run_kernel(source_of(kernel), start, stop, arrays)


def loaded(kernels):
    """The machine code of kernels."""
    by_name = {kernel.name: kernel for kernel in kernels}
    return load_objects([compile_kernel(llvm_source(kernel), name) for name, kernel in by_name.items()])


@functools.cache
def machine_code():
    """The kernels of all programs."""
    graphs = (*STRAIGHT.values(), *(make() for make in LOOPS))
    return loaded(c.kernel for graph in graphs for calls in lower(fuse(graph)).values() for c in calls)


def run_compiled(kernel, start, stop, arrays):
    return call_kernel(machine_code().address(kernel.name), start, stop, arrays)


def check(graph, in_place=False):
    """Interpreted, fused and interpreted, as plain Python (unless large), and compiled: all agree."""
    arrays = arrays_of(graph)
    fused = fuse(graph)
    calls, expected = lower(fused), interpret(graph, arrays)
    runs = [interpret(fused, arrays), run_fused(fused, calls, arrays, run_compiled, in_place)]
    if max(p.type.size for p in graph.params) <= LARGE:
        runs.append(run_fused(fused, calls, arrays, run_plain, in_place))
    for results in runs:
        for result, right in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, right, rtol=2e-4, atol=2e-5)
    return fused, calls


@pytest.mark.parametrize("in_place", [False, True], ids=["apart", "in_place"])
@pytest.mark.parametrize("name", STRAIGHT)
def test_straight_programs(name, in_place):
    check(STRAIGHT[name], in_place)


@pytest.mark.parametrize("make", LOOPS)
def test_loops_are_one_kernel(make):
    _, calls = check(make())
    (only,) = calls.values()
    assert len(only) == 1


def test_chains_of_arithmetic_are_equal_to_the_bit():
    b = Builder("chain")
    x, y = b.param(of(1000), "x"), b.param(of(1000), "y")
    b_result = b.sub(b.mul(b.add(x, y), b.sqrt(b.abs(x))), b.div(b.mul(x, y), b.add(y, b.full_like(y, 3))))
    graph = b.finish([b_result])
    fused = fuse(graph)
    calls = lower(fused)
    code = loaded(c.kernel for each in calls.values() for c in each)
    arrays = arrays_of(graph)
    (result,) = run_fused(fused, calls, arrays, lambda k, *rest: call_kernel(code.address(k.name), *rest))
    assert result.tobytes() == interpret(graph, arrays)[0].tobytes()


def test_long_sums_are_accurate():
    b = Builder("sums")
    x = b.param(of(4, 30, 2500), "x")
    graph = b.finish([b.sum(x, dims=(2,)), b.sum(x, dims=(0, 2)), b.sum(x, dims=(0, 1, 2))])
    fused = fuse(graph)
    calls = lower(fused)
    code = loaded(c.kernel for each in calls.values() for c in each)
    array = np.random.default_rng(0).uniform(0, 1, (4, 30, 2500)).astype(np.float32)
    results = run_fused(fused, calls, [array], lambda k, *rest: call_kernel(code.address(k.name), *rest))
    for result, axes in zip(results, ((2,), (0, 2), (0, 1, 2)), strict=True):
        np.testing.assert_allclose(result, array.sum(axes, dtype=np.float64), rtol=5e-7)


GOLDENS = {
    "softmax": softmax(8, 40),
    "network": network(100, 3, 32),
    "rosenbrock": rosenbrock(),
    "heat": heat(),
    "columns": columns(3000, 33),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name):
    kernels = [c.kernel for calls in lower(fuse(GOLDENS[name])).values() for c in calls]
    text = "\n".join(part for k in kernels for part in (str(k), python_source(k)))
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("WEFT_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.exists(), f"no golden file {path.name}: run with WEFT_UPDATE_GOLDEN=1"
    assert text == path.read_text()
