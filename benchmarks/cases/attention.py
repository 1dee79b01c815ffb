"""Large values between products: the scores of an attention, the logits of a cross entropy over many words."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from harness import Case, Work

from .common import expected_of, jax_kernel, kernel, normal, peers_of, tensors

# ---- attention -------------------------------------------------------------------------------------------------------

HEADS, TOKENS, WIDTH = 8, 2048, 64


def arrays() -> list[np.ndarray]:
    """Queries, keys, values, and the cotangent of the result."""
    return normal(31, *[(1, HEADS, TOKENS, WIDTH)] * 4)


def attention(library: Any, compile: Any, dtype: Any) -> Work:
    q, k, v, _ = tensors(library, arrays(), dtype)
    function = compile(library.nn.functional.scaled_dot_product_attention)
    return kernel(lambda: function(q, k, v))


def attention_gradient(library: Any, compile: Any, dtype: Any) -> Work:
    q, k, v, g = tensors(library, arrays(), dtype)
    for x in (q, k, v):
        x.requires_grad_()

    @compile
    def function(q: Any, k: Any, v: Any, g: Any) -> Any:
        out = library.nn.functional.scaled_dot_product_attention(q, k, v)
        return out.detach(), *library.autograd.grad(out, (q, k, v), g)

    return kernel(lambda: function(q, k, v, g))


def jax_attention(jax: Any, q: Any, k: Any, v: Any) -> Any:
    scores = jax.numpy.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(WIDTH)
    return jax.numpy.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), v)


def attention_jax(jax: Any) -> Work:
    return jax_kernel(jax, lambda q, k, v: jax_attention(jax, q, k, v), *arrays()[:3])


def attention_gradient_jax(jax: Any) -> Work:
    def function(q: Any, k: Any, v: Any, g: Any) -> Any:
        out, pull = jax.vjp(lambda *x: jax_attention(jax, *x), q, k, v)
        return out, *pull(g)

    return jax_kernel(jax, function, *arrays())


# ---- cross entropy ---------------------------------------------------------------------------------------------------

ROWS, WORDS, FEATURES = 4096, 32000, 256


def words() -> list[np.ndarray]:
    """Features, a matrix for the logits, targets."""
    x, w = normal(32, (ROWS, FEATURES), (WORDS, FEATURES), scale=0.2)
    return [x, w, np.random.default_rng(33).integers(0, WORDS, ROWS)]


def cross_entropy(library: Any, compile: Any, dtype: Any) -> Work:
    x, w, y = tensors(library, words(), dtype)
    x.requires_grad_()
    w.requires_grad_()

    @compile
    def function(x: Any, w: Any, y: Any) -> Any:
        loss = library.nn.functional.cross_entropy(x @ w.t(), y)
        return loss.detach(), *library.autograd.grad(loss, (x, w))

    return kernel(lambda: function(x, w, y))


def cross_entropy_jax(jax: Any) -> Work:
    def loss(x: Any, w: Any, y: Any) -> Any:
        chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(x @ w.T), y[:, None], 1)
        return -chosen.mean()

    def function(x: Any, w: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(loss, (0, 1))(x, w, y)
        return value, *gradients

    return jax_kernel(jax, function, *words())


PRODUCT = 2.0 * HEADS * TOKENS * TOKENS * WIDTH

CASES = (
    Case(
        "attention",
        f"Attention of {HEADS} heads with {WIDTH} features on {TOKENS} tokens.",
        peers_of(attention, JAX_jit=("jax", attention_jax)),
        expected_of(attention),
        flops=2 * PRODUCT,
    ),
    Case(
        "attention_gradient",
        "The same with the gradients of queries, keys and values.",
        peers_of(attention_gradient, JAX_jit=("jax", attention_gradient_jax)),
        expected_of(attention_gradient),
        flops=6 * PRODUCT,
    ),
    Case(
        "cross_entropy",
        f"The cross entropy of {ROWS} rows of {FEATURES} features over {WORDS} words, with both gradients.",
        peers_of(cross_entropy, JAX_jit=("jax", cross_entropy_jax)),
        expected_of(cross_entropy),
        flops=6.0 * ROWS * WORDS * FEATURES,
    ),
)
