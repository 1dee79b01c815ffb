"""The short way into a program: it is taken, it sees whatever the general way sees, and it leaks nothing."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import weft
from weft.ir.errors import GradientError
from weft.tracer import short_record
from weft.tracer.compile import CompiledFunction

SCALE = 2.0
FACTORS = [1.0, 2.0]


class Generally(Exception):
    """A call went the general way."""


@pytest.fixture
def short_only(monkeypatch):
    """From the call of the result on, the general way is an error."""

    def refuse(*_):
        raise Generally

    return lambda: monkeypatch.setattr(CompiledFunction, "_find", refuse)


def ramp(*shape):
    return weft.arange(float(np.prod(shape))).reshape(shape).clone()


def network():
    weft.manual_seed(0)
    model = weft.nn.Sequential(weft.nn.Linear(3, 4), weft.nn.ReLU(), weft.nn.Linear(4, 2))
    return model, weft.optim.Adam(model.parameters(), lr=0.01)


def training(model, optimizer):
    def step(x, y):
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


def descend(x, rate, count):
    for _ in weft.range(count):
        loss = ((x - 3.0) ** 2).sum()
        loss.backward()
        with weft.no_grad():
            x.sub_(rate * x.grad)
            x.grad.zero_()


def leaf(*values):
    return weft.tensor(values, requires_grad=True)


CALLS = {
    "tensors": (lambda a, b: a * b + a, lambda: (ramp(4), ramp(4))),
    "numbers": (lambda a, rate, n: a * rate + n, lambda: (ramp(3), random.random(), random.randrange(1 << 50))),
    "nested": (lambda p, q: [p[0] + q[0][0], (q[1], p[1])], lambda: ((ramp(2), 1.5), [(ramp(2),), 2.5])),
    "dicts": (lambda d: d["x"] * d["y"][0] + d["z"], lambda: ({"x": ramp(3), "y": [ramp(3)], "z": 1.5},)),
    "same twice": (lambda a, b, c: a + b * c, lambda: (lambda a: (a, a, ramp(3)))(ramp(3))),
    "no arguments": (lambda: FACTORS[0] * SCALE + weft.zeros(2), lambda: ()),
    "views": (lambda a, b: a @ b, lambda: (ramp(6, 2)[2:4], ramp(6, 2)[1:3])),
    "transposed": (lambda a: a.sum(0), lambda: (ramp(3, 4).t(),)),
    "flags": (lambda a, up, mode: a + 1 if up and mode == "add" else a - 1, lambda: (ramp(3), True, "add")),
    "written": (lambda a: a.add_(1.0), lambda: (ramp(3),)),
    "number out": (lambda a, n: (n + 1, a.sum()), lambda: (ramp(3), 3)),
    "dict out": (lambda a: {"twice": a + a, "it": a}, lambda: (ramp(3),)),
    "gradient": (lambda w: (w * w).sum(), lambda: (leaf(1.0, 2.0),)),
    "gradient left behind": (descend, lambda: (leaf(0.0, 1.0), 0.1, 5)),
}


def plain(value):
    """What can be compared of a result."""
    if isinstance(value, weft.Tensor):
        return value.tolist(), str(value.dtype), value.requires_grad, plain(value.grad)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return type(value)(map(plain, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("name", CALLS)
def test_it_is_taken_and_says_the_same(name, short_only):
    """With arguments that are new in every call, and with the same ones again."""
    function, arguments = CALLS[name]
    compiled = weft.compile(function, dynamic=False)
    random.seed(1)
    for _ in range(2):
        compiled(*arguments())
    short_only()
    for _ in range(3):
        seed = random.random()
        results = []
        for call in (function, compiled):
            random.seed(seed)
            results.append([])
            for given in (arguments(), arguments()):
                results[-1].append((plain(call(*given)), plain(list(given))))
        assert results[0] == results[1]


def test_training_steps(short_only):
    """Captured modules and optimisers; batches that are slices of a data set, and others."""
    seen = []
    x, y = ramp(12, 3) / 30, ramp(12, 2) / 20
    for compiled in (False, True):
        model, optimizer = network()
        step = training(model, optimizer)
        step(x[:4], y[:4])
        if compiled:
            step = weft.compile(step)
        losses = []
        for k in range(12):
            if compiled and k == 3:
                short_only()
            begin = k % 3 * 4
            losses.append(step(x[begin:][:4], y[begin:][:4]).item())
        losses.append(step(ramp(4, 3), ramp(4, 2)).item())
        seen.append([losses, *(p.tolist() for p in model.parameters())])
    for a, b in zip(*seen, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_another_learning_rate_needs_no_other_draft():
    model, optimizer = network()
    step, x, y = weft.compile(training(model, optimizer)), ramp(4, 3), ramp(4, 2)
    for _ in range(3):
        step(x, y)
    short = step._last.short
    before = [p.tolist() for p in model.parameters()]
    optimizer.param_groups[0]["lr"] = 0.0
    step(x, y)
    assert step._last.short is short and [p.tolist() for p in model.parameters()] == before
    optimizer.param_groups[0]["lr"] = 0.1
    step(x, y)
    assert step._last.short is short and [p.tolist() for p in model.parameters()] != before


CHANGES = {
    "dtype": lambda a, w: (a.double(), w),
    "shape": lambda a, w: (weft.cat([a, a]), w),
    "layout": lambda a, w: (a.t(), w),
    "requires grad": lambda a, w: (a.clone().requires_grad_(True), w),
    "requires no grad": lambda a, w: (a, w.detach()),
    "no leaf": lambda a, w: (a, w * 1.0),
    "view of a leaf": lambda a, w: (a, weft.cat([w, w]).detach().requires_grad_(True)[:2]),
    "frozen": lambda a, w: (weft.from_numpy(np.lib.stride_tricks.as_strided(a.numpy(), writeable=False)), w),
    "share": lambda a, w: (a, a.requires_grad_(True)),
    "gradient": lambda a, w: (a, (setattr(w, "grad", weft.ones(2, 2)), w)[1]),
    "data": lambda a, w: (a, (setattr(w, "data", weft.ones(2, 2)), w)[1]),
    "no tensor": lambda a, w: (1.0, w),
    "none": lambda a, w: (None, w),
    "too few": lambda a, w: (a,),
    "too many": lambda a, w: (a, w, a),
    "numpy": lambda a, w: (a.numpy(), w),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("fresh", [True, False])
def test_whatever_is_different_is_seen(name, fresh):
    """Between two calls of the same kind: results, errors, gradients and written arguments are those of eager mode."""

    def function(a, w):
        b = (a * w).sum() if a.requires_grad or w.requires_grad else a + w
        if w.is_leaf and w.requires_grad:
            b.backward()
        with weft.no_grad():
            a.add_(1.0)
        return b.detach()

    def outcome(call, given):
        try:
            return plain(call(*given)), plain(list(given))
        except Exception as failure:
            return type(failure)

    def arguments():
        return ramp(2, 2), ramp(2, 2).requires_grad_(True)

    compiled, eager, both = weft.compile(function), function, []
    for call in (eager, compiled):
        usual = arguments()
        for _ in range(3):
            usual = arguments() if fresh else usual
            call(*usual)
        changed = CHANGES[name](*(arguments() if fresh else usual))
        both.append([outcome(call, changed), outcome(call, arguments()), outcome(call, usual)])
    if name in ("numpy", "frozen"):  # only compiled functions refuse the one, and refuse the other before they begin
        both = [outcomes[1:2] for outcomes in both]
    assert both[0] == both[1]


def test_state_outside_is_seen():
    """Globals, cells, lists, no_grad; and the mode of gradients in another thread."""
    global SCALE
    offset, layers = weft.ones(2), [1.0, 2.0]

    @weft.compile
    def function(a):
        return a * SCALE * sum(layers) + offset

    a = leaf(1.0, 1.0)

    def value():
        return function(a).tolist()

    assert value() == value() == [7.0, 7.0]
    SCALE = 3.0
    assert value() == [10.0, 10.0]
    layers[0] = 2.0
    assert value() == [13.0, 13.0]
    offset = weft.zeros(2)
    assert value() == [12.0, 12.0]
    assert function(a).requires_grad
    with weft.no_grad():
        assert not function(a).requires_grad
        seen = []
        thread = threading.Thread(target=lambda: seen.append(function(a).requires_grad))
        thread.start()
        thread.join()
        assert seen == [True]
    SCALE = 2.0


def test_names_of_arguments(short_only):
    """Given in any order; other orders and other names are other calls."""
    f = weft.compile(lambda a, b=1.0, *, c=None: a * b if c is None else a * b + c)
    for _ in range(2):
        f(ramp(2), c=ramp(2), b=3.0)
        f(a=ramp(2))
    short_only()
    assert f(ramp(2), c=ramp(2), b=2.0).tolist() == [0, 3] and f(a=ramp(2)).tolist() == [0, 1]
    for given in ({"b": 3.0}, {"b": 2.0, "c": ramp(2)}, {"c": ramp(2), "a": ramp(2)}):
        with pytest.raises(Generally):
            f(**given)


def test_kinds_of_calls_in_turn(short_only):
    """A training step and a last, smaller batch, whose effects make the other's record stale; with and without grad."""
    model, optimizer = network()
    step, predict = weft.compile(training(model, optimizer), dynamic=False), weft.compile(model, dynamic=False)
    x, y = ramp(7, 3), ramp(7, 2)

    def turn():
        step(x[:4], y[:4])
        step(x[4:], y[4:])
        predict(x)
        with weft.no_grad():
            predict(x)

    for _ in range(3):
        turn()
    short_only()
    turn()


