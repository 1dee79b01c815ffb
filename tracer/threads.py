"""How many threads compiled programs use (torch.set_num_threads, torch.get_num_threads)."""
from __future__ import annotations

from . import seam


def set_num_threads(count: int) -> None:
    """Lets compiled programs use `count` threads, the caller's included. Results do not depend on it, to the bit.

    Raises:
        WeftError: `count` is not a whole number of at least 1.
    """
    seam.threads().set_num_threads(count)


def get_num_threads() -> int:
    """The number of threads that compiled programs use."""
    return int(seam.threads().get_num_threads())
