"""Every line of surface.txt: eager results against torch (values, dtypes, errors, and the strides of views), and
compiled results against eager ones. In a second table: the names in grad_fn, and gradients, against torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weft

rng = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "x": rng.standard_normal((3, 4)).astype("f4"),
    "y": rng.standard_normal((3, 4)).astype("f4"),
    "p": rng.random((3, 4)).astype("f4") * 0.8 + 0.1,
    "v": rng.standard_normal(4).astype("f4"),
    "c": rng.standard_normal((3, 1)).astype("f4"),
    "d": rng.standard_normal((3, 4)),
    "s": np.array(2.5, "f4"),
    "i": rng.integers(-5, 6, (3, 4)),
    "j": rng.integers(1, 6, (3, 4)),
    "k": rng.integers(-5, 6, (3, 4)).astype("i4"),
    "u": rng.integers(0, 200, (3, 4)).astype("u1"),
    "b": rng.random((3, 4)) > 0.5,
    "e": rng.random((3, 4)) > 0.5,
    "z": rng.standard_normal((2, 3, 4)).astype("f4"),
    "m": rng.standard_normal((4, 3)).astype("f4"),
    "q": rng.standard_normal((3, 3)).astype("f4"),
    "n": np.array([[1, np.nan, 3], [np.inf, -2, -np.inf]], "f4"),
    "w": rng.standard_normal((2, 4, 5)).astype("f4"),
    "ix": np.array([0, 2, 1]),
    "r": np.array([1.0, 1, 2, 2, 2, 0], "f4"),
    "g": rng.integers(0, 3, (3, 4)),
    "z0": np.zeros((0, 3), "f4"),
}
NAMES = list(ARRAYS)


def sections() -> dict[str, list[str]]:
    """Section -> its lines."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("surface.txt").read_text().splitlines():
        if line.startswith("## "):
            current = found[line[3:]] = []
        elif line and not line.startswith("#"):
            current.append(line)
    return found


SECTIONS = sections()
IS_STATEMENT = ("statements", "layouts")
LINES = [(section, line) for section, lines in SECTIONS.items() for line in lines]


def function_of(section: str, line: str, library: Any) -> Callable[..., Any]:
    """A function of all tensors: the line's value, or all tensors after the line."""
    if section not in IS_STATEMENT:
        body = f"return {line}"
    else:
        body = f"{line}\n    return " + ("o" if section == "layouts" else ", ".join(NAMES))
    space = {"T": library, "math": math}
    exec(f"def f({', '.join(NAMES)}):\n    {body}", space)
    return space["f"]


def plain(value: Any) -> Any:
    """Tensors as arrays, also in tuples."""
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value.detach().numpy() if hasattr(value, "detach") else value


def outcome(function: Callable[..., Any], library: Any) -> tuple[Any, Any, Exception | None]:
    """(plain result, its strides, error) of a function on fresh tensors."""
    try:
        result = function(*[library.from_numpy(a.copy()) for a in ARRAYS.values()])
    except Exception as failure:
        return None, None, failure
    return plain(result), tuple(result.stride()) if hasattr(result, "stride") else None, None


def agree(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(map(agree, a, b))
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return np.allclose(a, b, 2e-5 if a.dtype == np.float32 else 1e-10, 1e-6, equal_nan=True)
    return a == b or (a != a and b != b)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("section", "line"), LINES, ids=[line for _, line in LINES])
def test_same_as_torch(torch, section, line):
    expected, expected_strides, expected_error = outcome(function_of(section, line, torch), torch)
    result, strides, failure = outcome(function_of(section, line, weft), weft)
    if expected_error is not None:
        assert isinstance(failure, (weft.WeftError, TypeError))  # Python's own TypeError for `x + "a"`
        return
    if failure is not None:
        raise failure
    assert agree(result, expected)
    if section == "layouts":
        assert strides == expected_strides


def chunks(size: int = 12) -> Iterator[tuple[str, list[str]]]:
    """Lines in groups: one test compiles several, so that there are not thousands of tests."""
    for section, lines in SECTIONS.items():
        for k in range(0, len(lines), size):
            yield section, lines[k : k + size]


@pytest.mark.parametrize(("section", "lines"), list(chunks()))
def test_compiled_as_eager(section, lines):
    wrong = []
    for line in lines:
        function = function_of(section, line, weft)
        expected, _, expected_error = outcome(function, weft)
        result, _, failure = outcome(weft.compile(function), weft)
        if isinstance(failure, weft.TraceError):
            continue  # data-dependent sizes and Python values; test_tensor.py names these
        if (expected_error is None) != (failure is None) or not agree(expected, result):
            wrong.append((line, expected, result, failure))
    assert not wrong


