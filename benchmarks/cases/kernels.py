"""Kernels that memory or arithmetic limits: elementwise chains, rows, views, a stencil, option prices; gradients."""
from __future__ import annotations

import importlib
import types
from typing import Any

import numpy as np
from harness import Case, Work

from .common import expected_of, gradient, jax_kernel, kernel, normal, peers_of, tensors

# ---- a chain of elementwise functions --------------------------------------------------------------------------------

MANY = 1 << 22


def chain(library: Any, x: Any, y: Any) -> Any:
    return library.sigmoid(library.tanh(x * y) + library.exp(-x * x))


def chain_arrays() -> list[np.ndarray]:
    return normal(1, (MANY,), (MANY,))


def jax_functions(jax: Any) -> Any:
    """JAX's functions under torch's names."""
    jnp = jax.numpy
    names = ("exp", "tanh", "sqrt", "log", "maximum")
    return types.SimpleNamespace(
        **{n: getattr(jnp, n) for n in names}, sigmoid=jax.nn.sigmoid, erf=jax.scipy.special.erf, relu=jax.nn.relu
    )


def pointwise(library: Any, compile: Any, dtype: Any) -> Work:
    x, y = tensors(library, chain_arrays(), dtype)
    function = compile(lambda x, y: chain(library, x, y))
    return kernel(lambda: function(x, y))


def pointwise_jax(jax: Any) -> Work:
    functions = jax_functions(jax)
    return jax_kernel(jax, lambda x, y: chain(functions, x, y), *chain_arrays())


def pointwise_numpy(numpy: Any) -> Work:
    x, y = chain_arrays()
    functions = types.SimpleNamespace(exp=np.exp, tanh=np.tanh, sigmoid=lambda v: 1 / (1 + np.exp(-v)))
    return kernel(lambda: chain(functions, x, y))


def pointwise_gradient(library: Any, compile: Any, dtype: Any) -> Work:
    x, y = tensors(library, chain_arrays(), dtype)
    function = compile(gradient(library, lambda x, y: chain(library, x, y).sum(), (0, 1)))
    return kernel(lambda: function(x, y))


def pointwise_gradient_jax(jax: Any) -> Work:
    functions = jax_functions(jax)
    return jax_kernel(jax, jax.grad(lambda x, y: chain(functions, x, y).sum(), (0, 1)), *chain_arrays())


def pointwise_gradient_numpy(numpy: Any) -> Work:
    """The derivative done on paper."""
    x, y = chain_arrays()

    def slopes() -> Any:
        t, e = np.tanh(x * y), np.exp(-x * x)
        s = 1 / (1 + np.exp(-t - e))
        outer = s * (1 - s)
        inner = outer * (1 - t * t)
        return inner * y - 2 * outer * e * x, inner * x

    return kernel(slopes)


# ---- rows ------------------------------------------------------------------------------------------------------------

ROWS, COLUMNS = 4096, 512


def row_arrays() -> list[np.ndarray]:
    x, w, seed = normal(2, (ROWS, COLUMNS), (COLUMNS, COLUMNS), (ROWS, COLUMNS))
    return [x, w / np.float32(COLUMNS**0.5), seed]


def rows(library: Any, compile: Any, dtype: Any) -> Work:
    functional = library.nn.functional

    def loss(x: Any, w: Any, seed: Any) -> Any:
        return (library.softmax(functional.layer_norm(x, (COLUMNS,)) @ w, -1) * seed).sum()

    arguments = tensors(library, row_arrays(), dtype)
    function = compile(gradient(library, loss, (0, 1)))
    return kernel(lambda: function(*arguments))


