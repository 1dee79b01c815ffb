"""Sizes of values that may have symbolic axes."""

from __future__ import annotations

import math

from ..ir.graph import Value
from ..ir.sizes import SymbolicSize


def known_sizes(*values: Value) -> bool:
    """Whether all sizes of all the values are numbers."""
    return all(isinstance(dim, int) for value in values for dim in value.shape)


def fixed_sizes(*values: Value) -> bool:
    """Whether all sizes of all the values are numbers that do not change from call to call."""
    return all(isinstance(dim, int) and not isinstance(dim, SymbolicSize) for value in values for dim in value.shape)


def bytes_of(value: Value) -> float:
    """Bytes of a contiguous buffer of the value; infinite when a size is symbolic."""
    return value.type.nbytes if known_sizes(value) else math.inf
