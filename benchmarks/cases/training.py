"""Training steps: a perceptron with Adam in two batch sizes and in five, LeNet, an LSTM, a small GPT; and Adam alone."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from harness import Case, Work

from .common import expected_of, normal, peers_of, plain, tensors

STEPS = 5
"""Steps of the answer: the losses of so many steps from the start."""


def training(
    library: Any, compile: Any, dtype: Any, model: Any, optimizer: Any, loss: Callable[..., Any], batch: Sequence[np.ndarray]
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


# ---- a perceptron ----------------------------------------------------------------------------------------------------

WIDTHS = (784, 256, 128, 10)
RATE = 1e-3


def digits(batch: int) -> list[np.ndarray]:
    (x,) = normal(11, (batch, WIDTHS[0]))
    return [x, np.random.default_rng(12).integers(0, WIDTHS[-1], batch)]


def perceptron(library: Any) -> Any:
    nn = library.nn
    return nn.Sequential(
        nn.Linear(WIDTHS[0], WIDTHS[1]), nn.ReLU(), nn.Linear(WIDTHS[1], WIDTHS[2]), nn.ReLU(), nn.Linear(WIDTHS[2], WIDTHS[3])
    )


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
        mean, square, count = ({k: np.zeros_like(v) for k, v in p.items()} for _ in range(2)), None, [0]
        means, squares = mean
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


# ---- the optimiser alone ---------------------------------------------------------------------------------------------

SIZES = tuple(round(10 ** (1 + 5 * k / 49)) for k in range(50))
"""50 sizes from 10 to a million, evenly in the logarithm."""


def parameter_arrays() -> tuple[list[np.ndarray], list[np.ndarray]]:
    return normal(14, *((n,) for n in SIZES)), normal(15, *((n,) for n in SIZES))


def updating(library: Any, compile: Any, dtype: Any, **options: Any) -> Work:
    values, slopes = (tensors(library, arrays, dtype) for arrays in parameter_arrays())
    for p, g in zip(values, slopes, strict=True):
        p.requires_grad_()
        p.grad = g
    optimizer = library.optim.Adam(values, lr=RATE, **options)
    step = compile(lambda: optimizer.step())

    def answer() -> Any:
        for _ in range(STEPS):
            step()
        return np.array([float(p.detach()[-1]) for p in values])

    return Work(step, 1, answer)


def updating_torch_fused(torch: Any) -> Work:
    return updating(torch, plain, torch.float32, fused=True)


def updating_jax(jax: Any) -> Work:
    values, slopes = ([jax.numpy.array(a) for a in arrays] for arrays in parameter_arrays())
    step = jax.jit(jax_adam(jax, RATE), donate_argnums=(0, 2))
    zeros = lambda: [jax.numpy.zeros_like(v) for v in values]  # noqa: E731
    state = [values, (zeros(), zeros(), jax.numpy.zeros(()))]

    def run() -> Any:
        state[0], state[1] = step(state[0], slopes, state[1])
        jax.block_until_ready(state)

    def answer() -> Any:
        for _ in range(STEPS):
            run()
        return np.array([float(p[-1]) for p in state[0]])

    return Work(run, 1, answer)


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
    mlp_case(64),
    mlp_case(512),
    Case(
        "mlp_sizes",
        f"The loss of that perceptron and its gradients, for batches of {', '.join(map(str, BATCHES))} in turn.",
        peers_of(mlp_sizes, JAX_jit=("jax", mlp_sizes_jax)),
        expected_of(mlp_sizes),
    ),
    Case(
        "adam",
        "A step of Adam over 50 tensors of 10 to a million elements.",
        {**peers_of(updating, JAX_jit=("jax", updating_jax)), "torch, fused": ("torch", updating_torch_fused)},
        expected_of(updating),
        bytes=4.0 * sum(SIZES) * 7,
        tolerance=1e-3,
    ),
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
        f"A training step of a GPT with {BLOCKS} blocks, {HEADS} heads, {WIDTH} features, {TEXTS} x {TOKENS} tokens, AdamW.",
        peers_of(gpt_step, JAX_jit=("jax", gpt_jax)),
        expected_of(gpt_step),
        flops=GPT_FLOPS,
    ),
)
