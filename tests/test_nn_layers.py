"""Layers with state of their own or with steps in time: values against NumPy; all against torch, eager and compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import weft
from weft import nn

RNG = np.random.default_rng(9)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def parts(results: Any) -> list[Any]:
    """The tensors of a result, in order."""
    if hasattr(results, "shape"):
        return [results]
    return [t for r in results if r is not None for t in parts(r)]


# ---- the same as torch's ---------------------------------------------------------------------------------------------


@dataclass
class Case:
    """`make(nn)` gives a layer of weft's or torch's; `call(library, layer, *tensors)` uses it."""

    make: Callable[[Any], Any]
    shapes: tuple[tuple[int, ...], ...]
    call: Callable[..., Any] = lambda library, layer, *tensors: layer(*tensors)
    training: bool = True


def layer(name: str, *shapes: tuple[int, ...], training: bool = True, call: Any = Case.call, **options: Any) -> Case:
    """A case of a layer by name; a call that differs is `call(layer, *tensors)`."""
    sizes = options.pop("sizes")
    use = call if call is Case.call else lambda library, *a: call(*a)
    return Case(lambda nn: getattr(nn, name)(*sizes, **options), shapes, use, training)


HIDDEN_TOO = lambda m, x, h: m(x, h)  # noqa: E731
SELF = lambda m, x: m(x, x, x)  # noqa: E731
PADDING = np.arange(5) >= np.array([[5], [3], [4]])
LATER = np.triu(np.ones((5, 5), bool), 1)


def masked(library: Any, m: Any, x: Any) -> Any:
    return m(x, x, x, key_padding_mask=library.tensor(PADDING), attn_mask=library.tensor(LATER))


CASES = {
    "RNN": layer("RNN", (6, 2, 3), sizes=(3, 4)),
    "RNN, relu, one sequence": layer("RNN", (6, 3), sizes=(3, 4), nonlinearity="relu"),
    "RNN, one step": layer("RNN", (1, 2, 3), sizes=(3, 4)),
    "LSTM": layer("LSTM", (6, 2, 3), sizes=(3, 4)),
    "LSTM, start": layer(
        "LSTM", (6, 2, 3), (1, 2, 4), (1, 2, 4), sizes=(3, 4), call=lambda m, x, h, c: m(x, (h, c)), bias=False
    ),
    "LSTM, layers, both ways": layer(
        "LSTM", (2, 7, 3), sizes=(3, 4), num_layers=2, bidirectional=True, batch_first=True
    ),
    "GRU": layer("GRU", (3, 2, 3), sizes=(3, 4)),
    "GRU, layers, start": layer("GRU", (6, 2, 3), (2, 2, 4), sizes=(3, 4), num_layers=2, call=HIDDEN_TOO),
    "RNNCell": layer("RNNCell", (2, 3), (2, 4), sizes=(3, 4)),
    "LSTMCell": layer("LSTMCell", (2, 3), sizes=(3, 4)),
    "GRUCell": layer("GRUCell", (3,), sizes=(3, 4), bias=False),
    "BatchNorm1d": layer("BatchNorm1d", (6, 3), sizes=(3,)),
    "BatchNorm1d, mean of all batches": layer("BatchNorm1d", (6, 3, 2), sizes=(3,), momentum=None),
    "BatchNorm2d": layer("BatchNorm2d", (4, 3, 5, 2), sizes=(3,), affine=False),
    "BatchNorm2d, evaluating": layer("BatchNorm2d", (4, 3, 5, 2), sizes=(3,), training=False),
    "BatchNorm3d, no statistics": layer(
        "BatchNorm3d", (4, 3, 2, 2, 2), sizes=(3,), track_running_stats=False, training=False
    ),
    "InstanceNorm2d": layer("InstanceNorm2d", (4, 3, 5, 2), sizes=(3,), affine=True, track_running_stats=True),
    "InstanceNorm1d, no batch": layer("InstanceNorm1d", (3, 5), sizes=(3,)),
    "GroupNorm": layer("GroupNorm", (3, 4, 5), sizes=(2, 4)),
    "RMSNorm": layer("RMSNorm", (3, 4, 5), sizes=((4, 5),)),
    "MultiheadAttention": layer("MultiheadAttention", (5, 3, 8), sizes=(8, 2), call=SELF),
    "MultiheadAttention, other keys": layer(
        "MultiheadAttention", (3, 5, 8), (3, 7, 6), (3, 7, 4), sizes=(8, 2), kdim=6, vdim=4, batch_first=True,
        call=lambda m, q, k, v: m(q, k, v, average_attn_weights=False),
    ),
    "MultiheadAttention, no batch": layer(
        "MultiheadAttention", (5, 8), (7, 8), sizes=(8, 2), bias=False, call=lambda m, q, k: m(q, k, k)
    ),
    "MultiheadAttention, masks": Case(lambda nn: nn.MultiheadAttention(8, 2), ((5, 3, 8),), masked),
    "TransformerEncoderLayer": layer(
        "TransformerEncoderLayer", (5, 3, 8), sizes=(8, 2, 16), dropout=0.0, activation="gelu", norm_first=True
    ),
    "TransformerEncoder": Case(
        lambda nn: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True), 2, nn.LayerNorm(8)
        ),
        ((3, 5, 8),),
    ),
    "Conv2d": layer("Conv2d", (2, 2, 5, 6), sizes=(2, 4, 3), padding=1, groups=2),
    "Conv2d, circular": layer(
        "Conv2d", (2, 2, 7, 6), sizes=(2, 4, (3, 2)), padding="same", padding_mode="circular", dilation=2, bias=False
    ),
    "Conv1d, reflected": layer("Conv1d", (2, 2, 7), sizes=(2, 4, 3), padding=2, padding_mode="reflect"),
    "Conv3d": layer("Conv3d", (2, 2, 4, 4, 5), sizes=(2, 4, 2), stride=2),
    "ConvTranspose2d": layer(
        "ConvTranspose2d", (2, 2, 4, 5), sizes=(2, 4, 3), stride=2, padding=1, output_padding=(1, 0)
    ),
    "ConvTranspose1d, size": layer(
        "ConvTranspose1d", (2, 2, 4), sizes=(2, 4, 3), stride=3, call=lambda m, x: m(x, output_size=[13])
    ),
    "ConvTranspose3d": layer("ConvTranspose3d", (2, 2, 2, 3, 2), sizes=(2, 3, 2)),
    "MaxPool1d": layer("MaxPool1d", (2, 3, 6), sizes=(2,)),
    "MaxPool2d": layer("MaxPool2d", (2, 3, 6, 5), sizes=((3, 2),), stride=2, padding=1),
    "MaxPool3d": layer("MaxPool3d", (2, 3, 4, 4, 4), sizes=(2,)),
    "AvgPool1d": layer("AvgPool1d", (2, 3, 6), sizes=(2,)),
    "AvgPool2d": layer("AvgPool2d", (2, 3, 6, 5), sizes=((3, 2),), stride=2, padding=1),
    "AvgPool3d": layer("AvgPool3d", (2, 3, 4, 4, 4), sizes=(2,)),
    "AdaptiveAvgPool1d": layer("AdaptiveAvgPool1d", (2, 3, 5), sizes=(2,)),
    "AdaptiveAvgPool2d": layer("AdaptiveAvgPool2d", (2, 3, 5, 4), sizes=((2, 2),)),
    "AdaptiveAvgPool3d": layer("AdaptiveAvgPool3d", (2, 3, 5, 4, 2), sizes=(1,)),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))
def test_same_as_torch(case: Case, compiled: bool) -> None:
    """Outputs, gradients of inputs and parameters, buffers, names; what the layers print."""
    torch = pytest.importorskip("torch")
    ours, theirs = case.make(nn), case.make(torch.nn)
    ours.load_state_dict({name: weft.tensor(t.numpy()) for name, t in theirs.state_dict().items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    printed = repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    assert repr(ours).split("  #")[0] == printed
    ours.train(case.training), theirs.train(case.training)
    arrays = [normal(*shape) for shape in case.shapes]
    inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = parts(case.call(torch, theirs, *inputs))
    seeds = [normal(*r.shape) for r in expected]
    torch.autograd.backward(expected, [torch.tensor(s) for s in seeds])

    def run(tensors: list[Any], seeds: list[Any]) -> list[Any]:
        results = parts(case.call(weft, ours, *tensors))
        sum((r * s).sum() for r, s in zip(results, seeds, strict=True)).backward()
        return [r.detach() for r in results]

    tensors = [weft.tensor(a, requires_grad=True) for a in arrays]
    results = (weft.compile(run) if compiled else run)(tensors, [weft.tensor(s) for s in seeds])
    pairs = [*zip(results, expected, strict=True)]
    pairs += [(t.grad, i.grad) for t, i in zip(tensors, inputs, strict=True)]
    pairs += [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    pairs += zip(ours.buffers(), theirs.buffers(), strict=True)
    for mine, right in pairs:
        np.testing.assert_allclose(mine.numpy(), right.detach().numpy(), rtol=2e-5, atol=5e-5)


# ---- the same in NumPy -----------------------------------------------------------------------------------------------


def numpy_rnn(p: dict, x: np.ndarray) -> list[np.ndarray]:
    h, out = np.zeros((x.shape[1], 4)), []
    for now in x:
        h = np.tanh(now @ p["weight_ih_l0"].T + p["bias_ih_l0"] + h @ p["weight_hh_l0"].T + p["bias_hh_l0"])
        out.append(h)
    return [np.stack(out), h[None]]


def numpy_lstm(p: dict, x: np.ndarray) -> list[np.ndarray]:
    h, c, out = np.zeros((x.shape[1], 4)), np.zeros((x.shape[1], 4)), []
    for now in x:
        gates = now @ p["weight_ih_l0"].T + p["bias_ih_l0"] + h @ p["weight_hh_l0"].T + p["bias_hh_l0"]
        enter, keep, value, leave = np.split(gates, 4, 1)
        c = sigmoid(keep) * c + sigmoid(enter) * np.tanh(value)
        h = sigmoid(leave) * np.tanh(c)
        out.append(h)
    return [np.stack(out), h[None], c[None]]


def numpy_gru(p: dict, x: np.ndarray) -> list[np.ndarray]:
    h, out = np.zeros((x.shape[1], 4)), []
    for now in x:
        a = np.split(now @ p["weight_ih_l0"].T + p["bias_ih_l0"], 3, 1)
        b = np.split(h @ p["weight_hh_l0"].T + p["bias_hh_l0"], 3, 1)
        keep = sigmoid(a[1] + b[1])
        h = (1 - keep) * np.tanh(a[2] + sigmoid(a[0] + b[0]) * b[2]) + keep * h
        out.append(h)
    return [np.stack(out), h[None]]


def numpy_attention(p: dict, x: np.ndarray) -> list[np.ndarray]:
    """Self-attention of two heads on (L, N, 4)."""
    q, k, v = (
        part.reshape(*x.shape[:2], 2, 2).transpose(1, 2, 0, 3)
        for part in np.split(x @ p["in_proj_weight"].T + p["in_proj_bias"], 3, -1)
    )
    weights = softmax(q @ k.swapaxes(-1, -2) / math.sqrt(2))
    mixed = (weights @ v).transpose(2, 0, 1, 3).reshape(x.shape)
    return [mixed @ p["out_proj.weight"].T + p["out_proj.bias"], weights.mean(1)]


def numpy_batch_norm(p: dict, x: np.ndarray) -> list[np.ndarray]:
    centred = x - x.mean((0, 2, 3), keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    return [scaled * p["weight"].reshape(-1, 1, 1) + p["bias"].reshape(-1, 1, 1)]


def numpy_group_norm(p: dict, x: np.ndarray) -> list[np.ndarray]:
    groups = x.reshape(len(x), 2, -1)
    centred = groups - groups.mean(2, keepdims=True)
    scaled = (centred / np.sqrt(groups.var(2, keepdims=True) + 1e-5)).reshape(x.shape)
    return [scaled * p["weight"].reshape(-1, 1) + p["bias"].reshape(-1, 1)]


def numpy_rms_norm(p: dict, x: np.ndarray) -> list[np.ndarray]:
    return [x / np.sqrt((x**2).mean(-1, keepdims=True) + np.finfo(np.float64).eps) * p["weight"]]


REFERENCES = {
    "RNN": (lambda: nn.RNN(3, 4), numpy_rnn, (5, 2, 3), SELF),
    "LSTM": (lambda: nn.LSTM(3, 4), numpy_lstm, (5, 2, 3), SELF),
    "GRU": (lambda: nn.GRU(3, 4), numpy_gru, (5, 2, 3), SELF),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2), numpy_attention, (5, 3, 4), SELF),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), numpy_batch_norm, (4, 3, 2, 5), SELF),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), numpy_group_norm, (3, 4, 5), SELF),
    "RMSNorm": (lambda: nn.RMSNorm(5), numpy_rms_norm, (3, 5), SELF),
}


@pytest.mark.parametrize(("make", "reference", "shape", "call"), list(REFERENCES.values()), ids=list(REFERENCES))
def test_value_and_derivative(make: Any, reference: Any, shape: Any, call: Any) -> None:
    """In float64, with the derivative along a random direction of the inputs and all parameters."""
    module = make().double()
    call = call if isinstance(module, nn.MultiheadAttention) else lambda m, x: m(x)
    names = [name for name, _ in module.named_parameters()]
    with weft.no_grad():
        for p in module.parameters():
            p.add_(weft.tensor(RNG.normal(size=tuple(p.shape)) * 0.5))
    arrays = {**{k: p.detach().numpy().copy() for k, p in module.named_parameters()}, "": RNG.normal(size=shape)}
    x = weft.tensor(arrays[""], requires_grad=True)
    results, expected = parts(call(module, x)), reference(arrays, arrays[""])
    seeds = [RNG.normal(size=e.shape) for e in expected]
    for mine, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), right, rtol=1e-12, atol=1e-12)
    sum((r * weft.tensor(s)).sum() for r, s in zip(results, seeds, strict=True)).backward()
    directions = {k: RNG.normal(size=a.shape) for k, a in arrays.items()}

    def total(step: float) -> float:
        moved = {k: a + step * directions[k] for k, a in arrays.items()}
        return sum(float((r * s).sum()) for r, s in zip(reference(moved, moved[""]), seeds, strict=True))

    slopes = {**{k: p.grad.numpy() for k, p in zip(names, module.parameters(), strict=True)}, "": x.grad.numpy()}
    found = sum(float((slopes[k] * directions[k]).sum()) for k in arrays)
    assert found == pytest.approx((total(1e-6) - total(-1e-6)) / 2e-6, rel=1e-6, abs=1e-7)


# ---- statistics, loops, options --------------------------------------------------------------------------------------


def test_running_statistics_in_a_compiled_loop() -> None:
    results = []
    for decorate in (lambda f: f, weft.compile):
        layer = nn.BatchNorm1d(3, momentum=0.3)

        def run(x: Any, layer: Any = layer) -> None:
            for k in weft.range(len(x)):
                layer(x[k])

        decorate(run)(weft.tensor(np.arange(60.0, dtype=np.float32).reshape(5, 4, 3)))
        results.append([b.numpy().copy() for b in layer.buffers()])
    for eager, compiled in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-6)
    assert results[1][2] == 5 and results[1][0][0] > 10


def test_modes_of_batch_norm_are_programs_of_their_own() -> None:
    layer, x = nn.BatchNorm1d(3), weft.tensor(normal(5, 3))
    call = weft.compile(lambda x: layer(x))
    call(x)
    before = layer.running_mean.tolist()
    layer.eval()
    expected = (x - layer.running_mean) / (layer.running_var + 1e-5).sqrt()
    np.testing.assert_allclose(call(x).detach().numpy(), expected.numpy(), rtol=1e-5)
    assert layer.running_mean.tolist() == before and call.traces == 2
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0, 0, 0] and layer.num_batches_tracked.item() == 0


def test_a_recurrent_layer_is_one_native_loop() -> None:
    lstm = nn.LSTM(3, 4)

    @weft.compile
    def slope(x: Any) -> Any:
        lstm.zero_grad()
        lstm(x)[0].sum().backward()

    slope(weft.tensor(normal(40, 2, 3)))
    assert slope.ir("optimized").count(" loop ") == 2
    assert slope.ir("optimized").count("dot_general") < 20


def test_dropout_between_layers_and_in_attention() -> None:
    weft.manual_seed(3)
    rnn = nn.RNN(3, 4, num_layers=2, dropout=0.5)
    x = weft.tensor(normal(5, 2, 3))
    assert rnn(x)[0].tolist() != rnn(x)[0].tolist()
    rnn.eval()
    assert rnn(x)[0].tolist() == rnn(x)[0].tolist()
    attention = nn.MultiheadAttention(4, 2, dropout=0.5)
    y = weft.ones(5, 2, 4)
    weights = attention(y, y, y, average_attn_weights=False)[1]
    np.testing.assert_allclose(np.unique(weights.detach().numpy()), [0, 0.4], rtol=1e-6)


def test_attention_functions() -> None:
    """Masks of both kinds, a row that sees nothing, shared heads, a scale; against softmax in NumPy."""
    q, k, v = normal(2, 4, 3, 6), normal(2, 4, 5, 6), normal(2, 4, 5, 7)
    products = q @ k.swapaxes(-1, -2) / math.sqrt(6)
    seen = RNG.random((3, 5)) > 0.4
    seen[0], seen[1, 0] = False, True
    F = nn.functional
    tensors = [weft.tensor(a) for a in (q, k, v)]
    with np.errstate(invalid="ignore"):
        weights = np.nan_to_num(softmax(np.where(seen, products, -np.inf)))
    for mask in (weft.tensor(seen), weft.tensor(np.where(seen, 0, -np.inf).astype(np.float32))):
        found = F.scaled_dot_product_attention(*tensors, attn_mask=mask)
        np.testing.assert_allclose(found.numpy(), weights @ v, rtol=1e-5, atol=1e-6)
    causal = softmax(np.where(np.tri(3, 5, dtype=bool), products, -np.inf)) @ v
    found = F.scaled_dot_product_attention(*tensors, is_causal=True)
    np.testing.assert_allclose(found.numpy(), causal, rtol=1e-5, atol=1e-6)
    shared = F.scaled_dot_product_attention(tensors[0], *(t[:, :2] for t in tensors[1:]), scale=0.5, enable_gqa=True)
    heads = [0, 0, 1, 1]
    right = softmax(q @ k[:, heads].swapaxes(-1, -2) * 0.5) @ v[:, heads]
    np.testing.assert_allclose(shared.numpy(), right, rtol=1e-5, atol=1e-6)


BAD = {
    "input of an LSTM": (lambda: nn.LSTM(3, 4)(weft.ones(2, 5)), "last has size 3"),
    "state of a GRU": (
        lambda: nn.GRU(3, 4)(weft.ones(6, 2, 3), weft.ones(1, 3, 4)),
        r"Expected hidden size \[1, 2, 4\], got \[1, 3, 4\]",
    ),
    "input of a cell": (lambda: nn.RNNCell(3, 4)(weft.ones(2, 5)), r"or \[N, 3\]"),
    "nonlinearity": (lambda: nn.RNN(3, 4, nonlinearity="gelu"), "Unknown nonlinearity"),
    "axes of batch norm": (lambda: nn.BatchNorm2d(3)(weft.ones(2, 3)), "expected 4D input"),
    "one value": (lambda: nn.BatchNorm1d(3)(weft.ones(1, 3)), "more than 1 value per channel"),
    "no statistics": (
        lambda: nn.functional.batch_norm(weft.ones(2, 3), None, None),
        "Expected running_mean and running_var",
    ),
    "groups": (lambda: nn.functional.group_norm(weft.ones(2, 3), 2), "divisible by num_groups"),
    "heads": (lambda: nn.MultiheadAttention(6, 4), "divisible by num_heads"),
    "two masks": (
        lambda: nn.functional.scaled_dot_product_attention(*[weft.ones(2, 2)] * 3, weft.ones(2, 2), is_causal=True),
        "should not be set when is_causal",
    ),
    "channels": (lambda: nn.Conv2d(3, 4, 3, groups=2), "in_channels must be divisible"),
    "output size": (
        lambda: nn.ConvTranspose1d(1, 1, 3, stride=2)(weft.ones(1, 1, 4), output_size=[12]),
        "axis 0 has 9 to 10",
    ),
}


@pytest.mark.parametrize(("call", "text"), list(BAD.values()), ids=list(BAD))
def test_bad_input(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
