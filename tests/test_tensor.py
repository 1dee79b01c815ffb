"""Tensors: creation from data and descriptions, conversion, arithmetic, reductions, products against NumPy; errors."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import weft

rng = np.random.default_rng(0)


def same(tensor, array, dtype=None):
    """Values, shape and dtype."""
    array = np.asarray(array)
    assert tuple(tensor.shape) == array.shape
    assert tensor.dtype is (dtype or weft.ir.types.BY_NUMPY[array.dtype])
    np.testing.assert_allclose(tensor.numpy(), array, 1e-6, 1e-6)


# ---- from data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (3, weft.int64),
        (2.5, weft.float32),
        (True, weft.bool),
        ([1, 2], weft.int64),
        ([1, 2.5], weft.float32),
        ([True, 2], weft.int64),
        ([True, False], weft.bool),
        ([True, 2.0], weft.float32),
        ([[1, 2], [3, 4]], weft.int64),
        (range(3), weft.int64),
        ([], weft.float32),
        ([[], []], weft.float32),
        ((1.0, 2.0), weft.float32),
        ([np.float64(1)], weft.float64),
        ([np.int32(1), np.int32(2)], weft.int32),
        (np.float32(1), weft.float32),
    ],
)
def test_from_python_data(data, dtype):
    t = weft.tensor(data)
    assert t.dtype is dtype
    assert t.tolist() == (list(data) if isinstance(data, (range, tuple)) else np.asarray(data).tolist())


@pytest.mark.parametrize("order", ["C", "F", "negative", "strided", "big-endian"])
def test_from_numpy_of_any_layout_keeps_values_and_dtype(order):
    base = np.arange(12.0).reshape(3, 4)
    array = {
        "C": base,
        "F": np.asfortranarray(base),
        "negative": base[::-1, ::-1],
        "strided": base[:, ::2],
        "big-endian": base.astype(">f8"),
    }[order]
    t = weft.tensor(array)
    same(t, array.astype("f8"), weft.float64)
    array[0, 0] = 99
    assert t[0, 0].item() != 99


def test_tensors_in_lists_and_copies_of_tensors():
    x = weft.tensor([1.0, 2.0])
    assert weft.tensor([x[0], x[1] * 2, 5]).tolist() == [1.0, 4.0, 5.0]
    copy = weft.tensor(x)
    copy[0] = 7
    assert x[0].item() == 1.0
    assert weft.as_tensor(x) is x


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([[1, 2], [3]], r"length 2 at dim 1.*length 1 at data\[1\]"),
        ([1, [2]], r"a number, got a sequence of length 1 at data\[1\]"),
        ([[1], 2], r"got int 2 at data\[1\]"),
        ([[[1, 2], [3, 4]], [[5, 6], [7]]], r"at data\[1\]\[1\]"),
    ],
)
def test_ragged_lists_name_the_place(data, text):
    with pytest.raises(ValueError, match=text):
        weft.tensor(data)


@pytest.mark.parametrize("data", ["a", ["a", "b"], None, [None], object(), [1, "b"], {"a": 1}.values])
def test_other_objects_are_refused(data):
    with pytest.raises(TypeError, match="tensor: "):
        weft.tensor(data)


def test_integers_out_of_range():
    assert weft.tensor([-1], dtype=weft.uint8).tolist() == [255]
    with pytest.raises(TypeError, match="300 cannot be converted to type uint8 without overflow"):
        weft.tensor([300], dtype=weft.uint8)


def test_requires_grad_only_for_floats():
    assert weft.tensor([1.0], requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match="Only Tensors of floating point"):
        weft.tensor([1], requires_grad=True)


# ---- from a description ----------------------------------------------------------------------------------------------


def test_filled():
    same(weft.zeros(2, 3), np.zeros((2, 3), "f4"))
    same(weft.ones((2,), dtype=weft.int64), np.ones(2, "i8"))
    same(weft.full((2, 2), 7), np.full((2, 2), 7))
    same(weft.full((2,), 1.5), np.full(2, 1.5, "f4"))
    same(weft.eye(2, 3), np.eye(2, 3, dtype="f4"))
    same(weft.zeros(()), np.zeros((), "f4"))
    x = weft.ones(2, 2, dtype=weft.float64)
    same(weft.zeros_like(x), np.zeros((2, 2)))
    same(x.new_full((3,), 2), np.full(3, 2.0))
    assert tuple(weft.empty(4, 0).shape) == (4, 0)


def test_sequences():
    same(weft.arange(5), np.arange(5))
    same(weft.arange(1, 2, 0.25), np.arange(1, 2, 0.25, "f4"))
    same(weft.arange(5, 0, -2), np.arange(5, 0, -2))
    same(weft.linspace(-1, 1, 5), np.linspace(-1, 1, 5, dtype="f4"))
    same(weft.logspace(0, 2, 3), np.logspace(0, 2, 3, dtype="f4"))
    a, b = weft.meshgrid(weft.arange(2), weft.arange(3), indexing="ij")
    same(a, np.meshgrid(range(2), range(3), indexing="ij")[0])
    same(b, np.meshgrid(range(2), range(3), indexing="ij")[1])


def test_default_dtype():
    weft.set_default_dtype(weft.float64)
    try:
        assert weft.tensor(1.0).dtype is weft.zeros(1).dtype is (weft.tensor([1]) / 2).dtype is weft.float64
    finally:
        weft.set_default_dtype(weft.float32)
    assert weft.get_default_dtype() is weft.float32
    with pytest.raises(TypeError, match="floating-point"):
        weft.set_default_dtype(weft.int64)


def test_limits_of_dtypes():
    assert weft.finfo(weft.float32).eps == np.finfo("f4").eps
    assert (weft.iinfo(weft.int8).min, weft.iinfo(weft.int8).max) == (-128, 127)
    assert weft.finfo().bits == 32
    with pytest.raises(TypeError, match="iinfo"):
        weft.finfo(weft.int8)


# ---- devices and conversion ------------------------------------------------------------------------------------------


def test_devices():
    x = weft.zeros(2)
    assert x.device == weft.device("cpu") and str(x.device) == "cpu" and x.device.type == "cpu"
    assert x.to("cpu") is x.cpu() is x
    with pytest.raises(weft.DeviceError, match="'cuda' does not exist here.*device='cpu'"):
        x.to("cuda")
    with pytest.raises(weft.DeviceError, match="cuda:1"):
        weft.zeros(2, device=weft.device("cuda", 1))
    with pytest.raises(weft.DeviceError, match="Invalid device string"):
        weft.zeros(2, device="gpu9")


def test_conversion():
    x = weft.tensor([1.7, -1.7])
    assert x.to(weft.int64).tolist() == [1, -1]
    assert x.to(weft.float32) is x and x.to(weft.float32, copy=True) is not x
    assert x.double().dtype is weft.float64 and x.bool().tolist() == [True, True]
    assert weft.tensor([1, 2]).type_as(x).dtype is weft.float32
    assert x.to(weft.zeros(1, dtype=weft.int8)).dtype is weft.int8


def test_python_values():
    assert weft.tensor(2.5).item() == 2.5 and weft.tensor([3]).item() == 3
    assert (int(weft.tensor(2.7)), float(weft.tensor(2)), bool(weft.tensor([0]))) == (2, 2.0, False)
    assert [10, 20][weft.tensor(1)] == 20
    assert len(weft.zeros(3, 2)) == 3 and [t.tolist() for t in weft.tensor([[1], [2]])] == [[1], [2]]
    assert 2 in weft.tensor([1, 2]) and 3 not in weft.tensor([1, 2])
    assert f"{weft.tensor(1.2345):.2f}" == "1.23"
    with pytest.raises(RuntimeError, match="2 elements cannot be converted to Scalar"):
        weft.zeros(2).item()
    with pytest.raises(RuntimeError, match="ambiguous: use `.any"):
        bool(weft.zeros(2))
    with pytest.raises(TypeError, match="only integer tensors"):
        [1][weft.tensor(0.0)]
    with pytest.raises(TypeError, match="0-d"):
        len(weft.tensor(1))


def test_tensors_hash_by_identity():
    a, b = weft.ones(2), weft.ones(2)
    assert len({a, b}) == 2 and a in [a]


# ---- arithmetic ------------------------------------------------------------------------------------------------------

BINARY = {
    "x + y": np.add,
    "x - y": np.subtract,
    "x * y": np.multiply,
    "x / y": np.divide,
    "x // y": np.floor_divide,
    "x % y": np.remainder,
    "x == y": np.equal,
    "x != y": np.not_equal,
    "x < y": np.less,
    "x <= y": np.less_equal,
    "x > y": np.greater,
    "x >= y": np.greater_equal,
    "weft.maximum(x, y)": np.maximum,
    "weft.minimum(x, y)": np.minimum,
    "weft.fmod(x, y)": np.fmod,
    "weft.atan2(x, y)": np.arctan2,
    "weft.hypot(x, y)": np.hypot,
    "weft.copysign(x, y)": np.copysign,
    "weft.logaddexp(x, y)": np.logaddexp,
}
SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2,)), ((2, 0), (1,)), ((), ())]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("text", BINARY)
def test_two_operands_broadcast_as_numpy(text, shapes):
    a, b = (rng.standard_normal(s) for s in shapes)
    same(eval(text, {"weft": weft, "x": weft.tensor(a), "y": weft.tensor(b)}), BINARY[text](a, b))


@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "expm1",
        "log",
        "log1p",
        "log2",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "tanh",
        "sinh",
        "arctan",
        "arcsinh",
        "floor",
        "ceil",
        "trunc",
        "sign",
        "abs",
        "negative",
        "square",
        "reciprocal",
        "isnan",
        "signbit",
    ],
)
def test_one_operand_as_numpy(name):
    a = rng.random((3, 4)) + 0.1
    same(getattr(weft, name)(weft.tensor(a)), getattr(np, name)(a))
    same(getattr(weft.tensor(a).t(), name)(), getattr(np, name)(a.T))


def test_reflected_operators_and_numbers():
    x = weft.tensor([1.0, 2.0, 4.0])
    assert (
        (5 - x).tolist() == [4.0, 3.0, 1.0]
        and (8 / x).tolist() == [8.0, 4.0, 2.0]
        and (2**x).tolist() == [2.0, 4.0, 16.0]
    )
    assert (
        (7 // x).tolist() == [7.0, 3.0, 1.0]
        and (7 % x).tolist() == [0.0, 1.0, 3.0]
        and (1 + x * 2).tolist() == [3.0, 5.0, 9.0]
    )
    assert (x**-1).tolist() == [1.0, 0.5, 0.25] and (x**0.5).tolist() == pytest.approx([1, math.sqrt(2), 2])
    assert (np.float64(2) * x).dtype is weft.float32 and (x + np.ones(3)).dtype is weft.float64
    assert (np.ones(3) + x).tolist() == [2.0, 3.0, 5.0]
    with pytest.raises(TypeError):
        x + "a"
    assert (x == "a") is False


def test_bool_arithmetic():
    a, b = weft.tensor([True, False]), weft.tensor([True, True])
    assert (a + b).tolist() == [True, True] and (a * b).tolist() == [True, False] and (~a).tolist() == [False, True]
    assert (a ^ b).tolist() == [False, True] and (a + 1).tolist() == [2, 1]
    for text in ("a - b", "-a", "a // b"):
        with pytest.raises(TypeError, match="bool"):
            eval(text, {"a": a, "b": b})


def test_integer_division_by_zero_and_negative_powers():
    x = weft.tensor([5, -5])
    for text in ("x // 0", "x % 0", "x // x * 0 // (x * 0)", "weft.fmod(x, 0)"):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            eval(text, {"x": x, "weft": weft})
    assert (x / 0).tolist() == [math.inf, -math.inf]
    with pytest.raises(RuntimeError, match="negative integer powers"):
        x**-1


def test_in_place_keeps_identity_memory_and_dtype():
    x = weft.tensor([1.0, 2.0])
    address, alias = x.data_ptr(), x
    x += 1
    x *= weft.tensor([2.0, 3.0])
    x.sub_(0.5).div_(2)
    assert x is alias and x.data_ptr() == address and x.tolist() == [1.75, 4.25]
    x.add_(weft.tensor([1, 1]), alpha=2)
    assert x.dtype is weft.float32
    with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output type Long"):
        weft.tensor([1]).add_(1.5)
    with pytest.raises(RuntimeError, match=re.escape("output with shape [3] doesn't match the broadcast shape [2, 3]")):
        weft.ones(3).add_(weft.ones(2, 3))
    with pytest.raises(RuntimeError, match="single memory location"):
        weft.ones(3, 1).expand(3, 2).add_(1)


# ---- reductions and products -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "std", "amax", "amin"])
def test_reductions_as_numpy(name, dim):
    a = rng.standard_normal((3, 4, 2))
    options = {"ddof": 1} if name in ("var", "std") else {}
    if name == "prod" and isinstance(dim, tuple):
        dim = 1
    reference = getattr(np, name)
    arguments = {} if dim is None else {"dim": dim}
    same(getattr(weft.tensor(a), name)(**arguments), np.asarray(reference(a, axis=dim, **options)))
    if dim is not None:
        kept = getattr(weft.tensor(a), name)(dim, keepdim=True)
        same(kept, np.asarray(reference(a, axis=dim, keepdims=True, **options)))


def test_positions_orders_and_running_results():
    a = rng.standard_normal((4, 5))
    x = weft.tensor(a)
    values, indices = x.max(1)
    same(values, a.max(1))
    same(indices, a.argmax(1))
    same(x.argmin(0), a.argmin(0))
    same(x.sort(0).values, np.sort(a, 0))
    same(x.argsort(1, descending=True), np.argsort(-a, 1))
    same(x.topk(2, 1).values, -np.sort(-a, 1)[:, :2])
    same(x.cumsum(1), a.cumsum(1))
    same(x.cumprod(0), a.cumprod(0))
    same(x.median(1).values, np.sort(a, 1)[:, 2])
    same(x.quantile(0.3, 1), np.quantile(a, 0.3, 1))
    same(x.logsumexp(1), np.log(np.exp(a).sum(1)))
    assert weft.tensor([1.0, math.nan, 3.0]).nanquantile(0.5).item() == 2
    assert x.any().item() is True and (x > 9).any().item() is False and x.isfinite().all().item() is True


def test_integer_sums_are_int64():
    assert weft.tensor([200, 100], dtype=weft.uint8).sum().item() == 300
    assert weft.tensor([True, True]).sum().dtype is weft.int64
    with pytest.raises(TypeError, match="mean.*Got: Long"):
        weft.tensor([1]).mean()


def test_products_as_numpy():
    a, b, batch = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal((2, 3, 4))
    same(weft.tensor(a) @ weft.tensor(b), a @ b)
    same(weft.tensor(batch) @ weft.tensor(b), batch @ b)
    same(weft.tensor(a).t() @ weft.tensor(a), a.T @ a)
    same(weft.tensor(a) @ weft.tensor(b[:, 0]), a @ b[:, 0])
    same(weft.tensor(a[0]) @ weft.tensor(b), a[0] @ b)
    same(weft.outer(weft.tensor(a[0]), weft.tensor(b[0])), np.outer(a[0], b[0]))
    same(weft.einsum("bij,jk->kb", weft.tensor(batch), weft.tensor(b)), np.einsum("bij,jk->kb", batch, b))
    same(weft.tensordot(weft.tensor(batch), weft.tensor(a), ([1, 2], [0, 1])), np.tensordot(batch, a, ([1, 2], [0, 1])))
    same(weft.kron(weft.tensor(a), weft.tensor(b)), np.kron(a, b))
    same(weft.tensor([[1, 2], [3, 4]]) @ weft.tensor([1, 1]), np.array([3, 7]))


# ---- errors ----------------------------------------------------------------------------------------------------------

ERRORS = [
    (
        "weft.zeros(4, 3, 2, 1) + weft.ones(4, 3, 2)",
        ValueError,
        r"add: shapes \[4, 3, 2, 1\] and \[4, 3, 2\] do not broadcast.*unsqueeze",
    ),
    ("weft.zeros(2, 3) @ weft.zeros(2, 3)", ValueError, r"\(2x3 and 2x3\).*transpose"),
    ("weft.zeros(2, 3) @ weft.zeros(3, 2, dtype=weft.float64)", TypeError, r"Float and Double.*\.to"),
    ("weft.zeros(2).dot(weft.zeros(3))", ValueError, r"\[2\].*\[3\]"),
    ("weft.zeros(2, 3).sum(2)", IndexError, r"\[-2, 1\], but got 2"),
    ("weft.zeros(2, 3).sum((0, 0))", ValueError, "appears multiple times"),
    ("weft.zeros(0).max()", IndexError, "numel"),
    (
        "weft.cat([weft.zeros(2, 2), weft.zeros(3, 3)])",
        ValueError,
        r"Expected size 2 but got size 3.*\[2, 2\] and \[3, 3\]",
    ),
    ("weft.stack([weft.zeros(2), weft.zeros(3)])", ValueError, r"\[2\] at entry 0 and \[3\] at entry 1"),
    ("weft.where(weft.zeros(2), 1, 2)", TypeError, "boolean tensor.*Float"),
    ("weft.zeros(2) & weft.zeros(2)", TypeError, "bitwise_and.*Float"),
    ("weft.add([1], 2)", TypeError, "list"),
    ("weft.zeros(2, dtype='f4')", TypeError, "dtype must be a weft dtype, got 'f4'"),
    ("weft.zeros(-1)", ValueError, "non-negative"),
    ("weft.zeros('a')", TypeError, "sizes must be integers"),
]


@pytest.mark.parametrize(("text", "kind", "pattern"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors_say_what_and_where(text, kind, pattern):
    with pytest.raises(kind, match=pattern) as caught:
        exec(compile(f"\n\n{text}", "my_script.py", "exec"), {"weft": weft})
    assert isinstance(caught.value, weft.WeftError)
    assert "my_script.py:3" in str(caught.value)
