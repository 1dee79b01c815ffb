"""Training steps of networks: LeNet, an LSTM, a small GPT."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from harness import Case, Work

from .common import expected_of, normal, peers_of, plain
from .steps import jax_adam, jax_cross_entropy, jax_descent, jax_training, set_parameters, start_values, training

RATE = 1e-3

# ---- LeNet -----------------------------------------------------------------------------------------------------------

IMAGES = 64


def images() -> list[np.ndarray]:
    (x,) = normal(16, (IMAGES, 1, 28, 28))
    return [x, np.random.default_rng(17).integers(0, 10, IMAGES)]


def lenet(library: Any) -> Any:
    nn = library.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def lenet_step(library: Any, compile: Any, dtype: Any) -> Work:
    model = set_parameters(library, lenet(library), 18, dtype)
    cross_entropy = library.nn.functional.cross_entropy
    loss = lambda model, x, y: cross_entropy(model(x), y)  # noqa: E731
    descent = lambda parameters: library.optim.SGD(parameters, lr=0.05)  # noqa: E731
    return training(library, compile, dtype, model, descent, loss, images())


def lenet_jax(jax: Any) -> Work:
    lax = jax.lax

    def loss(p: Any, x: Any, y: Any) -> Any:
        for k, padding in ((0, "SAME"), (3, "VALID")):
            x = lax.conv_general_dilated(x, p[f"{k}.weight"], (1, 1), padding) + p[f"{k}.bias"][:, None, None]
            x = lax.reduce_window(jax.nn.relu(x), -jax.numpy.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = x.reshape(len(x), -1)
        for k in (7, 9):
            x = jax.nn.relu(x @ p[f"{k}.weight"].T + p[f"{k}.bias"])
        return jax_cross_entropy(jax, x @ p["11.weight"].T + p["11.bias"], y)

    return jax_training(jax, loss, start_values(lenet, 18), images(), jax_descent(0.05, jax))


# ---- an LSTM ---------------------------------------------------------------------------------------------------------

SEQUENCES, LENGTH, HIDDEN = 32, 32, 128


def sequences() -> list[np.ndarray]:
    return normal(19, (LENGTH, SEQUENCES, HIDDEN), (SEQUENCES, HIDDEN))


def recurrent(library: Any) -> Any:
    return library.nn.LSTM(HIDDEN, HIDDEN)


def lstm_step(library: Any, compile: Any, dtype: Any) -> Work:
    """The mean squared difference between the last hidden state and a target."""
    model = set_parameters(library, recurrent(library), 20, dtype)
    loss = lambda model, x, y: ((model(x)[0][-1] - y) ** 2).mean()  # noqa: E731
    descent = lambda parameters: library.optim.SGD(parameters, lr=0.1)  # noqa: E731
    return training(library, compile, dtype, model, descent, loss, sequences())


def lstm_jax(jax: Any) -> Work:
    def loss(p: Any, x: Any, y: Any) -> Any:
        inputs = x @ p["weight_ih_l0"].T + p["bias_ih_l0"] + p["bias_hh_l0"]

        def cell(state: Any, now: Any) -> Any:
            h, c = state
            i, f, g, o = jax.numpy.split(now + h @ p["weight_hh_l0"].T, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
            return (jax.nn.sigmoid(o) * jax.numpy.tanh(c), c), None

        zero = jax.numpy.zeros((SEQUENCES, HIDDEN))
        (h, _), _ = jax.lax.scan(cell, (zero, zero), inputs)
        return ((h - y) ** 2).mean()

    return jax_training(jax, loss, start_values(recurrent, 20), sequences(), jax_descent(0.1, jax))


# ---- a small GPT -----------------------------------------------------------------------------------------------------

WORDS, TOKENS, TEXTS, WIDTH, HEADS, BLOCKS = 65, 64, 16, 128, 4, 2


def texts() -> list[np.ndarray]:
    random = np.random.default_rng(21)
    return [random.integers(0, WORDS, (TEXTS, TOKENS)) for _ in range(2)]


def gpt(library: Any) -> Any:
    """Embeddings, blocks of causal attention and a perceptron with layer norms in front, a head."""
    nn, functional = library.nn, library.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.norm1(x)).reshape(TEXTS, TOKENS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(TEXTS, TOKENS, WIDTH))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(TOKENS, WIDTH)
            self.blocks = nn.ModuleList([Block() for _ in range(BLOCKS)])
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.words(tokens) + self.places.weight
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Gpt()


def gpt_step(library: Any, compile: Any, dtype: Any) -> Work:
    model = set_parameters(library, gpt(library), 22, dtype)
    cross_entropy = library.nn.functional.cross_entropy
    loss = lambda model, x, y: cross_entropy(model(x).reshape(-1, WORDS), y.reshape(-1))  # noqa: E731
    fused = {"fused": True} if library.__name__ == "torch" and compile is not plain else {}
    adamw = lambda parameters: library.optim.AdamW(parameters, lr=RATE, weight_decay=0.01, **fused)  # noqa: E731
    return training(library, compile, dtype, model, adamw, loss, texts())


def gpt_jax(jax: Any) -> Work:
    jnp = jax.numpy

    def norm(p: Any, name: str, x: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(p: Any, name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def block(p: Any, name: str, x: Any) -> Any:
        parts = linear(p, f"{name}.qkv", norm(p, f"{name}.norm1", x))
        q, k, v = parts.reshape(TEXTS, TOKENS, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(WIDTH // HEADS)
        scores = jnp.where(jnp.tril(jnp.ones((TOKENS, TOKENS), bool)), scores, -jnp.inf)
        mixed = jnp.einsum("bhqk,bhkd->bqhd", jax.nn.softmax(scores), v).reshape(TEXTS, TOKENS, WIDTH)
        x = x + linear(p, f"{name}.out", mixed)
        return x + linear(p, f"{name}.down", jax.nn.gelu(linear(p, f"{name}.up", norm(p, f"{name}.norm2", x)), False))

    def loss(p: Any, tokens: Any, y: Any) -> Any:
        x = p["words.weight"][tokens] + p["places.weight"]
        for k in range(BLOCKS):
            x = block(p, f"blocks.{k}", x)
        return jax_cross_entropy(jax, norm(p, "norm", x) @ p["head.weight"].T, y)

    return jax_training(jax, loss, start_values(gpt, 22), texts(), jax_adam(jax, RATE, 0.01))


LENET_FLOPS = 6.0 * IMAGES * (28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10) - (
    2.0 * IMAGES * 28 * 28 * 6 * 25
)
LSTM_FLOPS = 6.0 * LENGTH * SEQUENCES * 8 * HIDDEN * HIDDEN - 2.0 * LENGTH * SEQUENCES * 4 * HIDDEN * HIDDEN
GPT_FLOPS = 6.0 * TEXTS * TOKENS * (BLOCKS * (12 * WIDTH * WIDTH + 2 * TOKENS * WIDTH) + WORDS * WIDTH)

CASES = (
    Case(
        "lenet",
        f"A training step of LeNet with batches of {IMAGES} images of 28 x 28, by gradient descent.",
        peers_of(lenet_step, JAX_jit=("jax", lenet_jax)),
        expected_of(lenet_step),
        flops=LENET_FLOPS,
    ),
    Case(
        "lstm",
        f"A training step of an LSTM of {HIDDEN} units on {SEQUENCES} sequences of {LENGTH}, by gradient descent.",
        peers_of(lstm_step, JAX_jit=("jax", lstm_jax)),
        expected_of(lstm_step),
        flops=LSTM_FLOPS,
    ),
    Case(
        "gpt",
        f"A step of a GPT: {BLOCKS} blocks, {HEADS} heads, {WIDTH} features, {TEXTS} x {TOKENS} tokens; AdamW.",
        peers_of(gpt_step, JAX_jit=("jax", gpt_jax)),
        expected_of(gpt_step),
        flops=GPT_FLOPS,
    ),
)
