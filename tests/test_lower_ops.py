"""Every op, lowered to kernels: as plain Python for every sample, as machine code for all elementwise ops of a dtype
at once."""

from __future__ import annotations

import functools

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
from weft.ir.builder import Builder
from weft.ir.errors import IndexRangeError, WeftError
from weft.ir.op import Trait
from weft.ir.samples import random_array, samples
from weft.ir.types import DTYPES, TensorType, bool_, float32, int64
from weft.passes.fusion import fuse

source_of = functools.cache(lambda kernel: python_source(kernel, locations=False))


def run_plain(kernel, start, stop, arrays):
    return run_kernel(source_of(kernel), start, stop, arrays)


def compiled(calls):
    """A function that runs the kernels of `calls` as machine code."""
    kernels = {c.kernel for each in calls.values() for c in each}
    code = load_objects([compile_kernel(llvm_source(k), k.name) for k in kernels])
    return lambda kernel, start, stop, arrays: call_kernel(code.address(kernel.name), start, stop, arrays)


def close(results, expected, single=2e-6):
    for result, right in zip(results, expected, strict=True):
        tolerance = 1e-12 if right.dtype == np.float64 else single
        np.testing.assert_allclose(result, right, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("op", list(OPS), ids=lambda op: op.name)
def test_every_op_as_plain_python(op):
    rng = np.random.default_rng(3)
    for sample in samples(op):
        graph, arrays = sample.graph(), sample.arrays(rng)
        fused = fuse(graph)
        calls, expected = lower(fused), interpret(graph, arrays)
        close(run_fused(fused, calls, arrays, run_plain), expected)
        if float32 in (p.dtype for p in graph.params):
            close(run_fused(fused, calls, arrays, run_plain, in_place=True), expected)


def elementwise_graph(dtype, shape):
    """Every elementwise op of one dtype, on operands that are views of the params: plain, transposed, reversed,
    broadcast."""
    b = Builder("elementwise")
    b_param = functools.partial(b.param, TensorType(shape, dtype))
    x, t, row = (
        b_param(hint="x"),
        b.param(TensorType(shape[::-1], dtype), "t"),
        b.param(TensorType(shape[1:], dtype), "row"),
    )
    flag = b.param(TensorType(shape, bool_), "flag")
    views = [x, b.permute(t, dims=(1, 0)), b.expand(row, shape), b.flip(x, dims=(0, 1))]
    results = []
    for k, op in enumerate(
        o for o in OPS if o.has(Trait.ELEMENTWISE) and o.name not in ("convert", "bitcast", "select")
    ):
        operands = [views[(k + i) % len(views)] for i in range(op.arity)]
        try:
            results.append(b.emit(op, operands, {}))
        except WeftError:
            continue  # not for this dtype
    results += [
        b.convert(views[1], dtype=other) for other in DTYPES if not (dtype.kind == "float" and other.kind == "uint")
    ]
    return b.finish([*results, b.select(flag, views[1], views[2])])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.short)
def test_elementwise_ops_as_machine_code(dtype):
    graph = elementwise_graph(dtype, (3, 21))
    rng = np.random.default_rng(5)
    arrays = [random_array(rng, p.type.sizes, p.dtype) for p in graph.params]
    fused = fuse(graph)
    calls = lower(fused)
    with np.errstate(all="ignore"):
        close(run_fused(fused, calls, arrays, compiled(calls)), interpret(graph, arrays), single=1e-5)


