"""The options of the passes, in one record that is passed down."""

from __future__ import annotations

from dataclasses import dataclass

RECOMPUTE_FROM = 24 << 20
"""Fewer bytes that a forward keeps for its backward are still in the caches, or nearly."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a graph is optimized."""

    verify: bool = False
    """Check the IR's rules after every pass."""
    dump_ir: str | None = None
    """A directory that gets one file a pass (`WEFT_DUMP_IR`)."""
    disabled: frozenset[str] = frozenset()
    """Names of passes and of rewrite rules that are left out."""
    recompute_from: float = RECOMPUTE_FROM
    """How many bytes must be kept for the backward for cheap values to be computed again instead (`WEFT_RECOMPUTE`)."""
