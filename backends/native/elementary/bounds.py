"""The error bounds of the elementary functions: measured, rounded up, and checked by tests."""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Bound(NamedTuple):
    """How far a result may be from the true value, in units of the last place of the true value.

    Attributes:
        f32: the bound for f32.
        f64: the bound for f64.
        note: where it holds, when not everywhere.
    """

    f32: float
    f64: float
    note: str = ""


ERROR_BOUNDS: Mapping[str, Bound] = {}
"""Word -> bound."""
