"""Products in tiles: right for all sizes and orders of operands, fused with what surrounds them, chosen where they
pay."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from weft.ir import OPS
from weft.ir.builder import Builder
from weft.ir.product_tiles import Columns, best_block, is_tiled
from weft.ir.types import TensorType, float32


def product(rows, inner, columns):
    b = Builder()
    x = b.param(TensorType((rows, inner), float32))
    w = b.param(TensorType((inner, columns), float32))
    attrs = {"lhs_batch": (), "rhs_batch": (), "lhs_contract": (1,), "rhs_contract": (0,)}
    return b.add_node(OPS.dot_general, (x, w), attrs)


@pytest.mark.parametrize(
    ("sizes", "tiled"),
    [
        ((64, 784, 256), True),
        ((1024, 512, 512), True),
        ((4096, 32000, 256), True),  # block by block of the inner axis
        ((4096, 512, 4096), False),  # no cache holds the right operand
        ((32, 128, 512), True),
        ((8, 8, 16), False),  # small
        ((500, 100, 10), False),  # less than a vector of columns
        ((2, 4096, 4096), False),  # too few rows to share
    ],
)
def test_choice(sizes, tiled):
    assert is_tiled(product(*sizes)) is tiled


@pytest.mark.parametrize("rows", [1, 7, 64, 65, 10_000])
@pytest.mark.parametrize("columns", [16, 100, 784])
@pytest.mark.parametrize("registers", [1, 2])
def test_tiles_fit_the_registers_and_periods(rows, columns, registers):
    product = Columns(columns, registers)
    for period in (0, 12):
        block, cost = best_block(rows, period, [product])
        assert (block * product.widest(block) + product.widest(block) + 1) * registers <= 32
        assert cost > 0 and (period == 0 or period % block == 0)


def arrays(*shapes, dtype=np.float32):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def check(function, *operands, tolerance=1e-4):
    """Compiled against eager; the compiled function."""
    tensors = [weft.tensor(x) for x in operands]
    compiled = weft.compile(function, dynamic=False)
    np.testing.assert_allclose(compiled(*tensors).numpy(), function(*tensors).numpy(), rtol=tolerance, atol=tolerance)
    return compiled


SIZES = [(64, 64, 64), (64, 64, 16), (65, 70, 33), (37, 300, 49), (130, 65, 784), (40, 1000, 17), (16, 100, 80)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("order", ["nn", "nt", "tn", "tt"])
def test_sizes_and_orders(sizes, order):
    m, k, n = sizes
    turn = {"n": lambda x: x, "t": lambda x: x.t()}
    x, y = arrays((m, k) if order[0] == "n" else (k, m), (k, n) if order[1] == "n" else (n, k))
    check(lambda x, y: turn[order[0]](x) @ turn[order[1]](y), x, y)


def test_double():
    check(lambda x, y: x @ y, *arrays((50, 70), (70, 90), dtype=np.float64), tolerance=1e-11)


@pytest.mark.parametrize("rows", [20, 21, 64])
def test_batches(rows):
    x, y = arrays((3, 2, rows, 40), (3, 2, rows, 40))
    check(lambda x, y: x @ y.transpose(-1, -2), x, y)
    check(lambda x, y: x.transpose(-1, -2) @ y, x, y)
    check(lambda x, y: x.transpose(1, 2).reshape(3 * rows, 80) @ y.reshape(-1, 80).t(), x, y)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_surroundings_are_in_the_kernel_of_the_product(sizes):
    m, k, n = sizes
    x, w, b = arrays((m, k), (k, n), (n,))
    compiled = check(lambda x, w, b: weft.softmax((x * 2).tanh() @ w + b, -1) * 3, x, w, b)
    assert compiled.ir("plan").count("call ") == 1


@pytest.mark.parametrize("sizes", [(130, 1100, 300), (37, 2000, 513)], ids=str)
def test_long_rows_are_multiplied_block_by_block(sizes):
    m, k, n = sizes
    x, y = arrays((k, m), (k, n))
    check(lambda x, y: x.t() @ y, x, y, tolerance=1e-3)
    check(lambda x, y: ((x.t() @ y) * 0.1).softmax(1), x, y, tolerance=1e-3)


def test_blocks_of_several_contracted_axes():
    x, y = arrays((10, 120, 70), (10, 120, 300))
    check(lambda x, y: weft.einsum("abi,abj->ij", x, y), x, y, tolerance=1e-3)


def test_layers_follow_each_other_in_one_kernel():
    x, v, w = arrays((100, 60), (60, 80), (80, 50))
    compiled = check(lambda x, v, w: (x @ v).relu() @ w + (x @ v).sum(1, keepdim=True), x, v, w)
    assert compiled.ir("plan").count("call ") == 1


def test_update_by_a_gradient_is_written_over_the_weight():
    def step(w, m, x, g):
        change = x.t() @ g
        m.mul_(0.9).add_(change)
        w.sub_(m / (m * m + 1).sqrt())
        return w.sum()

    operands = arrays((96, 80), (96, 80), (64, 96), (64, 80))
    compiled, (w, m, x, g) = weft.compile(step), [weft.tensor(a) for a in operands]
    eager = [weft.tensor(a) for a in operands]
    np.testing.assert_allclose(compiled(w, m, x, g).numpy(), step(*eager).numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(w.numpy(), eager[0].numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(m.numpy(), eager[1].numpy(), rtol=1e-4, atol=1e-4)
    assert "copy " not in compiled.ir("plan")


def test_operands_that_a_loop_keeps_are_put_in_order_before_it():
    @weft.compile
    def powers(x, w):
        for _ in weft.range(5):
            x = (x @ w.t()).tanh()
        return x

    x, w = map(weft.tensor, arrays((64, 64), (64, 64)))
    expected = x
    for _ in range(5):
        expected = (expected @ w.t()).tanh()
    np.testing.assert_allclose(powers(x, w).numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)
    plan = powers.ir("plan")
    assert plan.index("permute") < plan.index("for ") and plan.count("permute") == 1


def test_threads_do_not_change_a_bit():
    x, w = map(weft.tensor, arrays((300, 200), (200, 150)))
    compiled, results, before = weft.compile(lambda x, w: (x @ w).exp().sum(0)), [], weft.get_num_threads()
    try:
        for threads in (1, 2, 3):
            weft.set_num_threads(threads)
            results.append(compiled(x, w).numpy().tobytes())
    finally:
        weft.set_num_threads(before)
    assert len(set(results)) == 1
