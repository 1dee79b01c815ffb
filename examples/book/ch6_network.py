"""Chapter 6: a neural network from bare tensors, trained on noisy random data. Run: python examples/book/ch6_network.py

Four phases an epoch: forward, loss, backward, update. The same `train` runs eager, and as one native loop when
compiled.
"""

from __future__ import annotations

from typing import Any

import weft

HIDDEN = 32


def data(seed: int = 1) -> tuple[Any, Any]:
    """100 observations of three features; the target is a plane through them plus noise."""
    weft.manual_seed(seed)
    x = weft.randn(100, 3)
    y = x[:, 0:1] * 0.2 - x[:, 1:2] * 1.3 - x[:, 2:3] * 0.5 + weft.randn(100, 1)
    return x, y


def parameters() -> list[Any]:
    """Random weights, zero biases, all to be learned."""
    w1 = weft.randn(3, HIDDEN, requires_grad=True)
    b1 = weft.zeros(1, HIDDEN, requires_grad=True)
    w2 = weft.randn(HIDDEN, 1, requires_grad=True)
    b2 = weft.zeros(1, 1, requires_grad=True)
    return [w1, b1, w2, b2]


def train(x: Any, y: Any, params: list[Any], lr: float, losses: Any) -> Any:
    """One epoch for every element of `losses`, which receives its loss; the last loss."""
    w1, b1, w2, b2 = params
    for epoch in weft.range(len(losses)):
        prediction = (x.mm(w1) + b1).relu().mm(w2) + b2
        loss = (prediction - y).square().mean()
        loss.backward()
        with weft.no_grad():
            losses[epoch] = loss
            for p in params:
                p.sub_(lr * p.grad)
                p.grad.zero_()
    return loss


def run(compiled: bool, epochs: int = 200, lr: float = 1e-4, seed: int = 1) -> tuple[list[float], list[Any]]:
    """Trains from a seed: the loss of every epoch, and the parameters."""
    x, y = data(seed)
    params, losses = parameters(), weft.zeros(epochs)
    (weft.compile(train) if compiled else train)(x, y, params, lr, losses)
    return losses.tolist(), params


def main(compiled: bool = True) -> dict[str, Any]:
    """Prints the loss every ten epochs."""
    losses, params = run(compiled)
    for epoch in range(10, len(losses) + 1, 10):
        print(f"Epoch: {epoch:4d}  Loss: {losses[epoch - 1]:.6f}")
    return {"losses": losses, "parameters": params}


if __name__ == "__main__":
    main()
