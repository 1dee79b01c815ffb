"""Golden texts of optimized graphs: what the pipeline as a whole makes of typical programs.

Set WEFT_UPDATE_GOLDEN=1 to write the golden files anew.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from weft.ir import OPS, interpret, parse
from weft.ir.builder import Builder
from weft.ir.compare import difference
from weft.ir.types import TensorType, float32, float64, int64
from weft.passes.options import Options
from weft.passes.pipeline import optimize
from weft.passes.reverse import gradient

GOLDEN = Path(__file__).parent / "golden" / "passes"


def of(*shape, dtype=float32):
    return TensorType(shape, dtype)


def matmul(b, x, y):
    return b.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(0,))


def network_gradient():
    """A hidden layer, written with all the transposes and broadcasts that a tracer emits."""
    b = Builder("network")
    x, y = b.param(of(100, 3), "x"), b.param(of(100, 1), "y")
    w1, b1, w2 = b.param(of(32, 3), "w1"), b.param(of(32), "b1"), b.param(of(1, 32), "w2")
    sums = b.add(matmul(b, x, b.permute(w1, dims=(1, 0))), b.broadcast(b.reshape(b1, shape=(1, 32)), shape=(100, 32)))
    hidden = b.select(b.gt(sums, b.full_like(sums, 0)), sums, b.full_like(sums, 0))
    difference = b.sub(matmul(b, hidden, b.permute(w2, dims=(1, 0))), y)
    squares = b.pow(difference, b.full_like(difference, 2))
    return gradient(b.finish([b.div(b.sum(squares, dims=(0, 1)), b.scalar(128.0, float32))]), (2, 3, 4))


def updates_of_views():
    """x[0:2] = u; x[:, 1] = v; then reads of both places and of what neither touched."""
    b = Builder("updates")
    x, u, v = b.param(of(4, 3), "x"), b.param(of(2, 3), "u"), b.param(of(4, 1), "v")
    x1 = b.slice_update(x, u, starts=(0, 0), steps=(1, 1))
    x2 = b.as_strided_update(x1, b.reshape(v, shape=(4,)), strides=(3,), offset=1)
    column = b.reshape(b.slice(x2, starts=(0, 1), stops=(4, 2), steps=(1, 1)), shape=(4,))
    corner = b.slice(x2, starts=(0, 2), stops=(2, 3), steps=(1, 1))
    rest = b.as_strided(x2, shape=(2,), strides=(3,), offset=6)
    return b.finish([x2, column, corner, rest], {"writes": {0: 0}})


def loop_with_needless_parts():
    """Constants and twins among the operands, a gradient that is always zero between iterations, invariant work."""
    r = Builder("body")
    r.param(of(dtype=int64), "i")
    x, grad, twin, rate, w = (r.param(of(3), name) for name in ("x", "grad", "twin", "rate", "w"))
    slope = r.add(grad, r.mul(x, r.exp(w)))
    step = r.add(r.mul(slope, rate), r.full((3,), 0.0, float32))
    new = r.sub(x, step)
    again = r.sub(twin, step)
    body = r.finish([new, r.full((3,), 0.0, float32), again, new])
    b = Builder("loop")
    start, w = b.param(of(3), "start"), b.param(of(3), "w")
    zeros = b.full((3,), 0.0, float32)
    bounds = b.index_scalar(0), b.index_scalar(100)
    operands = (start, zeros, start, b.full((3,), 0.01, float32), w)
    outputs = b.control(OPS.loop, (*bounds, *operands), {"carried": 3}, (body,))
    return b.finish([outputs[0], outputs[2], outputs[3]])


def gradient_of_a_loop():
    """tanh(w x) repeated; the forward loop stores one row an iteration, the reverse loop reads them."""
    r = Builder("body")
    r.param(of(dtype=int64), "i")
    x, w = r.param(of(3, dtype=float64), "x"), r.param(of(3, 3, dtype=float64), "w")
    body = r.finish([r.tanh(r.dot_general(w, x, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(0,)))])
    b = Builder("iterate")
    x, w = b.param(of(3, dtype=float64), "x"), b.param(of(3, 3, dtype=float64), "w")
    (final,) = b.control(OPS.loop, (b.index_scalar(0), b.index_scalar(8), x, w), {"carried": 1}, (body,))
    return gradient(b.finish([b.sum(b.mul(final, final), dims=(0,))]), (0, 1))


@pytest.mark.parametrize("make", [network_gradient, updates_of_views, loop_with_needless_parts, gradient_of_a_loop])
def test_golden(make):
    graph = make()
    optimized = optimize(graph, Options(verify=True))
    text, path = f"{optimized}\n", GOLDEN / f"{make.__name__}.txt"
    if os.environ.get("WEFT_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.exists(), f"no golden file {path.name}: run with WEFT_UPDATE_GOLDEN=1"
    assert text == path.read_text()
    assert difference(optimized, parse(text)) is None
    arrays = [
        np.random.default_rng(k).uniform(-1, 1, p.shape).astype(p.dtype.numpy) for k, p in enumerate(graph.params)
    ]
    for a, z in zip(interpret(graph, arrays), interpret(optimized, arrays), strict=True):
        np.testing.assert_allclose(z, a, rtol=1e-5, atol=1e-6)
