"""Tracked state: the slots of modules, optimisers, generators and tensors whose reads a trace logs and whose writes
bump an epoch.

A compiled program keeps the log of what its trace read. A call compares one number, the epoch; only when that has moved
does it look at the logged slots again, and rebinds, revalidates or retraces.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from .state import STATE


class Epoch:
    """Tells writes to tracked slots outside traces and compiled calls: `count` is another number after each, in every
    thread. `tensors` is what it was after the last change of a tensor itself: its memory, layout or gradient state.
    """

    __slots__ = ("count", "tensors", "numbers")

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.count = self.tensors = 0

    def bump(self) -> int:
        """Notes that some tracked slot was written; call it after the write. The new count."""
        self.count = number = next(self.numbers)
        return number

    def bump_tensors(self) -> None:
        """The same for a change of a tensor itself. `tensors` moves before and after, so that another thread, whose
        number may come in between, sees it too.
        """
        self.tensors = next(self.numbers)
        self.bump()
        self.tensors = next(self.numbers)


EPOCH = Epoch()
MISSING = object()
"""What a log holds for a slot that did not exist."""
KEYS = object()
"""Stands, in a log, for the list of keys of a tracked dict."""


def note_read(container: Any, key: Any) -> None:
    """Logs, in the trace in progress, that a slot was read."""
    trace = STATE.trace
    if trace is not None:
        trace.note_read(container, key)


class TrackedDict(dict):
    """A dict whose reads a trace logs and whose writes bump the epoch: parameter groups, optimiser state."""

    # ---- reads -------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        return value if STATE.trace is None else STATE.trace.slot_value(self, key, value)

    def get(self, key: Any, default: Any = None) -> Any:
        """As dict.get, logged."""
        return self[key] if key in self else default

    def __contains__(self, key: object) -> bool:
        if STATE.trace is not None:
            STATE.trace.note_presence(self, key)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        if STATE.trace is not None:
            STATE.trace.note_keys(self)
        return super().__iter__()

    def __len__(self) -> int:
        if STATE.trace is not None:
            STATE.trace.note_keys(self)
        return super().__len__()

    def keys(self) -> Any:
        """The keys; a list in a trace."""
        return super().keys() if STATE.trace is None else list(self)

    def values(self) -> Any:
        """The values; a list in a trace."""
        return super().values() if STATE.trace is None else [self[key] for key in self]

    def items(self) -> Any:
        """(key, value) pairs; a list in a trace."""
        return super().items() if STATE.trace is None else [(key, self[key]) for key in self]

    def copy(self) -> dict[Any, Any]:
        """A plain dict with the same entries."""
        return dict(self.items())

    # ---- writes ------------------------------------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        if STATE.trace is not None:
            value = STATE.trace.slot_write(self, key, dict.get(self, key, MISSING), value)
            super().__setitem__(key, value)
        else:
            super().__setitem__(key, value)
            EPOCH.bump()

    def __delitem__(self, key: Any) -> None:
        if STATE.trace is not None:
            STATE.trace.slot_write(self, key, dict.get(self, key, MISSING), MISSING)
            super().__delitem__(key)
        else:
            super().__delitem__(key)
            EPOCH.bump()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As dict.setdefault, through the logged operations."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        """As dict.pop, through the logged operations."""
        if default and key not in self:
            return default[0]
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[Any, Any]:
        """As dict.popitem, through the logged operations."""
        if not len(self):
            raise KeyError("popitem(): dictionary is empty")
        key = list(self)[-1]
        return key, self.pop(key)

    def clear(self) -> None:
        """As dict.clear, through the logged operations."""
        for key in list(self):
            del self[key]

    def update(self, *others: Any, **entries: Any) -> None:
        """As dict.update, through the logged operations."""
        for key, value in dict(*others, **entries).items():
            self[key] = value

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]  # dict's own has other signatures than its __or__
        self.update(other)
        return self

    def __reduce__(self) -> tuple:
        return (type(self), (dict(self),))
