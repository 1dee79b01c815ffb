"""The thread pool's Python half: workers are daemon threads inside one native function (`threads_native.py`), started
when first needed.

A pool never changes its size: a new number of threads is a new pool. Calls that still run on the old one finish there
alone.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings

import numpy as np

from ..ir.errors import WeftError
from . import layout
from .memory import atomic_store
from .native import Native, native
from .side_by_side import available_threads

_lock = threading.Lock()


class Pool:
    """The memory that the caller and the workers share, and the workers themselves."""

    def __init__(self, threads: int) -> None:
        memory = np.zeros(layout.POOL_WORDS + 16, np.int64)
        self.words = memory[(-memory.ctypes.data % 128) // 8 :]
        self.address = self.words.ctypes.data
        self.threads = threads
        self.workers: list[threading.Thread] = []

    def start(self, code: Native) -> None:
        """Starts the workers. Where the system refuses, those that exist do the work."""
        for number in range(1, self.threads):
            worker = threading.Thread(
                target=code.work, args=(self.address, code.table.ctypes.data), name=f"weft-{number}", daemon=True
            )
            self.words[layout.WORKERS] += 1
            try:
                worker.start()
            except RuntimeError:
                self.words[layout.WORKERS] -= 1
                warnings.warn(
                    f"the system gives no more threads: weft runs on {number} of {self.threads}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return
            self.workers.append(worker)

    def stop(self, code: Native) -> None:
        """Asks the workers to leave."""
        atomic_store(self.address, layout.STOP, 1)
        code.wake(self.address, code.table.ctypes.data)


class State:
    """The current pool of the process, the ones before (a call may still run on their memory), and the number of
    threads asked for."""

    pool: Pool | None = None
    retired: list[Pool] = []
    threads: int | None = None


def get_num_threads() -> int:
    """How many threads a compiled program may use, the calling one included."""
    return State.threads or available_threads()


def set_num_threads(n: int) -> None:
    """Sets how many threads compiled programs use, the calling one included. Results do not depend on it."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise WeftError(f"set_num_threads takes a whole number of at least 1, got {n!r}")
    with _lock:
        if n != get_num_threads() and State.pool is not None:
            State.pool.stop(native())
            _retire()
        State.threads = n


def ensure_workers() -> None:
    """Starts the pool when there is none."""
    if State.pool is None:
        with _lock:
            if State.pool is None:
                code, pool = native(), Pool(get_num_threads())
                pool.start(code)
                code.table[layout.POOL] = pool.address
                code.table[layout.POOL_READY] = 1
                State.pool = pool


def _retire() -> None:
    """Forgets the current pool; the next program that wants threads starts another. Without workers its callers do
    the work alone."""
    if State.pool is not None:
        State.retired.append(State.pool)
        State.pool = None
        native().table[layout.POOL_READY] = 0


def _after_fork() -> None:
    """A forked child has no workers, and somebody may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _retire()


def _at_exit() -> None:
    """Workers leave before the interpreter frees the code that they run."""
    if State.pool is not None:
        State.pool.stop(native())
        for worker in State.pool.workers:
            worker.join(1.0)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