NEEDS_VALUES = (
    "x.item()",
    "x.tolist()",
    "float(x.sum())",
    "int(x.sum())",
    "bool(x.sum())",
    "if x.sum(): pass",
    "1 in x",
    "x.numpy()",
    "x[x > 0]",
    "x.nonzero()",
    "x.masked_select(x > 0)",
    "x.unique()",
    "weft.where(x > 0)",
    "weft.equal(x, x)",
    "weft.allclose(x, x)",
    "x[x > 0] = weft.ones(2)",
    "[1, 2][x.sum().long()]",
    "x.repeat_interleave(weft.tensor([1, 2, 3]), 0)",
    "weft.bincount(x.flatten().long())",
)


@pytest.mark.parametrize("line", NEEDS_VALUES)
def test_values_are_not_known_in_a_trace(line):
    space: dict[str, Any] = {"weft": weft}
    exec(f"def f(x):\n    {line}", space)
    with pytest.raises(weft.TraceError, match="traced.*: .*"):
        weft.compile(space["f"])(weft.ones(3, 4))


# ---- gradients -------------------------------------------------------------------------------------------------------

GRADIENTS = {
    "AddBackward0": "x + 1 | x + x | x.t() + x",
    "SubBackward0": "x - 1",
    "RsubBackward1": "5 - x",
    "NegBackward0": "-x",
    "AbsBackward0": "(x - 0.5).abs()",
    "MulBackward0": "x * 2 | x * x.t() | 2 / x",
    "DivBackward0": "x / 2 | x / x.t()",
    "PowBackward0": "x ** 2 | x ** 2.5 | x.square() | x.float_power(2)",
    "PowBackward1": "x ** x.t()",
    "PowBackward2": "2 ** x",
    "SumBackward0": "x.sum()",
    "SumBackward1": "x.sum(0) | x.sum(1, keepdim=True) | x.sum((0, 1))",
    "MeanBackward0": "x.mean()",
    "MeanBackward1": "x.mean(0)",
    "ProdBackward0": "x.prod()",
    "ProdBackward1": "x.prod(1)",
    "MaxBackward0": "x.max(1)[0]",
    "MinBackward0": "x.min(0).values",
    "MaxBackward1": "x.max()",
    "AmaxBackward0": "x.amax(0)",
    "AminmaxBackward0": "x.aminmax()[1]",
    "VarBackward0": "x.var() | x.var(0, unbiased=False)",
    "StdBackward0": "x.std() | x.std(1)",
    "LinalgVectorNormBackward0": "x.norm() | x.norm(1) | x.norm(dim=0) | x.norm(3)",
    "DistBackward0": "T.dist(x, x * 2)",
    "LogsumexpBackward0": "x.logsumexp(0) | x.logsumexp((0, 1))",
    "SoftmaxBackward0": "x.softmax(1)",
    "LogSoftmaxBackward0": "x.log_softmax(0)",
    "TBackward0": "x.t()",
    "PermuteBackward0": "x.T | x.permute(1, 0) | x.movedim(0, 1)",
    "TransposeBackward0": "x.transpose(0, 1) | x.mT | x.swapaxes(0, 1)",
    "ViewBackward0": "x.view(-1) | x.reshape(1, 9) | x.flatten() | x.unflatten(0, (3, 1)) | x.ravel()",
    "UnsafeViewBackward0": "x.t().reshape(-1)",
    "UnsqueezeBackward0": "x[None] | x.unsqueeze(1)",
    "SqueezeBackward0": "x.squeeze()",
    "SqueezeBackward1": "x[None].squeeze(0)",
    "ExpandBackward0": "x.expand(2, 3, 3) | x.broadcast_to(2, 3, 3)",
    "SelectBackward0": "x[0] | x[:, 1] | x[0, 1] | x.select(1, 2)",
    "SliceBackward0": "x[0:2] | x[..., ::2] | x.narrow(0, 1, 1)",
    "UnbindBackward0": "x.unbind()[1]",
    "SplitBackward0": "x.split(2)[1] | x.chunk(2)[0]",
    "DiagonalBackward0": "x.diagonal(1)",
    "AsStridedBackward0": "x.as_strided((2, 2), (1, 2))",
    "UnfoldBackward0": "x.unfold(0, 2, 1)",
    "CloneBackward0": "x.clone() | x.t().contiguous()",
    "IndexBackward0": "x[i] | x[:, [0, 2]] | x[[0, 0, 1]] | x[i, i] | x[x > 0.5]",
    "MmBackward0": "x @ x | T.mm(x, x.t())",
    "MvBackward0": "x @ x[0]",
    "DotBackward0": "x[0] @ x[1] | x[0].dot(x[1])",
    "BmmBackward0": "T.bmm(x[None], x[None])",
    "AddmmBackward0": "T.addmm(x, x, x, beta=0.5, alpha=2)",
    "AddmvBackward0": "T.addmv(x[0], x, x[1])",
    "BaddbmmBackward0": "T.baddbmm(x, x[None], x[None])",
    "CatBackward0": "T.cat([x, x * 2])",
    "StackBackward0": "T.stack([x, x * 2], 1)",
    "WhereBackward0": "T.where(x > 0.5, x, x * 2)",
    "MaximumBackward0": "T.maximum(x, x.t())",
    "MinimumBackward0": "T.minimum(x, x.t())",
    "FmaxBackward0": "T.fmax(x, x.t())",
    "ClampBackward1": "x.clamp(0.3, 0.6)",
    "ClampBackward0": "x.clamp(min=x.t())",
    "ReluBackward0": "(x - 0.5).relu()",
    "MaskedFillBackward0": "x.masked_fill(x > 0.5, 1.)",
    "LerpBackward0": "x.lerp(x * 2, 0.3)",
    "AddcmulBackward0": "T.addcmul(x, x, x.t(), value=2)",
    "AddcdivBackward0": "T.addcdiv(x, x, x + 1)",
    "Atan2Backward0": "T.atan2(x, x + 1)",
    "HypotBackward0": "T.hypot(x, x * 2)",
    "LogaddexpBackward0": "T.logaddexp(x, x * 2)",
    "RemainderBackward0": "x.remainder(0.3) | x % 0.3",
    "FmodBackward0": "x.fmod(0.3)",
    "XlogyBackward0": "T.xlogy(x, x)",
    "CopysignBackward0": "T.copysign(x, -x)",
    "ExpBackward0": "x.exp()",
    "LogBackward0": "x.log()",
    "SqrtBackward0": "x.sqrt()",
    "RsqrtBackward0": "x.rsqrt()",
    "SigmoidBackward0": "x.sigmoid()",
    "TanhBackward0": "x.tanh()",
    "ErfBackward0": "x.erf()",
    "Log1PBackward0": "x.log1p()",
    "SincBackward0": "x.sinc()",
    "LogitBackward0": "x.logit()",
    "CumsumBackward0": "x.cumsum(0)",
    "CumprodBackward0": "x.cumprod(1)",
    "CummaxBackward0": "x.cummax(0)[0]",
    "LogcumsumexpBackward0": "x.logcumsumexp(1)",
    "SortBackward0": "x.sort(1, descending=True)[0]",
    "TopkBackward0": "x.topk(2)[0]",
    "KthvalueBackward0": "x.kthvalue(2)[0]",
    "MedianBackward0": "x.median()",
    "MedianBackward1": "x.median(1)[0]",
    "GatherBackward0": "x.gather(0, T.tensor([[1, 0, 2]]))",
    "IndexSelectBackward0": "x.index_select(1, i)",
    "IndexAddBackward0": "x.index_add(0, i, x[:2])",
    "IndexCopyBackward0": "x.index_copy(0, i, x[1:])",
    "IndexFillBackward0": "x.index_fill(0, i, 1.)",
    "ScatterAddBackward0": "x.scatter_add(0, T.tensor([[0, 1, 2]] * 3), x)",
    "TakeBackward0": "T.take(x, i)",
    "MaskedScatterBackward0": "x.masked_scatter(x > 0.5, x * 2)",
    "SelectScatterBackward0": "x.select_scatter(x[0] * 2, 0, 1)",
    "RollBackward0": "x.roll(1, 0) | x.roll(1)",
    "RepeatBackward0": "x.repeat(2, 1) | x.tile(2)",
    "FlipBackward0": "x.flip(0)",
    "TrilBackward0": "x.tril()",
    "TriuBackward0": "x.triu(1)",
    "TraceBackward0": "x.trace()",
    "DiagEmbedBackward0": "x.diag_embed()",
    "ToCopyBackward0": "x.float() | x.to(T.float32)",
    "NansumBackward0": "x.nansum()",
    "CdistBackward0": "T.cdist(x, x * 2)",
    "RenormBackward0": "x.renorm(2, 0, 0.5)",
    "FracBackward0": "x.frac()",
    "LgammaBackward0": "x.lgamma()",
    "ErfinvBackward0": "x.erfinv()",
    "NanToNumBackward0": "x.nan_to_num()",
}
GRADIENT_LINES = [(name, line.strip()) for name, lines in GRADIENTS.items() for line in lines.split(" | ")]
POINT = rng.random((3, 3)) * 0.8 + 0.1


