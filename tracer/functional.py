"""grad and value_and_grad of functions (as in JAX), and `trace`, which gives the graph of a function without compiling
it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.errors import GradientError
from ..ir.graph import Graph
from .autograd import detach
from .autograd import grad as autograd_grad
from .compile import CompiledFunction, trace_graph
from .grad_mode import enable_grad
from .location import error
from .structure import flatten, unflatten
from .tape import tensor_requires_grad
from .tensor import Tensor


def value_and_grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that gives (`function(...)`, its gradient by the arguments numbered `argnums`).

    The gradient has the structure of the argument (tensors in tuples, lists, dicts); a tuple of them when `argnums` is
    a sequence. `function` must return a scalar tensor. Nothing is accumulated in `.grad`; applying it twice gives
    second derivatives.

    Raises:
        GradientError: the result is not a scalar, or an argument is not floating-point.
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function)
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        arguments, leaves, structures = list(args), [], []
        for position in positions:
            own: list[Any] = []
            structures.append((flatten(args[position], own), len(own)))
            fresh = [_tracked(leaf, position) for leaf in own]
            leaves += fresh
            arguments[position] = unflatten(structures[-1][0], fresh)
        with enable_grad():
            value = function(*arguments, **kwargs)
            if not isinstance(value, Tensor) or value.shape.numel() != 1:
                raise error(
                    GradientError,
                    "grad: the function must return a tensor with one element, got "
                    f"{list(value.shape) if isinstance(value, Tensor) else type(value).__name__}",
                )
            outer = any(tensor_requires_grad(a) for a in _tensors(args))
            gradients = (
                autograd_grad(value, leaves, create_graph=outer, allow_unused=True)
                if tensor_requires_grad(value)
                else (None,) * len(leaves)
            )
        found = [g if g is not None else _zeros(leaf) for g, leaf in zip(gradients, leaves, strict=True)]
        parts, start = [], 0
        for structure, count in structures:
            parts.append(unflatten(structure, found[start : start + count]))
            start += count
        return (value if outer else detach(value)), (parts[0] if isinstance(argnums, int) else tuple(parts))

    return differentiated


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that gives the gradient of `function` by the arguments numbered `argnums`; see `value_and_grad`."""
    both = value_and_grad(function, argnums)

    @functools.wraps(function)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return gradient


def _tracked(leaf: Any, position: int) -> Tensor:
    """The tensor to differentiate by: an alias of the argument, connected to it when an outer derivative is taken."""
    if not isinstance(leaf, Tensor) or not leaf.dtype.is_floating_point:
        what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
        raise error(GradientError, f"grad: argument {position} must hold floating-point tensors, got {what}")
    if tensor_requires_grad(leaf):
        return leaf.view_as(leaf)
    alias = detach(leaf)
    alias._requires_grad = True
    return alias


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    leaves: list[Any] = []
    flatten(tuple(args), leaves)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _zeros(leaf: Tensor) -> Tensor:
    return detach(leaf) * 0


def trace(function: Callable[..., Any]) -> Callable[..., Graph]:
    """`weft.trace(f)(*args)` is the graph of `f` for these arguments; nothing is optimised, compiled or run."""
    plain = function._function if isinstance(function, CompiledFunction) else function

    def traced(*args: Any, **kwargs: Any) -> Graph:
        return trace_graph(plain, args, kwargs)

    return traced
