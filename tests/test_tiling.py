"""Tiling: whatever may be computed by blocks of rows gives the same, and what pays needs less memory."""

from __future__ import annotations

import importlib.util
import inspect
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from weft.ir import OPS, interpret, verify
from weft.ir.builder import Builder, inline
from weft.ir.op import Trait
from weft.ir.samples import samples
from weft.passes import pipeline
from weft.passes.axes import links
from weft.passes.options import Options
from weft.passes.pipeline import CLEAN_UP, optimize, run_passes
from weft.passes.tile_groups import Group
from weft.passes.tile_loops import with_loops
from weft.passes.tiling import Tiling
from weft.tracer.driver import Build

GOLDEN = Path(__file__).parent / "golden" / "passes" / "attention_by_rows.txt"
UNTILED = Options(verify=True, disabled=frozenset({"tiling"}))
CHECKED = Options(verify=True)


def corpus_programs():
    spec = importlib.util.spec_from_file_location("corpus", Path(__file__).with_name("corpus.py"))
    corpus = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(corpus)
    return corpus.PROGRAMS


def assert_same(graph, changed, arrays):
    verify(changed)
    for a, b in zip(interpret(graph, arrays), interpret(changed, arrays), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        rtol = 1e-5 if a.dtype == np.float32 else 1e-11
        scale = np.max(np.abs(a[np.isfinite(a)]), initial=0.0) if a.dtype.kind == "f" else 0
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * scale)


# What may be done -----------------------------------------------------------------------------------------------------


def behind_a_copy(sample):
    """The op of a sample on copies of its operands, as a graph: from them, sums over an axis have rows to come from."""
    b = Builder(sample.op.name)
    params = [b.param(t, f"x{k}") for k, t in enumerate(sample.types)]
    copies = [b.select(b.full(p.shape, True, weft.ir.types.bool_), p, p) for p in params]
    return b.finish(inline(b, sample.graph(), copies))


@pytest.mark.parametrize("op", [op for op in OPS if not op.has(Trait.CONTROL)], ids=lambda op: op.name)
def test_every_letter_of_every_op(op):
    for sample in samples(op):
        graph, arrays = behind_a_copy(sample), sample.arrays(np.random.default_rng(0))
        producers = {v: n for n in graph.nodes for v in n.outputs}
        node = producers[graph.results[0]]
        for link in links(node, producers):
            ends = [(node.outputs[0], link.output), *zip(node.inputs, link.inputs, strict=True)]
            value, axis = next((v, d) for v, d in ends if d is not None)
            if value not in producers or value.shape[axis] < 2:
                continue
            for block in {1, value.shape[axis] - 1}:
                group = Group(graph, producers, value, axis)
                assert node in group.links
                assert_same(graph, with_loops(group, block, lambda body: body), arrays)


