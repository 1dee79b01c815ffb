"""Layers and losses as functions: values against NumPy, derivatives against difference quotients, and torch."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import weft

F = weft.nn.functional
RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


erf = np.vectorize(math.erf)
CLASSES = np.array([2, 0, 3, 1, 2, 3])
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25])
LOGITS, PROBABILITIES = normal(6, 4), softmax(normal(6, 4), 1)
SHARE, TARGETS = RNG.uniform(0.05, 0.95, (3, 4)), RNG.uniform(0, 1, (3, 4))
EVEN = np.array([[-2.0, -0.5, 0.7], [0.2, 1.5, 3.0]])


@dataclass
class Case:
    """`call(t, *tensors)` runs in weft and in torch (`t` is nn.functional), `reference(*arrays)` in NumPy.

    `arrays` are all arguments; the first `inputs` of them are differentiated. `grad_fn` is torch's name for the result.
    """

    call: Callable[..., Any]
    reference: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    grad_fn: str
    inputs: int = 1


def nll(
    log_p: np.ndarray, classes: np.ndarray, weights: np.ndarray, ignore: int = -100
) -> tuple[np.ndarray, np.ndarray]:
    counted = classes != ignore
    index = np.where(counted, classes, 0)
    w = weights[index] * counted
    return -log_p[np.arange(len(index)), index] * w, w


def cross_entropy(
    x: np.ndarray, classes: np.ndarray, weights: np.ndarray, ignore: int = -100, smoothing: float = 0.0
) -> float:
    log_p = np.log(softmax(x, 1))
    loss, w = nll(log_p, classes, weights, ignore)
    spread = -(log_p * weights).sum(1) * (classes != ignore)
    return (1 - smoothing) * loss.sum() / w.sum() + smoothing / x.shape[1] * spread.sum() / w.sum()


def layer_norm(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    axes = tuple(range(-w.ndim, 0))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5) * w + b


ONES = np.ones(4)
SOME_IGNORED = np.where(CLASSES == 1, 2, CLASSES)
IMAGE, IMAGE_CLASSES = normal(2, 3, 4), np.array([[0, 2, 1, 1], [2, 2, 0, 1]])

CASES = {
    "relu": Case(lambda t, x: t.relu(x), lambda x: np.maximum(x, 0), (EVEN,), "ReluBackward0"),
    "leaky_relu": Case(
        lambda t, x: t.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x), (EVEN,), "LeakyReluBackward0"
    ),
    "elu": Case(lambda t, x: t.elu(x, 1.5), lambda x: np.where(x > 0, x, 1.5 * np.expm1(x)), (EVEN,), "EluBackward0"),
    "silu": Case(lambda t, x: t.silu(x), lambda x: x / (1 + np.exp(-x)), (EVEN,), "SiluBackward0"),
    "gelu": Case(lambda t, x: t.gelu(x), lambda x: x / 2 * (1 + erf(x / 2**0.5)), (EVEN,), "GeluBackward0"),
    "gelu tanh": Case(
        lambda t, x: t.gelu(x, approximate="tanh"),
        lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
        (EVEN,),
        "GeluBackward0",
    ),
    "sigmoid": Case(lambda t, x: t.sigmoid(x), lambda x: 1 / (1 + np.exp(-x)), (EVEN,), "SigmoidBackward0"),
    "tanh": Case(lambda t, x: t.tanh(x), np.tanh, (EVEN,), "TanhBackward0"),
    "logsigmoid": Case(lambda t, x: t.logsigmoid(x), lambda x: -np.log1p(np.exp(-x)), (EVEN,), "LogSigmoidBackward0"),
    "softplus": Case(
        lambda t, x: t.softplus(x * 10, 2.0, 5.0),
        lambda x: np.where(x > 0.25, x * 10, np.log1p(np.exp(x * 20)) / 2),
        (EVEN,),
        "SoftplusBackward0",
    ),
    "hardtanh": Case(lambda t, x: t.hardtanh(x), lambda x: np.clip(x, -1, 1), (EVEN,), "HardtanhBackward0"),
    "softmax": Case(lambda t, x: t.softmax(x, dim=1), lambda x: softmax(x, 1), (normal(3, 5),), "SoftmaxBackward0"),
    "softmax, first axis": Case(
        lambda t, x: t.softmax(x, dim=0), lambda x: softmax(x, 0), (normal(3, 5),), "SoftmaxBackward0"
    ),
    "log_softmax": Case(
        lambda t, x: t.log_softmax(x, dim=-1),
        lambda x: np.log(softmax(x, -1)),
        (normal(2, 3, 4),),
        "LogSoftmaxBackward0",
    ),
    "linear": Case(
        lambda t, x, w, b: t.linear(x, w, b),
        lambda x, w, b: x @ w.T + b,
        (normal(5, 3), normal(4, 3), normal(4)),
        "AddmmBackward0",
        3,
    ),
    "linear, no bias": Case(
        lambda t, x, w: t.linear(x, w), lambda x, w: x @ w.T, (normal(5, 3), normal(4, 3)), "MmBackward0", 2
    ),
    "linear, 3 axes": Case(
        lambda t, x, w, b: t.linear(x, w, b),
        lambda x, w, b: x @ w.T + b,
        (normal(2, 5, 3), normal(4, 3), normal(4)),
        "ViewBackward0",
        3,
    ),
    "linear, 1 axis": Case(
        lambda t, x, w, b: t.linear(x, w, b),
        lambda x, w, b: x @ w.T + b,
        (normal(3), normal(4, 3), normal(4)),
        "ViewBackward0",
        3,
    ),
    "embedding": Case(
        lambda t, w, i: t.embedding(i, w),
        lambda w, i: w[i],
        (normal(4, 3), CLASSES.reshape(2, 3)),
        "EmbeddingBackward0",
    ),
    "layer_norm": Case(
        lambda t, x, w, b: t.layer_norm(x, w.shape, w, b),
        layer_norm,
        (normal(3, 5), normal(5), normal(5)),
        "NativeLayerNormBackward0",
        3,
    ),
    "layer_norm, 2 axes": Case(
        lambda t, x, w, b: t.layer_norm(x, w.shape, w, b),
        layer_norm,
        (normal(2, 3, 4), normal(3, 4), normal(3, 4)),
        "NativeLayerNormBackward0",
        3,
    ),
    "mse_loss": Case(
        lambda t, x, y: t.mse_loss(x, y), lambda x, y: ((x - y) ** 2).mean(), (SHARE, TARGETS), "MseLossBackward0", 2
    ),
    "l1_loss": Case(
        lambda t, x, y: t.l1_loss(x, y, reduction="sum"),
        lambda x, y: abs(x - y).sum(),
        (SHARE, TARGETS),
        "SumBackward0",
        2,
    ),
    "smooth_l1_loss": Case(
        lambda t, x, y: t.smooth_l1_loss(x, y, beta=0.6),
        lambda x, y: np.where(abs(x - y) < 0.6, (x - y) ** 2 / 1.2, abs(x - y) - 0.3).mean(),
        (EVEN, 0 * EVEN),
        "SmoothL1LossBackward0",
        2,
    ),
    "huber_loss": Case(
        lambda t, x, y: t.huber_loss(x, y, delta=0.6, reduction="none"),
        lambda x, y: np.where(abs(x - y) < 0.6, (x - y) ** 2 / 2, 0.6 * (abs(x - y) - 0.3)),
        (EVEN, 0 * EVEN),
        "HuberLossBackward0",
        2,
    ),
    "binary_cross_entropy": Case(
        lambda t, x, y, w: t.binary_cross_entropy(x, y, w),
        lambda x, y, w: -(w * (y * np.log(x) + (1 - y) * np.log(1 - x))).mean(),
        (SHARE, TARGETS, TARGETS.T.reshape(3, 4).copy()),
        "BinaryCrossEntropyBackward0",
    ),
    "with_logits": Case(
        lambda t, x, y: t.binary_cross_entropy_with_logits(x, y),
        lambda x, y: (np.log1p(np.exp(x)) - x * y).mean(),
        (normal(3, 4), TARGETS),
        "BinaryCrossEntropyWithLogitsBackward0",
    ),
    "with_logits, pos_weight": Case(
        lambda t, x, y, p: t.binary_cross_entropy_with_logits(x, y, pos_weight=p),
        lambda x, y, p: ((1 - y) * np.log1p(np.exp(x)) + p * y * np.log1p(np.exp(-x))).mean(),
        (normal(3, 4), TARGETS, WEIGHTS),
        "BinaryCrossEntropyWithLogitsBackward0",
    ),
    "nll_loss": Case(
        lambda t, x, y: t.nll_loss(x, y), lambda x, y: nll(x, y, ONES)[0].mean(), (LOGITS, CLASSES), "NllLossBackward0"
    ),
    "nll_loss, weights": Case(
        lambda t, x, y, w: t.nll_loss(x, y, w, reduction="none"),
        lambda x, y, w: nll(x, y, w)[0],
        (LOGITS, CLASSES, WEIGHTS),
        "NllLossBackward0",
    ),
    "cross_entropy": Case(
        lambda t, x, y: t.cross_entropy(x, y),
        lambda x, y: cross_entropy(x, y, ONES),
        (LOGITS, CLASSES),
        "NllLossBackward0",
    ),
    "cross_entropy, weights and ignored": Case(
        lambda t, x, y, w: t.cross_entropy(x, y, w, ignore_index=2),
        lambda x, y, w: cross_entropy(x, y, w, 2),
        (LOGITS, SOME_IGNORED, WEIGHTS),
        "NllLossBackward0",
    ),
    "cross_entropy, smoothed": Case(
        lambda t, x, y, w: t.cross_entropy(x, y, w, ignore_index=2, label_smoothing=0.1),
        lambda x, y, w: cross_entropy(x, y, w, 2, 0.1),
        (LOGITS, SOME_IGNORED, WEIGHTS),
        "AddBackward0",
    ),
    "cross_entropy, image": Case(
        lambda t, x, y: t.cross_entropy(x, y, reduction="none"),
        lambda x, y: -np.log(np.take_along_axis(softmax(x, 1), y[:, None], 1))[:, 0],
        (IMAGE, IMAGE_CLASSES),
        "NllLoss2DBackward0",
    ),
    "cross_entropy, probabilities": Case(
        lambda t, x, y: t.cross_entropy(x, y, label_smoothing=0.2),
        lambda x, y: -(np.log(softmax(x, 1)) * (0.8 * y + 0.05)).sum(1).mean(),
        (LOGITS, PROBABILITIES),
        "DivBackward0",
        2,
    ),
    "cross_entropy, one prediction": Case(
        lambda t, x, y: t.cross_entropy(x, y),
        lambda x, y: -np.log(softmax(x, 0))[y],
        (normal(4), np.array(2)),
        "NllLossBackward0",
    ),
}
every_case = pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))


def weft_arguments(case: Case, dtype: Any, differentiate: bool = False) -> list[Any]:
    tensors = [weft.tensor(a, dtype=dtype if a.dtype.kind == "f" else None) for a in case.arrays]
    for t in tensors[: case.inputs if differentiate else 0]:
        t.requires_grad_()
    return tensors


@every_case
@pytest.mark.parametrize(("dtype", "accuracy"), [("float32", 3e-6), ("float64", 1e-13)])
def test_value(case: Case, dtype: str, accuracy: float) -> None:
    result = case.call(F, *weft_arguments(case, getattr(weft, dtype)))
    assert result.dtype is getattr(weft, dtype)
    np.testing.assert_allclose(result.numpy(), case.reference(*case.arrays), rtol=accuracy, atol=accuracy)


@every_case
def test_derivative(case: Case) -> None:
    """The derivative along a random direction equals a difference quotient of the NumPy reference."""
    tensors = weft_arguments(case, weft.float64, differentiate=True)
    result = case.call(F, *tensors)
    assert result.grad_fn.name == case.grad_fn
    rng = np.random.default_rng(3)
    seed = rng.normal(size=tuple(result.shape))
    result.backward(weft.tensor(seed))
    directions = [rng.normal(size=a.shape) for a in case.arrays[: case.inputs]]
    step = 1e-6
    ends = []
    for sign in (1, -1):
        moved = [a + sign * step * d for a, d in zip(case.arrays, directions, strict=False)] + list(
            case.arrays[case.inputs :]
        )
        ends.append(float((seed * case.reference(*moved)).sum()))
    found = sum(float((t.grad.numpy() * d).sum()) for t, d in zip(tensors, directions, strict=False))
    assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-7, abs=1e-8)


def value_and_gradients(call: Callable[..., Any], tensors: list[Any]) -> Any:
    result = call(F, *tensors)
    result.backward(weft.ones_like(result))
    return result


@every_case
def test_compiled_agrees_with_eager(case: Case) -> None:
    eager, compiled = (weft_arguments(case, weft.float32, differentiate=True) for _ in range(2))
    expected = value_and_gradients(case.call, eager)
    result = weft.compile(value_and_gradients)(case.call, compiled)
    np.testing.assert_allclose(result.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    for t, e in zip(compiled[: case.inputs], eager, strict=False):
        np.testing.assert_allclose(t.grad.numpy(), e.grad.numpy(), rtol=1e-5, atol=1e-6)


@every_case
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_same_as_torch(case: Case) -> None:
    import torch

    ours = weft_arguments(case, weft.float32, differentiate=True)
    theirs = [torch.tensor(t.detach().numpy(), requires_grad=t.requires_grad) for t in ours]
    result, expected = case.call(F, *ours), case.call(torch.nn.functional, *theirs)
    np.testing.assert_allclose(result.detach().numpy(), expected.detach().numpy(), rtol=2e-6, atol=1e-6)
    (result * 1.5).sum().backward()
    (expected * 1.5).sum().backward()
    for t, e in zip(ours[: case.inputs], theirs, strict=False):
        np.testing.assert_allclose(t.grad.numpy(), e.grad.numpy(), rtol=5e-6, atol=1e-6)


# ---- extremes, options, bad input ------------------------------------------------------------------------------------


def test_losses_stay_finite_for_large_logits() -> None:
    x = weft.tensor([-200.0, 0.0, 200.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, weft.tensor([1.0, 0.5, 0.0]), reduction="none")
    np.testing.assert_allclose(loss.detach().numpy(), [200.0, math.log(2), 200.0], rtol=1e-6)
    loss.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [-1.0, 0.0, 1.0])
    logits = weft.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss = F.cross_entropy(logits, weft.tensor([1]))
    loss.backward()
    assert loss.item() == 2000.0
    assert logits.grad.tolist() == [[1.0, -1.0]]


def test_binary_cross_entropy_at_the_ends() -> None:
    """Torch bounds the logarithm at -100 and the slope at 1e12."""
    p = weft.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = F.binary_cross_entropy(p, weft.tensor([0.0, 1.0, 1.0, 0.0]), reduction="none")
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0, 100.0, 100.0]
    np.testing.assert_allclose(p.grad.numpy()[2:], [-1e12, 1e12], rtol=1e-6)
    assert np.isfinite(p.grad.numpy()).all()


def test_relu_keeps_nan_and_has_no_slope_at_zero() -> None:
    x = weft.tensor([math.nan, 0.0, -0.0], requires_grad=True)
    y = F.relu(x)
    y.backward(weft.ones(3))
    assert math.isnan(y[0].item())
    assert x.grad.tolist()[1:] == [0.0, 0.0]


def test_many_classes() -> None:
    """Beyond some number of classes another way of finding the class's column is taken."""
    x = weft.tensor(np.random.default_rng(0).normal(size=(3, 2000)), requires_grad=True)
    classes = np.array([0, 1999, 700])
    loss = F.cross_entropy(x, weft.tensor(classes), reduction="sum")
    loss.backward()
    p = softmax(x.detach().numpy(), 1)
    assert loss.item() == pytest.approx(-np.log(p[np.arange(3), classes]).sum())
    np.testing.assert_allclose(x.grad.numpy(), p - (np.arange(2000) == classes[:, None]), atol=1e-14)
    with pytest.raises(IndexError, match="2000 is out of range"):
        F.cross_entropy(x, weft.tensor([0, 1, 2000]))


