"""weft.checkpoint: the same values and gradients as without it, with less kept between forward and backward."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import weft
from weft import nn

LAYERS, ROWS, SIZE = 4, 256, 128


def block(h, w):
    h = nn.functional.dropout((h @ w).tanh(), 0.25)
    return h * h.sigmoid() + h


def direct(function, *args):
    return function(*args)


def trained(call, compiled, steps=0):
    """(arena and saved bytes or None, loss and gradients, the next random numbers) of a few blocks."""
    weft.manual_seed(1)
    weights = [weft.randn(SIZE, SIZE).mul_(0.1).requires_grad_() for _ in range(LAYERS)]
    x = weft.randn(ROWS, SIZE)

    def once(x):
        h = x
        for w in weights:
            h = call(block, h, w)
        loss = h.square().mean()
        loss.backward()
        return loss

    def loop(x):
        for _ in weft.range(steps):
            for w in weights:
                w.grad = None
            loss = once(x)
            with weft.no_grad():
                for w in weights:
                    w.sub_(w.grad)
        return loss

    run = loop if steps else once
    run = weft.compile(run) if compiled else run
    loss = run(x)
    use = run.memory() if compiled else None
    return use, [loss.detach().numpy(), *(w.grad.numpy() for w in weights)], weft.rand(4).numpy()


def assert_close(a, b, tolerance):
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(q, p, rtol=tolerance, atol=tolerance)


def test_eager_gradients_and_random_numbers_are_the_same():
    _, expected, numbers = trained(direct, False)
    _, found, same = trained(weft.checkpoint, False)
    for a, b in zip([*expected, numbers], [*found, same], strict=True):
        np.testing.assert_array_equal(b, a)


@pytest.mark.parametrize("steps", [0, 5])
def test_compiled_it_needs_less_memory_for_the_same_gradients(steps):
    plain, expected, numbers = trained(direct, True, steps)
    use, found, same = trained(weft.checkpoint, True, steps)
    assert_close(expected, found, 1e-5)
    np.testing.assert_array_equal(numbers, same)
    assert use.saved_bytes <= (LAYERS - 1) * 4 * ROWS * SIZE < plain.saved_bytes / 2
    assert use.arena_bytes < plain.arena_bytes / 2
    assert not [c for c in use.copies if c.nbytes > 64]


def test_compiled_agrees_with_eager():
    assert_close(trained(weft.checkpoint, False)[1], trained(weft.checkpoint, True)[1], 1e-4)


def test_a_backward_from_outside_of_the_compiled_call():
    forward = weft.compile(lambda x: weft.checkpoint(lambda v: (v.exp() * v).sin(), x).sum())
    gradients = []
    for function in (forward, lambda x: (x.exp() * x).sin().sum()):
        x = weft.linspace(-1, 1, 50).requires_grad_()
        function(x).backward()
        gradients.append(x.grad.numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_nothing_inside_is_alive_between_forward_and_backward():
    seen = []

    def inside(x):
        y = x.exp()
        seen.append(weakref.ref(y._storage))
        return (y * y).sin().sum()

    x = weft.ones(10, requires_grad=True)
    loss = weft.checkpoint(inside, x)
    gc.collect()
    assert len(seen) == 1 and seen[0]() is None
    loss.backward()
    gc.collect()
    assert len(seen) == 2 and seen[1]() is None
    np.testing.assert_allclose(x.grad.numpy(), np.cos(np.exp(2)) * 2 * np.exp(2) * np.ones(10), rtol=1e-4)


def test_captured_parameters_structures_and_keywords():
    w = weft.tensor([2.0, 3.0], requires_grad=True)
    x = weft.tensor([1.0, -1.0], requires_grad=True)

    def pair(state, *, scale):
        return {"a": (state["x"] * w).exp(), "b": [state["x"].sin() * scale]}

    out = weft.checkpoint(pair, {"x": x}, scale=4.0)
    (out["a"].sum() + out["b"][0].sum()).backward()
    np.testing.assert_allclose(w.grad.numpy(), [np.exp(2.0), -np.exp(-3.0)], rtol=1e-6)
    slopes = np.array([2 * np.exp(2.0), 3 * np.exp(-3.0)]) + 4 * np.cos(1)
    np.testing.assert_allclose(x.grad.numpy(), slopes, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_second_derivatives(compiled):
    def curvature(x):
        y = weft.checkpoint(lambda v: (v * v).exp().sin(), x).sum()
        (slope,) = weft.autograd.grad(y, x, create_graph=True)
        (second,) = weft.autograd.grad(slope.sum(), x)
        return second

    x = weft.tensor([0.3, 0.5, -0.7], dtype=weft.float64, requires_grad=True)
    found = (weft.compile(curvature) if compiled else curvature)(x).detach().numpy()

    def slope(v):
        return np.cos(np.exp(v * v)) * np.exp(v * v) * 2 * v

    v, h = x.detach().numpy(), 1e-6
    np.testing.assert_allclose(found, (slope(v + h) - slope(v - h)) / (2 * h), rtol=1e-7)


def test_backward_twice_with_a_retained_graph():
    x = weft.ones(3, requires_grad=True)
    y = weft.checkpoint(lambda v: v.exp().exp(), x).sum()
    y.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * once)
    with pytest.raises(weft.GradientError, match="second time"):
        y.backward()


def test_checkpoints_nest_and_changes_in_place_inside_are_fine():
    def inner(v):
        y = v * 3
        y.mul_(v)
        return y.cos()

    def outer(v):
        return weft.checkpoint(inner, v).sin()

    x = weft.tensor([0.5, 1.0], requires_grad=True)
    weft.checkpoint(outer, x).sum().backward()
    again = weft.tensor([0.5, 1.0], requires_grad=True)
    outer(again).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), again.grad.numpy())


def test_without_gradients_it_is_a_call():
    calls = []
    with weft.no_grad():
        assert weft.checkpoint(lambda v: (calls.append(1), v + 1)[1], weft.ones(1)).item() == 2
    assert calls == [1]


def test_an_argument_changed_meanwhile_is_an_error():
    x = weft.ones(3, requires_grad=True)
    data = weft.ones(3)
    y = weft.checkpoint(lambda a, b: (a * b).exp(), x, data).sum()
    data.zero_()
    with pytest.raises(weft.GradientError, match="checkpoint: an argument"):
        y.backward()


def test_a_function_that_changes_its_mind_is_an_error():
    calls = []

    def fickle(v):
        calls.append(1)
        return v.exp() if len(calls) == 1 else v.exp().exp()

    y = weft.checkpoint(fickle, weft.ones(3, requires_grad=True)).sum()
    with pytest.raises(weft.GradientError, match="the same every time"):
        y.backward()
