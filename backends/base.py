"""What every backend hands to the runtime: one record per kernel call, whatever language the kernel was written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.graph import Node, Value
from ..ir.types import TensorType

if TYPE_CHECKING:
    from ..ir.loops import Kernel
    from ..ir.routines import Routine


@dataclass(frozen=True)
class KernelCall:
    """One call of a kernel over chunks of `[0, extent)`.

    Machine code is `void kernel(int64 start, int64 stop, void **buffers)`: buffers[0] is the call context (the
    frame's header, whose word 0 is the status word), buffers[1 + k] is argument k. Arguments that may not share
    memory are disjoint.

    Attributes:
        kernel: the loop IR, or a routine that the runtime brings.
        arguments: the graph's values for the kernel's buffers: inputs, then outputs, then scratch (a TensorType:
            memory for this call only); bytes are constants. A Value that is no input or output of the node passes
            between the calls of the node.
        extent: what the kernel's `start` and `stop` range over; a Value is an i64[] known only when the program runs.
        chunk: the fixed size of one call, from shapes only; `chunk >= extent` means one serial call.
        in_place: pairs (argument position of an output, of an input) that may share memory when the input dies here.
        shared: pairs (output, input) that must share memory, because the kernel changes only a part (updates) or
            resumes from it (the carried state of a loop kernel); the runtime copies the input there first when it
            lives on.
    """

    kernel: Kernel | Routine
    arguments: tuple[Value | TensorType | bytes, ...]
    extent: int | Value
    chunk: int
    in_place: tuple[tuple[int, int], ...] = ()
    shared: tuple[tuple[int, int], ...] = ()


KernelCalls = Mapping[Node, tuple[KernelCall, ...]]
"""The calls that compute a node, in order, for every node that needs code (in nested regions too)."""
