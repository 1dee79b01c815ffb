"""Builtins that take the short way into a program: `call_native.py` does it, by records that `call_layout.py`
describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import call_layout as layout
from .builtins import builtin, knows_objects, slot_address
from .native import native


def process() -> int:
    """The address of the process table."""
    return native().table.ctypes.data


def short_call(record: np.ndarray, *kept: Any) -> Callable[..., Any]:
    """The builtin that a record describes; it keeps the record and `kept` alive."""
    return builtin("call", native().address("short_call"), record, *kept)


__all__ = ["knows_objects", "layout", "process", "short_call", "slot_address"]
