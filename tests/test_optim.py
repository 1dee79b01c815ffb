"""Optimisers: several steps against torch's formulas in NumPy float64, against torch itself, and saving and loading."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import numpy as np
import pytest

import weft
from weft import optim

START = [np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), np.array([0.1, -0.2, 0.3]), np.array(0.7)]
STEPS = 6


def loss_of(params: list[Any]) -> Any:
    """A function with curvature that depends on the place, and gradients of many sizes."""
    matrix, vector, scalar = params
    return ((matrix * vector - scalar) ** 2).sum() + (vector**2 * vector).sum() + 0.001 * scalar


def gradients(params: list[np.ndarray]) -> list[np.ndarray]:
    matrix, vector, scalar = params
    r = 2 * (matrix * vector - scalar)
    return [r * vector, (r * matrix).sum(0) + 3 * vector**2, -r.sum() + 0.001]


def sgd(
    p: np.ndarray,
    g: np.ndarray,
    s: dict[str, Any],
    t: int,
    lr=0.01,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    maximize=False,
) -> np.ndarray:
    g = (-g if maximize else g) + weight_decay * p
    if momentum:
        s["b"] = g if t == 1 else momentum * s["b"] + (1 - dampening) * g
        g = g + momentum * s["b"] if nesterov else s["b"]
    return p - lr * g


def adam(
    p: np.ndarray,
    g: np.ndarray,
    s: dict[str, Any],
    t: int,
    lr=0.001,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
    decoupled=False,
) -> np.ndarray:
    g = -g if maximize else g
    p, g = (p * (1 - lr * weight_decay), g) if decoupled else (p, g + weight_decay * p)
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    s["top"] = np.maximum(s.get("top", 0), s["v"]) if amsgrad else s["v"]
    return p - lr / (1 - betas[0] ** t) * s["m"] / (np.sqrt(s["top"] / (1 - betas[1] ** t)) + eps)


def adamw(*args: Any, weight_decay: float = 0.01, **options: Any) -> np.ndarray:
    return adam(*args, weight_decay=weight_decay, decoupled=True, **options)


RULES = [
    ("SGD", sgd, {"lr": 0.01}),
    ("SGD", sgd, {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    ("SGD", sgd, {"lr": 0.01, "momentum": 0.9}),
    ("SGD", sgd, {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", sgd, {"lr": 0.01, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    ("Adam", adam, {}),
    ("Adam", adam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", adam, {"lr": 0.05, "amsgrad": True, "maximize": True, "betas": (0.5, 0.6)}),
    ("AdamW", adamw, {"lr": 0.02}),
    ("AdamW", adamw, {"lr": 0.02, "weight_decay": 0.3, "amsgrad": True}),
]
every_rule = pytest.mark.parametrize(
    ("name", "rule", "options"), RULES, ids=[f"{n} {' '.join(o)}" for n, _, o in RULES]
)


def start(dtype: Any) -> list[Any]:
    return [weft.tensor(p, dtype=dtype, requires_grad=True) for p in START]


def train(optimizer: optim.Optimizer, params: list[Any], steps: int) -> None:
    for _ in weft.range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()


@every_rule
@pytest.mark.parametrize(("dtype", "accuracy"), [("float32", 5e-6), ("float64", 1e-13)])
def test_formula(name, rule, options, dtype, accuracy) -> None:
    params = start(getattr(weft, dtype))
    train(getattr(optim, name)(params, **options), params, STEPS)
    expected, states = list(START), [{} for _ in START]
    for t in range(1, STEPS + 1):
        found = gradients(expected)
        expected = [rule(p, g, s, t, **options) for p, g, s in zip(expected, found, states, strict=True)]
    for p, e in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e, rtol=accuracy, atol=accuracy)


@every_rule
def test_compiled_loop_agrees_with_eager(name, rule, options) -> None:
    """One native loop of six steps, and six more after the learning rate changed, which must not trace again."""
    eager, compiled = start(weft.float32), start(weft.float32)
    loop = weft.compile(train)
    for params, run in ((eager, train), (compiled, loop)):
        optimizer = getattr(optim, name)(params, **options)
        run(optimizer, params, STEPS)
        run(optimizer, params, STEPS)
        traces = loop.traces
        optimizer.param_groups[0]["lr"] *= 0.5
        run(optimizer, params, STEPS)
        assert loop.traces == traces
    for p, e in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e.detach().numpy(), rtol=2e-5, atol=1e-6)


@every_rule
def test_compiled_step_agrees_with_eager(name, rule, options) -> None:
    """One step at a time; the optimiser's state, made lazily, is found by itself."""
    eager, compiled = start(weft.float32), start(weft.float32)
    step = weft.compile(train)
    for params, run in ((eager, train), (compiled, step)):
        optimizer = getattr(optim, name)(params, **options)
        for _ in range(STEPS):
            run(optimizer, params, 1)
    assert step.traces <= 2
    for p, e in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e.detach().numpy(), rtol=2e-5, atol=1e-6)


