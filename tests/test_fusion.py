"""Fusion: what becomes one kernel, what stays apart, what shares memory; meaning is kept."""

from __future__ import annotations

import numpy as np
import pytest

from weft.backends.llvm_source import llvm_source
from weft.backends.lower import lower
from weft.backends.python_source import python_source
from weft.ir import OPS, interpret, parse, same_graph, verify
from weft.ir.builder import Builder
from weft.ir.op import Trait
from weft.ir.types import TensorType, float32, int64
from weft.passes.fusion import fuse


def of(*shape, dtype=float32):
    return TensorType(shape, dtype)


def dot(b, x, y, left=1, right=0):
    return b.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(left,), rhs_contract=(right,))


def fused(graph):
    """The fused graph, checked: it is sound, reads back from its text, and means the same."""
    result = fuse(graph)
    verify(result)
    assert same_graph(parse(str(result)), result)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(p.type.sizes).astype(p.dtype.numpy) for p in graph.params]
    for a, z in zip(interpret(graph, arrays), interpret(result, arrays), strict=True):
        np.testing.assert_allclose(z, a, rtol=1e-5, atol=1e-6)
    return result


def ops_of(graph):
    """The ops of the nodes of a fused graph."""
    return [n.op.name for n in graph.nodes]


def kernels_of(graph):
    return [c for calls in lower(graph).values() for c in calls]


def views_and_pieces():
    b = Builder()
    x = b.param(of(6, 4), "x")
    y = b.flip(b.permute(x, dims=(1, 0)), dims=(0,))
    z = b.concatenate(
        y, b.pad(b.slice(y, starts=(0, 1), stops=(4, 5), steps=(1, 2)), low=(0, 2), high=(0, 2), value=0.0), dim=0
    )
    return b.finish([b.exp(b.reshape(z, shape=(16, 3)))])


def test_views_and_pieces_are_never_computed_on_their_own():
    graph = fused(views_and_pieces())
    assert ops_of(graph) == ["fusion"]
    (call,) = kernels_of(graph)
    assert len(call.kernel.arguments) == 2


def test_a_chain_from_product_to_update_is_one_kernel():
    b = Builder()
    x, w, t = b.param(of(20, 3)), b.param(of(3, 16)), b.param(of(20, 16))
    error = b.sub(b.tanh(dot(b, x, w)), t)
    step = dot(b, x, error, 0, 0)
    graph = fused(b.finish([b.sub(w, b.scale(step, 0.1)), b.sum(b.mul(error, error), dims=(0, 1))]))
    assert ops_of(graph) == ["fusion"]


def test_rows_of_a_large_graph_share_a_kernel_that_runs_in_chunks():
    b = Builder()
    x = b.param(of(4000, 64), "x")
    top = b.expand(b.view_as(b.amax(x, dims=(1,)), (4000, 1)), (4000, 64))
    e = b.exp(b.sub(x, top))
    graph = fused(b.finish([b.div(e, b.expand(b.view_as(b.sum(e, dims=(1,)), (4000, 1)), (4000, 64)))]))
    assert ops_of(graph) == ["fusion"]
    (call,) = kernels_of(graph)
    assert call.extent == 4000 and 1 < call.chunk < 4000


def test_products_of_few_columns_go_to_the_library_and_read_transposed_operands_where_they_stand():
    b = Builder()
    x, w = b.param(of(128, 128)), b.param(of(12, 128))
    graph = fused(b.finish([b.maximum(dot(b, x, b.permute(w, dims=(1, 0))), b.full((128, 12), 0, float32))]))
    assert ops_of(graph) == ["permute", "dot_general", "fusion"]


def test_operands_that_the_library_cannot_read_are_written_in_order():
    b = Builder()
    x, y = b.param(of(8, 12, 4, 32)), b.param(of(8, 12, 4, 32))
    heads = dict(lhs_batch=(0, 2), rhs_batch=(0, 2), lhs_contract=(3,), rhs_contract=(3,))
    graph = fused(b.finish([b.dot_general(b.tanh(x), b.tanh(y), **heads)]))
    assert ops_of(graph) == ["fusion", "fusion", "dot_general"]
    assert graph.nodes[2].attrs["lhs_batch"] == (0, 1)


def test_kernels_of_equal_form_are_one_kernel():
    b = Builder()
    results = []
    for k in range(5):
        p, g = b.param(of(1000), f"p{k}"), b.param(of(1000), f"g{k}")
        results.append(b.sub(p, b.scale(b.tanh(g), 0.1)))
    graph = fused(b.finish(results))
    assert ops_of(graph) == ["fusion"] * 5
    assert len({llvm_source(c.kernel).text for c in kernels_of(graph)}) == 1