def value_and_gradient(line: str, library: Any, seed: np.ndarray | None) -> tuple[Any, np.ndarray, np.ndarray]:
    x = library.from_numpy(POINT.copy()).requires_grad_(True)
    result = eval(line, {"T": library, "x": x, "i": library.tensor([0, 1])})
    if seed is None:
        seed = np.random.default_rng(1).standard_normal(tuple(result.shape))
    result.backward(library.from_numpy(seed).to(result.dtype))
    return result, result.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize(("name", "line"), GRADIENT_LINES)
def test_name_in_grad_fn_and_finite_differences(name, line):
    result, _, gradient = value_and_gradient(line, weft, None)
    assert result.grad_fn.name == name
    if result.dtype is weft.float64:
        seed = np.random.default_rng(1).standard_normal(tuple(result.shape))
        direction = np.random.default_rng(2).standard_normal(POINT.shape)
        h = 1e-6
        up, down = (
            eval(line, {"T": weft, "x": weft.tensor(POINT + t * direction), "i": weft.tensor([0, 1])}).numpy()
            for t in (h, -h)
        )
        assert np.sum(gradient * direction) == pytest.approx(np.sum((up - down) * seed) / (2 * h), rel=1e-5, abs=1e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "line"), GRADIENT_LINES)
def test_gradient_same_as_torch(torch, name, line):
    expected = value_and_gradient(line, torch, None)
    result = value_and_gradient(line, weft, None)
    assert expected[0].grad_fn.name() == name
    for a, b in zip(result[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, 1e-6, 1e-8)


# ---- numbers of compiled functions -----------------------------------------------------------------------------------

NUMBERS = (
    "x + a, a + x, x * a, a - x, x / a, a / x, x % a, x // a, x ** a, a ** x, x < a",
    "x.add(x, alpha=a), weft.sub(x, x, alpha=a), weft.addcmul(x, x, x, value=a), weft.addcdiv(x, x, x, value=a)",
    "x.clamp(a), x.clamp(max=a), x.clamp(a - 1, a + 1), weft.where(x > a, x, a), x.masked_fill(x > a, a)",
    "x.lerp(x * 2, a), weft.full((2,), a), weft.tensor(a), weft.tensor([a, 1.0]), weft.full_like(x, a)",
    "x.new_tensor([a, a]), weft.linspace(0, a, 5), weft.arange(0.0, a, 0.5), weft.logspace(0, a, 3)",
    "weft.addmm(x, x, x, beta=a), x.index_fill(0, weft.tensor([0]), a), x.scatter(0, weft.tensor([[1, 0]]), a)",
    "x.norm(a), x.quantile(a / 4), x.var(correction=a), x.renorm(2, 0, a), x.histc(3, 0.0, a)",
    "x.clone().fill_(a), x.clone().add_(a).mul_(a), x.nan_to_num(a), x.logit(a / 10), weft.xlogy(a, x)",
    "weft.maximum(x, a), x.isclose(x + a), weft.gradient(x, spacing=a), weft.trapezoid(x, dx=a), weft.atan2(x, a)",
)


def assigned(x, a):
    x[0] = a
    x[:, 1] = x[:, 1] * a
    x[x > a] = a
    x[[0, 1], [1, 0]] = a
    return (x,)


@pytest.mark.parametrize("body", (*NUMBERS, assigned), ids=str)
def test_numbers_that_change_between_calls(body):
    function = eval(f"lambda x, a: ({body})", {"weft": weft}) if isinstance(body, str) else body
    compiled = weft.compile(function)
    point = weft.tensor([[0.5, 1.5], [2.5, 0.25]])
    for a in (1.5, 2.0, 0.75):
        for result, expected in zip(compiled(point.clone(), a), function(point.clone(), a), strict=True):
            assert agree(plain(result), plain(expected))
