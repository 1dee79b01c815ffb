"""Passes over sequences that a loop reads and writes a row at a time."""

import numpy as np
import pytest

from weft.ir.builder import Builder
from weft.ir.interpret import interpret
from weft.ir.ops import OPS
from weft.ir.types import TensorType, float64, int64
from weft.passes.dce import DeadCode
from weft.passes.loop_sums import LoopSums
from weft.passes.options import Options
from weft.passes.row_products import RowProducts
from weft.passes.written_once import WrittenOnce

OFF = Options(verify=True)
N, WIDE = 6, 3


def of(*shape):
    return TensorType(shape, float64)


def graph_of(operands, carried, step, start=0, stop=N, constant=(), keep=None):
    """A loop over `operands`; those in `constant` start as one number, the others are params. `keep`: the results."""
    r, b = Builder("body"), Builder("main")
    index = r.param(TensorType((), int64), "i")
    body = r.finish(step(r, index, *(r.param(t) for t in operands)))
    starts = [b.full(t.shape, constant[k], t.dtype) if k in constant else b.param(t) for k, t in enumerate(operands)]
    bounds = b.index_scalar(start), b.index_scalar(stop)
    outputs = b.control(OPS.loop, (*bounds, *starts), {"carried": carried}, (body,))
    return b.finish(outputs if keep is None else [outputs[k] for k in keep])


def place(r, axis, position):
    return [position if k == axis else r.index_scalar(0) for k in range(2)]


def box(axis):
    return (1, WIDE) if axis == 0 else (WIDE, 1)


def rows(axis):
    return of(N, WIDE) if axis == 0 else of(WIDE, N)


def read(r, x, axis, position):
    return r.view_as(r.dynamic_slice(x, *place(r, axis, position), sizes=box(axis)), (WIDE,))


def write(r, x, axis, position, row):
    return r.dynamic_update(x, r.view_as(row, box(axis)), *place(r, axis, position))


def loop_of(graph):
    return next(n for n in graph.nodes if n.op is OPS.loop)


def starts_empty(graph, slot):
    value = loop_of(graph).inputs[2 + slot]
    return any(n.op is OPS.empty and n.output is value for n in graph.nodes)


