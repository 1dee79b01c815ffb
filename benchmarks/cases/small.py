"""Small programs, in which what counts is what happens between the operations."""
from __future__ import annotations

from typing import Any

import numpy as np
from harness import Case, Work

from .common import expected_of, gradient, jax_kernel, kernel, normal, peers_of, tensors

# ---- many tiny operations --------------------------------------------------------------------------------------------

OPERATIONS, ELEMENTS = 200, 16


def tiny_arrays() -> list[np.ndarray]:
    return normal(31, (ELEMENTS,), (ELEMENTS,))


def many(x: Any, y: Any, tanh: Any) -> Any:
    for _ in range(OPERATIONS // 10):
        x = tanh(x * 0.9 + y) - 0.1
        for factor in (0.5, -1.5, 2.0):
            x = x * factor + y
    return x


def tiny(library: Any, compile: Any, dtype: Any) -> Work:
    arguments = tensors(library, tiny_arrays(), dtype)
    function = compile(lambda x, y: many(x, y, library.tanh))
    return kernel(lambda: function(*arguments))


def tiny_jax(jax: Any) -> Work:
    return jax_kernel(jax, lambda x, y: many(x, y, jax.numpy.tanh), *tiny_arrays())


def tiny_numpy(numpy: Any) -> Work:
    x, y = tiny_arrays()
    return kernel(lambda: many(x, y, np.tanh))


# ---- a Hessian times a vector ----------------------------------------------------------------------------------------

POINTS, INPUTS, UNITS = 256, 32, 64


def network_arrays() -> list[np.ndarray]:
    """x, y, the weights, and a direction for each of them."""
    x, y = normal(32, (POINTS, INPUTS), (POINTS, 1))
    shapes = ((INPUTS, UNITS), (UNITS,), (UNITS, 1))
    return [x, y, *normal(33, *shapes, scale=0.2), *normal(34, *shapes)]


def network_loss(tanh: Any, x: Any, y: Any, w: Any, b: Any, v: Any) -> Any:
    return ((tanh(x @ w + b) @ v - y) ** 2).mean()


def product(gradient_of: Any, tanh: Any) -> Any:
    """The derivative of the gradient's component along the direction."""
    first = gradient_of(lambda x, y, *weights: network_loss(tanh, x, y, *weights), (2, 3, 4))

    def along(x: Any, y: Any, w: Any, b: Any, v: Any, *direction: Any) -> Any:
        slopes = first(x, y, w, b, v)
        return sum((g * d).sum() for g, d in zip(slopes, direction, strict=True))

    return gradient_of(along, (2, 3, 4))


def hessian(library: Any, compile: Any, dtype: Any) -> Work:
    arguments = tensors(library, network_arrays(), dtype)
    function = compile(product(lambda f, n: gradient(library, f, n), library.tanh))
    return kernel(lambda: function(*arguments))


def hessian_jax(jax: Any) -> Work:
    return jax_kernel(jax, product(jax.grad, jax.numpy.tanh), *network_arrays())


CASES = (
    Case(
        "tiny",
        f"{OPERATIONS} operations on vectors of {ELEMENTS} elements.",
        peers_of(tiny, JAX_jit=("jax", tiny_jax), NumPy=("numpy", tiny_numpy)),
        expected_of(tiny),
        tolerance=1e-3,
    ),
    Case(
        "hessian",
        f"The Hessian of a network's loss ({POINTS} x {INPUTS} - {UNITS} - 1) times a vector.",
        peers_of(hessian, JAX_jit=("jax", hessian_jax)),
        expected_of(hessian),
        tolerance=1e-3,
    ),
)
