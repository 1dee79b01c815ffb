"""A parallel kernel on a quiet machine, and beside a foreign process that keeps a core busy."""
from __future__ import annotations

from typing import Any

import numpy as np
from harness import Case, Work

SIZE = 1_000_000


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    a, b, c = (random.standard_normal(SIZE).astype(np.float32) for _ in range(3))
    return a, b, c


def function(library: Any) -> Any:
    return lambda a, b, c: library.sigmoid(a * b + c)


def expected() -> np.ndarray:
    a, b, c = (v.astype(np.float64) for v in arrays())
    return (1 / (1 + np.exp(-(a * b + c))))[:1000]


def calling(call: Any, make: Any, wait: Any = lambda result: result) -> Work:
    a, b, c = map(make, arrays())
    return Work(lambda: wait(call(a, b, c)), 1, lambda: np.asarray(wait(call(a, b, c)))[:1000])


def weft_compiled(weft: Any) -> Work:
    return calling(weft.compile(function(weft)), weft.tensor)


def torch_eager(torch: Any) -> Work:
    return calling(function(torch), torch.tensor)


def torch_compiled(torch: Any) -> Work:
    return calling(torch.compile(function(torch)), torch.tensor)


def jax_compiled(jax: Any) -> Work:
    return calling(jax.jit(function(jax.nn)), jax.numpy.array, lambda result: result.block_until_ready())


CASES = (
    Case(
        "busy_neighbour",
        "`sigmoid(a * b + c)` on a million elements, on all cores.",
        {
            "weft, compiled": ("weft", weft_compiled),
            "torch, eager": ("torch", torch_eager),
            "torch.compile": ("torch", torch_compiled),
            "JAX, jit": ("jax", jax_compiled),
        },
        expected,
        busy=True,
    ),
)
