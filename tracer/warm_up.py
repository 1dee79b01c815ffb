"""What the first program needs whatever it is, made ready at the first `weft.compile`: the modules of the stages, which
are loaded at once, and the executor, which is compiled or found in the cache by a thread of its own.

LLVM works without Python's lock: the executor is ready when the modules are, if these are loaded once LLVM is at work.
The first call would wait for it, by the lock of `runtime/native.py`.
"""

from __future__ import annotations

import contextlib
import threading

from ..runtime import before_fork
from . import seam

_thread: threading.Thread | None = None


def begin() -> None:
    """Makes ready, the first time. The thread is no daemon: a process does not end in the middle of LLVM."""
    global _thread
    if _thread is None:
        _thread = threading.Thread(target=_executor, name="weft warm-up")
        _thread.start()
        before_fork.finish(_thread)  # LLVM's locks
        seam.native().UNDER_WAY.wait()
        seam.driver()


def _executor() -> None:
    """What fails here fails again in the first call, where it is seen."""
    with contextlib.suppress(Exception):
        seam.native().native()
    seam.native().UNDER_WAY.set()
