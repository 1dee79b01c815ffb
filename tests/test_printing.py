"""Tensors print as torch prints them: fixed texts, and random tensors against torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft

FIXED = [
    ("weft.tensor(0.35029)", "tensor(0.3503)"),
    ("weft.tensor([1., 2., 3.])", "tensor([1., 2., 3.])"),
    ("weft.tensor([1, -20])", "tensor([  1, -20])"),
    ("weft.tensor([True, False])", "tensor([ True, False])"),
    ("weft.tensor([0.5, 100.])", "tensor([  0.5000, 100.0000])"),
    ("weft.tensor([1e-5, 1.])", "tensor([1.0000e-05, 1.0000e+00])"),
    ("weft.tensor([1e9, 1.])", "tensor([1.0000e+09, 1.0000e+00])"),
    ("weft.tensor([float('nan'), 1.])", "tensor([nan, 1.])"),
    ("weft.tensor([float('inf'), 1.5, -2.])", "tensor([    inf,  1.5000, -2.0000])"),
    ("weft.tensor([])", "tensor([])"),
    ("weft.zeros(0, 3)", "tensor([], size=(0, 3))"),
    ("weft.zeros(0, dtype=weft.int64)", "tensor([], dtype=weft.int64)"),
    ("weft.zeros(2, 0, dtype=weft.int32)", "tensor([], size=(2, 0), dtype=weft.int32)"),
    ("weft.tensor([1], dtype=weft.uint8)", "tensor([1], dtype=weft.uint8)"),
    ("weft.tensor([1.], dtype=weft.float64)", "tensor([1.], dtype=weft.float64)"),
    ("weft.tensor([1., 2.], requires_grad=True)", "tensor([1., 2.], requires_grad=True)"),
    ("weft.tensor([1.], requires_grad=True) + 1", "tensor([2.], grad_fn=<AddBackward0>)"),
    ("weft.tensor([-0.0, 1.])", "tensor([-0., 1.])"),
    ("weft.tensor([[1., 2.], [3., 4.]])", "tensor([[1., 2.],\n        [3., 4.]])"),
    ("weft.zeros(2, 1, 2)", "tensor([[[0., 0.]],\n\n        [[0., 0.]]])"),
    ("weft.arange(1001)", "tensor([   0,    1,    2,  ...,  998,  999, 1000])"),
    (
        "weft.zeros(3, 1001)",
        "tensor([" + ",\n        ".join(["[0., 0., 0.,  ..., 0., 0., 0.]"] * 3) + "])",
    ),
    (
        "weft.zeros(20, dtype=weft.float64)",
        f"tensor([{', '.join(['0.'] * 20)}],\n       dtype=weft.float64)",
    ),
    ("weft.Size([2, 3])", "weft.Size([2, 3])"),
    ("weft.float32", "weft.float32"),
    ("weft.device('cuda:1')", "device(type='cuda', index=1)"),
    (
        "weft.finfo(weft.float32)",
        "finfo(resolution=1e-06, min=-3.40282e+38, max=3.40282e+38, eps=1.19209e-07, smallest_normal=1.17549e-38, "
        "tiny=1.17549e-38, dtype=float32)",
    ),
]


@pytest.mark.parametrize(("text", "printed"), FIXED, ids=[f[0] for f in FIXED])
def test_fixed(text, printed):
    assert repr(eval(text, {"weft": weft})) == printed


def test_print_options():
    x = weft.tensor([1.23456, 1e-7])
    try:
        weft.set_printoptions(precision=2, sci_mode=False)
        assert repr(x) == "tensor([1.23, 0.00])" and weft.get_printoptions()["precision"] == 2
        weft.set_printoptions(profile="default")
        weft.set_printoptions(threshold=3, edgeitems=1)
        assert repr(weft.arange(5)) == "tensor([0,  ..., 4])"
    finally:
        weft.set_printoptions(profile="default")
    assert repr(x) == "tensor([1.2346e+00, 1.0000e-07])"


def test_a_traced_tensor_shows_its_type(capsys):
    @weft.compile
    def show(x):
        print(x * 2)
        return x

    show(weft.ones(2, 3))
    assert capsys.readouterr().out == "tensor(<traced f32[2, 3]>)\n"


numbers = st.one_of(
    st.floats(-10, 10, width=32),
    st.floats(width=32),
    st.integers(-(10**9), 10**9).map(float),
    st.sampled_from([0.0, 1e-8, 1e8, 123.456]),
)


@given(st.lists(st.integers(0, 4), max_size=3), st.data())
def test_random_tensors_as_torch(shape, data):
    torch = pytest.importorskip("torch")
    values = np.array(
        data.draw(st.lists(numbers, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))), "f4"
    ).reshape(shape)
    kind = data.draw(st.sampled_from(["f4", "f8", "i8", "i4", "?"]))
    array = np.nan_to_num(values).clip(-1e8, 1e8).astype(kind) if kind in ("i8", "i4", "?") else values.astype(kind)
    assert repr(weft.tensor(array)).replace("weft.", "torch.") == repr(torch.tensor(array))


@pytest.mark.parametrize("shape", [(1001,), (2000, 2), (7, 300), (2, 7, 80), (30, 40), (1, 1, 1001)])
def test_summaries_as_torch(shape):
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).standard_normal(shape).astype("f4") * 100
    assert repr(weft.tensor(array)) == repr(torch.tensor(array))
    assert repr(weft.tensor(array, requires_grad=True)) == repr(torch.tensor(array, requires_grad=True))
