"""Single operations on four elements, undecorated: what the dispatcher costs."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from harness import Case, Work

CALLS = 1000
X, Y = np.array([[1, 2], [3, 4]], np.float32), np.array([[4, 3], [2, 1]], np.float32)
FLAT = X.ravel()

OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda x, y, flat: x + y,
    "mul": lambda x, y, flat: x * y,
    "sum": lambda x, y, flat: x.sum(),
    "matmul": lambda x, y, flat: x @ y,
    "slice": lambda x, y, flat: flat[1:3],
}


def work(operation: Callable[[Any, Any, Any], Any], make: Callable[[np.ndarray], Any]) -> Work:
    """`CALLS` times the operation on tensors that `make` makes."""
    x, y, flat = make(X), make(Y), make(FLAT)

    def run() -> None:
        for _ in range(CALLS):
            operation(x, y, flat)

    return Work(run, CALLS, lambda: np.asarray(operation(x, y, flat)))


def case(name: str, operation: Callable[[Any, Any, Any], Any]) -> Case:
    return Case(f"eager_{name}", f"`{name}` on 4 elements, eager.", {
        "weft": ("weft", lambda weft: work(operation, weft.tensor)),
        "torch": ("torch", lambda torch: work(operation, torch.tensor)),
        "NumPy": ("numpy", lambda numpy: work(operation, numpy.array)),
    }, lambda: operation(X, Y, FLAT))


CASES = tuple(case(name, operation) for name, operation in OPERATIONS.items())
