"""What one call of a compiled function costs: two arguments of four elements, a product and a sum."""
from __future__ import annotations

from typing import Any

import numpy as np
from harness import Case, Work

CALLS = 1000
A, B = np.array([1, 2, 3, 4], np.float32), np.array([4, 3, 2, 1], np.float32)


def function(a: Any, b: Any) -> Any:
    return a * b + a


def calling(call: Any, a: Any, b: Any) -> Work:
    """`CALLS` calls in a row, each result dropped."""
    def run() -> Any:
        for _ in range(CALLS):
            result = call(a, b)
        return result
    return Work(run, CALLS, lambda: np.asarray(call(a, b)))


def weft_compiled(weft: Any) -> Work:
    return calling(weft.compile(function), weft.tensor(A), weft.tensor(B))


def weft_eager(weft: Any) -> Work:
    return calling(function, weft.tensor(A), weft.tensor(B))


def torch_eager(torch: Any) -> Work:
    return calling(function, torch.tensor(A), torch.tensor(B))


def torch_compiled(torch: Any) -> Work:
    return calling(torch.compile(function), torch.tensor(A), torch.tensor(B))


def jax_compiled(jax: Any) -> Work:
    return calling(jax.jit(function), jax.numpy.array(A), jax.numpy.array(B))


def numpy_plain(numpy: Any) -> Work:
    return calling(function, A, B)


CASES = (
    Case(
        "call",
        "A call of `a * b + a` on two vectors of 4 elements.",
        {
            "weft, compiled": ("weft", weft_compiled),
            "weft, eager": ("weft", weft_eager),
            "torch, eager": ("torch", torch_eager),
            "torch.compile": ("torch", torch_compiled),
            "JAX, jit": ("jax", jax_compiled),
            "NumPy": ("numpy", numpy_plain),
        },
        lambda: function(A, B),
    ),
)
