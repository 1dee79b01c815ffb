"""Switches for recording gradients, each a context manager and a decorator: no_grad, enable_grad, set_grad_enabled,
inference_mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .state import STATE

F = TypeVar("F", bound=Callable[..., Any])


class _GradMode:
    """Sets whether operations are recorded, for a `with` block or for each call of a decorated function."""

    def __init__(self, mode: bool) -> None:
        self._mode = mode
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(STATE.grad_enabled)
        STATE.grad_enabled = self._mode

    def __exit__(self, *_: object) -> None:
        STATE.grad_enabled = self._previous.pop()

    def __call__(self, function: F) -> F:
        mode = self._mode

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(mode):
                return function(*args, **kwargs)

        return cast(F, wrapper)


class no_grad(_GradMode):
    """Operations in the block are not recorded: `with weft.no_grad():` or `@weft.no_grad()`."""

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Operations in the block are recorded, also inside a `no_grad` block."""

    def __init__(self) -> None:
        super().__init__(True)


class inference_mode(_GradMode):
    """As `no_grad` (torch's extra restrictions on the results do not exist here)."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)


class set_grad_enabled(_GradMode):
    """Sets recording at once, and restores it when used as a context manager."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._previous.append(STATE.grad_enabled)
        STATE.grad_enabled = mode

    def __enter__(self) -> None:
        pass


def is_grad_enabled() -> bool:
    """Whether operations are recorded now."""
    return STATE.grad_enabled
