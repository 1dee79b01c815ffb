"""Optimizer: parameter groups and per-parameter state, both tracked, and the frame of `step` that all rules share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..ir.errors import DTypeError
from ..nn.module import clear_gradients
from ..tracer.grad_mode import enable_grad, no_grad
from ..tracer.location import error
from ..tracer.slots import TrackedDict
from ..tracer.tensor import Tensor
from ..tracer.trace import outside

Params = Iterable[Any]
"""Tensors, (name, tensor) pairs, or dicts with the key `params` and options of their own."""


class States(TrackedDict):
    """Parameter -> its dict of state, which begins empty."""

    def __missing__(self, p: Tensor) -> TrackedDict:
        self[p] = entries = TrackedDict()
        return entries


class Optimizer:
    """Base of all optimisers.

    `param_groups` is a list of dicts as torch's: `params` and the options, which may be changed at any time. `state`
    maps each parameter to its dict of tensors. A compiled function that calls `step` takes the options as run-time
    inputs and updates the state in place.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state = States()
        self.param_groups: list[TrackedDict] = []
        self._tracked = TrackedDict(groups=())
        if isinstance(params, Tensor):
            raise error(
                DTypeError,
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got weft.Tensor",
            )
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Adds parameters with options of their own; what is left out comes from the defaults."""
        given = param_group["params"]
        params = [given] if isinstance(given, Tensor) else [p[1] if isinstance(p, tuple) else p for p in given]
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise error(
                    DTypeError, f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}"
                )
            if not (p.is_leaf or p.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(p) in known:
                raise ValueError("some parameters appear in more than one parameter group, or twice in one")
            known.add(id(p))
        group = TrackedDict({"params": params})
        for name, default in self.defaults.items():
            dict.__setitem__(group, name, param_group.get(name, default))
        for name, value in param_group.items():
            if name not in group:
                dict.__setitem__(group, name, value)
        self.check(group)
        self.param_groups.append(group)
        self._tracked["groups"] = tuple(self.param_groups)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raises ValueError for an option out of range."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all parameters, or fills them with zeros when `set_to_none` is False."""
        for group in self._tracked["groups"]:
            clear_gradients(group["params"], set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        `closure`, when given, first computes the loss anew, which is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self._tracked["groups"]:
                due = [p for p in group["params"] if p.grad is not None]
                with outside():
                    for p in due:
                        self.prepare(group, p)
                for p in due:
                    self.update(group, p, p.grad)
        return loss

    def prepare(self, group: Mapping[str, Any], p: Tensor) -> None:
        """Creates the state that `update` changes, once.

        Runs eagerly, also within a trace: a compiled program finds the state there.
        """

    def update(self, group: Mapping[str, Any], p: Tensor, grad: Tensor) -> None:
        """Updates one parameter in place, with ordinary tensor operations."""
        raise NotImplementedError(f"{type(self).__name__} defines no update")

    # ---- saving ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups, with parameters numbered in order; the tensors are the live ones."""
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            groups.append(
                {
                    **{k: v for k, v in group.items() if k != "params"},
                    "params": [numbers[id(p)] for p in group["params"]],
                }
            )
        return {"state": {numbers[id(p)]: dict(entries) for p, entries in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over copies of the state and the options that `state_dict` gave.

        Raises:
            ValueError: the groups do not have the same numbers of parameters.
        """
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(new["params"]) != len(own["params"]) for new, own in zip(saved, self.param_groups, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        by_number: dict[int, Tensor] = {}
        for new, own in zip(saved, self.param_groups, strict=True):
            by_number.update(zip(new["params"], own["params"], strict=True))
            for name, value in new.items():
                if name != "params":
                    own[name] = copy.deepcopy(value)
        for p in list(self.state):
            del self.state[p]
        for number, entries in state_dict["state"].items():
            p = by_number[number]
            self.state[p] = TrackedDict({name: _adapted(name, value, p) for name, value in entries.items()})

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for k, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {k}")
            lines += [f"    {name}: {value}" for name, value in sorted(group.items()) if name != "params"]
        return "\n".join([*lines, ")"])


def _adapted(name: str, value: Any, p: Tensor) -> Any:
    """A copy of one piece of saved state, in the parameter's dtype but for the step count."""
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    value = value.detach().clone()
    return value.to(p.dtype) if name != "step" and p.dtype.is_floating_point else value


def require(condition: bool, what: str, value: Any) -> None:
    """Raises torch's ValueError for an option out of range."""
    if not condition:
        raise ValueError(f"Invalid {what}: {value}")
