"""Programs on the disk: what one build made the next one finds, the same to the bit; and nothing else is found."""
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import weft
from weft.ir.errors import IndexRangeError
from weft.passes.options import Options
from weft.runtime import cache
from weft.tracer.driver import Build

SPEC = importlib.util.spec_from_file_location("corpus", Path(__file__).with_name("corpus.py"))
corpus = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(corpus)

PLAIN = Options()
"""Without verifying, for which every stage has to be made."""


@pytest.fixture
def codes(monkeypatch, tmp_path):
    """A cache of this test's own."""
    own = cache.CodeCache(tmp_path)
    monkeypatch.setattr("weft.runtime.stored.code_cache", lambda: own)
    monkeypatch.setattr("weft.tracer.driver.code_cache", lambda: own)
    return own


def was_found(build):
    """Whether the program came from the disk."""
    assert build.executable
    return "optimized" not in build.__dict__


def results(build, arrays):
    return build.executable([a.copy() for a in arrays])


@pytest.mark.parametrize("name", corpus.PROGRAMS)
def test_what_was_made_is_found(name, codes, monkeypatch):
    seen, original = [], Build.run

    def spy(self, arrays, progress=None):
        seen.append((self, [np.array(a, p.type.dtype.numpy) for a, p in zip(arrays, self.traced.params, strict=True)]))
        return original(self, arrays, progress)

    monkeypatch.setattr(Build, "run", spy)
    weft.manual_seed(0)
    function, arguments, _ = corpus.PROGRAMS[name]()
    weft.compile(function)(*arguments)
    for build, arrays in seen:
        first, second = Build(build.traced, PLAIN), Build(build.traced, PLAIN)
        expected = results(first, arrays)
        assert (was_found(first), was_found(second)) == (False, build.sizes is None)
        for a, b in zip(results(second, arrays), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        assert str(second.executable.plan) == str(first.executable.plan)
        assert second.explain().rpartition("\n")[0] == first.explain().rpartition("\n")[0]


@pytest.fixture
def taking():
    """The graph of a program that may fail, and what it takes: places in x, and x."""
    fn = weft.compile(lambda i, x: x[i] + 1)
    i, x = weft.tensor([3, 0]), weft.arange(4.0)
    fn(i, x)
    return fn._program().build.traced, [i.numpy(), x.numpy()]


def test_errors_name_the_line(codes, taking):
    graph, (i, x) = taking
    texts = []
    for found in (False, True):
        build = Build(graph, PLAIN)
        assert was_found(build) is found
        with pytest.raises(IndexRangeError) as caught:
            build.executable([i + 7, x])
        texts.append((str(caught.value), caught.value.__notes__))
    assert texts[0] == texts[1] and "test_stored.py" in texts[0][1][0]


def test_other_options_make_another_program(codes, taking):
    graph, _ = taking
    assert not was_found(Build(graph, PLAIN))
    assert not was_found(Build(graph, Options(verify=True)))
    assert not was_found(Build(graph, Options(disabled=frozenset(["cse"]))))
    assert was_found(Build(graph, PLAIN))


def test_a_kernel_that_is_gone_is_compiled_again(codes, taking, monkeypatch):
    graph, arrays = taking
    expected = results(Build(graph, PLAIN), arrays)
    for entry in sorted(codes.disk.folder.rglob("*.o")):
        if b"\x7fELF" in entry.read_bytes():
            entry.unlink()
    codes._known.clear()
    build = Build(graph, PLAIN)
    assert not was_found(build)
    np.testing.assert_array_equal(results(build, arrays)[0], expected[0])


PROGRAM = """
import weft

@weft.compile
def f(x, w):
    y = weft.tanh(x @ w)
    for i in weft.range(3):
        y = y * 0.5 + x.sum()
    return y

print(f(weft.ones(3, 2), weft.ones(2, 2)).tolist(), "optimize" in f.explain().splitlines()[-1])
"""


def test_the_next_process_plans_nothing(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "WEFT_VERIFY"} | {"WEFT_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    (first, made), (second, found) = (r.stdout.strip().rsplit(" ", 1) for r in runs)
    assert first == second and (made, found) == ("True", "False")
