"""NamedTable: what a module registers under names. A trace that walks the table depends on its list of names too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..tracer.slots import TrackedDict


class NamedTable(TrackedDict):
    """A tracked dict whose iteration is tracked as well, so that a name added or removed after a trace is noticed."""

    def __init__(self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__(entries)
        self._order = TrackedDict(names=tuple(dict.keys(self)))

    def __setitem__(self, key: str, value: Any) -> None:
        new = not dict.__contains__(self, key)
        super().__setitem__(key, value)
        if new:
            self._order["names"] = tuple(dict.keys(self))

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._order["names"] = tuple(dict.keys(self))

    def __iter__(self) -> Iterator[str]:
        return iter(self._order["names"])

    def keys(self) -> Any:
        """The names, in the order of registration."""
        return self._order["names"]

    def values(self) -> Any:
        """The entries."""
        return [self[name] for name in self._order["names"]]

    def items(self) -> Any:
        """(name, entry) pairs."""
        return [(name, self[name]) for name in self._order["names"]]