@every_rule
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_same_as_torch(name, rule, options) -> None:
    import torch

    params = start(weft.float32)
    theirs = [torch.tensor(p, dtype=torch.float32, requires_grad=True) for p in START]
    ours = getattr(optim, name)(params, **options)
    other = getattr(torch.optim, name)(theirs, **options)
    train(ours, params, STEPS)
    train(other, theirs, STEPS)
    for p, e in zip(params, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e.detach().numpy(), rtol=2e-6, atol=1e-7)
    saved, expected = ours.state_dict(), other.state_dict()
    assert saved["state"].keys() == expected["state"].keys()
    for k, entries in expected["state"].items():
        assert saved["state"][k].keys() == {n for n, v in entries.items() if v is not None}
        for entry, value in saved["state"][k].items():
            np.testing.assert_allclose(value.numpy(), entries[entry].numpy(), rtol=2e-5, atol=1e-7)


@every_rule
def test_saved_state_continues(name, rule, options) -> None:
    """Three steps, saved and loaded into a new optimiser with other options, three more: the same as six steps."""
    straight, resumed = start(weft.float32), start(weft.float32)
    train(getattr(optim, name)(straight, **options), straight, 6)
    first = getattr(optim, name)(resumed, **options)
    train(first, resumed, 3)
    second = getattr(optim, name)(resumed, lr=9.0)
    saved = copy.deepcopy(first.state_dict())
    second.load_state_dict(saved)
    train(second, resumed, 3)
    assert [p.tolist() for p in resumed] == [p.tolist() for p in straight]
    assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"]


def test_groups_have_options_of_their_own() -> None:
    a, b, c = start(weft.float32)
    optimizer = optim.SGD([{"params": [a], "lr": 0.5}, {"params": b}], lr=0.0)
    optimizer.add_param_group({"params": [c], "momentum": 0.9, "name": "last"})
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.0, 0.0]
    assert optimizer.param_groups[2]["name"] == "last"
    before = [p.tolist() for p in (a, b, c)]
    loss_of([a, b, c]).backward()
    optimizer.param_groups[2]["lr"] = 0.1
    optimizer.step()
    assert [p.tolist() == q for p, q in zip((a, b, c), before, strict=True)] == [False, True, False]


def test_named_parameters_and_tensor_learning_rate() -> None:
    layer = weft.nn.Linear(2, 1)
    optimizer = optim.SGD(layer.named_parameters(), lr=weft.tensor(0.5))
    layer(weft.ones(1, 2)).sum().backward()
    before = layer.bias.item()
    optimizer.step()
    assert layer.bias.item() == pytest.approx(before - 0.5)


def test_parameters_without_gradient_stay() -> None:
    a, b, _ = start(weft.float32)
    optimizer = optim.Adam([a, b])
    (a * 2).sum().backward()
    optimizer.step()
    assert b.tolist() == start(weft.float32)[1].tolist()
    assert list(optimizer.state) == [a]


def test_closure_is_run_with_gradients_and_returned() -> None:
    x = weft.tensor(2.0, requires_grad=True)
    optimizer = optim.SGD([x], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = x * x
        loss.backward()
        return loss

    with weft.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert x.item() == pytest.approx(1.6)


def test_zero_grad() -> None:
    x = weft.tensor(2.0, requires_grad=True)
    optimizer = optim.SGD([x], lr=0.1)
    (x * x).backward()
    optimizer.zero_grad(set_to_none=False)
    assert x.grad.item() == 0
    optimizer.zero_grad()
    assert x.grad is None


def test_repr() -> None:
    assert (
        repr(optim.SGD(start(weft.float32), lr=0.1))
        == """\
SGD (
Parameter Group 0
    dampening: 0
    lr: 0.1
    maximize: False
    momentum: 0
    nesterov: False
    weight_decay: 0
)"""
    )


X = weft.ones(2, requires_grad=True)
BAD = {
    "no parameters": (lambda: optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
    "a tensor": (lambda: optim.SGD(X, lr=0.1), TypeError, "iterable of Tensors or dicts"),
    "no tensor": (lambda: optim.SGD([1], lr=0.1), TypeError, "can only optimize Tensors, but one of the params is int"),
    "not a leaf": (lambda: optim.SGD([X * 2], lr=0.1), ValueError, "non-leaf"),
    "twice": (lambda: optim.SGD([X, X], lr=0.1), ValueError, "more than one"),
    "learning rate": (lambda: optim.SGD([X], lr=-1), ValueError, "Invalid learning rate: -1"),
    "nesterov": (lambda: optim.SGD([X], lr=1, nesterov=True), ValueError, "Nesterov momentum requires"),
    "beta": (lambda: optim.Adam([X], betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
    "eps": (lambda: optim.AdamW([X], eps=-1), ValueError, "Invalid epsilon value: -1"),
    "group count": (
        lambda: optim.SGD([X]).load_state_dict({"param_groups": [], "state": {}}),
        ValueError,
        "different number",
    ),
    "group size": (
        lambda: optim.SGD([X]).load_state_dict({"param_groups": [{"params": [0, 1]}], "state": {}}),
        ValueError,
        "doesn't match",
    ),
}


@pytest.mark.parametrize(("call", "kind", "text"), list(BAD.values()), ids=list(BAD))
def test_bad_input(call, kind, text) -> None:
    with pytest.raises(kind, match=text):
        call()
