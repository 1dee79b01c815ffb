"""Training steps of a perceptron with Adam, for small and large batches; its gradients for batches of five sizes."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from harness import Case, Work

from .common import expected_of, normal, peers_of, plain, tensors
from .steps import STEPS, jax_adam, jax_cross_entropy, jax_training, set_parameters, start_values, training

WIDTHS = (784, 256, 128, 10)
RATE = 1e-3


def digits(batch: int) -> list[np.ndarray]:
    (x,) = normal(11, (batch, WIDTHS[0]))
    return [x, np.random.default_rng(12).integers(0, WIDTHS[-1], batch)]


def perceptron(library: Any) -> Any:
    nn, (a, b, c, d) = library.nn, WIDTHS
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))


def adam(library: Any, compile: Any) -> Any:
    """Adam; torch's fused one beside torch.compile."""
    fused = {"fused": True} if library.__name__ == "torch" and compile is not plain else {}
    return lambda parameters: library.optim.Adam(parameters, lr=RATE, **fused)


def mlp(batch: int) -> Any:
    def make(library: Any, compile: Any, dtype: Any) -> Work:
        model = set_parameters(library, perceptron(library), 13, dtype)
        cross_entropy = library.nn.functional.cross_entropy
        loss = lambda model, x, y: cross_entropy(model(x), y)  # noqa: E731
        return training(library, compile, dtype, model, adam(library, compile), loss, digits(batch))

    return make


def jax_perceptron(jax: Any, p: Any, x: Any) -> Any:
    for k in (0, 2):
        x = jax.nn.relu(x @ p[f"{k}.weight"].T + p[f"{k}.bias"])
    return x @ p["4.weight"].T + p["4.bias"]


def mlp_jax(batch: int) -> Any:
    def prepare(jax: Any) -> Work:
        loss = lambda p, x, y: jax_cross_entropy(jax, jax_perceptron(jax, p, x), y)  # noqa: E731
        return jax_training(jax, loss, start_values(perceptron, 13), digits(batch), jax_adam(jax, RATE))

    return prepare


def mlp_numpy(batch: int) -> Any:
    """The derivative done on paper, Adam by hand."""

    def prepare(numpy: Any) -> Work:
        start, (x, y) = start_values(perceptron, 13), digits(batch)
        names = list(start)
        p = {k: v.copy() for k, v in start.items()}
        means, squares = ({k: np.zeros_like(v) for k, v in p.items()} for _ in range(2))
        count = [0]
        hot = np.eye(WIDTHS[-1], dtype=np.float32)[y]

        def run() -> float:
            layers = [x]
            for k in (0, 2):
                layers.append(np.maximum(layers[-1] @ p[f"{k}.weight"].T + p[f"{k}.bias"], 0))
            logits = layers[-1] @ p["4.weight"].T + p["4.bias"]
            logits -= logits.max(1, keepdims=True)
            e = np.exp(logits)
            total = e.sum(1, keepdims=True)
            value = float((np.log(total)[:, 0] - (logits * hot).sum(1)).mean())
            slope, gradients = (e / total - hot) / np.float32(len(x)), {}
            for k, layer in zip((4, 2, 0), reversed(layers), strict=True):
                gradients[f"{k}.weight"], gradients[f"{k}.bias"] = slope.T @ layer, slope.sum(0)
                if k:
                    slope = slope @ p[f"{k}.weight"] * (layer > 0)
            count[0] += 1
            size = np.float32(RATE / (1 - 0.9 ** count[0]))
            scale = np.float32(1 / math.sqrt(1 - 0.999 ** count[0]))
            for k in names:
                g = gradients[k]
                means[k] += np.float32(0.1) * (g - means[k])
                squares[k] *= np.float32(0.999)
                squares[k] += np.float32(0.001) * g * g
                p[k] -= size * means[k] / (np.sqrt(squares[k]) * scale + np.float32(1e-8))
            return value

        return Work(run, 1, lambda: np.array([run() for _ in range(STEPS)]))

    return prepare


def mlp_case(batch: int) -> Case:
    pairs = sum(a * b for a, b in zip(WIDTHS[:-1], WIDTHS[1:], strict=True))
    flops = 6.0 * batch * pairs - 2.0 * batch * WIDTHS[0] * WIDTHS[1]  # no derivative by x
    return Case(
        f"mlp_adam_{batch}",
        f"A training step of a perceptron {' - '.join(map(str, WIDTHS))} with Adam, batches of {batch}.",
        peers_of(mlp(batch), JAX_jit=("jax", mlp_jax(batch)), NumPy_by_hand=("numpy", mlp_numpy(batch))),
        expected_of(mlp(batch)),
        flops=flops,
        bytes=4.0 * pairs * 7,
    )


BATCHES = (32, 48, 64, 80, 96)


def mlp_sizes(library: Any, compile: Any, dtype: Any) -> Work:
    """The loss and its gradients for five batch sizes in turn."""
    model = set_parameters(library, perceptron(library), 13, dtype)
    is_torch = library.__name__ == "torch"
    cross_entropy = library.nn.functional.cross_entropy
    batches = [tensors(library, digits(n), dtype) for n in BATCHES]
    value_of = (compile if is_torch else plain)(lambda x, y: cross_entropy(model(x), y))

    def step(x: Any, y: Any) -> Any:
        model.zero_grad()
        value = value_of(x, y)
        value.backward()
        return value.detach()

    whole = step if is_torch else compile(step)

    def run() -> Any:
        return [whole(x, y) for x, y in batches]

    return Work(run, len(BATCHES), lambda: np.array([float(v) for v in run()]))


def mlp_sizes_jax(jax: Any) -> Work:
    loss = lambda p, x, y: jax_cross_entropy(jax, jax_perceptron(jax, p, x), y)  # noqa: E731
    step = jax.jit(jax.value_and_grad(loss))
    start = jax.tree.map(jax.numpy.array, start_values(perceptron, 13))
    batches = [[jax.numpy.array(a) for a in digits(n)] for n in BATCHES]

    def run() -> Any:
        return jax.block_until_ready([step(start, x, y) for x, y in batches])

    return Work(run, len(BATCHES), lambda: np.array([float(value) for value, _ in run()]))



CASES = (
    mlp_case(64),
    mlp_case(512),
    Case(
        "mlp_sizes",
        f"The loss of that perceptron and its gradients, for batches of {', '.join(map(str, BATCHES))} in turn.",
        peers_of(mlp_sizes, JAX_jit=("jax", mlp_sizes_jax)),
        expected_of(mlp_sizes),
    ),
)