def same_meaning(graph, changed):
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=p.shape) for p in graph.params]
    for a, z in zip(interpret(changed, arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(a, z, rtol=1e-11, atol=1e-11)


def once(graph):
    changed = DeadCode()(WrittenOnce()(graph, OFF), OFF)
    same_meaning(graph, changed)
    assert WrittenOnce()(changed, OFF) is changed
    return changed


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_sequence_that_is_all_written_starts_empty(axis, backwards):
    def step(r, i, h, out):
        h = r.tanh(h)
        return [h, write(r, out, axis, r.sub(r.index_scalar(N - 1), i) if backwards else i, h)]

    assert starts_empty(once(graph_of([of(WIDE), rows(axis)], 2, step)), 1)


@pytest.mark.parametrize(
    ("start", "stop", "position"),
    [
        (0, N - 1, lambda r, i: i),
        (1, N, lambda r, i: r.sub(i, r.index_scalar(1))),
        (0, N // 2, lambda r, i: r.add(i, i)),
        (0, N, lambda r, i: r.sub(i, i)),
    ],
    ids=["the last is left", "one is left", "every other one", "always the first"],
)
def test_a_sequence_of_which_rows_are_left_keeps_its_start(start, stop, position):
    def step(r, i, h, out):
        h = r.tanh(h)
        return [h, write(r, out, 0, position(r, i), h)]

    assert not starts_empty(once(graph_of([of(WIDE), rows(0)], 2, step, start, stop)), 1)


def add_to_rows(r, i, h, out):
    h = r.tanh(h)
    return [h, write(r, out, 0, i, r.add(read(r, out, 0, i), h))]


def test_rows_of_one_number_are_that_number_until_they_are_written():
    changed = once(graph_of([of(WIDE), rows(0)], 2, add_to_rows, constant={1: 0.5}))
    assert starts_empty(changed, 1)
    assert not any(n.op is OPS.dynamic_slice for n in loop_of(changed).regions[0].nodes)


def test_rows_are_read_from_the_start_value_if_the_final_one_is_not_needed():
    def step(r, i, h, out):
        h = r.tanh(r.add(h, read(r, out, 0, i)))
        return [h, write(r, out, 0, i, h)]

    operands = [of(WIDE), rows(0)]
    assert loop_of(once(graph_of(operands, 2, step, keep=[0]))).attrs["carried"] == 1
    kept = graph_of(operands, 2, step)
    assert WrittenOnce()(kept, OFF) is kept  # in place


def test_rows_that_an_earlier_iteration_wrote_are_read_as_they_are():
    def step(r, i, h, out):
        last = r.maximum(r.sub(i, r.index_scalar(1)), r.index_scalar(0))
        h = r.tanh(r.add(h, read(r, out, 0, last)))
        return [h, write(r, out, 0, i, h)]

    graph = graph_of([of(WIDE), rows(0)], 2, step, constant={1: 0.0})
    assert WrittenOnce()(graph, OFF) is graph


# sums that a loop adds up ---------------------------------------------------------------------------------------------

BIG = 48


def summed(graph):
    changed = DeadCode()(LoopSums()(graph, OFF), OFF)
    same_meaning(graph, changed)
    return changed


def wide(r, x, axis, position):
    """Matrix number `position` of the stack `x`."""
    sizes = tuple(1 if k == axis else n for k, n in enumerate(x.shape))
    starts = [position if k == axis else r.index_scalar(0) for k in range(3)]
    return r.view_as(r.dynamic_slice(x, *starts, sizes=sizes), (BIG, BIG))


def stack(axis, count=N):
    return of(*(count if k == axis else BIG for k in range(3)))


def product(r, x, y):
    return r.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(0,), rhs_contract=(0,))


@pytest.mark.parametrize("axes", [(0, 0), (1, 2)])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("constant", [{}, {0: 0.0}])
def test_a_sum_of_products_of_rows_is_one_product(axes, backwards, constant):
    def step(r, i, c, x, y):
        at = r.sub(r.index_scalar(N), i) if backwards else i
        return [r.add(c, product(r, wide(r, x, axes[0], at), wide(r, y, axes[1], at)))]

    operands = [of(BIG, BIG), *(stack(axis, N + 2) for axis in axes)]
    changed = summed(graph_of(operands, 1, step, constant=constant))
    assert [n.op.name for n in changed.nodes if n.op in (OPS.loop, OPS.dot_general)] == ["dot_general"]
    assert any(n.op is OPS.add for n in changed.nodes) == (not constant)


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("backwards", [False, True])
def test_rows_that_a_sum_needs_are_kept(start, backwards):
    """The state itself and what is computed from it; of two terms both, and their sum over rows as well."""

    def step(r, i, h, c, d, x):
        at = r.sub(r.index_scalar(N - 1), i) if backwards else i
        new = r.tanh(product(r, h, wide(r, x, 0, at)))
        both = r.add(product(r, new, wide(r, x, 0, at)), product(r, new, h))
        return [new, r.add(c, both), r.add(r.sum(new, dims=(0,)), d)]

    graph = graph_of([of(BIG, BIG), of(BIG, BIG), of(BIG), stack(0)], 3, step, start)
    changed = summed(graph)
    assert [n.op is OPS.dot_general for n in loop_of(changed).regions[0].nodes].count(True) == 1
    assert loop_of(changed).attrs["carried"] == 3  # the state, and rows of the old and of the new one
    assert all(starts_empty(changed, k) for k in (1, 2))


@pytest.mark.parametrize("kind", ["read", "small", "wide", "last"])
def test_other_sums_stay(kind):
    def step(r, i, c, h, x):
        rows = r.slice(h, starts=(0, 0), stops=(8 if kind == "small" else BIG, 8), steps=(1, 1))
        term = product(r, h, h) if kind != "small" else r.expand(r.sum(product(r, rows, rows), dims=(0, 1)), (BIG, BIG))
        if kind == "wide":
            long = r.reshape(r.expand(h, (BIG, BIG, BIG)), shape=(BIG * BIG, BIG))
            term = product(r, long, r.tanh(long))
        total = r.add(c, term)
        new = r.add(r.tanh(h), r.scale(c, 0.01)) if kind == "read" else r.tanh(h)
        return [total, new, *([r.exp(total)] if kind == "last" else [])]

    graph = graph_of([of(BIG, BIG), of(BIG, BIG), of(3)], 2, step)
    assert LoopSums()(graph, OFF) is graph


# products of rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("contract", [0, 1])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_product_of_a_row_and_an_invariant_comes_before_the_loop(axis, side, contract, backwards):
    def step(r, i, h, x, w):
        row = wide(r, x, axis, r.sub(r.index_scalar(N - 1), i) if backwards else i)
        x, y = (row, w) if side == 0 else (w, row)
        term = r.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(contract,), rhs_contract=(1,))
        return [r.tanh(r.add(r.scale(h, 0.5), term))]

    graph = graph_of([of(BIG, BIG), stack(axis), of(BIG, BIG)], 1, step)
    changed = DeadCode()(RowProducts()(graph, OFF), OFF)
    same_meaning(graph, changed)
    assert [n.op for n in changed.nodes].count(OPS.dot_general) == 1
    assert not any(n.op is OPS.dot_general for n in loop_of(changed).regions[0].nodes)


@pytest.mark.parametrize("side", [0, 1])
def test_a_batched_product_of_a_row_comes_before_the_loop(side):
    def step(r, i, h, x, w):
        zero = r.index_scalar(0)
        row = r.view_as(r.dynamic_slice(x, zero, i, zero, zero, sizes=(8, 1, 4, 64)), (8, 4, 64))
        of_row, of_w = ((0,), (1,)), ((0,), (2,))
        (batch, contract), (rhs_batch, rhs_contract) = (of_row, of_w) if side == 0 else (of_w, of_row)
        dims = {"lhs_batch": batch, "rhs_batch": rhs_batch, "lhs_contract": contract, "rhs_contract": rhs_contract}
        return [r.tanh(r.add(h, r.dot_general(*((row, w) if side == 0 else (w, row)), **dims)))]

    state = of(8, 64, 128) if side == 0 else of(8, 128, 64)
    graph = graph_of([state, of(8, N, 4, 64), of(8, 128, 4)], 1, step)
    changed = DeadCode()(RowProducts()(graph, OFF), OFF)
    same_meaning(graph, changed)
    assert [n.op for n in changed.nodes].count(OPS.dot_general) == 1


@pytest.mark.parametrize("kind", ["a part", "one that changes", "many rows"])
def test_other_products_of_rows_stay(kind):
    def step(r, i, h, x, w):
        row = wide(r, x, 0, i)
        y = h if kind == "one that changes" else w
        if kind == "many rows":
            row = r.reshape(r.expand(row, (BIG, BIG, BIG)), shape=(BIG * BIG, BIG))
        term = product(r, r.slice(row, starts=(0, 0), stops=(BIG, BIG), steps=(1, 1)), y)
        return [r.tanh(r.add(h, term))]

    graph = graph_of([of(BIG, BIG), stack(0, N + 1 if kind == "a part" else N), of(BIG, BIG)], 1, step)
    assert RowProducts()(graph, OFF) is graph
