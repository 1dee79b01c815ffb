"""Elementwise nonlinearities and softmax, as functions."""

from __future__ import annotations

import math

from ...ir.types import DType
from ...tracer.dispatch import EMIT
from ...tracer.promotion import named
from ...tracer.tensor import Tensor


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x); its derivative at 0 is 0."""
    return input.relu_() if inplace else input.relu()


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else `negative_slope` times x."""
    return named(EMIT.select(input > 0, input, input * negative_slope), "LeakyReluBackward0")


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (exp(x) - 1)."""
    return named(
        EMIT.select(input > 0, input, EMIT.minimum(input, EMIT.full_like(input, 0)).expm1() * alpha), "EluBackward0"
    )


def silu(input: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return named(input * input.sigmoid(), "SiluBackward0")


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x; with `approximate="tanh"` by the usual tanh formula."""
    if approximate == "none":
        return named(input * 0.5 * (1 + (input * math.sqrt(0.5)).erf()), "GeluBackward0")
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (input + 0.044715 * (input * input * input))
        return named(0.5 * input * (1 + inner.tanh()), "GeluBackward0")
    raise ValueError(f"approximate argument must be either none or tanh, got {approximate!r}")


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return input.tanh()


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), exact for large |x|."""
    return named(EMIT.minimum(input, EMIT.full_like(input, 0)) - (-input.abs()).exp().log1p(), "LogSigmoidBackward0")


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold."""
    scaled = input * beta
    capped = EMIT.minimum(scaled, EMIT.full_like(scaled, threshold))
    return named(EMIT.select(scaled > threshold, input, capped.exp().log1p() / beta), "SoftplusBackward0")


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x limited to the range from `min_val` to `max_val`."""
    return named(input.clamp(min_val, max_val), "HardtanhBackward0")


def relu6(input: Tensor) -> Tensor:
    """x limited to the range from 0 to 6."""
    return hardtanh(input, 0.0, 6.0)


def _softmax_dim(name: str, dim: int | None) -> int:
    if dim is None:
        raise TypeError(f"{name}() needs to know the axis: pass dim=-1 for the last one")
    return dim


def softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """exp(x) divided by its sum along `dim`, computed without overflow; first converted to `dtype` when given."""
    return input.softmax(_softmax_dim("softmax", dim), dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: DType | None = None) -> Tensor:
    """The logarithm of softmax, computed by log-sum-exp."""
    return input.log_softmax(_softmax_dim("log_softmax", dim), dtype=dtype)
