"""Chapter 5: the minimum of the Rosenbrock function by gradient descent. Run: python examples/book/ch5_minimise.py

The same function `minimise` runs eager, and as one native loop when it is compiled; `descend` is one step, to be
compiled by itself.
"""

from __future__ import annotations

from typing import Any

import weft


def rosenbrock(x: Any, a: float = 1.0, b: float = 5.0) -> Any:
    """A valley whose lowest point is (a, a^2)."""
    return (a - x[0]) ** 2 + b * (x[1] - x[0] ** 2) ** 2


def minimise(x: Any, lr: float, steps: int) -> Any:
    """Walks down `steps` times; the last value."""
    for _ in weft.range(steps):
        value = rosenbrock(x)
        value.backward()
        with weft.no_grad():
            x.sub_(lr * x.grad)
            x.grad.zero_()
    return value


def descend(x: Any, lr: float) -> tuple[Any, Any]:
    """One step: the value and the gradient before it."""
    value = rosenbrock(x)
    value.backward()
    gradient = x.grad.clone()
    with weft.no_grad():
        x.sub_(lr * x.grad)
        x.grad.zero_()
    return value, gradient


def descend_logged(x: Any, lr: float, steps: int, values: Any, gradients: Any) -> None:
    """As `minimise`, and keeps the value and the gradient of every step."""
    for i in weft.range(steps):
        value = rosenbrock(x)
        value.backward()
        with weft.no_grad():
            values[i] = value
            gradients[i] = x.grad
            x.sub_(lr * x.grad)
            x.grad.zero_()


def start() -> Any:
    """The chapter's starting point."""
    return weft.tensor([-1.0, 1.0], requires_grad=True)


def log_by_steps(compiled: bool, lr: float = 0.01, steps: int = 1000) -> tuple[list[tuple[float, ...]], list[float]]:
    """The log (value, gradient) of every hundredth step and the end point, from a Python loop around one step."""
    step = weft.compile(descend) if compiled else descend
    x, log = start(), []
    for i in range(1, steps + 1):
        value, gradient = step(x, lr)
        if i % 100 == 0:
            log.append((value.item(), *gradient.tolist()))
    return log, x.tolist()


def log_by_loop(compiled: bool, lr: float = 0.01, steps: int = 1000) -> tuple[list[tuple[float, ...]], list[float]]:
    """The same from one loop that records into tensors: native when compiled."""
    run = weft.compile(descend_logged) if compiled else descend_logged
    x, values, gradients = start(), weft.zeros(steps), weft.zeros(steps, 2)
    run(x, lr, steps, values, gradients)
    return [(v, *g) for v, g in zip(values[99::100].tolist(), gradients[99::100].tolist(), strict=True)], x.tolist()


def main(compiled: bool = True) -> dict[str, Any]:
    """Prints the chapter's log and end point."""
    log, end = log_by_loop(compiled)
    for k, (value, *gradient) in enumerate(log, 1):
        print(f"Iteration: {100 * k}\nValue is : {value:.7g}\nGradient is : {gradient[0]:.7g} {gradient[1]:.7g}")
    x = start()
    last = (weft.compile(minimise) if compiled else minimise)(x, 0.01, 1000)
    print(x)
    return {"log": log, "end": end, "x": x.tolist(), "text": repr(x), "last": last.item()}


if __name__ == "__main__":
    main()
