"""A progress bar on standard error, drawn at most ten times a second; used by eager loops and by compiled ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

WIDTH = 32


class ProgressBar:
    """Shows how far a loop has come: `bar.show(done, total)`."""

    def __init__(self) -> None:
        self.started = self.shown = time.monotonic()
        self.total = 0

    def show(self, done: int, total: int) -> None:
        """Draws the bar, unless it was drawn less than 0.1 s ago."""
        now, self.total = time.monotonic(), total
        if done < total and now - self.shown < 0.1:
            return
        self.shown = now
        filled = WIDTH * done // max(total, 1)
        sys.stderr.write(f"\r[{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{total}  {now - self.started:.1f} s")
        if done >= total:
            sys.stderr.write("\n")
        sys.stderr.flush()

    def finish(self) -> None:
        """Draws the full bar, if any was drawn."""
        if self.total:
            self.show(self.total, self.total)


def progress_bar(items: Iterable[Any]) -> Iterator[Any]:
    """The items, with a bar that follows them."""
    assert isinstance(items, Sized)
    bar, total = ProgressBar(), len(items)
    for done, item in enumerate(items):
        bar.show(done, total)
        yield item
    bar.show(total, total)
