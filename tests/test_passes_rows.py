"""Passes over sequences that a loop reads and writes a row at a time."""

import numpy as np
import pytest

from weft.ir.builder import Builder
from weft.ir.interpret import interpret
from weft.ir.ops import OPS
from weft.ir.types import TensorType, float64, int64
from weft.passes.dce import DeadCode
from weft.passes.options import Options
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
    starts = [
        b.full(t.shape, constant[k], t.dtype) if k in constant else b.param(t) for k, t in enumerate(operands)
    ]
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
        np.testing.assert_allclose(a, z, rtol=1e-12)


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
