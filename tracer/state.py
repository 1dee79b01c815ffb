"""What is true of the running thread: the trace in progress, and whether gradients are recorded or taken."""
from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trace import Trace


class ThreadState(threading.local):
    """One thread's state; the class attributes are every thread's start values."""

    trace: Trace | None = None
    grad_enabled: bool = True
    checkpoint: Any = None
    """The checkpointed call that is running, which keeps for the backward what it wants (checkpoint.py)."""
    differentiating: bool = False
    """Whether vjp rules run: what they emit is marked as backward code."""


STATE = ThreadState()
