"""How a value that a trace relied on is remembered and compared: simple values by value, containers one level deep,
others by identity."""
from __future__ import annotations

import sys
import types
from typing import Any

from .location import is_own_file
from .slots import TrackedDict
from .tensor import Tensor

SIMPLE = (bool, str, bytes, type(None), int, float)


class Contents:
    """The expected contents of a list, dict, set or plain object, one level deep."""

    __slots__ = ("kind", "items")

    def __init__(self, value: Any) -> None:
        self.kind, self.items = type(value), contents(value)


def contents(value: Any) -> tuple[Any, ...]:
    """What is compared of a container or plain object: simple values by value, others by identity."""
    if isinstance(value, dict):
        return tuple((k if isinstance(k, SIMPLE) else id(k), _comparable(v)) for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_comparable(v) for v in value)
    return tuple((k, _comparable(v)) for k, v in vars(value).items())


def _comparable(value: Any) -> Any:
    return (type(value), value) if isinstance(value, SIMPLE) and value == value else id(value)


def same_value(now: Any, expected: Any) -> bool:
    """Whether a guarded place still holds what it held."""
    if isinstance(expected, Contents):
        return type(now) is expected.kind and contents(now) == expected.items
    if isinstance(expected, SIMPLE):
        return type(now) is type(expected) and (now == expected or now is expected)
    return now is expected


def expectation(value: Any) -> Any:
    """What a guard keeps of `value`."""
    if isinstance(value, TrackedDict) or isinstance(value, (Tensor, type, types.ModuleType, types.FunctionType)):
        return value
    if type(value) in (list, dict, set, tuple, frozenset):
        return Contents(value)
    if hasattr(value, "__dict__") and not isinstance(value, SIMPLE) and not _is_weft(value):
        return Contents(value)
    return value


def _is_weft(value: Any) -> bool:
    return any(
        is_own_file(getattr(sys.modules.get(k.__module__), "__file__", None) or "") for k in type(value).__mro__[:-1]
    )
