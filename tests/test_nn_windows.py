"""Convolution, pooling, folding and padding: values against NumPy, derivatives against difference quotients, torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import weft

F = weft.nn.functional
RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


# ---- the same in NumPy -----------------------------------------------------------------------------------------------


def padded(x: np.ndarray, ends: Any, value: float = 0) -> np.ndarray:
    """The last axes padded by `ends`, pairs in their order."""
    return np.pad(x, [(0, 0)] * (x.ndim - len(ends)) + list(ends), constant_values=value)


def windows(x: np.ndarray, kernel: Any, stride: Any, dilation: Any) -> np.ndarray:
    """The windows of the last axes: (..., places, kernel)."""
    n = len(kernel)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    found = sliding_window_view(x, spans, tuple(range(x.ndim - n, x.ndim)))
    steps = tuple(slice(None, None, s) for s in (*stride, *dilation))
    return found[(..., *steps)]


def conv(
    x: np.ndarray, w: np.ndarray, b: Any = None, stride: Any = 1, ends: Any = 0, dilation: Any = 1, groups: int = 1
) -> np.ndarray:
    n = w.ndim - 2
    stride, dilation = (v if isinstance(v, tuple) else (v,) * n for v in (stride, dilation))
    ends = [(ends, ends)] * n if isinstance(ends, int) else ends
    parts = windows(padded(x, ends), w.shape[2:], stride, dilation)
    pieces = []
    for inputs, weights in zip(np.split(parts, groups, 1), np.split(w, groups, 0), strict=True):
        spatial = list(range(2 + n, 2 + 2 * n))
        pieces.append(np.moveaxis(np.tensordot(inputs, weights, ([1, *spatial], [1, *range(2, 2 + n)])), -1, 1))
    result = np.concatenate(pieces, 1)
    return result if b is None else result + b.reshape(-1, *(1,) * n)


def conv_transpose(
    x: np.ndarray,
    w: np.ndarray,
    b: Any = None,
    stride: int = 1,
    ends: int = 0,
    extra: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> np.ndarray:
    n = w.ndim - 2
    sizes = [(m - 1) * stride + (k - 1) * dilation + 1 for m, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    result = np.zeros((len(x), w.shape[1] * groups, *(m + extra for m in sizes)))
    per = w.shape[1]
    for places in itertools.product(*map(range, w.shape[2:])):
        where = tuple(
            slice(k * dilation, k * dilation + (m - 1) * stride + 1, stride)
            for k, m in zip(places, x.shape[2:], strict=True)
        )
        for g, (inputs, weights) in enumerate(zip(np.split(x, groups, 1), np.split(w, groups, 0), strict=True)):
            part = np.einsum("ni...,io->no...", inputs, weights[(..., *places)])
            result[(slice(None), slice(g * per, (g + 1) * per), *where)] += part
    result = result[(..., *(slice(ends, m + extra - ends) for m in sizes))]
    return result if b is None else result + b.reshape(-1, *(1,) * n)


def pool(x: np.ndarray, join: Any, kernel: Any, stride: Any, ends: Any, value: float, dilation: Any) -> np.ndarray:
    parts = windows(padded(x, ends, value), kernel, stride, dilation)
    return join(parts, tuple(range(-len(kernel), 0)))


def adaptive(x: np.ndarray, sizes: Any) -> np.ndarray:
    for axis, m in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        n = x.shape[axis]
        bounds = [(k * n // m, -(-(k + 1) * n // m)) for k in range(m)]
        x = np.stack([x.take(range(a, z), axis).mean(axis) for a, z in bounds], axis)
    return x


def columns(x: np.ndarray, kernel: Any, stride: Any, ends: int, dilation: Any) -> np.ndarray:
    parts = windows(padded(x, [(ends, ends)] * 2), kernel, stride, dilation)
    return np.moveaxis(parts, (2, 3), (4, 5)).reshape(len(x), x.shape[1] * math.prod(kernel), -1)


def folded(y: np.ndarray, size: Any, kernel: Any, stride: Any, ends: int, dilation: Any) -> np.ndarray:
    """The transpose of `columns`, element by element."""
    n, rows, _ = y.shape
    number = np.arange((rows // math.prod(kernel)) * size[0] * size[1]).reshape(1, -1, *size)
    places = columns(number + 1.0, kernel, stride, ends, dilation).astype(int)
    result = np.zeros((n, number.size + 1))
    for k in range(n):
        np.add.at(result[k], places[0], y[k])
    return result[:, 1:].reshape(n, -1, *size)


# ---- cases -----------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """`call(t, *tensors)` runs in weft and in torch (`t` is nn.functional), `reference(*arrays)` in NumPy."""

    call: Callable[..., Any]
    reference: Callable[..., Any]
    arrays: tuple[np.ndarray, ...] = field(repr=False)


def convolution(name: str, x: tuple, w: tuple, bias: bool = False, ends: Any = None, **options: Any) -> Case:
    """A case of `conv1d`, `conv2d` or `conv3d`; `ends` is what the padding amounts to."""
    plain = {k: v for k, v in options.items() if k != "padding"}
    amount = options.get("padding", 0) if ends is None else ends
    return Case(
        lambda t, *a: getattr(t, name)(*a, **options),
        lambda x, w, b=None: conv(x, w, b, ends=amount, **plain),
        (normal(*x), normal(*w), *([normal(w[0])] if bias else [])),
    )


def transposed(name: str, x: tuple, w: tuple, bias: bool = False, **options: Any) -> Case:
    names = {"padding": "ends", "output_padding": "extra"}
    plain = {names.get(k, k): v for k, v in options.items()}
    return Case(
        lambda t, *a: getattr(t, name)(*a, **options),
        lambda x, w, b=None: conv_transpose(x, w, b, **plain),
        (normal(*x), normal(*w), *([normal(w[1])] if bias else [])),
    )


IMAGE = normal(2, 3, 9, 7)
FLAT = np.round(normal(2, 2, 6, 6))  # with equal elements
LOW = -math.inf

CASES = {
    "conv2d": convolution("conv2d", (2, 3, 9, 8), (4, 3, 3, 2), bias=True),
    "conv2d, stride": convolution("conv2d", (2, 3, 9, 8), (4, 3, 3, 2), stride=(2, 3)),
    "conv2d, padding": convolution("conv2d", (2, 3, 5, 8), (4, 3, 3, 2), bias=True, padding=1),
    "conv2d, all options": convolution("conv2d", (2, 4, 7, 8), (6, 2, 3, 2), stride=2, padding=2, dilation=2, groups=2),
    "conv2d, same": convolution("conv2d", (2, 3, 5, 8), (4, 3, 4, 2), ends=[(1, 2), (0, 1)], padding="same"),
    "conv2d, valid": convolution("conv2d", (2, 3, 5, 8), (4, 3, 4, 2), ends=0, padding="valid"),
    "conv2d, one channel each": convolution("conv2d", (2, 4, 5, 6), (4, 1, 3, 3), bias=True, padding=1, groups=4),
    "conv2d, many outputs": convolution("conv2d", (3, 2, 5, 4), (20, 2, 4, 3), bias=True),
    "conv2d, one place": convolution("conv2d", (3, 2, 5, 4), (5, 2, 1, 1), bias=True, stride=2),
    "conv1d": convolution("conv1d", (3, 2, 11), (5, 2, 3), bias=True, stride=3),
    "conv1d, dilation": convolution("conv1d", (3, 2, 11), (5, 2, 3), stride=6, dilation=2),
    "conv3d": convolution("conv3d", (2, 2, 5, 6, 4), (3, 2, 3, 2, 2), bias=True, stride=2, padding=1),
    "conv_transpose2d": transposed("conv_transpose2d", (2, 3, 4, 5), (3, 4, 3, 2), bias=True),
    "conv_transpose2d, stride": transposed(
        "conv_transpose2d", (2, 3, 4, 5), (3, 4, 3, 2), stride=2, padding=1, output_padding=1
    ),
    "conv_transpose2d, dilation": transposed(
        "conv_transpose2d", (2, 3, 4, 5), (3, 4, 3, 2), dilation=3, output_padding=2, padding=1
    ),
    "conv_transpose2d, groups": transposed("conv_transpose2d", (2, 4, 4, 5), (4, 3, 3, 2), stride=3, groups=2),
    "conv_transpose1d": transposed("conv_transpose1d", (2, 4, 5), (4, 3, 2), bias=True, stride=3),
    "conv_transpose3d": transposed("conv_transpose3d", (2, 2, 2, 3, 2), (2, 3, 2, 2, 3), stride=2),
    "max_pool2d": Case(
        lambda t, x: t.max_pool2d(x, 2),
        lambda x: pool(x, np.max, (2, 2), (2, 2), [(0, 0)] * 2, LOW, (1, 1)),
        (IMAGE,),
    ),
    "max_pool2d, overlapping": Case(
        lambda t, x: t.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
        lambda x: pool(x, np.max, (3, 3), (2, 2), [(1, 1), (1, 1)], LOW, (1, 1)),
        (IMAGE,),
    ),
    "max_pool2d, dilation": Case(
        lambda t, x: t.max_pool2d(x, (2, 3), stride=(3, 1), dilation=(2, 1)),
        lambda x: pool(x, np.max, (2, 3), (3, 1), [(0, 0)] * 2, LOW, (2, 1)),
        (IMAGE,),
    ),
    "max_pool1d": Case(
        lambda t, x: t.max_pool1d(x, 3, 2, ceil_mode=True),
        lambda x: pool(x, np.max, (3,), (2,), [(0, 1)], LOW, (1,)),
        (normal(2, 3, 8),),
    ),
    "max_pool3d": Case(
        lambda t, x: t.max_pool3d(x, 2),
        lambda x: pool(x, np.max, (2,) * 3, (2,) * 3, [(0, 0)] * 3, LOW, (1,) * 3),
        (normal(2, 4, 6, 5),),
    ),
    "avg_pool2d": Case(
        lambda t, x: t.avg_pool2d(x, (3, 2), stride=2, padding=1),
        lambda x: pool(x, np.mean, (3, 2), (2, 2), [(1, 1)] * 2, 0, (1, 1)),
        (IMAGE,),
    ),
    "avg_pool2d, padding does not count": Case(
        lambda t, x: t.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
        lambda x: pool(x, np.nanmean, (3, 3), (2, 2), [(1, 1)] * 2, np.nan, (1, 1)),
        (IMAGE,),
    ),
    "avg_pool2d, divisor": Case(
        lambda t, x: t.avg_pool2d(x, 2, divisor_override=3),
        lambda x: pool(x, np.sum, (2, 2), (2, 2), [(0, 0)] * 2, 0, (1, 1)) / 3,
        (IMAGE,),
    ),
    "avg_pool1d, beyond the end": Case(
        lambda t, x: t.avg_pool1d(x, 3, 2, ceil_mode=True),
        lambda x: pool(x, np.nanmean, (3,), (2,), [(0, 1)], np.nan, (1,)),
        (normal(2, 3, 8),),
    ),
    "avg_pool3d": Case(
        lambda t, x: t.avg_pool3d(x, 2, stride=1),
        lambda x: pool(x, np.mean, (2,) * 3, (1,) * 3, [(0, 0)] * 3, 0, (1,) * 3),
        (normal(2, 4, 3, 5),),
    ),
    "adaptive_avg_pool2d": Case(lambda t, x: t.adaptive_avg_pool2d(x, (3, 5)), lambda x: adaptive(x, (3, 5)), (IMAGE,)),
    "adaptive_avg_pool2d, kept axis": Case(
        lambda t, x: t.adaptive_avg_pool2d(x, (None, 10)), lambda x: adaptive(x, (9, 10)), (IMAGE,)
    ),
    "adaptive_avg_pool1d": Case(lambda t, x: t.adaptive_avg_pool1d(x, 5), lambda x: adaptive(x, (5,)), (normal(3, 8),)),
    "adaptive_avg_pool3d": Case(
        lambda t, x: t.adaptive_avg_pool3d(x, 1), lambda x: adaptive(x, (1, 1, 1)), (normal(2, 3, 4, 2),)
    ),
    "unfold": Case(
        lambda t, x: t.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=2),
        lambda x: columns(x, (3, 2), (2, 2), 1, (1, 2)),
        (IMAGE,),
    ),
    "fold": Case(
        lambda t, y: t.fold(y, (6, 7), (3, 2), dilation=(1, 2), padding=1, stride=2),
        lambda y: folded(y, (6, 7), (3, 2), (2, 2), 1, (1, 2)),
        (normal(2, 12, 12),),
    ),
    "fold, apart": Case(
        lambda t, y: t.fold(y, (5, 7), 2, stride=3),
        lambda y: folded(y, (5, 7), (2, 2), (3, 3), 0, (1, 1)),
        (normal(2, 4, 4),),
    ),
    "pad": Case(
        lambda t, x: t.pad(x, (1, 2, -2, 1), value=3.0),
        lambda x: padded(x[:, :, 2:], [(0, 1), (1, 2)], 3.0),
        (IMAGE,),
    ),
    **{
        f"pad, {mode}": Case(
            lambda t, x, mode=mode: t.pad(x, (1, 2, 2, 1), mode),
            lambda x, kind=kind: np.pad(x, [(0, 0), (0, 0), (2, 1), (1, 2)], kind),
            (IMAGE,),
        )
        for mode, kind in (("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"))
    },
}
every_case = pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))


def weft_arguments(case: Case, dtype: Any) -> list[Any]:
    return [weft.tensor(a, dtype=dtype, requires_grad=True) for a in case.arrays]


def gradients(call: Callable[..., Any], tensors: list[Any], seed: Any) -> Any:
    result = call(F, *tensors)
    result.backward(seed)
    return result.detach()


@every_case
def test_value_and_derivative(case: Case) -> None:
    """In float64; the derivative along a random direction against a difference quotient of the reference."""
    tensors, expected = weft_arguments(case, weft.float64), case.reference(*case.arrays)
    seed = np.random.default_rng(3).normal(size=expected.shape)
    result = gradients(case.call, tensors, weft.tensor(seed))
    assert result.is_contiguous()
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-12)
    directions = [np.random.default_rng(4).normal(size=a.shape) for a in case.arrays]
    step = 1e-6
    up, down = (
        float((seed * case.reference(*(a + s * d for a, d in zip(case.arrays, directions, strict=True)))).sum())
        for s in (step, -step)
    )
    found = sum(float((t.grad.numpy() * d).sum()) for t, d in zip(tensors, directions, strict=True))
    assert found == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-7)


@every_case
def test_compiled_agrees_with_eager(case: Case) -> None:
    eager, compiled = (weft_arguments(case, weft.float32) for _ in range(2))
    seed = weft.tensor(np.random.default_rng(3).normal(size=case.reference(*case.arrays).shape), dtype=weft.float32)
    expected = gradients(case.call, eager, seed)
    result = weft.compile(gradients)(case.call, compiled, seed)
    np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=2e-5, atol=2e-5)
    for t, e in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(t.grad.numpy(), e.grad.numpy(), rtol=2e-5, atol=2e-5)


@every_case
def test_same_as_torch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    ours = weft_arguments(case, weft.float32)
    theirs = [torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in case.arrays]
    expected = case.call(torch.nn.functional, *theirs)
    seed = np.random.default_rng(3).normal(size=tuple(expected.shape)).astype(np.float32)
    expected.backward(torch.tensor(seed))
    result = gradients(case.call, ours, weft.tensor(seed))
    np.testing.assert_allclose(result.numpy(), expected.detach().numpy(), rtol=2e-5, atol=2e-5)
    for t, e in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(t.grad.numpy(), e.grad.numpy(), rtol=2e-5, atol=2e-5)


# ---- what a table does not show --------------------------------------------------------------------------------------


def test_the_first_of_equal_elements_is_the_largest() -> None:
    x = weft.tensor(FLAT, requires_grad=True)
    result, places = F.max_pool2d(x, 3, stride=2, padding=1, return_indices=True)
    result.sum().backward()
    parts = windows(padded(FLAT, [(1, 1)] * 2, LOW), (3, 3), (2, 2), (1, 1)).reshape(2, 2, 3, 3, 9)
    first = parts.argmax(-1)
    row = np.arange(3)[:, None] * 2 - 1 + first // 3
    column = np.arange(3) * 2 - 1 + first % 3
    np.testing.assert_array_equal(places.numpy(), row * 6 + column)
    counts = np.zeros((4, 36))
    np.add.at(counts, (np.arange(4)[:, None], places.numpy().reshape(4, 9)), 1)
    np.testing.assert_array_equal(x.grad.numpy().reshape(4, 36), counts)


def test_pooling_of_integers_and_infinities() -> None:
    assert F.max_pool1d(weft.tensor([[[-5, -7, -1]]]), 2, padding=1).tolist() == [[[-5, -1]]]
    assert F.max_pool1d(weft.tensor([[[-math.inf, -math.inf]]]), 2).tolist() == [[[-math.inf]]]


def test_inputs_without_a_batch() -> None:
    x, w = weft.tensor(normal(2, 5, 4)), weft.tensor(normal(3, 2, 2, 2))
    assert F.conv2d(x, w).tolist() == F.conv2d(x.unsqueeze(0), w).squeeze(0).tolist()
    y = weft.tensor(normal(3, 5))
    assert F.conv_transpose1d(y, weft.tensor(normal(3, 2, 4))).shape == (2, 8)
    assert F.unfold(x, 2).shape == (8, 12) and F.fold(F.unfold(x, 2), (5, 4), 2).shape == (2, 5, 4)


def test_second_derivatives_of_a_convolution() -> None:
    """The derivative by x of w's gradient, against a difference quotient."""
    x, w, v = (normal(*s) for s in ((1, 2, 5, 5), (3, 2, 2, 2), (1, 2, 5, 5)))

    def slope(x: Any, w: Any) -> Any:
        return weft.grad(lambda x, w: (F.max_pool2d(F.conv2d(x, w, padding=1, stride=2), 2) ** 3).sum(), 1)(x, w)

    def along(x: Any) -> Any:
        return (slope(x, weft.tensor(w)) ** 2).sum()

    found = (weft.grad(along)(weft.tensor(x)).numpy() * v).sum()
    up, down = (along(weft.tensor(x + s * v)).item() for s in (1e-6, -1e-6))
    assert found == pytest.approx((up - down) / 2e-6, rel=1e-6)


