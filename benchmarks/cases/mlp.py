"""The book's chapter 6: a network of bare tensors, 100 x 3 - 32 - 1, relu, mean squared error, 200 epochs a run."""
from __future__ import annotations

from typing import Any

import numpy as np
from harness import Case, Work

EPOCHS, RATE = 200, 1e-4
Arrays = tuple[np.ndarray, ...]


def data() -> tuple[np.ndarray, np.ndarray, Arrays]:
    """x, y, and the four parameters at their start."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    x = normal(100, 3)
    y = (x @ np.array([[0.2], [-1.3], [-0.5]]) + 0.5 * normal(100, 1)).astype(np.float32)
    return x, y, (normal(3, 32), np.zeros((1, 32), np.float32), normal(32, 1), np.zeros((1, 1), np.float32))


def expected() -> float:
    """The mean squared error after the 200 epochs, in float64 by hand."""
    x, y, (w1, b1, w2, b2) = data()
    w1, b1, w2, b2 = (p.astype(np.float64) for p in (w1, b1, w2, b2))
    for _ in range(EPOCHS):
        hidden = x @ w1 + b1
        active = np.maximum(hidden, 0)
        slope = 2 * (active @ w2 + b2 - y) / len(x)
        back = slope @ w2.T * (hidden > 0)
        w1, b1 = w1 - RATE * x.T @ back, b1 - RATE * back.sum(0)
        w2, b2 = w2 - RATE * active.T @ slope, b2 - RATE * slope.sum(0)
    return float(((np.maximum(x @ w1 + b1, 0) @ w2 + b2 - y) ** 2).mean())


def loss_of(library: Any, x: Any, y: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    """The loss; `library` has `relu`."""
    return ((library.relu(x @ w1 + b1) @ w2 + b2 - y) ** 2).mean()


def parameters(tensors: Any) -> Any:
    """The parameters at their start, as leaves of weft or torch."""
    return [tensors.tensor(p, requires_grad=True) for p in data()[2]]


def step_of(tensors: Any) -> Any:
    """One epoch as the book writes it, for weft and torch: forward, loss, backward, update."""
    def step(x: Any, y: Any, rate: float, weights: Any) -> Any:
        loss = loss_of(tensors, x, y, *weights)
        loss.backward()
        with tensors.no_grad():
            for w in weights:
                w.sub_(rate * w.grad)
                w.grad.zero_()
        return loss
    return step


def stepping(tensors: Any, step: Any) -> Work:
    x, y = (tensors.tensor(a) for a in data()[:2])
    weights = parameters(tensors)

    def run(weights: Any = weights) -> Any:
        for _ in range(EPOCHS):
            step(x, y, RATE, weights)
        return weights

    return Work(run, EPOCHS, lambda: loss_of(tensors, x, y, *run(parameters(tensors))).item())


def weft_eager(weft: Any) -> Work:
    return stepping(weft, step_of(weft))


def weft_step(weft: Any) -> Work:
    return stepping(weft, weft.compile(step_of(weft)))


def weft_loop(weft: Any) -> Work:
    step = step_of(weft)

    @weft.compile
    def train(x: Any, y: Any, rate: float, weights: Any, epochs: int) -> None:
        for _ in weft.range(epochs):
            step(x, y, rate, weights)

    x, y = (weft.tensor(a) for a in data()[:2])
    weights = parameters(weft)

    def run(weights: Any = weights) -> Any:
        train(x, y, RATE, weights, EPOCHS)
        return weights

    return Work(run, EPOCHS, lambda: loss_of(weft, x, y, *run(parameters(weft))).item())


def torch_eager(torch: Any) -> Work:
    return stepping(torch, step_of(torch))


def functional(library: Any, arrays: Any, step: Any, value: Any) -> Work:
    """A Python loop over a function from weights to weights."""
    x, y, start = arrays

    def run() -> Any:
        weights = start
        for _ in range(EPOCHS):
            weights = step(x, y, weights)
        return weights

    def timed() -> Any:
        for w in run():
            getattr(w, "block_until_ready", lambda: None)()

    return Work(timed, EPOCHS, lambda: float(value(library, x, y, *run())))


def torch_compile(torch: Any) -> Work:
    """Gradient and update in one compiled function; torch compiles no `backward()` call."""
    gradient = torch.func.grad(lambda weights, x, y: loss_of(torch, x, y, *weights))

    @torch.compile
    def step(x: Any, y: Any, weights: Any) -> Any:
        return tuple(w - RATE * g for w, g in zip(weights, gradient(weights, x, y), strict=True))

    x, y, start = data()
    return functional(torch, (torch.tensor(x), torch.tensor(y), tuple(map(torch.tensor, start))), step, loss_of)


def jax_update(jax: Any) -> Any:
    gradient = jax.grad(lambda weights, x, y: loss_of(jax.nn, x, y, *weights))

    def step(x: Any, y: Any, weights: Any) -> Any:
        return tuple(w - RATE * g for w, g in zip(weights, gradient(weights, x, y), strict=True))
    return step


def jax_arrays(jax: Any) -> Any:
    x, y, start = data()
    return jax.numpy.array(x), jax.numpy.array(y), tuple(map(jax.numpy.array, start))


def jax_step(jax: Any) -> Work:
    return functional(jax.nn, jax_arrays(jax), jax.jit(jax_update(jax)), loss_of)


def jax_loop(jax: Any) -> Work:
    step = jax_update(jax)
    train = jax.jit(lambda x, y, w, epochs: jax.lax.fori_loop(0, epochs, lambda _, w: step(x, y, w), w))
    x, y, start = jax_arrays(jax)

    def run() -> Any:
        weights = train(x, y, start, EPOCHS)
        weights[0].block_until_ready()
        return weights

    return Work(run, EPOCHS, lambda: float(loss_of(jax.nn, x, y, *run())))


def numpy_loop(numpy: Any) -> Work:
    """The derivative done on paper."""
    x, y, start = data()
    rate, scale = np.float32(RATE), np.float32(2 / len(x))

    def run() -> Any:
        w1, b1, w2, b2 = start
        for _ in range(EPOCHS):
            hidden = x @ w1 + b1
            active = np.maximum(hidden, 0)
            slope = scale * (active @ w2 + b2 - y)
            back = slope @ w2.T * (hidden > 0)
            w1, b1 = w1 - rate * (x.T @ back), b1 - rate * back.sum(0)
            w2, b2 = w2 - rate * (active.T @ slope), b2 - rate * slope.sum(0)
        return float(((np.maximum(x @ w1 + b1, 0) @ w2 + b2 - y) ** 2).mean())

    return Work(run, EPOCHS, run)


CASES = (
    Case(
        "book_mlp",
        "A training step of the book's network, 200 steps a run.",
        {
            "weft, native loop": ("weft", weft_loop),
            "weft, compiled step": ("weft", weft_step),
            "weft, eager": ("weft", weft_eager),
            "torch, eager": ("torch", torch_eager),
            "torch.compile": ("torch", torch_compile),
            "JAX, jit": ("jax", jax_step),
            "JAX, fori_loop": ("jax", jax_loop),
            "NumPy, by hand": ("numpy", numpy_loop),
        },
        expected,
    ),
)
