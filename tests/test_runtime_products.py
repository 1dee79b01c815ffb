"""Products through BLAS: any arrangement of axes, views in front, sizes of zero and one, panels, and how many copies
it took."""

from __future__ import annotations

import random

import numpy as np
import pytest

from weft.backends.library import library_calls
from weft.ir.builder import Builder
from weft.ir.interpret import interpret
from weft.ir.ops import OPS
from weft.ir.types import BY_NUMPY, TensorType, float32, float64
from weft.runtime import entry_native
from weft.runtime.blas import thread_functions
from weft.runtime.check_plan import check_plan
from weft.runtime.executable import Executable
from weft.runtime.native import native
from weft.runtime.planner import plan_program
from weft.runtime.threads import available_threads, set_num_threads

RNG = np.random.default_rng(0)


def run(graph, arrays):
    """The results of a graph of views and products, checked against the interpreter; and its plan."""
    executable = Executable(plan_program(graph, library_calls(graph)), lambda kernels: [])
    check_plan(executable.plan)
    results = executable(arrays)
    for got, expected in zip(results, interpret(graph, arrays), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(
            got,
            expected,
            rtol=2e-5 if got.dtype == np.float32 else 1e-13,
            atol=1e-5 if got.dtype == np.float32 else 1e-13,
        )
    return results, executable.plan


def product(x_shape, y_shape, axes, dtype=float64, views=()):
    """A graph of one product, with views of the operands given as (operand, op name, attributes)."""
    b = Builder("product")
    operands = [b.param(TensorType(tuple(shape), dtype)) for shape in (x_shape, y_shape)]
    for number, name, attrs in views:
        operands[number] = b.emit(OPS[name], (operands[number],), attrs)
    names = ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    return b.finish([b.dot_general(*operands, **dict(zip(names, axes, strict=True)))])


def arrays_for(graph):
    return [np.asarray(RNG.standard_normal(p.type.shape), p.dtype.numpy) for p in graph.params]


MATRIX = ((), (), (1,), (0,))


@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize(
    "x, y, axes",
    [
        ((3, 4), (4, 5), MATRIX),
        ((4, 3), (4, 5), ((), (), (0,), (0,))),
        ((3, 4), (5, 4), ((), (), (1,), (1,))),
        ((4, 3), (5, 4), ((), (), (0,), (1,))),
        ((1, 4), (4, 5), MATRIX),
        ((3, 4), (4, 1), MATRIX),
        ((3, 1), (1, 5), MATRIX),
        ((1, 1), (1, 1), MATRIX),
        ((4,), (4,), ((), (), (0,), (0,))),
        ((3, 4), (4,), MATRIX),
        ((4,), (4, 5), ((), (), (0,), (0,))),
        ((3,), (5,), ((), (), (), ())),
        ((2, 3, 4), (2, 4, 5), ((0,), (0,), (2,), (1,))),
        ((3, 2, 4), (4, 5, 2), ((1,), (2,), (2,), (0,))),
        ((2, 3, 4), (4, 3, 5), ((), (), (2, 1), (0, 1))),
        ((2, 3, 4), (2, 3, 5), ((), (), (0, 1), (0, 1))),
        ((2, 3, 4), (2, 4), ((0,), (0,), (2,), (1,))),
        ((0, 4), (4, 5), MATRIX),
        ((3, 0), (0, 5), MATRIX),
        ((3, 4), (4, 0), MATRIX),
        ((0,), (0,), ((), (), (0,), (0,))),
        ((0, 3, 4), (0, 4, 5), ((0,), (0,), (2,), (1,))),
    ],
)
def test_arrangements(x, y, axes, dtype):
    graph = product(x, y, axes, dtype)
    run(graph, arrays_for(graph))


@pytest.mark.parametrize(
    "views, copies",
    [
        ([(0, "permute", {"dims": (1, 0)})], 0),
        ([(0, "slice", {"starts": (1, 2), "stops": (7, 8), "steps": (2, 1)})], 0),
        ([(0, "slice", {"starts": (0, 0), "stops": (6, 6), "steps": (1, 2)})], 1),
        ([(0, "flip", {"dims": (0,)})], 1),
        ([(0, "flip", {"dims": (0,)}), (0, "flip", {"dims": (0,)})], 0),
        ([(0, "as_strided", {"shape": (5, 8), "strides": (8, 1), "offset": 3})], 0),
        ([(0, "as_strided", {"shape": (5, 8), "strides": (1, 1), "offset": 3})], 1),
        ([(0, "reshape", {"shape": (4, 16)})], 0),
        ([(0, "permute", {"dims": (1, 0)}), (0, "reshape", {"shape": (4, 16)})], 1),
        ([(0, "slice", {"starts": (0, 0), "stops": (1, 8), "steps": (1, 1)}), (0, "broadcast", {"shape": (5, 8)})], 1),
    ],
)
def test_views_of_operands(views, copies):
    b = Builder("main")
    x = b.param(TensorType((8, 8), float64))
    for _, name, attrs in views:
        x = b.emit(OPS[name], (x,), attrs)
    y = b.param(TensorType((x.shape[1], 3), float64))
    graph = b.finish([b.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(0,))])
    _, plan = run(graph, arrays_for(graph))
    assert len(plan.copies) == copies, str(plan)


