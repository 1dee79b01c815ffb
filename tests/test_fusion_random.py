"""Random programs of views, pieces, folds, products, updates and lookups: fused and lowered, they mean what they meant.

Thresholds are moved so that small programs take the ways of large ones: chunks, partial results, library products,
many kernels.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from weft.backends import lower_bodies
from weft.backends.lower import lower
from weft.backends.native.plain import run_kernel
from weft.backends.python_source import python_source
from weft.backends.reference import run_fused
from weft.ir import OPS, interpret, product_tiles, schedule, verify
from weft.ir.builder import Builder, inline
from weft.ir.types import TensorType, float64, int64
from weft.passes.fusion import fuse

SIZES = (1, 2, 3, 4, 5, 8, 16, 17, 20)
LARGEST = 5000
SETTINGS = {
    "usual": (200_000, 100_000, 200_000, 1 << 15),
    "chunks": (0, 40, 200_000, 1 << 15),
    "small chunks": (0, 3, 300, 1 << 15),
    "many kernels": (0, 200, 0, 64),
    "products apart": (200_000, 100_000, 200_000, 64),
}
"""SERIAL_COST, CHUNK_COST, SMALL_COST, TILED_WORK."""


class Program:
    """A random graph in the making."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.b = Builder("random")
        self.arrays, self.values = [], []
        first = self.shape()
        for _ in range(self.random.randint(1, 3)):
            self.param(first if self.random.random() < 0.7 else self.shape())
        for _ in range(self.random.randint(2, 14)):
            self.step()

    def shape(self):
        return tuple(self.random.choice(SIZES) for _ in range(self.random.choice((0, 1, 2, 2, 2, 3))))

    def param(self, shape):
        numbers = np.random.default_rng(self.random.randrange(100)).uniform(-2, 2, shape)
        self.values.append(self.b.param(TensorType(shape, float64)))
        self.arrays.append(np.round(numbers, 2))

    def step(self):
        """One more value, if the chosen kind of step fits the chosen operand."""
        x = self.random.choice(self.values[-4:] if self.random.random() < 0.6 else self.values)
        kind = self.random.choice(
            ("unary", "binary", "binary", "view", "view", "pieces", "fold", "product", "update", "lookup", "line")
        )
        value = getattr(self, kind)(x) if kind in ("unary", "binary") or x.type.rank else None
        if value is not None and value.type.size <= LARGEST:
            self.values.append(value)

    def alike(self, x):
        return self.random.choice([y for y in self.values if y.shape == x.shape])

    def unary(self, x):
        return getattr(self.b, self.random.choice(("neg", "abs", "tanh", "sin")))(x)

    def binary(self, x):
        return getattr(self.b, self.random.choice(("add", "mul", "sub", "maximum")))(x, self.alike(x))

    def view(self, x):
        pick, rank = self.random.choice, x.type.rank
        match pick(("permute", "reshape", "slice", "flip")):
            case "permute":
                return self.b.permute(x, dims=tuple(self.random.sample(range(rank), rank)))
            case "reshape":
                n = x.type.size
                rows = pick([q for q in range(1, n + 1) if n % q == 0])
                return self.b.reshape(x, shape=pick(((n,), (rows, n // rows), (n // rows, rows, 1))))
            case "slice":
                starts = [self.random.randrange(n) for n in x.shape]
                stops = [self.random.randint(a + 1, n) for a, n in zip(starts, x.shape, strict=True)]
                return self.b.slice(
                    x, starts=tuple(starts), stops=tuple(stops), steps=tuple(pick((1, 1, 2)) for _ in starts)
                )
        return self.b.flip(x, dims=(self.random.randrange(rank),))

    def pieces(self, x):
        if self.random.random() < 0.5:
            low, high = (tuple(self.random.randint(0, 2) for _ in x.shape) for _ in range(2))
            return self.b.pad(x, low=low, high=high, value=0.5)
        return self.b.concatenate(x, self.b.neg(x), dim=self.random.randrange(x.type.rank))

    def fold(self, x):
        dims = tuple(sorted(self.random.sample(range(x.type.rank), self.random.randint(1, x.type.rank))))
        folded = getattr(self.b, self.random.choice(("sum", "amax", "sum")))(x, dims=dims)
        if self.random.random() < 0.4:
            return folded
        return self.b.expand(
            self.b.view_as(folded, tuple(1 if d in dims else n for d, n in enumerate(x.shape))), x.shape
        )

    def product(self, x):
        y = self.random.choice([v for v in self.values if v.type.rank])
        pairs = [(i, j) for i, n in enumerate(x.shape) for j, m in enumerate(y.shape) if n == m]
        if not pairs:
            return None
        i, j = self.random.choice(pairs)
        return self.b.scale(
            self.b.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(i,), rhs_contract=(j,)), 0.1
        )

    def update(self, x):
        starts = [self.random.randrange(n) for n in x.shape]
        sizes = [self.random.randint(1, n - a) for a, n in zip(starts, x.shape, strict=True)]
        y = self.alike(x) if self.random.random() < 0.5 else self.b.mul(self.alike(x), x)
        box = self.b.slice(y, starts=(0,) * len(sizes), stops=tuple(sizes), steps=(1,) * len(sizes))
        if self.random.random() < 0.5:
            return self.b.slice_update(x, box, starts=tuple(starts), steps=(1,) * len(sizes))
        return self.b.dynamic_update(x, box, *map(self.b.index_scalar, starts))

    def lookup(self, x):
        dim, n = self.random.randrange(x.type.rank), self.random.randint(1, 6)
        places = tuple(self.random.randrange(x.shape[dim]) for _ in range(n))
        index = self.b.literal(values=places, shape=(n,), dtype=int64)
        found = self.b.gather(x, index, dims=(dim,))
        if self.random.random() < 0.5:
            return found
        return self.b.scatter(
            x, self.b.tanh(found), index, dims=(dim,), mode=self.random.choice(("set", "add", "amax"))
        )

    def line(self, x):
        dim = self.random.randrange(x.type.rank)
        match self.random.choice(("cumsum", "sort", "argmax")):
            case "cumsum":
                return self.b.cumsum(x, dim=dim)
            case "sort":
                return self.b.sort(x, dim=dim, descending=self.random.random() < 0.5)[0]
        return self.b.cast(self.b.argmax(x, dim=dim), float64)

    def graph(self):
        computed = self.values[len(self.arrays) :] or self.values
        chosen = self.random.sample(computed, min(len(computed), self.random.randint(1, 4)))
        return self.b.finish(list(dict.fromkeys([*chosen, computed[-1]])))


def loop_of(program):
    """A loop whose body is the program, and which carries some of its params into values of their types."""
    graph, pick = program.graph(), program.random
    body = Builder("body")
    body.param(TensorType((), int64), "i")
    params = [body.param(p.type) for p in graph.params]
    outputs = inline(body, graph, params)
    inside = [v for n in body.nodes for v in n.outputs]
    carried = params[: pick.randint(1, len(params))]
    following = []
    for p in carried:
        value = pick.choice([v for v in (*inside, *carried) if v.type == p.type])
        following.append(pick.choice((value, body.tanh(value), body.scale(body.add(value, p), 0.5))))
    region = body.finish([*following, *pick.sample(outputs, min(len(outputs), pick.randint(0, 2)))])
    b = Builder("loop")
    operands, steps = [b.param(p.type) for p in params], b.param(TensorType((), int64), "steps")
    results = b.control(OPS.loop, (b.index_scalar(0), steps, *operands), {"carried": len(carried)}, (region,))
    return b.finish(results), [*program.arrays, np.int64(pick.randint(1, 4))]


def check(graph, arrays, in_place):
    expected = interpret(graph, arrays)
    fused = fuse(graph)
    verify(fused)
    results = run_fused(
        fused, lower(fused), arrays, lambda k, *rest: run_kernel(python_source(k, False), *rest), in_place
    )
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-8, atol=1e-8)


@pytest.fixture(params=SETTINGS)
def settings(request, monkeypatch):
    serial, chunk, small, library = SETTINGS[request.param]
    monkeypatch.setattr(lower_bodies, "SERIAL_COST", serial)
    monkeypatch.setattr(lower_bodies, "CHUNK_COST", chunk)
    monkeypatch.setattr(lower_bodies, "COLUMN_ROWS", 2)
    monkeypatch.setattr(schedule, "SMALL_COST", small)
    monkeypatch.setattr(product_tiles, "TILED_WORK", library)


@pytest.mark.parametrize("block", range(3))
def test_random_programs(settings, block):
    for seed in range(20 * block, 20 * block + 20):
        program = Program(seed)
        check(program.graph(), program.arrays, in_place=seed % 2 == 0)


@pytest.mark.parametrize("block", range(2))
def test_random_loops(settings, block):
    for seed in range(20 * block, 20 * block + 20):
        check(*loop_of(Program(seed)), in_place=seed % 2 == 0)
