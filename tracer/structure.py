"""Takes nested tuples, lists and dicts of arguments or results apart and puts them together again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

LEAF = "*"


def flatten(value: Any, leaves: list[Any]) -> Any:
    """Appends the leaves of `value` to `leaves`; the structure, which is hashable."""
    kind = type(value)
    if kind is tuple or kind is list:
        return (kind, *[flatten(v, leaves) for v in value])
    if kind is dict or kind is OrderedDict:
        return (kind, tuple(value), *[flatten(v, leaves) for v in value.values()])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return (kind, *[flatten(v, leaves) for v in value])
    leaves.append(value)
    return LEAF


def unflatten(structure: Any, leaves: Sequence[Any]) -> Any:
    """The value with this structure and these leaves."""
    iterator = iter(leaves)
    return _build(structure, iterator)


def _build(structure: Any, leaves: Any) -> Any:
    if structure == LEAF:
        return next(leaves)
    kind = structure[0]
    if kind is dict or kind is OrderedDict:
        return kind((key, _build(part, leaves)) for key, part in zip(structure[1], structure[2:], strict=True))
    parts = [_build(part, leaves) for part in structure[1:]]
    return kind(parts) if kind in (tuple, list) else kind(*parts)