def test_heads_of_attention():
    """Batches of two axes that are not evenly spaced: [batch, time, head, depth] read as [batch, head] matrices."""
    b = Builder("scores")
    q, k = b.param(TensorType((2, 5, 3, 4), float32)), b.param(TensorType((2, 5, 3, 4), float32))
    q, k = b.permute(q, dims=(0, 2, 1, 3)), b.permute(k, dims=(0, 2, 1, 3))
    axes = {"lhs_batch": (0, 1), "rhs_batch": (0, 1), "lhs_contract": (3,), "rhs_contract": (3,)}
    graph = b.finish([b.dot_general(q, k, **axes)])
    _, plan = run(graph, arrays_for(graph))
    assert plan.copies == []


def test_random_arrangements():
    """Any axes in any order, through any views."""
    choice = random.Random(0)
    for _ in range(150):
        sizes = [choice.choice([1, 2, 3, 5]) for _ in range(5)]
        batch, contract, left, right = ([k for k in range(5) if choice.random() < p] for p in (0.3, 0.4, 0.3, 0.3))
        contract = [k for k in contract if k not in batch]
        x_axes, y_axes = (
            [("b", k) for k in batch] + [("k", k) for k in contract] + [(side, k) for k in free]
            for side, free in (("l", left), ("r", right))
        )
        choice.shuffle(x_axes)
        choice.shuffle(y_axes)
        places = [
            tuple(axes.index((kind, k)) for k in order)
            for kind, order in (("b", batch), ("k", contract))
            for axes in (x_axes, y_axes)
        ]
        views = []
        for number, axes in enumerate((x_axes, y_axes)):
            if axes and choice.random() < 0.5:
                views.append((number, "flip", {"dims": (0,)}))
            if choice.random() < 0.5:
                order = tuple(choice.sample(range(len(axes)), len(axes)))
                views += [
                    (number, "permute", {"dims": order}),
                    (number, "permute", {"dims": tuple(order.index(k) for k in range(len(axes)))}),
                ]
        graph = product(
            [sizes[k] for _, k in x_axes],
            [sizes[k] for _, k in y_axes],
            places,
            choice.choice([float32, float64]),
            views,
        )
        run(graph, arrays_for(graph))


@pytest.mark.parametrize("shape", [(300, 200, 500), (700, 150, 90), (1, 3000, 2000), (2000, 3000, 1)])
def test_panels_do_not_depend_on_threads(shape):
    """Large products are cut; the bits are the same for any number of threads, and BLAS has its own threads back
    afterwards."""
    rows, inner, columns = shape
    graph = product((rows, inner), (inner, columns), MATRIX, float32)
    arrays = arrays_for(graph)
    get, put = thread_functions() or pytest.skip("this BLAS has no threads")
    put(2)
    found = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        found.append(run(graph, arrays)[0][0].tobytes())
    set_num_threads(available_threads())
    assert len(set(found)) == 1
    assert get() == 2
    process = native().table.ctypes.data
    for _ in range(2):
        entry_native.pin_blas(process)
        assert get() == 1
    for inside in (1, 0):
        entry_native.unpin_blas(process)
        assert get() == (1 if inside else 2)


def test_views_that_others_read_are_copied():
    """A result that is a view has to be made; a whole view is its base."""
    b = Builder("main")
    x = b.param(TensorType((300, 400), float64))
    graph = b.finish(
        [b.permute(x, dims=(1, 0)), b.reshape(b.reshape(b.flip(x, dims=(1,)), shape=(120000,)), shape=(400, 300))]
    )
    _, plan = run(graph, arrays_for(graph))
    assert {type(copy).__name__ for copy, _ in plan.copies} == {"Call"} and "handed on" in str(plan)


@pytest.mark.parametrize("dtype", [np.dtype(t) for t in ("bool", "int8", "int16", "int32", "float64")])
def test_views_of_every_width(dtype):
    b = Builder("main")
    x = b.param(TensorType((3, 4, 5), BY_NUMPY[dtype]))
    graph = b.finish([b.permute(b.slice(x, starts=(0, 1, 0), stops=(3, 4, 5), steps=(1, 2, 3)), dims=(2, 0, 1))])
    array = np.asarray(RNG.integers(0, 2, (3, 4, 5)), dtype)
    np.testing.assert_array_equal(run(graph, [array])[0][0], array[:, 1:4:2, ::3].transpose(2, 0, 1))