BAD = {
    "channels": (lambda: F.conv2d(weft.ones(1, 4, 8, 8), weft.ones(2, 3, 3, 3)), "to have 3 channels, but got 4"),
    "axes": (lambda: F.conv2d(weft.ones(8, 8), weft.ones(2, 3, 3, 3)), r"Expected 3D \(unbatched\) or 4D"),
    "room": (lambda: F.conv1d(weft.ones(1, 3, 2), weft.ones(2, 3, 5)), "Kernel size can't be greater than actual"),
    "bias": (lambda: F.conv1d(weft.ones(1, 3, 9), weft.ones(2, 3, 5), weft.ones(3)), "1-dimensional with 2 elements"),
    "same": (lambda: F.conv1d(weft.ones(1, 3, 9), weft.ones(2, 3, 5), stride=2, padding="same"), "not supported for"),
    "dtypes": (lambda: F.conv1d(weft.ones(1, 3, 9, dtype=weft.float64), weft.ones(2, 3, 5)), "same dtype"),
    "groups": (lambda: F.conv1d(weft.ones(1, 3, 9), weft.ones(2, 1, 5), groups=3), "cannot be cut into 3 groups"),
    "output padding": (
        lambda: F.conv_transpose1d(weft.ones(1, 3, 9), weft.ones(3, 2, 5), output_padding=1),
        "smaller than either stride or dilation",
    ),
    "pool padding": (lambda: F.max_pool1d(weft.ones(1, 3, 9), 2, padding=2), "at most half of effective kernel size"),
    "pool room": (lambda: F.avg_pool1d(weft.ones(1, 3, 2), 3), "Output size is too small"),
    "sizes": (lambda: F.max_pool2d(weft.ones(1, 3, 9, 9), (2, 2, 2)), "a sequence of 2 ints"),
    "columns": (lambda: F.fold(weft.ones(1, 8, 5), (4, 4), 2), "expected 9 columns"),
    "pad": (lambda: F.pad(weft.ones(3, 3), (3, 0), "reflect"), "must be at most 2 along axis 1"),
    "too many pads": (lambda: F.pad(weft.ones(3), (1, 1, 1, 1)), "two numbers for each of the last axes"),
}


@pytest.mark.parametrize(("call", "text"), list(BAD.values()), ids=list(BAD))
def test_bad_input(call: Callable[[], Any], text: str) -> None:
    with pytest.raises((weft.ShapeError, weft.DTypeError), match=text):
        call()
