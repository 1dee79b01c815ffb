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



CASES = (
    Case(
        "adam",
        "A step of Adam over 50 tensors of 10 to a million elements.",
        {**peers_of(updating, JAX_jit=("jax", updating_jax)), "torch, fused": ("torch", updating_torch_fused)},
        expected_of(updating),
        bytes=4.0 * sum(SIZES) * 7,
        tolerance=1e-3,
    ),
)