def rows_jax(jax: Any) -> Work:
    def loss(x: Any, w: Any, seed: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        return (jax.nn.softmax(normed @ w) * seed).sum()

    return jax_kernel(jax, jax.grad(loss, (0, 1)), *row_arrays())


def rows_numpy(numpy: Any) -> Work:
    """The derivative done on paper."""
    x, w, seed = row_arrays()

    def slopes() -> Any:
        centred = x - x.mean(1, keepdims=True)
        scale = 1 / np.sqrt((centred * centred).mean(1, keepdims=True) + np.float32(1e-5))
        normed = centred * scale
        logits = normed @ w
        e = np.exp(logits - logits.max(1, keepdims=True))
        share = e / e.sum(1, keepdims=True)
        back = share * (seed - (share * seed).sum(1, keepdims=True))
        slope = back @ w.T
        along = (slope * normed).mean(1, keepdims=True)
        return scale * (slope - slope.mean(1, keepdims=True) - normed * along), normed.T @ back

    return kernel(slopes)


# ---- views -----------------------------------------------------------------------------------------------------------

SIDE = 2048


def view_arrays() -> list[np.ndarray]:
    return normal(3, (SIDE, SIDE))


def rearranged(x: Any, flip: Any, roll: Any, transpose: Any) -> Any:
    """Quarters of x, transposed, reversed, rolled and with steps, side by side in one sum."""
    half = SIDE // 2
    a, b = x[:half, :half], x[half:, ::2]
    c = flip(transpose(x[:half, half:]))
    d = roll(x[::2, :half].reshape(half // 2, 2, half)[:, 1].reshape(half // 4, 2 * half)[:, half:], 5)
    wide = d.reshape(1, half // 4, half)
    return a * 2 + b - c + (transpose(a)[: half // 4] * wide).reshape(half // 4, half).sum(0)


def views(library: Any, compile: Any, dtype: Any) -> Work:
    def function(x: Any) -> Any:
        return rearranged(x, lambda v: v.flip(0, 1), lambda v, n: v.roll(n, 0), lambda v: v.t())

    (x,) = tensors(library, view_arrays(), dtype)
    compiled = compile(function)
    return kernel(lambda: compiled(x))


def views_jax(jax: Any) -> Work:
    jnp = jax.numpy
    function = lambda x: rearranged(x, jnp.flip, lambda v, n: jnp.roll(v, n, 0), jnp.transpose)  # noqa: E731
    return jax_kernel(jax, function, *view_arrays())


def views_numpy(numpy: Any) -> Work:
    (x,) = view_arrays()
    return kernel(lambda: rearranged(x, np.flip, lambda v, n: np.roll(v, n, 0), np.transpose))


# ---- a stencil -------------------------------------------------------------------------------------------------------

GRID, SWEEPS = 1024, 10


def grid() -> list[np.ndarray]:
    return normal(4, (GRID, GRID))


def relaxed(u: Any) -> Any:
    return 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])


def stencil(library: Any, compile: Any, dtype: Any) -> Work:
    @compile
    def sweep(u: Any) -> None:
        u[1:-1, 1:-1] = relaxed(u)

    return sweeping(library, sweep, dtype)


def sweeping(library: Any, sweep: Any, dtype: Any) -> Work:
    def run(u: Any = tensors(library, grid(), dtype)[0]) -> Any:  # noqa: B008
        for _ in range(SWEEPS):
            sweep(u)
        return u

    return Work(run, SWEEPS, lambda: np.asarray(run(tensors(library, grid(), dtype)[0]))[::101, ::97])


def stencil_loop(weft: Any) -> Work:
    @weft.compile
    def sweeps(u: Any, count: int) -> None:
        for _ in weft.range(count):
            u[1:-1, 1:-1] = relaxed(u)

    def run(u: Any = tensors(weft, grid(), None)[0]) -> Any:  # noqa: B008
        sweeps(u, SWEEPS)
        return u

    return Work(run, SWEEPS, lambda: np.asarray(run(tensors(weft, grid(), None)[0]))[::101, ::97])


def stencil_jax(jax: Any) -> Work:
    sweep = jax.jit(lambda u: u.at[1:-1, 1:-1].set(relaxed(u)), donate_argnums=0)
    state = [jax.numpy.array(grid()[0])]

    def run(state: Any = state) -> Any:
        for _ in range(SWEEPS):
            state[0] = sweep(state[0])
        return state[0].block_until_ready()

    return Work(run, SWEEPS, lambda: np.asarray(run([jax.numpy.array(grid()[0])]))[::101, ::97])


def stencil_jax_loop(jax: Any) -> Work:
    step = lambda _, u: u.at[1:-1, 1:-1].set(relaxed(u))  # noqa: E731
    sweeps = jax.jit(lambda u: jax.lax.fori_loop(0, SWEEPS, step, u), donate_argnums=0)
    state = [jax.numpy.array(grid()[0])]

    def run(state: Any = state) -> Any:
        state[0] = sweeps(state[0])
        return state[0].block_until_ready()

    return Work(run, SWEEPS, lambda: np.asarray(run([jax.numpy.array(grid()[0])]))[::101, ::97])


def stencil_numpy(numpy: Any) -> Work:
    def sweep(u: Any) -> None:
        u[1:-1, 1:-1] = relaxed(u)

    def run(u: Any = grid()[0]) -> Any:  # noqa: B008
        for _ in range(SWEEPS):
            sweep(u)
        return u

    return Work(run, SWEEPS, lambda: run(grid()[0])[::101, ::97])


# ---- option prices ---------------------------------------------------------------------------------------------------

OPTIONS = 1_000_000


def options() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    ranges = ((20, 180), (40, 160), (0.1, 2.0), (0.1, 0.5))
    return [random.uniform(low, high, OPTIONS).astype(np.float32) for low, high in ranges]


def call_price(library: Any, spot: Any, strike: Any, years: Any, volatility: Any) -> Any:
    """Black and Scholes' price of a call, at a rate of 2 %."""
    spread = volatility * library.sqrt(years)
    d1 = (library.log(spot / strike) + (0.02 + 0.5 * volatility * volatility) * years) / spread

    def below(z: Any) -> Any:
        return 0.5 * (1 + library.erf(z * 0.5**0.5))

    return spot * below(d1) - strike * library.exp(-0.02 * years) * below(d1 - spread)


def black_scholes(library: Any, compile: Any, dtype: Any) -> Work:
    """Prices, and their derivatives by the spot and the volatility."""
    arguments = tensors(library, options(), dtype)
    slopes = compile(gradient(library, lambda *a: call_price(library, *a).sum(), (0, 3)))
    prices = compile(lambda *a: call_price(library, *a))
    return kernel(lambda: (prices(*arguments), *slopes(*arguments)))


def black_scholes_jax(jax: Any) -> Work:
    functions = jax_functions(jax)
    slopes = jax.jit(jax.grad(lambda *a: call_price(functions, *a).sum(), (0, 3)))
    prices = jax.jit(lambda *a: call_price(functions, *a))
    arguments = [jax.numpy.array(a) for a in options()]
    return kernel(lambda: jax.block_until_ready((prices(*arguments), *slopes(*arguments))))


def black_scholes_numpy(scipy: Any) -> Work:
    """The derivatives done on paper."""
    spot, strike, years, volatility = options()
    erf = importlib.import_module("scipy.special").erf

    def prices_and_slopes() -> Any:
        root = np.sqrt(years)
        spread = volatility * root
        d1 = (np.log(spot / strike) + (0.02 + 0.5 * volatility * volatility) * years) / spread
        below, below2 = (0.5 * (1 + erf(z * np.float32(0.5**0.5))) for z in (d1, d1 - spread))
        density = np.exp(-0.5 * d1 * d1) * np.float32((2 * np.pi) ** -0.5)
        return spot * below - strike * np.exp(-0.02 * years) * below2, below, spot * density * root

    return kernel(prices_and_slopes)


CASES = (
    Case(
        "pointwise",
        "`sigmoid(tanh(x * y) + exp(-x * x))` on 4M elements.",
        peers_of(pointwise, JAX_jit=("jax", pointwise_jax), NumPy=("numpy", pointwise_numpy)),
        expected_of(pointwise),
        bytes=12 * MANY,
    ),
    Case(
        "pointwise_gradient",
        "The gradient of its sum by both operands.",
        peers_of(
            pointwise_gradient,
            JAX_jit=("jax", pointwise_gradient_jax),
            NumPy_by_hand=("numpy", pointwise_gradient_numpy),
        ),
        expected_of(pointwise_gradient),
        bytes=16 * MANY,
        tolerance=1e-3,
    ),
    Case(
        "rows",
        "The gradients of a weighted sum of `softmax(layer_norm(x) @ w)` by x (4096 x 512) and w.",
        peers_of(rows, JAX_jit=("jax", rows_jax), NumPy_by_hand=("numpy", rows_numpy)),
        expected_of(rows),
        bytes=4 * ROWS * COLUMNS * 3,
        flops=6.0 * ROWS * COLUMNS * COLUMNS,
        tolerance=1e-3,
    ),
    Case(
        "views",
        "A sum of parts of a 2048 x 2048 matrix: with steps, transposed, reversed, rolled, reshaped.",
        peers_of(views, JAX_jit=("jax", views_jax), NumPy=("numpy", views_numpy)),
        expected_of(views),
        bytes=4 * SIDE * SIDE * (0.25 + 0.5 + 0.25 + 0.25 + 0.25),
    ),
    Case(
        "stencil",
        "A sweep of Jacobi's relaxation over 1024 x 1024, written with slices, in place; 10 sweeps a run.",
        {
            **peers_of(stencil, JAX_jit=("jax", stencil_jax), NumPy=("numpy", stencil_numpy)),
            "weft, native loop": ("weft", stencil_loop),
            "JAX, fori_loop": ("jax", stencil_jax_loop),
        },
        expected_of(stencil),
        bytes=8 * GRID * GRID,
    ),
    Case(
        "black_scholes",
        "A million prices of options, and their derivatives by spot and volatility.",
        peers_of(black_scholes, JAX_jit=("jax", black_scholes_jax), SciPy_by_hand=("scipy", black_scholes_numpy)),
        expected_of(black_scholes),
        bytes=4 * OPTIONS * (5 + 6),
        tolerance=1e-3,
    ),
)