@pytest.mark.parametrize("name", corpus_programs())
def test_whatever_is_legal_in_the_corpus(name, monkeypatch):
    seen, run = [], Build.run
    monkeypatch.setattr(
        Build, "run", lambda self, arrays, progress=None: seen.append((self, arrays)) or run(self, arrays, progress)
    )
    weft.manual_seed(0)
    function, arguments, _ = corpus_programs()[name]()
    weft.compile(function)(*arguments)
    for build, arrays in seen:
        graph = optimize(build.traced, UNTILED)
        arrays = [np.asarray(a, p.type.dtype.numpy) for a, p in zip(arrays, graph.params, strict=True)]
        for group in list(Tiling(least_bytes=0).groups(graph))[:12]:
            assert_same(graph, with_loops(group, 1 + group.count // 3, lambda body: body), arrays)


# What pays ------------------------------------------------------------------------------------------------------------


def gradients(loss, *leaves):
    return loss, *weft.autograd.grad(loss, leaves)


def attention(q, k, v, g):
    return gradients((F.scaled_dot_product_attention(q, k, v) * g).sum(), q, k, v)


def causal(q, k, v, g):
    return gradients((F.scaled_dot_product_attention(q, k, v, is_causal=True) * g).sum(), q, k, v)


def masked(q, k, v, g, mask):
    return gradients((F.scaled_dot_product_attention(q, k, v, mask) * g).sum(), q, k, v)


def dropped(q, k, v, g):
    return gradients((F.scaled_dot_product_attention(q, k, v, dropout_p=0.5) * g).sum(), q, k, v)


def attention_and_loss(q, k, v, g):
    """The backward needs the loss, for which all rows must be there: the scores are computed twice."""
    return gradients(((F.scaled_dot_product_attention(q, k, v) - g) ** 2).sum().log(), q, k, v)


def self_attention(q, k, v, g):
    """One tensor by rows and as a whole."""
    return gradients((F.scaled_dot_product_attention(q, q, q, is_causal=True) * g).sum(), q)


def tiled_and_not(function, arguments, **sizes):
    """(optimized without tiling, with it, arrays): sizes are those of the pass."""
    for x in arguments:
        if x.dtype.is_floating_point:
            x.requires_grad_()
    plain = optimize(weft.trace(function)(*arguments), UNTILED)
    tiled = run_passes(Tiling(**sizes)(plain, CHECKED), CLEAN_UP, CHECKED)
    named = dict(zip(inspect.signature(function).parameters, arguments, strict=True))
    state = np.array([7, 3], np.uint64)  # of random numbers: a param without a name
    return plain, tiled, [named[p.hint].detach().numpy() if p.hint else state for p in plain.params]


def trips(graph):
    """The trip counts of all loops, those inside of others behind them."""
    found = []
    for node in graph.nodes:
        if node.op is OPS.loop:
            numbers = {n.output: n.attrs["value"] for n in graph.nodes if n.op is OPS.constant}
            found.append(numbers[node.inputs[1]] - numbers[node.inputs[0]])
            found += trips(node.regions[0])
    return found


def largest(graph):
    """Elements of the largest value that a node computes, in regions too."""
    inner = [largest(region) for node in graph.nodes for region in node.regions]
    return max([v.type.size for node in graph.nodes for v in node.outputs] + inner, default=0)


@pytest.mark.parametrize("dtype", [weft.float32, weft.float64])
@pytest.mark.parametrize("function", [attention, causal, attention_and_loss, self_attention])
@pytest.mark.parametrize("shape", [(1, 1, 50, 4), (2, 3, 37, 4), (3, 1, 53, 2)])
def test_attention_keeps_no_scores(function, shape, dtype):
    weft.manual_seed(0)
    row = shape[2] * dtype.itemsize
    plain, tiled, arrays = tiled_and_not(
        function, [weft.randn(*shape, dtype=dtype) for _ in range(4)], least_bytes=16 * row, block_bytes=7 * row
    )
    assert largest(tiled) <= max(16 * shape[2], np.prod(shape)) < largest(plain)
    assert_same(plain, tiled, arrays)


def test_one_loop_when_the_backward_waits_for_nothing():
    weft.manual_seed(0)
    sizes = {"least_bytes": 4000, "block_bytes": 8 * 40 * 4}
    once = tiled_and_not(causal, [weft.randn(1, 1, 40, 1) for _ in range(4)], **sizes)[1]
    assert trips(once) == [5]
    twice = tiled_and_not(attention_and_loss, [weft.randn(1, 1, 40, 1) for _ in range(4)], **sizes)[1]
    assert trips(twice) == [5, 5]
    heads = tiled_and_not(causal, [weft.randn(1, 3, 40, 1) for _ in range(4)], **sizes)[1]
    assert trips(heads) == [3, 5]  # by heads, and within a head by rows


@pytest.mark.parametrize("mask", ["truth", "numbers"])
def test_masks(mask):
    weft.manual_seed(0)
    arguments = [weft.randn(2, 2, 41, 4) for _ in range(4)]
    given = weft.rand(41, 41) < 0.7 if mask == "truth" else weft.randn(41, 41)
    plain, tiled, arrays = tiled_and_not(masked, [*arguments, given], least_bytes=8000, block_bytes=1000)
    assert largest(tiled) < largest(plain) and trips(tiled)
    assert_same(plain, tiled, arrays)


@pytest.mark.parametrize("shape", [(0, 2, 8, 4), (1, 1, 1, 4)])
def test_nothing_to_tile(shape):
    plain, tiled, arrays = tiled_and_not(causal, [weft.randn(*shape) for _ in range(4)], least_bytes=1, block_bytes=1)
    assert_same(plain, tiled, arrays)


def cross_entropy(x, w, t):
    return gradients(F.cross_entropy(x @ w.t(), t), x, w)


@pytest.mark.parametrize("classes", [200, 1500])
@pytest.mark.parametrize("rows", [29, 48])
def test_cross_entropy_keeps_no_logits(rows, classes):
    weft.manual_seed(0)
    arguments = [weft.randn(rows, 2), weft.randn(classes, 2), weft.randint(0, classes, (rows,))]
    plain, tiled, arrays = tiled_and_not(cross_entropy, arguments, least_bytes=1000, block_bytes=classes * 4 * 10)
    assert largest(tiled) <= 10 * classes < largest(plain)
    assert len(trips(tiled)) == 1 and trips(tiled)[0] in (2, 3, 4, 6)
    assert_same(plain, tiled, arrays)


def test_dropout_draws_the_same_bits():
    weft.manual_seed(0)
    arguments = [weft.randn(2, 2, 37, 4) for _ in range(4)]
    plain, tiled, arrays = tiled_and_not(dropped, arguments, least_bytes=5000, block_bytes=1000)
    assert largest(tiled) < largest(plain) and trips(tiled) == [2, 2, 2]
    assert_same(plain, tiled, arrays)


def test_scores_that_are_returned_are_left_alone():
    compiled = weft.compile(lambda q, k: (q @ k.t()).softmax(-1))
    compiled(weft.randn(2048, 2), weft.randn(2048, 2))
    assert "loop" not in compiled.ir("optimized")
    assert "f32[2048, 2048]: values of its size are needed as a whole" in compiled.explain()


# Compiled -------------------------------------------------------------------------------------------------------------


def test_compiled_with_a_fraction_of_the_memory():
    weft.manual_seed(0)
    arguments = [weft.randn(1, 2, 2048, 8).requires_grad_(i < 3) for i in range(4)]
    graph = weft.trace(causal)(*arguments)
    arrays = [arguments["qkvg".index(p.hint)].detach().numpy() for p in graph.params]
    plain, tiled = Build(graph, UNTILED), Build(graph, CHECKED)
    for a, b in zip(plain.run(arrays), tiled.run(arrays), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    assert tiled.memory().arena_bytes < plain.memory().arena_bytes / 3
    again = tiled.run(arrays)
    threads = weft.get_num_threads()
    weft.set_num_threads(1)
    try:
        for a, b in zip(tiled.run(arrays), again, strict=True):
            np.testing.assert_array_equal(a, b)
    finally:
        weft.set_num_threads(threads)


def test_in_a_training_loop_and_with_symbolic_sizes(monkeypatch):
    small = tuple(
        replace(step, least_bytes=4000, block_bytes=1200) if isinstance(step, Tiling) else step
        for step in pipeline.PIPELINE
    )

    def train(q, k, v, g):
        for _ in weft.range(3):
            loss, *slopes = causal(q, k, v, g)
            with weft.no_grad():
                for x, slope in zip((q, k, v), slopes, strict=True):
                    x.sub_(0.1 * slope)
        return loss

    def run(sizes):
        compiled, found = weft.compile(train), []
        for n in sizes:
            weft.manual_seed(0)
            arguments = [weft.randn(1, 2, n, 4).requires_grad_(i < 3) for i in range(4)]
            found += [compiled(*arguments), *arguments]
        return [x.detach().numpy().copy() for x in found], compiled

    sizes = (40, 47, 33)
    expected, _ = run(sizes)
    monkeypatch.setattr(pipeline, "PIPELINE", small)
    found, compiled = run(sizes)
    assert "dynamic_update" in compiled.ir("optimized")
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_golden():
    plain, tiled, arrays = tiled_and_not(
        attention_and_loss, [weft.randn(1, 1, 22, 2) for _ in range(4)], least_bytes=1900, block_bytes=800
    )
    text = f"{tiled}\n"
    if os.environ.get("WEFT_UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert_same(plain, tiled, arrays)
