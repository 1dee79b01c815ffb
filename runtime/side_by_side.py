"""How many threads this process may use, and work in Python that is shared between them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def available_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """The results of tasks that wait for native code most of the time, done by as many threads as there are
    processors. Nothing is begun after a task has failed."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    pending = iter(range(len(tasks)))

    def work() -> None:
        for k in pending:  # `next` of an iterator over a range cannot be interrupted half-way
            try:
                results[k] = tasks[k]()
            except BaseException as error:
                errors.append(error)
            if errors:
                return

    helpers = [threading.Thread(target=work) for _ in range(min(available_threads(), len(tasks)) - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return [results[k] for k in range(len(tasks))]
