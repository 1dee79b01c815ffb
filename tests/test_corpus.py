"""A corpus of programs: eager, interpreted before and after every pass, and compiled agree; texts parse back; dumps and
results are the same in another process and for another number of threads."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import weft
from weft.ir import interpret, parse, same_graph
from weft.passes.options import Options
from weft.passes.pipeline import PIPELINE, optimize
from weft.tracer.driver import Build

PATH = Path(__file__).with_name("corpus.py")
SPEC = importlib.util.spec_from_file_location("corpus", PATH)
corpus = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(corpus)

EXACT = {
    *("chain", "integers", "selections", "sorting", "indexing", "views", "writes_through_views", "stencil"),
    *("rebinding_loop", "arguments_of_one_memory", "two_buffers", "delays_and_rows"),
}
"""Programs of + - * / sqrt and moves only: equal to the bit, but for their sums."""


def arrays_of(value):
    """Every tensor in a result, as arrays."""
    if isinstance(value, weft.Tensor):
        return [value.detach().numpy().copy()]
    return [a for part in value for a in arrays_of(part)]


def run(make, wrap):
    """What a program gives and leaves behind, from the same seed."""
    weft.manual_seed(0)
    function, arguments, state = make()
    result = wrap(function)(*arguments)
    return arrays_of(result) + arrays_of([s() if callable(s) else s for s in state])


def assert_close(found, expected, name):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype.kind != "f" or (name in EXACT and a.size > 1):
            np.testing.assert_array_equal(a, b)
        else:
            rtol = 1e-5 if a.dtype == np.float32 else 1e-12
            scale = np.max(np.abs(b), initial=0.0)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


def catch(patch):
    """The builds that run from now on and their inputs, before they run."""
    seen, original = [], Build.run

    def spy(self, arrays, progress=None):
        seen.append((self, [np.array(a, p.type.dtype.numpy) for a, p in zip(arrays, self.traced.params, strict=True)]))
        return original(self, arrays, progress)

    patch.setattr(Build, "run", spy)
    return seen


@pytest.fixture
def caught(monkeypatch):
    return catch(monkeypatch)


@pytest.fixture(scope="module")
def traced():
    """The graphs of all programs, inputs for them, and what they give."""
    with pytest.MonkeyPatch.context() as patch:
        seen = catch(patch)
        for make in corpus.PROGRAMS.values():
            run(make, weft.compile)
    return [(build.traced, arrays, results_of(build.traced, arrays)) for build, arrays in seen]


def results_of(graph, arrays):
    return [np.asarray(r) for r in interpret(graph, arrays)]


@pytest.mark.parametrize("name", corpus.PROGRAMS)
def test_all_ways_agree(name, caught):
    make = corpus.PROGRAMS[name]
    expected = run(make, lambda f: f)
    assert_close(run(make, weft.compile), expected, name)
    assert caught
    for build, arrays in caught:
        reference = results_of(build.traced, arrays)

        def check(_, graph, arrays=arrays, reference=reference):
            assert_close(results_of(graph, arrays), reference, "")
            assert same_graph(parse(str(graph)), graph)

        optimize(build.traced, Options(verify=True), check)
        check("trace", build.traced)
        check("fusion", build.fused)


@pytest.mark.parametrize("missing", sorted({step.name for step in PIPELINE}))
def test_the_meaning_without_a_pass(missing, traced):
    for graph, arrays, expected in traced:
        other = optimize(graph, Options(verify=True, disabled=frozenset([missing])))
        assert_close(results_of(other, arrays), expected, "")


SOME = ["gradient_through_a_loop", "writes_through_views", "rosenbrock_loop"]


@pytest.mark.parametrize("name", [p if p in SOME else pytest.param(p, marks=pytest.mark.slow) for p in corpus.PROGRAMS])
def test_any_pass_may_be_missing(name, caught):
    run(corpus.PROGRAMS[name], weft.compile)
    for build, arrays in caught:
        reference = Build(build.traced).executable([a.copy() for a in arrays])
        for missing in dict.fromkeys(step.name for step in PIPELINE):
            other = Build(build.traced, Options(verify=True, disabled=frozenset([missing])))
            assert_close(other.executable([a.copy() for a in arrays]), reference, "")


def test_dumps_are_the_same_in_another_process():
    texts = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, str(PATH)], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    assert texts[0].count("\n") == len(corpus.PROGRAMS)
    assert texts[0] == texts[1]


def test_threads_change_no_bit():
    def large(x, y):
        """Kernels and products that are worth several threads."""
        h = (x @ y).tanh()
        values = [h.softmax(1).sum(0), (h * h).sum(), h.cumsum(1)[:, -1], x.sort(1)[0][:, 3], h.std()]
        return *values, (x.exp() * 2 - x).mean(), (y @ h[:100].t()).amax(1), x.t().contiguous().sum(1)

    x, y = (weft.linspace(-2, 3, 300 * 400).sin().view(*shape) for shape in ((300, 400), (400, 300)))
    compiled = weft.compile(large)
    before, results = weft.get_num_threads(), []
    try:
        for threads in (1, 2):
            weft.set_num_threads(threads)
            results.append([a for make in corpus.PROGRAMS.values() for a in run(make, weft.compile)])
            results[-1] += arrays_of(compiled(x, y))
    finally:
        weft.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
