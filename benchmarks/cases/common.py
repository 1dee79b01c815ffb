"""What the cases share. Programs in torch's dialect are written once, for weft and torch; the expected
answer is torch's in float64, or that of weft's interpreter where torch is not installed."""
from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from harness import Work

Prepare = Callable[[Any], Work]
Make = Callable[[Any, Callable[..., Any], Any], Work]
"""(library, decorator that compiles or does not, dtype) -> the work."""


def plain(function: Any) -> Any:
    """A decorator that does nothing."""
    return function


def peers_of(make: Make, **others: tuple[str, Prepare]) -> Mapping[str, tuple[str, Prepare]]:
    """weft and torch, both compiled and not, on one program; and others, whose names have underscores for `, `
    and further ones for spaces."""
    return {
        "weft": ("weft", lambda weft: make(weft, weft.compile, weft.float32)),
        "weft, eager": ("weft", lambda weft: make(weft, plain, weft.float32)),
        "torch, eager": ("torch", lambda torch: make(torch, plain, torch.float32)),
        "torch.compile": ("torch", lambda torch: make(torch, torch.compile, torch.float32)),
        **{name.replace("_", ", ", 1).replace("_", " "): peer for name, peer in others.items()},
    }


def expected_of(make: Make) -> Callable[[], Any]:
    """The answer of the program in float64."""

    def answer() -> Any:
        library = importlib.import_module("torch" if importlib.util.find_spec("torch") else "weft")
        return make(library, plain, library.float64).answer()

    return answer


def gradient(library: Any, function: Callable[..., Any], argnums: int | Sequence[int]) -> Callable[..., Any]:
    """The gradient of `function`, a scalar, by the arguments numbered `argnums`."""
    if library.__name__ == "torch":
        return library.func.grad(function, argnums)
    return library.grad(function, argnums)


def tensors(library: Any, arrays: Sequence[np.ndarray], dtype: Any) -> list[Any]:
    """The arrays as tensors, floats of `dtype`."""
    return [library.tensor(a, dtype=dtype if a.dtype.kind == "f" else None) for a in arrays]


def normal(seed: int, *shapes: tuple[int, ...], scale: float = 1.0) -> list[np.ndarray]:
    """Normally distributed float32 arrays."""
    random = np.random.default_rng(seed)
    return [(scale * random.standard_normal(shape)).astype(np.float32) for shape in shapes]


def sample(*results: Any) -> np.ndarray:
    """A few numbers that tell results apart: of each its root mean square, and its first, middle and last elements."""
    numbers = []
    for result in results:
        flat = np.asarray(result.detach() if hasattr(result, "detach") else result, np.float64).ravel()
        picked = flat[[0, len(flat) // 2, -1]]
        numbers += [np.sqrt((flat**2).mean()), *picked]
    return np.array(numbers)


def kernel(call: Callable[[], Any], steps: int = 1) -> Work:
    """The work of calling a function that returns a result or a tuple of results."""

    def answer() -> Any:
        results = call()
        return sample(*(results if isinstance(results, (tuple, list)) else (results,)))

    return Work(call, steps, answer)


def jax_kernel(jax: Any, function: Callable[..., Any], *arrays: np.ndarray) -> Work:
    """The work of calling a jitted function and waiting for all that it returns."""
    compiled, arguments = jax.jit(function), [jax.numpy.array(a) for a in arrays]
    return kernel(lambda: jax.block_until_ready(compiled(*arguments)))
