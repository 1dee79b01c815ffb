"""The meaning of single ops where it is convention: random bits, division by zero, NaN, ties, bounds, special cases."""
from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from weft.ir import OPS, interpret
from weft.ir.builder import Builder
from weft.ir.errors import IndexRangeError, WeftError
from weft.ir.ops.random_bits import threefry2x32
from weft.ir.ops.special import trigamma
from weft.ir.types import TensorType, bool_, float32, float64, int32, int64, uint8, uint32, uint64

F32 = np.float32


def run(name, *arrays, **attrs):
    with np.errstate(all="ignore"):
        return OPS[name].evaluate(*map(np.asarray, arrays), **attrs)


def array_equal(found, expected):
    np.testing.assert_array_equal(found, expected, strict=True)


# random bits


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers published with Random123
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_known_answers(counter, key, words):
    pairs = [tuple(np.array([w], np.uint32) for w in pair) for pair in (key, counter)]
    assert tuple(int(w[0]) for w in threefry2x32(*pairs)) == words


def test_random_bits_depend_on_position_seed_and_draw_only():
    state = np.array([(7 << 32) | 5, (3 << 32) | 9], np.uint64)
    wide = run("random_bits", state, shape=(6,), dtype=uint64)
    narrow = run("random_bits", state, shape=(2, 3), dtype=uint32)
    array_equal(narrow.ravel(), (wide & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    key = [np.array([w], np.uint32) for w in (5 ^ 3, 7)]
    first, second = threefry2x32(tuple(key), (np.array([4], np.uint32), np.array([9], np.uint32)))
    assert int(wide[4]) == int(first[0]) | int(second[0]) << 32
    for other in ([state[0], state[1] + np.uint64(1)], [state[0] + np.uint64(1 << 32), state[1]]):
        assert not np.any(run("random_bits", np.array(other), shape=(6,), dtype=uint64) == wide)


# integers


def test_integer_division_by_zero_is_zero():
    x, zero = np.array([5, -5, 0], np.int32), np.zeros(3, np.int32)
    for name in ("floor_divide", "remainder", "fmod"):
        array_equal(run(name, x, zero), zero)


def test_rounding_of_quotients():
    x, y = np.array([7, -7, 7, -7], np.int64), np.array([2, 2, -2, -2], np.int64)
    array_equal(run("floor_divide", x, y), np.array([3, -4, -4, 3]))
    array_equal(run("remainder", x, y), np.array([1, 1, -1, -1]))
    array_equal(run("fmod", x, y), np.array([1, -1, 1, -1]))
    array_equal(run("remainder", x.astype(F32), y.astype(F32)), F32([1, 1, -1, -1]))
    array_equal(run("round", F32([0.5, 1.5, -0.5, 2.5])), F32([0, 2, -0.0, 2]))


def test_integer_powers():
    x, y = np.array([2, 1, -1, -1, 0, 3], np.int32), np.array([-1, -5, -3, -4, -1, 3], np.int32)
    array_equal(run("pow", x, y), np.array([0, 1, -1, 1, 0, 27], np.int32))
    array_equal(run("pow", np.array([3], np.uint8), np.array([6], np.uint8)), np.array([729 % 256], np.uint8))


def test_shifts_beyond_the_width():
    x, n = np.array([5, -5, 5, -5], np.int32), np.array([32, 40, -1, -1], np.int32)
    array_equal(run("shift_left", x, n), np.zeros(4, np.int32))
    array_equal(run("shift_right", x, n), np.array([0, -1, 0, -1], np.int32))


def test_results_keep_the_dtype_of_small_integers():
    x = np.array([[200, 100]], np.uint8)
    for name in ("sum", "prod"):
        assert run(name, x, dims=(0, 1)).dtype == np.uint8
    assert run("cumsum", x, dim=1).dtype == np.uint8
    array_equal(OPS.iota.evaluate(shape=(258,), dim=0, dtype=uint8)[-2:], np.array([0, 1], np.uint8))


# floats


def test_nan_in_extremes():
    x, y = F32([np.nan, 1, 2]), F32([1, np.nan, 3])
    array_equal(run("maximum", x, y), F32([np.nan, np.nan, 3]))
    array_equal(run("fmax", x, y), F32([1, 1, 3]))
    array_equal(run("fmin", x, y), F32([1, 1, 2]))
    assert np.isnan(run("amax", x, dims=(0,))) and np.isnan(run("amin", y, dims=(0,)))
    assert run("argmax", F32([1, np.nan, 5, np.nan]), dim=0) == 1 and run("argmin", F32([2, 1, 1]), dim=0) == 1
    array_equal(run("cummax", F32([1, 3, np.nan, 5]), dim=0), F32([1, 3, np.nan, np.nan]))


def test_sort_is_stable_both_ways_with_nan_at_its_end():
    x = F32([2, np.nan, 1, 2, 1])
    values, order = run("sort", x, dim=0, descending=False)
    array_equal(values, F32([1, 1, 2, 2, np.nan]))
    array_equal(order, np.array([2, 4, 0, 3, 1]))
    values, order = run("sort", x, dim=0, descending=True)
    array_equal(values, F32([np.nan, 2, 2, 1, 1]))
    array_equal(order, np.array([1, 0, 3, 2, 4]))


def test_conversions():
    array_equal(run("convert", F32([1.9, -1.9, 0.0]), dtype=int32), np.array([1, -1, 0], np.int32))
    array_equal(run("convert", F32([0.0, -0.0, 0.5, np.nan]), dtype=bool_), np.array([False, False, True, True]))
    array_equal(run("bitcast", F32([1.0]), dtype=uint32), np.array([0x3F800000], np.uint32))
    run("convert", F32([1e30, np.nan]), dtype=int64)  # the value is not defined, but nothing traps


# indices


def test_scatter_with_equal_indices_keeps_the_last_in_row_major_order():
    places = np.asfortranarray([[0, 1, 0], [1, 0, 2]])
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    array_equal(run("scatter", np.zeros(4), values, places, dims=(0,), mode="set"), np.array([4.0, 3.0, 5.0, 0.0]))
    array_equal(run("scatter", np.ones(4), values, places, dims=(0,), mode="add"), np.array([7.0, 5.0, 6.0, 1.0]))
    array_equal(run("scatter", np.ones(4), values, places, dims=(0,), mode="amax"), np.array([4.0, 3.0, 5.0, 1.0]))


@pytest.mark.parametrize("bad", [-1, 3, 2**62, -(2**62)])
def test_indices_out_of_range_are_named(bad):
    x, places = np.zeros((3, 5)), np.array([[0, bad]])
    message = rf"index {bad} is out of range for axis 0 of size 3"
    with pytest.raises(IndexRangeError, match=f"gather: {message}"):
        run("gather", x, places, dims=(0,))
    with pytest.raises(IndexRangeError, match=f"gather: {message}"):
        run("gather", x, np.zeros(2, int), np.array([bad, 0]), dims=(1, 0))
    with pytest.raises(IndexRangeError, match=f"scatter: {message}"):
        run("scatter", x, np.zeros((1, 2, 5)), places, dims=(0,), mode="add")
    with pytest.raises(IndexRangeError, match=f"gather: {message}"):
        run("gather", x, np.array(bad), dims=(0,))


def test_boxes_out_of_range_are_named():
    x, two, four = np.zeros(5), np.array(2), np.array(4)
    assert run("dynamic_slice", x, two, sizes=(3,)).shape == (3,)
    with pytest.raises(
        IndexRangeError, match="dynamic_slice: start 4 is out of range for 3 elements of axis 0 of size 5"
    ):
        run("dynamic_slice", x, four, sizes=(3,))
    with pytest.raises(IndexRangeError, match="dynamic_update: start -1 is out of range"):
        run("dynamic_update", x, np.zeros(2), np.array(-1))


# special functions


def test_sigmoid_in_the_tails():
    x = F32([-200, -100, -90, 0, 20, 200])
    expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    found = run("sigmoid", x)
    assert found.dtype == F32
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-45)


@pytest.mark.parametrize(
    ("name", "point", "expected"),
    [
        ("erf", 0.5, math.erf(0.5)),
        ("erfc", 3.0, math.erfc(3.0)),
        ("erfinv", math.erf(0.3), 0.3),
        ("lgamma", 4.5, math.lgamma(4.5)),
        ("digamma", 1.0, -0.5772156649015329),
        ("expm1", 1e-9, math.expm1(1e-9)),
        ("log1p", 1e-9, math.log1p(1e-9)),
        ("rsqrt", 4.0, 0.5),
        ("exp2", 0.5, math.sqrt(2)),
    ],
)
def test_single_functions(name, point, expected):
    assert run(name, point) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (1.0, math.pi**2 / 6),
        (0.5, math.pi**2 / 2),
        (2.0, math.pi**2 / 6 - 1),
        (-0.5, math.pi**2 / 2 + 4),
        (-1.5, math.pi**2 / 2 + 4 + 4 / 9),
        (30.0, 0.0338950603577400),
    ],
)
def test_trigamma(point, expected):
    b = Builder()
    graph = b.finish([trigamma(b, b.param(TensorType((), float64)))])
    assert interpret(graph, [np.array(point)])[0] == pytest.approx(expected, rel=1e-13)


def test_scipy_is_loaded_only_by_its_functions():
    code = (
        "import sys, numpy; from weft.ir import OPS; OPS.exp.evaluate(numpy.ones(2)); before = 'scipy' in sys.modules; "
        "OPS.erf.evaluate(numpy.ones(2)); print(before, 'scipy' in sys.modules, 'llvmlite' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "True", "False"]


# regions


def test_loop_without_iterations():
    def loop(results):
        inner = Builder("body")
        _, x = inner.param(TensorType((), int64)), inner.param(TensorType((2,), float32))
        doubled = inner.scale(x, 2.0)
        region = inner.finish([doubled, doubled][:results])
        b = Builder("f")
        bounds = [b.param(TensorType((), int64)), b.param(TensorType((), int64))]
        return b.finish(b.control(OPS.loop, [*bounds, b.param(TensorType((2,), float32))], {"carried": 1}, [region]))

    ones = np.ones(2, F32)
    array_equal(interpret(loop(1), [3, 3, ones])[0], ones)
    array_equal(interpret(loop(1), [0, 3, ones])[0], 8 * ones)
    with pytest.raises(WeftError, match="last iteration"):
        interpret(loop(2), [3, 3, ones])
