"""Random programs, loops and conds included: every pass keeps their meaning, and their derivatives agree with
differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.ir import OPS, interpret
from weft.ir.builder import Builder, inline
from weft.ir.types import TensorType, bool_, float64, int64
from weft.passes.options import Options
from weft.passes.pipeline import PIPELINE, optimize
from weft.passes.reverse import gradient, vjp_graph

INDEX = TensorType((), int64)


class Program:
    """Emits random ops on float64 values; the values so far are in `values`."""

    def __init__(self, b, rng, values, depth):
        self.b, self.rng, self.values, self.depth = b, rng, list(values), depth

    def grow(self, steps):
        choices = [
            self.unary,
            self.unary,
            self.binary,
            self.binary,
            self.view,
            self.view,
            self.piece,
            self.reduce,
            self.update,
            self.product,
        ]
        choices += [self.loop, self.cond] * (self.depth > 0)
        for _ in range(steps):
            made = self.pick(choices)()
            self.values.extend(v for v in made if v.type.size <= 64)
        return self

    def pick(self, items):
        return items[self.rng.integers(len(items))]

    def any(self):
        return self.pick(self.values)

    def like(self, shape):
        """A value of this shape: one that exists, a constant, or one brought into shape."""
        fitting = [v for v in self.values if v.shape == tuple(shape)]
        if fitting and self.rng.random() < 0.8:
            return self.pick(fitting)
        if self.rng.random() < 0.3:
            return self.b.full(shape, self.pick([0.0, -0.0, 1.0, 0.5, -1.5]), float64)
        return self.b.expand(self.b.sin(self.total(self.any())), shape)

    def total(self, x):
        return self.b.sum(x, dims=tuple(range(len(x.shape)))) if x.shape else x

    def unary(self):
        b, x = self.b, self.any()
        return [
            self.pick(
                [
                    b.sin,
                    b.tanh,
                    b.neg,
                    b.sigmoid,
                    lambda v: b.mul(v, v),
                    lambda v: b.scale(v, 0.5),
                    lambda v: b.neg(b.neg(v)),
                    lambda v: b.add(v, b.full_like(v, 1.0)),
                    b.abs,
                ]
            )(x)
        ]

    def binary(self):
        b, x = self.b, self.any()
        y = self.like(x.shape)
        return [
            self.pick(
                [
                    b.add,
                    b.sub,
                    b.mul,
                    b.maximum,
                    b.minimum,
                    lambda p, q: b.select(b.lt(p, q), p, b.sin(q)),
                    lambda p, q: b.div(p, b.add(b.mul(q, q), b.full_like(q, 1.0))),
                ]
            )(x, y)
        ]

    def view(self):
        b, x = self.b, self.any()
        shape, rank = x.shape, len(x.shape)
        kind = self.rng.integers(6)
        if kind == 0:
            return [b.reshape(x, shape=(x.type.size,))]
        if kind == 1:
            return [b.permute(x, dims=tuple(int(k) for k in self.rng.permutation(rank)))]
        if kind == 2:
            starts = tuple(int(self.rng.integers(n + 1)) for n in shape)
            stops = tuple(int(self.rng.integers(a, n + 1)) for a, n in zip(starts, shape, strict=True))
            return [b.slice(x, starts=starts, stops=stops, steps=tuple(int(self.rng.integers(1, 3)) for _ in shape))]
        if kind == 3:
            return [b.flip(x, dims=tuple(k for k in range(rank) if self.rng.random() < 0.5))]
        if kind == 4:
            return [b.broadcast(x, shape=(int(self.rng.integers(1, 4)), *shape))]
        return [b.reshape(x, shape=(1, *shape, 1))]

    def piece(self):
        b, x = self.b, self.any()
        if not x.shape or self.rng.random() < 0.5:
            widths = [tuple(int(self.rng.integers(3)) for _ in x.shape) for _ in range(2)]
            return [b.pad(x, low=widths[0], high=widths[1], value=0.0)]
        return [b.concatenate(x, self.like(x.shape), dim=int(self.rng.integers(len(x.shape))))]

    def reduce(self):
        b, x = self.b, self.any()
        dims = tuple(k for k in range(len(x.shape)) if self.rng.random() < 0.6)
        if 0 in x.shape:
            return [b.sum(x, dims=dims)]
        scan = [lambda v, dims: b.cumsum(v, dim=dims[0])] if dims else []
        return [self.pick([b.sum, b.amax, lambda v, dims: b.sum(b.mul(v, v), dims=dims), *scan])(x, dims=dims)]

    def update(self):
        b, x = self.b, self.any()
        box = [(int(a), int(self.rng.integers(a, n + 1))) for n in x.shape for a in [self.rng.integers(n + 1)]]
        starts, sizes = tuple(a for a, _ in box), tuple(z - a for a, z in box)
        u = self.like(sizes)
        if self.rng.random() < 0.5:
            return [
                b.slice_update(
                    x,
                    u,
                    starts=tuple(a if n else 0 for a, n in zip(starts, sizes, strict=True)),
                    steps=(1,) * len(starts),
                )
            ]
        places = [b.index_scalar(a) for a in starts]
        return [b.dynamic_update(x, u, *places), b.dynamic_slice(x, *places, sizes=sizes)]

    def product(self):
        b = self.b
        x, y = self.any(), self.any()
        pairs = [(i, j) for i, n in enumerate(x.shape) for j, m in enumerate(y.shape) if n == m]
        if not pairs or len(x.shape) + len(y.shape) > 5:
            return []
        i, j = self.pick(pairs)
        return [b.dot_general(b.tanh(x), y, lhs_batch=(), rhs_batch=(), lhs_contract=(i,), rhs_contract=(j,))]

    def region(self, params, results, steps=4):
        """A closed graph over `params` with results of the types `results`, tamed so that repetition does not
        explode."""
        b = Builder("region")
        inside = [b.param(t) for t in params]
        program = Program(b, self.rng, [v for v in inside if v.dtype is float64], self.depth - 1)
        if any(v.type == INDEX for v in inside):
            program.values.append(b.scale(b.cast(inside[0], float64), 0.25))
        program.grow(steps)
        return b.finish([b.tanh(program.like(t.shape)) for t in results])

    def loop(self):
        carried = [self.any() for _ in range(self.rng.integers(1, 4))]
        invariant = [self.any() for _ in range(self.rng.integers(0, 3))]
        lasts = [TensorType((), float64)] * int(self.rng.integers(2))
        types = [v.type for v in carried]
        body = self.region([INDEX, *types, *(v.type for v in invariant)], types + lasts)
        start = int(self.rng.integers(3))
        bounds = self.b.index_scalar(start), self.b.index_scalar(start + int(self.rng.integers(len(lasts), 5)))
        return self.b.control(OPS.loop, (*bounds, *carried, *invariant), {"carried": len(carried)}, (body,))

    def cond(self):
        operands = [self.any() for _ in range(self.rng.integers(1, 3))]
        results = [self.pick(operands).type]
        predicate = self.b.gt(self.total(self.any()), self.b.scalar(0.0, float64))
        branches = [self.region([v.type for v in operands], results, 3) for _ in range(2)]
        return self.b.control(OPS.cond, (predicate, *operands), {}, branches)


def random_program(seed):
    """A graph of three params and one scalar result that depends on all that was made."""
    rng, b = np.random.default_rng(seed), Builder(f"program{seed}")
    params = [b.param(TensorType(shape, float64)) for shape in ((3,), (2, 3), ())]
    program = Program(b, rng, params, depth=2).grow(int(rng.integers(4, 14)))
    total = b.scalar(0.0, float64)
    for value in program.values[-6:]:
        total = b.add(total, b.sin(program.total(value)))
    return b.finish([total])


def arguments(graph, seed):
    rng = np.random.default_rng(seed + 1)
    return [rng.uniform(-1.5, 1.5, p.shape).astype(p.dtype.numpy) for p in graph.params]


def assert_passes_keep(graph, arrays, tolerance=1e-11):
    expected = interpret(graph, arrays)

    def check(name, changed):
        for a, z in zip(expected, interpret(changed, arrays), strict=True):
            np.testing.assert_allclose(z, a, rtol=tolerance, atol=tolerance, err_msg=f"after {name}")

    return optimize(graph, Options(verify=True), check)


def slope_graph(graph):
    """(*params, *directions) -> the derivative of result 0 along the directions."""
    b = Builder(f"{graph.name}_slope")
    params = [b.param(p.type) for p in graph.params]
    directions = [b.param(p.type) for p in graph.params]
    total = b.scalar(0.0, float64)
    for g, v in zip(inline(b, gradient(graph, range(len(params))), params)[1:], directions, strict=True):
        total = b.add(total, b.sum(b.mul(g, v), dims=tuple(range(len(g.shape)))))
    return b.finish([total])


def assert_slope(graph, arrays, directions, step, tolerance):
    """The derivative along `directions` is the limit of differences; skipped where the two differences disagree (a
    kink)."""
    given = [*arrays, *directions]
    exact = interpret(slope_graph(graph), given)[0]

    def moved(t):
        return interpret(graph, [a + t * v for a, v in zip(arrays, directions, strict=True)])[0]

    coarse, fine = ((moved(h) - moved(-h)) / (2 * h) for h in (step, step / 2))
    if abs(coarse - fine) <= tolerance * (1 + abs(fine)):
        assert abs(exact - fine) <= 4 * tolerance * (1 + abs(fine)), (exact, fine)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31))
def test_every_pass_keeps_the_meaning(seed):
    graph = random_program(seed)
    assert_passes_keep(graph, arguments(graph, seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_gradients_agree_with_differences(seed):
    graph = random_program(seed)
    arrays = arguments(graph, seed)
    directions = arguments(graph, seed + 1)
    assert_slope(graph, arrays, directions, 1e-5, 1e-6)
    assert_passes_keep(slope_graph(graph), [*arrays, *directions], 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_second_derivatives_agree_with_differences(seed):
    first = slope_graph(random_program(seed))
    arrays = arguments(first, seed)
    assert_slope(first, arrays, arguments(first, seed + 2), 1e-5, 1e-5)


def test_each_pass_can_be_switched_off():
    graph = slope_graph(random_program(3))
    arrays = arguments(graph, 3)
    for name in {step.name for step in PIPELINE}:
        ran = []
        changed = optimize(graph, Options(disabled=frozenset({name})), lambda done, _, ran=ran: ran.append(done))
        assert name not in ran and len(ran) > 3
        np.testing.assert_allclose(interpret(changed, arrays)[0], interpret(graph, arrays)[0], rtol=1e-9)


def test_a_broken_derivative_is_found(monkeypatch):
    given = type(OPS.sin).input_rule

    def rule(op, i):
        return (lambda b, node, g: b.mul(g, b.sin(node.inputs[0]))) if op is OPS.sin else given(op, i)

    monkeypatch.setattr(type(OPS.sin), "input_rule", rule)
    b = Builder("sine")
    x = b.param(TensorType((), float64))
    with pytest.raises(AssertionError):
        assert_slope(b.finish([b.sin(x)]), [np.float64(0.3)], [np.float64(1.0)], 1e-5, 1e-6)


def test_vjp_graph_takes_and_gives_what_is_asked_for():
    b = Builder("pair")
    x, y, flag = b.param(TensorType((2,), float64)), b.param(TensorType((2,), float64)), b.param(TensorType((), bool_))
    graph = b.finish([b.mul(x, y), b.add(x, x), flag])
    pulled = vjp_graph(graph, flowing=[0], wanted=[1])
    assert [p.type for p in pulled.params] == [x.type, y.type, flag.type, x.type]
    np.testing.assert_array_equal(interpret(pulled, [[1.0, 2.0], [3.0, 4.0], True, [1.0, 10.0]])[0], [1.0, 20.0])
    assert [r.type for r in vjp_graph(graph).results] == [x.type, y.type]
