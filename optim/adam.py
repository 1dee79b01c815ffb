"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ir.types import float32, float64
from ..tracer.creation import zeros, zeros_like
from ..tracer.dispatch import EMIT
from ..tracer.tensor import Tensor
from .optimizer import Optimizer, Params, require


class Adam(Optimizer):
    """Steps along a running mean of the gradient, divided by the root of a running mean of its square: torch's formula.

    Args:
        lr: the step size.
        betas: the shares of the two running means that stay at each step.
        eps: added to the divisor.
        weight_decay: this times the parameter is added to the gradient.
        amsgrad: divide by the largest mean square so far.
        maximize: go up instead of down.
    """

    decoupled = False
    """Whether weight decay shrinks the parameter itself instead of entering the gradient."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    def check(self, group: Mapping[str, Any]) -> None:
        """Raises ValueError for an option out of range."""
        require(group["lr"] >= 0.0, "learning rate", group["lr"])
        require(group["eps"] >= 0.0, "epsilon value", group["eps"])
        for k, beta in enumerate(group["betas"]):
            require(0.0 <= beta < 1.0, f"beta parameter at index {k}", beta)
        require(group["weight_decay"] >= 0.0, "weight_decay value", group["weight_decay"])

    def prepare(self, group: Mapping[str, Any], p: Tensor) -> None:
        """The step count, a tensor so that compiled loops advance it, and the running means."""
        state = self.state[p]
        if "step" not in state:
            state["step"] = zeros((), dtype=float32)
            state["exp_avg"] = zeros_like(p)
            state["exp_avg_sq"] = zeros_like(p)
        if group["amsgrad"] and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = zeros_like(p)

    def update(self, group: Mapping[str, Any], p: Tensor, grad: Tensor) -> None:
        """One step of one parameter."""
        state, lr, (beta1, beta2) = self.state[p], group["lr"], group["betas"]
        if group["maximize"]:
            grad = -grad
        if group["weight_decay"] != 0:
            if self.decoupled:
                p.mul_(1 - lr * group["weight_decay"])
            else:
                grad = grad + p * group["weight_decay"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.add_((grad - mean) * (1 - beta1))
        square.mul_(beta2).add_(grad * grad * (1 - beta2))
        if group["amsgrad"]:
            largest = state["max_exp_avg_sq"]
            square = largest.copy_(EMIT.maximum(largest, square))
        step_size, scale = self._corrections(state["step"].add_(1), lr, beta1, beta2, p)
        p.sub_(mean / (square.sqrt() * scale + group["eps"]) * step_size)

    @staticmethod
    def _corrections(step: Tensor, lr: float | Tensor, beta1: float, beta2: float, p: Tensor) -> tuple[Tensor, Tensor]:
        """(lr / (1 - beta1^step), 1 / sqrt(1 - beta2^step)): what makes up for means that started at zero.

        In float64: 1 - 0.999 keeps too few digits in float32.
        """
        count = EMIT.cast(step, float64)
        step_size = lr / (1 - beta1**count)
        scale = (1 - beta2**count).rsqrt()
        return EMIT.cast(step_size, p.dtype), EMIT.cast(scale, p.dtype)


class AdamW(Adam):
    """Adam with decoupled weight decay: the parameter itself shrinks by `lr * weight_decay` at each step."""

    decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
