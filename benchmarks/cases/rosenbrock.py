"""The book's chapter 5: gradient descent on the Rosenbrock function, 1,000 iterations a run; and the same loop over a
million."""
from __future__ import annotations

from typing import Any

import numpy as np
from harness import Case, Work

STEPS, MANY, RATE = 1000, 1_000_000, 0.01
START = (-1.0, 1.0)


def rosenbrock(x: Any) -> Any:
    return (1.0 - x[0]) ** 2 + 5.0 * (x[1] - x[0] ** 2) ** 2


def expected() -> np.ndarray:
    """Where 1,000 iterations end, in float64."""
    x = np.array(START)
    for _ in range(STEPS):
        bow = x[1] - x[0] ** 2
        x = x - RATE * np.array([-2.0 * (1.0 - x[0]) - 20.0 * x[0] * bow, 10.0 * bow])
    return x


def step_of(weft: Any) -> Any:
    """One iteration, as the book writes it."""
    def step(x: Any, rate: float) -> Any:
        value = rosenbrock(x)
        value.backward()
        with weft.no_grad():
            x.sub_(rate * x.grad)
            x.grad.zero_()
        return value
    return step


def stepping(tensors: Any, step: Any) -> Work:
    """A Python loop over `step`, for weft and torch."""
    def run() -> Any:
        x = tensors.tensor(START, requires_grad=True)
        for _ in range(STEPS):
            step(x, RATE)
        return x
    return Work(run, STEPS, lambda: run().detach().numpy())


def weft_loop(weft: Any) -> Work:
    return looping(weft, STEPS)


def weft_many(weft: Any) -> Work:
    return looping(weft, MANY)


def looping(weft: Any, steps: int) -> Work:
    step = step_of(weft)

    @weft.compile
    def minimise(x: Any, rate: float, count: int) -> None:
        for _ in weft.range(count):
            step(x, rate)

    def run(count: int = steps) -> Any:
        x = weft.tensor(START, requires_grad=True)
        minimise(x, RATE, count)
        return x
    return Work(run, steps, lambda: run(STEPS).detach().numpy())


def weft_step(weft: Any) -> Work:
    return stepping(weft, weft.compile(step_of(weft)))


def weft_eager(weft: Any) -> Work:
    return stepping(weft, step_of(weft))


def torch_eager(torch: Any) -> Work:
    return stepping(torch, step_of(torch))


def torch_compile(torch: Any) -> Work:
    """The gradient and the update in one compiled function; torch compiles no `backward()` call."""
    gradient = torch.func.grad(rosenbrock)
    step = torch.compile(lambda x: x - RATE * gradient(x))

    def run() -> Any:
        x = torch.tensor(START)
        for _ in range(STEPS):
            x = step(x)
        return x
    return Work(run, STEPS, lambda: run().numpy())


def jax_step(jax: Any) -> Work:
    gradient = jax.grad(rosenbrock)
    step = jax.jit(lambda x: x - RATE * gradient(x))

    def run() -> Any:
        x = jax.numpy.array(START)
        for _ in range(STEPS):
            x = step(x)
        return x.block_until_ready()
    return Work(run, STEPS, run)


def jax_loop(jax: Any) -> Work:
    return jax_looping(jax, STEPS)


def jax_many(jax: Any) -> Work:
    return jax_looping(jax, MANY)


def jax_looping(jax: Any, steps: int) -> Work:
    gradient = jax.grad(rosenbrock)
    loop = jax.jit(lambda x, count: jax.lax.fori_loop(0, count, lambda _, x: x - RATE * gradient(x), x))

    def run(count: int = steps) -> Any:
        return loop(jax.numpy.array(START), count).block_until_ready()
    return Work(run, steps, lambda: run(STEPS))


def numpy_loop(numpy: Any) -> Work:
    """The derivative done on paper, an array operation at a time."""
    rate = np.float32(RATE)

    def run() -> Any:
        x = np.array(START, np.float32)
        for _ in range(STEPS):
            bow = x[1] - x[0] * x[0]
            x -= rate * np.array([-2 * (1 - x[0]) - 20 * x[0] * bow, 10 * bow], np.float32)
        return x

    return Work(run, STEPS, run)


def by_hand(numba: Any) -> Work:
    return by_hand_looping(numba, STEPS)


def by_hand_many(numba: Any) -> Work:
    return by_hand_looping(numba, MANY)


def by_hand_looping(numba: Any, steps: int) -> Work:
    """The derivative done on paper: the limit."""
    one, two, ten, twenty, rate = (np.float32(c) for c in (1, 2, 10, 20, RATE))

    @numba.njit(error_model="numpy")
    def loop(x: Any, count: int) -> None:
        a, b = x[0], x[1]
        for _ in range(count):
            bow = b - a * a
            a, b = a + rate * (two * (one - a) + twenty * a * bow), b - rate * (ten * bow)
        x[0], x[1] = a, b

    def run(count: int = steps) -> Any:
        x = np.array(START, np.float32)
        loop(x, count)
        return x
    return Work(run, steps, lambda: run(STEPS))


CASES = (
    Case(
        "rosenbrock",
        "An iteration of the book's Rosenbrock descent, 1,000 iterations a run, start and end of the run included.",
        {
            "weft, native loop": ("weft", weft_loop),
            "weft, compiled step": ("weft", weft_step),
            "weft, eager": ("weft", weft_eager),
            "torch, eager": ("torch", torch_eager),
            "torch.compile": ("torch", torch_compile),
            "JAX, jit": ("jax", jax_step),
            "JAX, fori_loop": ("jax", jax_loop),
            "NumPy, by hand": ("numpy", numpy_loop),
            "by hand (Numba)": ("numba", by_hand),
        },
        expected,
    ),
    Case(
        "rosenbrock_many",
        "The same, 1,000,000 iterations a run.",
        {
            "weft, native loop": ("weft", weft_many),
            "JAX, fori_loop": ("jax", jax_many),
            "by hand (Numba)": ("numba", by_hand_many),
        },
        expected,
    ),
)
