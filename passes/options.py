"""The options of the passes, in one record that is passed down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How a graph is optimized."""

    verify: bool = False
    """Check the IR's rules after every pass."""
    dump_ir: str | None = None
    """A directory that gets one file a pass (`WEFT_DUMP_IR`)."""
    disabled: frozenset[str] = frozenset()
    """Names of passes and of rewrite rules that are left out."""
    recompute: bool = False
    """Whether the backward computes cheap values again, where that keeps fewer bytes (`WEFT_RECOMPUTE`)."""
