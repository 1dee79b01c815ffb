"""Nonlinearities as modules."""

from __future__ import annotations

from ...tracer.tensor import Tensor
from .. import functional
from ..module import Module


class ReLU(Module):
    """max(0, x)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """max(0, x), elementwise."""
        return functional.relu(input, self.inplace)

    def extra_repr(self) -> str:
        """`inplace=True`, or nothing."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x where x > 0, else `negative_slope` times x."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where x > 0, else alpha (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """alpha."""
        return f"alpha={self.alpha}"


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.silu(input)


class GELU(Module):
    """x times the normal distribution function of x, exactly or (`approximate="tanh"`) by the usual formula."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """The formula."""
        return f"approximate={self.approximate!r}"


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.sigmoid(input)


class LogSigmoid(Module):
    """log(sigmoid(x))."""

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.logsigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.tanh(input)


class Softplus(Module):
    """log(1 + exp(beta x)) / beta."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """beta and threshold."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardtanh(Module):
    """x limited to the range from `min_val` to `max_val`."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        if min_val >= max_val:
            raise ValueError("min_val must be smaller than max_val")
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input: Tensor) -> Tensor:
        """The nonlinearity, elementwise."""
        return functional.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """The range."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Hardtanh):
    """x limited to the range from 0 to 6."""

    def __init__(self) -> None:
        super().__init__(0.0, 6.0)

    def extra_repr(self) -> str:
        """Nothing."""
        return ""


class Softmax(Module):
    """exp(x) divided by its sum along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Non-negative values that add up to 1 along `dim`."""
        return functional.softmax(input, None if self.dim is None else int(self.dim))

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """The logarithm of softmax along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Log probabilities along `dim`."""
        return functional.log_softmax(input, None if self.dim is None else int(self.dim))

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"
