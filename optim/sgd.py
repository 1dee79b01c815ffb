"""Stochastic gradient descent, with momentum and weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..tracer.creation import zeros_like
from ..tracer.slots import TrackedDict
from ..tracer.tensor import Tensor
from .optimizer import Optimizer, Params, require


class SGD(Optimizer):
    """`p -= lr * g`, where g is the gradient plus `weight_decay * p`, or with momentum a running sum of that.

    Args:
        lr: the step size.
        momentum: the share of the running sum that stays at each step.
        dampening: the share of the gradient that is left out of the running sum.
        nesterov: look one step ahead (needs momentum without dampening).
        maximize: go up instead of down.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def check(self, group: Mapping[str, Any]) -> None:
        """Raises ValueError for an option out of range."""
        require(group["lr"] >= 0.0, "learning rate", group["lr"])
        require(group["momentum"] >= 0.0, "momentum value", group["momentum"])
        require(group["weight_decay"] >= 0.0, "weight_decay value", group["weight_decay"])
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def prepare(self, group: Mapping[str, Any], p: Tensor) -> None:
        """The running sum starts at zero; with dampening it starts from the first gradient (see `_accumulated`)."""
        if group["momentum"] != 0:
            state = self.state[p]
            if group["dampening"] == 0 and "momentum_buffer" not in state:
                state["momentum_buffer"] = zeros_like(p)

    def update(self, group: Mapping[str, Any], p: Tensor, grad: Tensor) -> None:
        """One step of one parameter."""
        if group["maximize"]:
            grad = -grad
        if group["weight_decay"] != 0:
            grad = grad + p * group["weight_decay"]
        if group["momentum"] != 0:
            buffer = self._accumulated(group, grad, self.state[p])
            grad = grad + buffer * group["momentum"] if group["nesterov"] else buffer
        p.sub_(grad * group["lr"])

    def _accumulated(self, group: Mapping[str, Any], grad: Tensor, state: TrackedDict) -> Tensor:
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = grad.clone()
            return state["momentum_buffer"]
        buffer = state["momentum_buffer"]
        fresh = grad if group["dampening"] == 0 else grad * (1 - group["dampening"])
        return buffer.mul_(group["momentum"]).add_(fresh)
