"""Chapter 4: automatic differentiation of f(x1, x2) = 0.2 x1^2 + 0.2 x2^2 - 5 at (2, 2).

Run: python examples/book/ch4_autograd.py
"""

from __future__ import annotations

from typing import Any

import weft


def main() -> dict[str, Any]:
    """Builds the chapter's graph node by node, runs it backwards, and prints what every node got."""
    x1 = weft.tensor(2.0, requires_grad=True)
    x2 = weft.tensor(2.0, requires_grad=True)
    x3, x4 = x1.square(), x2.square()
    x5, x6 = x3 * 0.2, x4 * 0.2
    x7 = x5 + x6 - 5
    inner = {"x3": x3, "x4": x4, "x5": x5, "x6": x6}
    for node in inner.values():
        node.retain_grad()
    print("value:", x7, "requires_grad:", x7.requires_grad)
    x7.backward()
    print("gradients:", x1.grad, x2.grad)
    for name, node in inner.items():
        print(f"{name}: gradient {node.grad.item():.4f}, made by {node.grad_fn}")
    return {
        "value": x7.item(),
        "inherits": x7.requires_grad,
        "gradients": [x1.grad.item(), x2.grad.item()],
        "inner": {name: node.grad.item() for name, node in inner.items()},
        "made by": {name: node.grad_fn.name for name, node in {**inner, "x7": x7}.items()},
    }


if __name__ == "__main__":
    main()