def whole_array_ops():
    """Reductions along each set of axes, running folds, positions, sorting, gathers, updates, random numbers: one
    graph."""
    b = Builder("arrays")
    x, u = b.param(TensorType((5, 4, 33), float32), "x"), b.param(TensorType((3, 4, 33), float32), "u")
    i, j = (b.param(TensorType((3,), int64), name) for name in "ij")
    results = []
    for name in ("sum", "prod", "amax", "amin"):
        results += [getattr(b, name)(x, dims=dims) for dims in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))]
    for name in ("argmax", "argmin", "cumsum", "cummax"):
        results += [getattr(b, name)(x, dim=dim) for dim in range(3)]
    for descending in (False, True):
        results += [*b.sort(x, dim=2, descending=descending), *b.sort(x, dim=0, descending=descending)]
    results += [
        b.gather(x, i, dims=(0,)),
        b.gather(x, i, j, dims=(0, 2)),
        b.dynamic_slice(x, *map(b.index_scalar, (1, 2, 3)), sizes=(2, 1, 9)),
    ]
    results += [b.scatter(x, u, i, dims=(0,), mode=mode) for mode in ("set", "add", "mul", "amin", "amax")]
    results += [
        b.slice_update(x, u, starts=(1, 0, 0), steps=(1, 1, 1)),
        b.as_strided_update(
            x, b.slice(u, starts=(0, 0, 0), stops=(1, 1, 9), steps=(1, 1, 1)), strides=(9, 9, 2), offset=7
        ),
    ]
    results += [
        b.dynamic_update(x, u, *map(b.index_scalar, (2, 0, 0))),
        b.pad(x, low=(0, 1, 2), high=(1, 0, 3), value=2.5),
        b.concatenate(x, u, dim=0),
    ]
    state = b.literal(values=(7, 1 << 40), shape=(2,), dtype=DTYPES[3])
    results += [b.random_bits(state, shape=(3, 5), dtype=dtype) for dtype in DTYPES[2:4]]
    return b.finish(results)


def test_whole_array_ops_as_machine_code():
    graph = whole_array_ops()
    rng = np.random.default_rng(6)
    x = rng.uniform(-1, 1, (5, 4, 33)).astype(np.float32)
    x[1, 2, 5], x[3, 0, 0], x[0, 1, 7], x[2, 3, 30] = np.nan, np.nan, 1.0, 1.0
    arrays = [x, rng.uniform(0, 2, (3, 4, 33)).astype(np.float32), np.array([4, 0, 4]), np.array([32, 1, 0])]
    fused = fuse(graph)
    calls = lower(fused)
    close(run_fused(fused, calls, arrays, compiled(calls)), interpret(graph, arrays), single=1e-4)


def products():
    """dot_general in many arrangements of axes, of floats and integers."""
    b, results = Builder("products"), []
    for dtype in (float32, int64):
        x, y, z = (
            b.param(TensorType((3, 5, 18), dtype)),
            b.param(TensorType((18, 3, 40), dtype)),
            b.param(TensorType((40, 18), dtype)),
        )
        dot = b.dot_general
        results += [
            dot(x, y, lhs_batch=(0,), rhs_batch=(1,), lhs_contract=(2,), rhs_contract=(0,)),
            dot(x, z, lhs_batch=(), rhs_batch=(), lhs_contract=(2,), rhs_contract=(1,)),
            dot(z, x, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(2,)),
            dot(x, x, lhs_batch=(), rhs_batch=(), lhs_contract=(0, 2), rhs_contract=(0, 2)),
            dot(y, z, lhs_batch=(), rhs_batch=(), lhs_contract=(0, 2), rhs_contract=(1, 0)),
            dot(z, z, lhs_batch=(0, 1), rhs_batch=(0, 1), lhs_contract=(), rhs_contract=()),
            dot(z, z, lhs_batch=(), rhs_batch=(), lhs_contract=(0, 1), rhs_contract=(0, 1)),
        ]
    return b.finish(results)


def test_products_as_machine_code():
    graph = products()
    arrays = [random_array(np.random.default_rng(k), p.type.sizes, p.dtype) for k, p in enumerate(graph.params)]
    fused = fuse(graph)
    calls = lower(fused)
    close(run_fused(fused, calls, arrays, compiled(calls)), interpret(graph, arrays), single=1e-5)


def test_an_index_out_of_range_names_the_op():
    b = Builder("lookup")
    table, i = b.param(TensorType((5, 2), float32)), b.param(TensorType((3,), int64))
    graph = b.finish([b.exp(b.gather(table, i, dims=(0,)))])
    fused = fuse(graph)
    calls = lower(fused)
    table = np.zeros((5, 2), np.float32)
    for bad in (5, -1):
        for run in (run_plain, compiled(calls)):
            with pytest.raises(IndexRangeError, match=r"gather.*\[0, 5\)"):
                run_fused(fused, calls, [table, np.array([0, bad, 1])], run)
