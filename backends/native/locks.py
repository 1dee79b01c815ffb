"""A lock that survives fork; nothing here may import more than the standard library."""
from __future__ import annotations

import os
import threading


class ForkSafeLock:
    """A reentrant lock that a forked child finds open, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
