"""Every primitive, one declaration each. `OPS.add` is the op `add`; importing this package declares them all."""
from . import (
    binary,
    casts,
    constants,
    contraction,
    control,
    cumulative,
    indexing,
    logic,
    pieces,
    random_bits,
    reductions,
    sorting,
    special,
    unary,
    updates,
    views,
    windows,
)
from .registry import OPS

DECLARING = (
    constants,
    unary,
    special,
    casts,
    binary,
    logic,
    views,
    windows,
    pieces,
    updates,
    indexing,
    reductions,
    cumulative,
    contraction,
    sorting,
    random_bits,
    control,
)
"""The modules that declare ops."""

__all__ = ["DECLARING", "OPS"]
