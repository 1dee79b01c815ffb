"""Threads that a process waits for before it forks, because a child would find locks of theirs held by nobody."""

from __future__ import annotations

import os
import threading

_threads: list[threading.Thread] = []


def finish(thread: threading.Thread) -> None:
    """Lets every fork from now on wait until `thread` has ended."""
    _threads.append(thread)
    wait_first()


def wait_first() -> None:
    """To be called when a library has registered what it does before a fork: the wait must come before that, since the
    library may hold up the very threads that are waited for. What is registered last is done first."""
    if _threads and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait)


def _wait() -> None:
    for thread in _threads:
        thread.join()
    _threads.clear()
