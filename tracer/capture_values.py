"""What a program relied on outside its arguments, in a form that can be compared before every call.

`freeze` takes a value apart: simple values count by value, containers and the user's plain objects and classes by
their contents, everything else (tensors, modules, functions, objects of libraries) by identity.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import enum
import sys
import types
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

from ..ir.errors import TraceError
from .location import error, is_own_file, is_user_file
from .slots import TrackedDict
from .tensor import Tensor

SIMPLE = (bool, str, bytes, type(None), int, float, complex)
_SEQUENCES = (list, tuple, collections.deque)
_SETS = (set, frozenset)
_OPAQUE = (
    Tensor,
    TrackedDict,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    enum.Enum,
    staticmethod,
    classmethod,
    property,
)
LARGEST_ARRAY = 1 << 20
"""Bytes of a NumPy array that a compiled function may read as a Python value."""
MOST_PARTS = 100_000


class Is:
    """An object that counts by its identity, and is kept alive so that no other one takes it over."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Is and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        return type(self.value).__name__


def freeze(value: Any) -> Hashable:
    """What is compared of a value."""
    return _Freezer().freeze(value)


class _Freezer:
    """One walk through a value; objects that are met again inside themselves count by identity."""

    def __init__(self) -> None:
        self.above: set[int] = set()
        self.parts = 0

    def freeze(self, value: Any) -> Hashable:
        kind = type(value)
        if kind is float:
            return kind, value if value == value and value else repr(value)  # nan equals itself, 0.0 is not -0.0
        if isinstance(value, SIMPLE):
            return kind, value
        if isinstance(value, type) and not any(map(_is_users, value.__mro__)):
            return Is(value)
        if isinstance(value, _OPAQUE) or id(value) in self.above or is_own_object(value):
            return Is(value)
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise error(
                TraceError,
                f"a {kind.__name__} that the compiled function reads has too many parts to watch for changes: pass "
                "what it needs as an argument, in tensors",
            )
        self.above.add(id(value))
        try:
            return self._contents(kind, value)
        finally:
            self.above.discard(id(value))

    def _contents(self, kind: type, value: Any) -> Hashable:
        if isinstance(value, dict):
            return (kind, *[(self.freeze(k), self.freeze(v)) for k, v in dict.items(value)])
        if isinstance(value, _SEQUENCES):
            return (kind, *[self.freeze(v) for v in value])
        if isinstance(value, _SETS):
            return kind, frozenset(self.freeze(v) for v in value)
        if isinstance(value, np.ndarray):
            return _array_contents(value)
        if isinstance(value, np.generic):
            return kind, value.tobytes()
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, slice):
            return kind, *map(self.freeze, (value.start, value.stop, value.step))
        if is_plain(kind):
            return (self._class(kind), *[(k, self.freeze(v)) for k, v in attributes(value)])
        return (kind, value) if _counts_by_value(value) else Is(value)

    def _class(self, cls: type) -> Hashable:
        """The class variables of a user's class, its own and inherited ones."""
        found = []
        for base in cls.__mro__:
            if _is_users(base):
                found += [(k, self.freeze(v)) for k, v in vars(base).items() if _is_variable(k, v)]
        return (Is(cls), *found)


def is_immutable(value: Any) -> bool:
    """Whether a value is simple, or a tuple of such."""
    return isinstance(value, SIMPLE) or type(value) is tuple and all(map(is_immutable, value))


def may_change(value: Any) -> bool:
    """Whether a value counts by contents that can change while it stays the same object."""
    if type(value) is tuple:
        return any(map(may_change, value))
    return not is_immutable(value) and type(freeze(value)) is not Is


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object, be they in its dict or in slots."""
    yield from getattr(value, "__dict__", {}).items()
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _array_contents(array: np.ndarray) -> Hashable:
    if array.nbytes > LARGEST_ARRAY:
        raise error(
            TraceError,
            f"the compiled function reads a NumPy array of {array.nbytes} bytes, whose values it could not follow: "
            "make a tensor of it before, with weft.from_numpy(array)",
        )
    return Is(array), array.shape, array.dtype, array.tobytes()


def is_own_object(value: Any) -> bool:
    """Whether weft tracks the object itself: modules, optimisers, generators, also the user's subclasses of them."""
    return any(_from_own_file(cls) for cls in type(value).__mro__[:-1])


def _from_own_file(cls: type) -> bool:
    return is_own_file(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")


def _is_users(cls: type) -> bool:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return cls.__module__ not in sys.builtin_module_names and (
        cls.__module__ == "__main__" or file is not None and is_user_file(file)
    )


def is_plain(kind: type) -> bool:
    """Whether the attributes of an object of this class are its state: the user's classes and the standard bags of
    attributes.
    """
    return kind in (types.SimpleNamespace, argparse.Namespace) or _is_users(kind) or dataclasses.is_dataclass(kind)


def _counts_by_value(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return getattr(type(value), "__eq__", None) is not object.__eq__


def _is_variable(name: str, value: Any) -> bool:
    return not (name.startswith("__") or callable(value) and not isinstance(value, type) or hasattr(value, "__get__"))


def identities(frozen: Any) -> Iterator[int]:
    """The ids of the objects that count by identity in a frozen value."""
    if type(frozen) is Is:
        yield id(frozen.value)
    elif isinstance(frozen, (tuple, list, frozenset)):
        for part in frozen:
            yield from identities(part)


def same_value(now: Any, expected: Hashable) -> bool:
    """Whether a place still holds what was frozen."""
    if type(expected) is Is:
        return now is expected.value
    return freeze(now) == expected
