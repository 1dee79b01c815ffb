"""Recomputation by minimum cut: the same results to the bit, fewer bytes kept between forward and backward."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from weft.ir import interpret
from weft.ir.builder import Builder
from weft.ir.ops import OPS
from weft.ir.types import TensorType, float32
from weft.passes.fusion import fuse
from weft.passes.minimum_cut import Network
from weft.passes.options import Options
from weft.passes.pipeline import optimize
from weft.passes.recompute import Recompute, kept_values, may_repeat
from weft.passes.saved import is_backward, peak_bytes, saved_bytes
from weft.tracer.driver import Build

ROWS, SIZE, LAYERS = 512, 256, 4
ASKED = Options(verify=True, recompute_from=1 << 20)


@pytest.fixture(scope="module")
def step():
    """(traced graph of a training step, its arguments): layers whose backward reads several pointwise values."""
    weft.manual_seed(0)
    weights = [weft.randn(SIZE, SIZE).mul_(0.1) for _ in range(LAYERS)]
    x = weft.randn(ROWS, SIZE)

    def gradients(x, *weights):
        h = x
        for w in weights:
            h = weft.nn.functional.gelu(h @ w)
            h = h * h.sigmoid()
        return weft.autograd.grad(h.square().mean(), list(weights))

    leaves = [w.requires_grad_() for w in weights]
    graph = weft.trace(gradients)(x, *leaves)
    return graph, [x.numpy(), *(w.detach().numpy() for w in leaves)]


def test_the_same_bits_with_less_kept(step):
    graph, arrays = step
    plain, changed = optimize(graph), optimize(graph, ASKED)
    for a, b in zip(interpret(plain, arrays), interpret(changed, arrays), strict=True):
        np.testing.assert_array_equal(b, a)
    assert saved_bytes(fuse(changed)) == 2 * 4 * ROWS * SIZE  # two of the products
    assert saved_bytes(fuse(plain)) > 2 * saved_bytes(fuse(changed))


def test_it_runs_compiled_and_needs_a_smaller_arena(step):
    graph, arrays = step
    plain, changed = Build(graph, Options()), Build(graph, ASKED)
    for a, b in zip(plain.run(arrays), changed.run(arrays), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    assert changed.memory().saved_bytes < plain.memory().saved_bytes
    assert changed.memory().arena_bytes < plain.memory().arena_bytes


def test_only_what_is_cheap_is_repeated(step):
    graph, _ = step
    plain, changed = optimize(graph), optimize(graph, ASKED)

    def dear(g):
        return sum(1 for n in g.nodes if not may_repeat(n) and n.op not in (OPS.barrier, OPS.constant))

    assert dear(plain) == dear(changed) and len(changed.nodes) > len(plain.nodes)
    assert str(optimize(graph, ASKED)) == str(changed)


def test_the_cut_is_where_bytes_are_fewest(step):
    graph = optimize(step[0])
    crossing = {v for n in graph.nodes if is_backward(n) for v in n.inputs}
    kept = kept_values(graph, crossing)
    makers = {v: n for n in graph.nodes for v in n.outputs}
    assert [makers[v].op.name for v in kept if v in makers] == ["dot_general"] * LAYERS


def test_programs_that_keep_little_are_left_alone(step):
    graph = optimize(step[0])
    assert Recompute()(graph, Options()) is graph
    off = Options(recompute_from=1 << 20, disabled=frozenset({"recompute"}))
    assert str(optimize(step[0], off)) == str(graph)


def test_nothing_changes_that_does_not_lower_the_peak():
    """All that the backward reads is needed by the caller, too."""

    def gradients(x, w):
        h = (x @ w).exp()
        return h, *weft.autograd.grad((h * h.detach().sin()).sum(), [w])

    w = weft.randn(SIZE, SIZE, requires_grad=True)
    graph = weft.trace(gradients)(weft.randn(ROWS, SIZE), w)
    assert str(optimize(graph, ASKED)) == str(optimize(graph))


def test_what_is_needed_at_once():
    b = Builder("sums")
    x = b.param(TensorType((8,), float32))
    long = b.literal(values=tuple(range(8)), shape=(8,), dtype=float32)
    y = b.cumsum(b.add(x, long), dim=0)
    z = b.cumsum(y, dim=0)
    assert peak_bytes(fuse(b.finish([b.sum(z, dims=(0,))]))) in range(4, 3 * 32 + 5)


@given(st.integers(0, 1 << 30))
def test_cuts_are_minimal(seed):
    random = np.random.default_rng(seed)
    network, other = Network(), networkx.DiGraph()
    other.add_nodes_from(range(8))
    for a, b in {tuple(pair) for pair in random.integers(0, 8, (20, 2)).tolist()}:
        if a != b:
            amount = int(random.integers(1, 9))
            network.edge(a, b, amount)
            other.add_edge(a, b, capacity=amount)
    reached = network.cut(0, 7)
    value, _ = networkx.minimum_cut(other, 0, 7)
    assert 7 not in reached
    assert sum(e["capacity"] for a, b, e in other.edges(data=True) if a in reached and b not in reached) == value
