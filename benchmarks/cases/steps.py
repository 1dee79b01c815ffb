"""What training steps of all networks share: start values, the step in torch's dialect, and the same in JAX."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from harness import Work

from .common import tensors

STEPS = 5
"""Steps of the answer: the losses of so many steps from the start."""


def training(
    library: Any,
    compile: Any,
    dtype: Any,
    model: Any,
    optimizer: Any,
    loss: Callable[..., Any],
    batch: Sequence[np.ndarray],
) -> Work:
    """Steps of `loss(model, *batch)`, all state as at the start for the answer. `optimizer` makes one from parameters.

    torch compiles neither `backward()` nor, together with it, an optimiser: there, the loss is compiled.
    """
    arguments = tensors(library, batch, dtype)
    is_torch = library.__name__ == "torch"
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def fresh() -> Callable[[], Any]:
        model.load_state_dict(start)
        updates = optimizer(model.parameters())
        value_of = compile(lambda *a: loss(model, *a)) if is_torch else (lambda *a: loss(model, *a))

        def step(*arguments: Any) -> Any:
            updates.zero_grad()
            value = value_of(*arguments)
            value.backward()
            updates.step()
            return value.detach()

        whole = step if is_torch else compile(step)
        return lambda: whole(*arguments)

    state = [fresh()]

    def answer() -> Any:
        losses = [float(state[0]()) for _ in range(STEPS)]
        return np.array(losses)

    return Work(lambda: state[0](), 1, answer)


def set_parameters(library: Any, model: Any, seed: int, dtype: Any) -> Any:
    """The same start values in every library: normal, scaled by the number of inputs; layers' scales are one."""
    random = np.random.default_rng(seed)
    values = {}
    for name, value in model.state_dict().items():
        array = random.standard_normal(tuple(value.shape)) / math.sqrt(max(1, math.prod(tuple(value.shape)[1:])))
        values[name] = library.tensor(array.astype(np.float32), dtype=dtype)
    model.to(dtype)
    model.load_state_dict(values)
    return model


def start_values(make: Callable[[Any], Any], seed: int) -> dict[str, np.ndarray]:
    """The start values by name, for JAX."""
    import weft

    return {k: v.numpy() for k, v in set_parameters(weft, make(weft), seed, weft.float32).state_dict().items()}


def jax_training(jax: Any, loss: Callable[..., Any], start: Any, batch: Sequence[np.ndarray], update: Any) -> Work:
    """The same with JAX: `update(parameters, gradients, state)` gives new parameters and state."""
    arguments = [jax.numpy.array(a) for a in batch]

    def step(parameters: Any, state: Any, *arguments: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(parameters, *arguments)
        return value, *update(parameters, gradients, state)

    compiled = jax.jit(step, donate_argnums=(0, 1))
    zeros = lambda: jax.tree.map(jax.numpy.zeros_like, start)  # noqa: E731
    current = [jax.tree.map(jax.numpy.array, start), (zeros(), zeros(), jax.numpy.zeros(()))]

    def run() -> Any:
        value, current[0], current[1] = compiled(*current, *arguments)
        return jax.block_until_ready((value, current))[0]

    return Work(run, 1, lambda: np.array([float(run()) for _ in range(STEPS)]))


def jax_adam(jax: Any, rate: float, decay: float = 0.0) -> Any:
    """Adam, and AdamW when there is a decay."""
    jnp = jax.numpy

    def update(parameters: Any, gradients: Any, state: Any) -> Any:
        mean, square, count = state
        count = count + 1
        mean = jax.tree.map(lambda m, g: m + 0.1 * (g - m), mean, gradients)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradients)
        size, scale = rate / (1 - 0.9**count), 1 / jnp.sqrt(1 - 0.999**count)

        def new(p: Any, m: Any, s: Any) -> Any:
            return p * (1 - rate * decay) - size * m / (jnp.sqrt(s) * scale + 1e-8)

        return jax.tree.map(new, parameters, mean, square), (mean, square, count)

    return update


def jax_descent(rate: float, jax: Any) -> Any:
    return lambda parameters, gradients, state: (jax.tree.map(lambda p, g: p - rate * g, parameters, gradients), state)


def jax_cross_entropy(jax: Any, logits: Any, classes: Any) -> Any:
    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits), classes[..., None], -1).mean()