def test_inside_another_compiled_function():
    inner = weft.compile(lambda a: a + 1)
    outer = weft.compile(lambda a: inner(a) * 2)
    a = ramp(2)
    assert inner(a).tolist() == inner(a).tolist() == [1, 2]
    assert outer(a).tolist() == outer(a).tolist() == [2, 4]
    assert "mul" in outer.ir() and outer.traces == 1


def test_the_last_program_is_that_of_the_last_call():
    f = weft.compile(lambda a, scale=1.0: a * scale)
    for _ in range(4):
        f(ramp(2))
        assert "%scale" not in f.ir()
        f(ramp(2), scale=3.0)
        assert "%scale" in f.ir()


def test_a_graph_that_was_freed_is_refused():
    @weft.compile
    def step(w):
        loss = (w * w).sum()
        loss.backward()
        return loss

    w = leaf(1.0)
    for _ in range(3):
        with pytest.raises(GradientError, match="freed"):
            step(w).backward()


def test_errors_leave_it_usable(short_only):
    pick = weft.compile(lambda a, i: a[i] * 2)
    a, good, bad = ramp(3), weft.tensor([0, 2]), weft.tensor([0, 3])
    for _ in range(2):
        pick(a, good)
    short_only()
    for _ in range(3):
        with pytest.raises(IndexError):
            pick(a, bad)
        assert pick(a, good).tolist() == [0, 4]