def test_all_targets_ignored_gives_nan() -> None:
    assert math.isnan(F.cross_entropy(weft.ones(2, 3), weft.tensor([-100, -100])).item())


def test_embedding_padding_gets_no_gradient() -> None:
    table = weft.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    rows = F.embedding(weft.tensor([0, 2, 2]), table, padding_idx=-1)
    rows.sum().backward()
    assert rows.tolist() == [[0, 1], [4, 5], [4, 5]]
    assert table.grad.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_dropout() -> None:
    weft.manual_seed(3)
    x = weft.ones(20_000, requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    values, counts = np.unique(y.detach().numpy(), return_counts=True)
    np.testing.assert_allclose(values, [0, 4 / 3], rtol=1e-6)
    assert abs(counts[0] / 20_000 - 0.25) < 0.015
    assert x.grad.tolist() == y.tolist()
    assert F.dropout(x, 0.25, training=False) is x
    assert F.dropout(x, 1.0).sum().item() == 0


BAD = {
    "linear sizes": (
        lambda: F.linear(weft.ones(4, 5), weft.ones(2, 3)),
        RuntimeError,
        r"cannot be multiplied \(4x5 and 3x2\)",
    ),
    "linear dtypes": (
        lambda: F.linear(weft.ones(4, 3, dtype=weft.float64), weft.ones(2, 3)),
        RuntimeError,
        "same dtype.*float64.*float32",
    ),
    "embedding range": (lambda: F.embedding(weft.tensor([3]), weft.ones(3, 2)), IndexError, "3 is out of range"),
    "embedding floats": (lambda: F.embedding(weft.ones(2), weft.ones(3, 2)), TypeError, "indices"),
    "no such class": (lambda: F.cross_entropy(weft.ones(2, 3), weft.tensor([0, 3])), IndexError, "3 is out of range"),
    "negative class": (
        lambda: F.cross_entropy(weft.ones(2, 3), weft.tensor([0, -1])),
        IndexError,
        "-1 is out of range",
    ),
    "batch sizes": (
        lambda: F.cross_entropy(weft.ones(2, 3), weft.tensor([0, 1, 2])),
        ValueError,
        r"batch_size \(2\).*batch_size \(3\)",
    ),
    "target dtype": (lambda: F.nll_loss(weft.ones(2, 3), weft.ones(2)), TypeError, "class indices"),
    "class weights": (
        lambda: F.nll_loss(weft.ones(2, 3), weft.tensor([0, 1]), weft.ones(2)),
        ValueError,
        "all 3 classes",
    ),
    "smoothing": (
        lambda: F.cross_entropy(weft.ones(2, 3), weft.tensor([0, 1]), label_smoothing=1.5),
        ValueError,
        "between 0.0 and 1.0",
    ),
    "reduction": (
        lambda: F.mse_loss(weft.ones(2), weft.ones(2), reduction="max"),
        ValueError,
        "not a valid value for reduction",
    ),
    "bce sizes": (
        lambda: F.binary_cross_entropy_with_logits(weft.ones(2, 3), weft.ones(3, 3)),
        ValueError,
        "same as input size",
    ),
    "not probabilities": (
        lambda: F.binary_cross_entropy(weft.ones(2) * 2, weft.ones(2)),
        RuntimeError,
        "between 0 and 1",
    ),
    "layer_norm": (lambda: F.layer_norm(weft.ones(2, 3), (4,)), RuntimeError, r"expected input with shape \[\*, 4\]"),
    "dropout": (lambda: F.dropout(weft.ones(2), 1.5), ValueError, "between 0 and 1, but got 1.5"),
    "softmax": (lambda: F.softmax(weft.ones(2)), TypeError, "dim"),
    "gelu": (lambda: F.gelu(weft.ones(2), approximate="erf"), ValueError, "approximate"),
}


@pytest.mark.parametrize(("call", "kind", "text"), list(BAD.values()), ids=list(BAD))
def test_bad_input(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        call()


def test_mse_loss_warns_of_broadcasting() -> None:
    with pytest.warns(UserWarning, match="target size"):
        F.mse_loss(weft.ones(3, 1), weft.ones(3))