def test_updates_of_tensors_of_many_sizes_are_one_piece_of_code():
    b = Builder()
    results = []
    for n in (10, 37, 300, 999):
        p, g = b.param(of(n), f"p{n}"), b.param(of(n), f"g{n}")
        results.append(b.sub(p, b.scale(b.tanh(g), 0.1)))
    graph = fused(b.finish(results))
    assert ops_of(graph) == ["fusion"] * 4
    assert len({llvm_source(c.kernel).text for c in kernels_of(graph)}) == 1


def test_kernel_names_and_sources_do_not_depend_on_the_users_lines():
    calls = kernels_of(fuse(views_and_pieces())), kernels_of(fuse(views_and_pieces()))
    first, second = ([(c.kernel.name, python_source(c.kernel, locations=False)) for c in each] for each in calls)
    assert first == second


def test_elementwise_outputs_may_take_the_memory_of_inputs():
    b = Builder()
    p, m, g = (b.param(of(100), name) for name in "pmg")
    m2 = b.add(b.scale(m, 0.9), g)
    (call,) = kernels_of(fused(b.finish([b.sub(p, m2), m2])))
    assert set(call.in_place) == {(3, 1), (3, 2), (4, 0), (4, 1), (4, 2)}


def test_outputs_read_at_other_places_keep_their_own_memory():
    b = Builder()
    x = b.param(of(100), "x")
    (call,) = kernels_of(fused(b.finish([b.add(x, b.flip(x, dims=(0,)))])))
    assert call.in_place == ()


@pytest.mark.parametrize("crossed", [False, True])
def test_straight_code_works_in_place_where_an_element_follows_from_the_old_one(crossed):
    """Loads that stand apart from a store do not matter; those of its element must be needed for what it stores."""
    b = Builder()
    x = b.param(of(2), "x")
    first, second = (b.slice(x, starts=(k,), stops=(k + 1,), steps=(1,)) for k in (0, 1))
    pair = (second, first) if crossed else (first, second)
    (call,) = kernels_of(fused(b.finish([b.concatenate(*(b.sin(v) for v in pair), dim=0)])))
    assert call.in_place == (() if crossed else ((1, 0),))


def test_an_update_changes_its_base_in_place_and_writes_only_what_changes():
    b = Builder()
    losses, loss, i = b.param(of(1000), "losses"), b.param(of(), "loss"), b.param(of(dtype=int64), "i")
    graph = fuse(b.finish([b.dynamic_update(losses, b.view_as(loss, (1,)), i)]))
    (call,) = kernels_of(graph)
    assert call.shared == ((3, 0),)
    assert "for" not in python_source(call.kernel)


def shifted(n, count):
    """x[1 : count + 1] = x[:count], for x of n elements."""
    b = Builder()
    x = b.param(of(n), "x")
    return b.finish([b.slice_update(x, b.slice(x, starts=(0,), stops=(count,), steps=(1,)), starts=(1,), steps=(1,))])


def test_a_small_update_from_its_own_base_goes_through_memory():
    assert ops_of(fused(shifted(100, 9))) == ["slice", "fusion"]


def test_a_large_update_from_its_own_base_is_written_apart():
    (call,) = kernels_of(fused(shifted(10, 9)))
    assert call.shared == () and call.in_place == ()


def small_loop(size, cost):
    r = Builder("body")
    r.param(of(dtype=int64), "i")
    x = r.param(of(size), "x")
    y = x
    for _ in range(cost):
        y = r.tanh(y)
    b = Builder()
    x, steps = b.param(of(size), "x"), b.param(of(dtype=int64), "steps")
    return b.finish(b.control(OPS.loop, (b.index_scalar(0), steps, x), {"carried": 1}, (r.finish([y]),)))


@pytest.mark.parametrize(("size", "whole"), [(2, True), (1000, True), (100_000, False)])
def test_small_loops_are_one_kernel(size, whole):
    graph = fuse(small_loop(size, 2))
    (loop,) = [n for n in graph.nodes if n.op.has(Trait.CONTROL) and n.op is OPS.loop]
    assert (loop in lower(graph)) == whole


def test_small_carried_values_stay_in_locals():
    (call,) = kernels_of(fuse(small_loop(2, 1)))
    body = python_source(call.kernel).split("for iteration")[1].split("\n    x[")[0]
    assert "[" not in body