def test_a_long_run_is_interrupted(short_only):
    @weft.compile
    def count(x, n):
        for _ in weft.range(n):
            x = x + 1
        return x

    for n in (3, 4):
        count(weft.zeros(2), n)
    short_only()
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        count(weft.zeros(2), 1 << 58)
    timer.join()
    assert count(weft.zeros(2), 4).tolist() == [4, 4]


def test_threads_call_one_program():
    """Brief programs and long ones; while another thread changes what they look at."""
    model, optimizer = network()
    step = weft.compile(training(model, optimizer))
    small = weft.compile(lambda a, b: a * b + a)
    long = weft.compile(lambda a: (a.reshape(256, 256) @ a.reshape(256, 256)).sum())
    a, b, big = ramp(4), ramp(4), weft.ones(256 * 256)
    expected, failures = (a * b + a).tolist(), []
    x, y = ramp(4, 3), ramp(4, 2)
    step(x, y)

    def work():
        try:
            for k in range(60):
                if small(a if k % 3 else ramp(4), b).tolist() != expected or long(big).item() != 256.0**3:
                    failures.append("wrong")
                with weft.no_grad():
                    small(a, b)
        except Exception as failure:
            failures.append(repr(failure))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for k in range(100):
        optimizer.param_groups[0]["lr"] = 0.01 / (k + 1)
        step(x, y)
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_calls_on():
    small, a = weft.compile(lambda a: a + 1), ramp(3)
    for _ in range(2):
        small(a)
    child = os.fork()
    if child == 0:
        os._exit(0 if small(a).tolist() == small(ramp(3)).tolist() == [1, 2, 3] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_leaks():
    """References and memory after many calls are what they were."""
    model, optimizer = network()
    step = weft.compile(training(model, optimizer))
    nested = weft.compile(lambda pair, n: ([pair[0] + 1, None, pair[0]], n + 1))
    run, x, y = weft.compile(descend), ramp(4, 3), ramp(4, 2)
    pick, a, bad = weft.compile(lambda a, i: a[i]), ramp(3), weft.tensor([3])

    def everything():
        step(x, y)
        step(ramp(4, 3), y[:])
        nested((a, 1.5), 7)
        nested((ramp(3)[:], 1.5), 7)
        run(leaf(1.0, 2.0), 0.1, 10)
        with pytest.raises(IndexError):
            pick(a, bad)

    watched = [None, True, False, 1, 7, np.ndarray, weft.Tensor, np.dtype(np.float32), a, a._array, x]
    watched += [*model.parameters()]
    watched += [p.grad for p in model.parameters() if p.grad is not None]
    tracemalloc.start()
    sizes, counts = [], []
    for _ in range(3):
        for _ in range(300):
            everything()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        counts.append([sys.getrefcount(thing) for thing in watched])
    tracemalloc.stop()
    assert sizes[2] - sizes[1] < 10_000  # 300 lost objects are more
    assert all(abs(a - b) < 100 for a, b in zip(*counts[1:], strict=True))


def test_arguments_are_not_kept_alive():
    f = weft.compile(lambda pair: pair[0] + pair[1])
    f((ramp(3), ramp(3)))  # the program keeps what it was traced with
    a, b = ramp(3), ramp(3)
    for _ in range(3):
        f((a, b))
    gone = weakref.ref(a), weakref.ref(a._array), weakref.ref(b)
    del a, b
    assert [r() for r in gone] == [None, None, None]
    assert f((ramp(3), ramp(3))).tolist() == [0, 2, 4]


def test_a_python_that_keeps_objects_otherwise(monkeypatch):
    """Where native code does not know the objects, all calls go the general way."""
    monkeypatch.setattr(short_record, "vocabulary", lambda: None)
    monkeypatch.setattr("weft.tracer.short_call.vocabulary", lambda: None)
    f = weft.compile(lambda a, n: a * n)
    assert f(ramp(3), 2.0).tolist() == f(ramp(3), 2.0).tolist() == [0, 2, 4]
    assert f._short is None
