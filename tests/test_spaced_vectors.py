"""Vectors of elements that are not neighbours in memory: every second, third, fourth one, or each several times."""

from __future__ import annotations

import numpy as np
import pytest

import weft

DTYPES = (weft.float32, weft.int64, weft.uint8)


def agree(f, *arguments):
    """Compiled and eager results are the same; whether vectors are taken apart."""
    compiled = weft.compile(f)
    np.testing.assert_array_equal(compiled(*arguments).numpy(), f(*arguments).numpy())
    text = compiled.ir("kernels")
    return "every_" in text or "repeat_" in text


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", (17, 103))
@pytest.mark.parametrize("step", (2, 3, 4, 5))
def test_every_few_elements(step, length, dtype):
    x = (weft.arange(3 * length) % 101).reshape(3, length).to(dtype)
    apart = agree(lambda x: x[:, step - 1 :: step] + 1, x)
    assert apart == (length > 17 and step <= 4 and dtype.itemsize >= 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("times", (2, 3, 4))
def test_each_element_several_times(times, dtype):
    x = (weft.arange(3 * 25) % 101).reshape(3, 25).to(dtype)
    y = (weft.arange(3 * 25 * times) % 7).reshape(3, 25 * times).to(dtype)
    repeated = lambda x, y: x[:, :, None].expand(3, 25, times).reshape(3, 25 * times) + y  # noqa: E731
    assert agree(repeated, x, y) == (times != 3 and dtype.itemsize >= 4)


@pytest.mark.parametrize("pool", ("max", "avg"))
def test_pooling(pool):
    apply = {"max": weft.nn.functional.max_pool2d, "avg": weft.nn.functional.avg_pool2d}[pool]
    x = weft.randn(2, 3, 28, 28)
    x[0, 0, 3, 4] = float("nan")
    assert agree(lambda x: apply(x, 2), x)
    agree(lambda x: apply(x, 3, 2, 1), x)


@pytest.mark.parametrize("rows, columns", ((48, 48), (21, 37)))
def test_beside_transposed_operands(rows, columns):
    x = (weft.arange(columns * rows) % 101).reshape(columns, rows).float()
    y = (weft.arange(rows * 2 * columns) % 97).reshape(rows, 2 * columns).float()
    assert agree(lambda x, y: x.flip(0, 1).t() + y[:, ::2], x, y)
