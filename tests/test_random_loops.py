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

    def __init__(self, seed, gradients=False):
        self.rng, self.gradients = np.random.default_rng(seed), gradients
        before = [line for line in ("b = a", "c = a * 1") if self.rng.random() < 0.3]
        if gradients:  # what the loop may write
            before = ["a, b, out = a * 1, b * 1, out * 1", *before]
        self.trips = int(self.rng.integers(0, 9 if gradients else 14))
        loop = f"for i in weft.range({self.trips if gradients else 'n'}):"
        lines = [*before, "s = (a, b)", loop, *self.body(1), "return a, b, c, d, s[0], s[1], out"]
        self.text = "def f(a, b, c, d, out, n):\n" + textwrap.indent("\n".join(lines), "    ")

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
        if self.gradients:
            choices += [
                [f"{x} = {y} * {z} * {c}"],
                [f"{x} = ({y} + i).cos() * {z}.sin()"],
                [f"v = {x}.view(3, 1)[1:]", f"v.mul_({y}[1:].view(2, 1))"],
                ["r = out[i % 4]", f"r.add_({x})", f"{y} = r * {c}"],
                [f"{x} = {y}.detach() * {z}"],
                ["with weft.no_grad():", f"    {x} = {y} * {c}"],
                [f"{x} = weft.cond({y}.sum() > 0.3, lambda p, q: p * q.sin(), lambda p, q: p - q, ({y}, {z}))"],
            ]
        if depth:
            choices.append([f"for j in weft.range({self.rng.integers(0, 5)}):", *self.body(0)])
        return choices[self.rng.integers(len(choices))]


def function(writer):
    scope = {"weft": weft}
    exec(compile(writer.text, "<random loop>", "exec"), scope)
    return scope["f"]


def run(f, n):
    arguments = [weft.tensor(np.sin(np.arange(3.0) * (k + 1)) + k * 0.5) for k in range(4)]
    arguments.append(weft.zeros(4, 3, dtype=weft.float64))
    return [t.numpy().copy() for t in (*f(*arguments, n), *arguments)]


def check(seed):
    writer = Writer(seed)
    f = function(writer)
    compiled = weft.compile(f)
    for n in (writer.trips, writer.trips + 1, writer.trips):
        expected = run(f, n)
        try:
            found = run(compiled, n)
        except weft.TraceError as refused:
            assert re.search(SAYS_WHY, str(refused)), writer.text
            continue
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=f"{n} trips of\n{writer.text}")


def run_gradients(f, wrap, inside):
    """Values, and the gradients of the sum of their squares, taken inside the compiled function or outside."""
    arguments = [weft.tensor(np.sin(np.arange(3.0) * (k + 1)) * 0.5 + k * 0.2) for k in range(4)]
    arguments.append(weft.full((4, 3), 0.3, dtype=weft.float64))
    leaves = [arguments[k].requires_grad_() for k in (0, 1, 4)]

    def loss_of(results):
        return sum((t * t).sum() for t in results)

    def whole():
        results = f(*arguments, 0)
        if inside:
            loss_of(results).backward()
            results = [t.detach() for t in results]
        return results

    results = wrap(whole)()
    if not inside:
        loss_of(results).backward()
    gradients = [weft.zeros_like(t) if t.grad is None else t.grad for t in leaves]  # a zero for a branch not taken
    return [t.detach().numpy().copy() for t in (*results, *gradients, *arguments)]


def check_gradients(seed):
    writer = Writer(seed, gradients=True)
    f = function(writer)
    for inside in (False, True):
        try:
            expected = run_gradients(f, lambda g: g, inside)
        except weft.GradientError:  # the body overwrites what the gradient needs
            return
        try:
            found = run_gradients(f, weft.compile, inside)
        except (weft.TraceError, weft.GradientError) as refused:
            assert re.search(SAYS_WHY + "|modified by an inplace operation", str(refused)), writer.text
            continue
        for a, b in zip(found, expected, strict=True):
            scale = max(1.0, np.abs(b).max())
            np.testing.assert_allclose(a / scale, b / scale, rtol=1e-8, atol=1e-10, err_msg=writer.text)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_gradients_through_plain_and_captured_loops_agree(seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Build, "run", lambda self, arrays, _=None: InterpretedExecutable(self.optimized).run(arrays))
        check_gradients(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400))
def test_many_more_gradients(seed):
    check_gradients(seed)


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
