"""First and second derivatives of every op, in float64, against central differences along random directions."""
from __future__ import annotations

import numpy as np
import pytest

from weft.ir import OPS, interpret, parse, same_graph, verify
from weft.ir.builder import Builder, inline
from weft.ir.errors import GradientError
from weft.ir.op import NOT_DIFFERENTIABLE, Trait
from weft.ir.samples import samples
from weft.ir.types import BY_NUMPY, TensorType, float64
from weft.passes.reverse import gradient

STEP = 1e-5


def float64_samples(op):
    for sample in samples(op):
        params = [k for k, t in enumerate(sample.types) if t.dtype is float64]
        if (
            params
            and any(t.dtype is float64 for t in sample.outputs())
            and all(t.dtype is float64 or not t.dtype.is_floating_point for t in sample.types)
        ):
            yield sample, params


DIFFERENTIABLE = [
    op for op in OPS if op.vjp is not NOT_DIFFERENTIABLE and any(float64_samples(op)) and not op.has(Trait.CONTROL)
    and op is not OPS.stop_gradient     # its derivative is on purpose not that of its values
]


def projection(graph):
    """The graph (*params) -> sum over the float64 results of result * weights, whose gradient tells all derivatives."""
    b = Builder(graph.name)
    params = [b.param(p.type, p.hint) for p in graph.params]
    total = b.scalar(0.0, float64)
    for value in inline(b, graph, params):
        if value.dtype is float64:
            flat = b.view_as(value, (value.type.size,))
            weights = b.cos(b.scale(b.iota(shape=flat.shape, dim=0, dtype=float64), 0.7))
            total = b.add(total, b.sum(b.mul(flat, weights), dims=(0,)))
    return b.finish([total])


def directional(graph, wrt):
    """The graph (*params) -> inner product of the gradient of result 0 with `directions`, given as further params."""
    b = Builder(f"{graph.name}_directional")
    params = [b.param(p.type, p.hint) for p in graph.params]
    along = [b.param(graph.params[k].type, f"v{k}") for k in wrt]
    total = b.scalar(0.0, float64)
    for g, v in zip(inline(b, gradient(graph, wrt), params)[1:], along, strict=True):
        total = b.add(total, b.sum(b.mul(g, v), dims=tuple(range(len(g.shape)))))
    return b.finish([total])


def differences(graph, arrays, wrt, directions):
    moved = [[*arrays], [*arrays]]
    for k, v in zip(wrt, directions, strict=True):
        moved[0][k], moved[1][k] = arrays[k] + STEP * v, arrays[k] - STEP * v
    up, down = (interpret(graph, a)[0] for a in moved)
    return (up - down) / (2 * STEP)


def check(graph, arrays, wrt, rng, what):
    """The derivative of result 0 of `graph` along a random direction; the graph of that derivative."""
    directions = [rng.standard_normal(arrays[k].shape) for k in wrt]
    slope = directional(graph, wrt)
    verify(slope)
    assert same_graph(parse(str(slope)), slope)
    (found,) = interpret(slope, [*arrays, *directions])
    np.testing.assert_allclose(found, differences(graph, arrays, wrt, directions), rtol=1e-6, atol=1e-7, err_msg=what)
    return slope, [*arrays, *directions]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_first_and_second_derivative(op):
    rng = np.random.default_rng(11)
    for sample, wrt in float64_samples(op):
        graph = projection(sample.graph())
        slope, arrays = check(graph, sample.arrays(rng), wrt, rng, str(sample))
        check(slope, arrays, wrt, rng, f"second derivative of {sample}")


@pytest.mark.parametrize(
    "op",
    [op for op in OPS if op.vjp is NOT_DIFFERENTIABLE and not op.has(Trait.CONTROL) and any(float64_samples(op))],
    ids=lambda op: op.name,
)
def test_missing_derivative_names_the_op(op):
    sample, wrt = next(float64_samples(op))
    with pytest.raises(GradientError, match=op.name):
        gradient(projection(sample.graph()), wrt)


def slope_at(name, *arrays, **attrs):
    """The gradients of the sum of all results of one op, in float64."""
    b = Builder(name)
    arrays = [np.asarray(a) for a in arrays]
    params = [b.param(t, f"x{k}") for k, t in enumerate(types_of(arrays))]
    out = getattr(b, name)(*params, **attrs)
    graph = b.finish([b.sum(out, dims=tuple(range(len(out.shape))))])
    wrt = [k for k, a in enumerate(arrays) if a.dtype == np.float64]
    return interpret(gradient(graph, wrt), arrays)[1:]


def types_of(arrays):
    return [TensorType(a.shape, BY_NUMPY[a.dtype]) for a in arrays]


def test_conventions_at_kinks_are_torchs():
    np.testing.assert_array_equal(slope_at("abs", [-1.0, 0.0, 2.0])[0], [-1, 0, 1])
    for name in ("maximum", "minimum"):
        np.testing.assert_array_equal(slope_at(name, [1.0, 2.0], [1.0, 2.0]), [[0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_array_equal(slope_at("fmax", [1.0, np.nan, 1.0], [1.0, 2.0, np.nan]), [[1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(slope_at("amax", [2.0, 1.0, 2.0], dims=(0,))[0], [0.5, 0, 0.5])
    np.testing.assert_array_equal(slope_at("cummax", [2.0, 1.0, 2.0, 2.0], dim=0)[0], [2, 0, 1, 1])
    np.testing.assert_array_equal(slope_at("pow", [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]), [[0, 1, 0], [0, 0, np.log(3.0)]])


def test_products_with_zeros():
    x = np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 5.0], [1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(slope_at("prod", x, dims=(1,))[0], [[0, 6, 0], [0, 0, 0], [8, 4, 2]])
    np.testing.assert_array_equal(slope_at("cumprod", x, dim=1)[0], [[1, 8, 0], [1, 0, 0], [11, 5, 2]])
    target, factors, places = np.array([2.0, 0.0, 3.0]), np.array([0.0, 5.0, 4.0, 0.0]), np.array([0, 0, 1, 2])
    slopes = slope_at("scatter", target, factors, places, dims=(0,), mode="mul")
    np.testing.assert_array_equal(slopes[0], [0, 4, 0])
    np.testing.assert_array_equal(slopes[1], [10, 0, 0, 3])


def test_only_the_last_of_equal_indices_gets_the_derivative():
    target, values = np.zeros(3), np.array([1.0, 2.0, 3.0, 4.0])
    slopes = slope_at("scatter", target, values, np.array([1, 0, 1, 1]), dims=(0,), mode="set")
    np.testing.assert_array_equal(slopes[0], [0, 0, 1])
    np.testing.assert_array_equal(slopes[1], [0, 1, 0, 1])
