"""Tracked state: the slots of modules, optimisers, generators and tensors whose reads a trace logs and whose writes
bump an epoch.

A compiled program keeps the log of what its trace read. A call compares one number, the epoch; only when that has moved
does it look at the logged slots again, and rebinds, revalidates or retraces.
"""
from __future__ import annotations

from typing import Any

from .state import STATE


class Epoch:
    """Counts writes to tracked slots outside traces and compiled calls."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def bump(self) -> None:
        """Notes that some tracked slot was written."""
        self.count += 1


EPOCH = Epoch()
MISSING = object()
"""What a log holds for a slot that did not exist."""


def note_read(container: Any, key: Any) -> None:
    """Logs, in the trace in progress, that a slot was read."""
    trace = STATE.trace
    if trace is not None:
        trace.note_read(container, key)


class TrackedDict(dict):
    """A dict whose reads a trace logs and whose writes bump the epoch: parameter groups, optimiser state."""

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

    def __setitem__(self, key: Any, value: Any) -> None:
        if STATE.trace is not None:
            value = STATE.trace.slot_write(self, key, dict.get(self, key, MISSING), value)
        else:
            EPOCH.bump()
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        EPOCH.bump()
        super().__delitem__(key)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As dict.setdefault, through the logged operations."""
        if key not in self:
            self[key] = default
        return self[key]

    def __reduce__(self) -> tuple:
        return (type(self), (dict(self),))
