"""Random loop bodies that rebind, swap, delay, write and nest: a compiled loop does what the plain one does, or says
why not.
"""

import re
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft
from weft.runtime.executable import InterpretedExecutable
from weft.tracer.driver import Build

NAMES = "abcd"
SAYS_WHY = r"does not become uniform|which tensor it is depends on|value of an earlier iteration"


class Writer:
    """Statements over four vectors, a pair of them, a table and the index."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        before = [line for line in ("b = a", "c = a * 1") if self.rng.random() < 0.3]
        lines = ["s = (a, b)", *before, "for i in weft.range(n):", *self.body(1), "return a, b, c, d, s[0], s[1], out"]
        self.text = "def f(a, b, c, d, out, n):\n" + textwrap.indent("\n".join(lines), "    ")
        self.trips = int(self.rng.integers(0, 14))

    def body(self, depth):
        return ["    " + line for _ in range(self.rng.integers(1, 6)) for line in self.statement(depth)]

    def statement(self, depth):
        x, y, z = (NAMES[self.rng.integers(len(NAMES))] for _ in range(3))
        c = float(self.rng.integers(1, 8)) / 8
        choices = [
            [f"{x} = {y}"],
            [f"{x} = {y} * {c} + {z}"],
            [f"{x} = {y} * {c} + {z} * i"],
            [f"{x}, {y} = {y}, {x}"],
            [f"{x}, {y}, {z} = {y}, {z}, {x}"],
            [f"{x}.mul_({c}).add_({y} * 0.25)"],
            [f"{x}[1:] = {y}[:-1] * {c}"],
            [f"out[i % 4] = {x}"],
            [f"out[i % 4].mul_({c})"],
            [f"s = (s[1], {x})"],
            [f"{x} = s[0] + {y}"],
            [f"t = {x}", f"{y} = t * {c}"],
        ]
        if depth:
            choices.append([f"for j in weft.range({self.rng.integers(0, 5)}):", *self.body(0)])
        return choices[self.rng.integers(len(choices))]


def run(f, n):
    arguments = [weft.tensor(np.sin(np.arange(3.0) * (k + 1)) + k * 0.5) for k in range(4)]
    arguments.append(weft.zeros(4, 3, dtype=weft.float64))
    return [t.numpy().copy() for t in (*f(*arguments, n), *arguments)]


def check(seed):
    writer, scope = Writer(seed), {"weft": weft}
    exec(compile(writer.text, "<random loop>", "exec"), scope)
    compiled = weft.compile(scope["f"])
    for n in (writer.trips, writer.trips + 1, writer.trips):
        expected = run(scope["f"], n)
        try:
            found = run(compiled, n)
        except weft.TraceError as refused:
            assert re.search(SAYS_WHY, str(refused)), writer.text
            continue
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=f"{n} trips of\n{writer.text}")


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_plain_and_captured_loops_agree(seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Build, "run", lambda self, arrays, _=None: InterpretedExecutable(self.traced).run(arrays))
        check(seed)


@pytest.mark.parametrize("seed", [5, 30, 43, 205, 292, 657, 1100])
def test_plain_and_native_loops_agree(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2300))
def test_many_more(seed):
    check(seed)
