"""Adam alone, over many tensors of all sizes."""
from __future__ import annotations

from typing import Any

import numpy as np
from harness import Case, Work

from .common import expected_of, normal, peers_of, plain, tensors
from .steps import STEPS, jax_adam

RATE = 1e-3
SIZES = tuple(round(10 ** (1 + 5 * k / 49)) for k in range(50))
"""50 sizes from 10 to a million, evenly in the logarithm."""


def parameter_arrays() -> tuple[list[np.ndarray], list[np.ndarray]]:
    return normal(14, *((n,) for n in SIZES)), normal(15, *((n,) for n in SIZES))


def updating(library: Any, compile: Any, dtype: Any, **options: Any) -> Work:
    values, slopes = (tensors(library, arrays, dtype) for arrays in parameter_arrays())
    for p, g in zip(values, slopes, strict=True):
        p.requires_grad_()
        p.grad = g
    optimizer = library.optim.Adam(values, lr=RATE, **options)
    step = compile(lambda: optimizer.step())

    def answer() -> Any:
        for _ in range(STEPS):
            step()
        return np.array([float(p.detach()[-1]) for p in values])

    return Work(step, 1, answer)


def updating_torch_fused(torch: Any) -> Work:
    return updating(torch, plain, torch.float32, fused=True)


def updating_jax(jax: Any) -> Work:
    values, slopes = ([jax.numpy.array(a) for a in arrays] for arrays in parameter_arrays())
    step = jax.jit(jax_adam(jax, RATE), donate_argnums=(0, 2))
    zeros = lambda: [jax.numpy.zeros_like(v) for v in values]  # noqa: E731
    state = [values, (zeros(), zeros(), jax.numpy.zeros(()))]

    def run() -> Any:
        state[0], state[1] = step(state[0], slopes, state[1])
        jax.block_until_ready(state)

    def answer() -> Any:
        for _ in range(STEPS):
            run()
        return np.array([float(p[-1]) for p in state[0]])

    return Work(run, 1, answer)


def updating_numpy(numpy: Any) -> Work:
    values, slopes = parameter_arrays()
    means, squares = ([np.zeros_like(v) for v in values] for _ in range(2))
    count = [0]

    def run() -> None:
        count[0] += 1
        size = np.float32(RATE / (1 - 0.9 ** count[0]))
        scale = np.float32(1 / (1 - 0.999 ** count[0]) ** 0.5)
        for p, g, mean, square in zip(values, slopes, means, squares, strict=True):
            mean += np.float32(0.1) * (g - mean)
            square *= np.float32(0.999)
            square += np.float32(0.001) * g * g
            p -= size * mean / (np.sqrt(square) * scale + np.float32(1e-8))

    def answer() -> Any:
        for _ in range(STEPS):
            run()
        return np.array([p[-1] for p in values])

    return Work(run, 1, answer)


CASES = (
    Case(
        "adam",
        "A step of Adam over 50 tensors of 10 to a million elements.",
        {
            **peers_of(updating, JAX_jit=("jax", updating_jax), NumPy=("numpy", updating_numpy)),
            "torch, fused": ("torch", updating_torch_fused),
        },
        expected_of(updating),
        bytes=4.0 * sum(SIZES) * 7,
        tolerance=1e-3,
    ),
)
