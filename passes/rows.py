"""What a loop reads and writes of sequences, one row an iteration: where, and whether that is all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from ..ir.types import Shape
from .rewrite import number_of
from .sizes import fixed_sizes


@dataclass(frozen=True)
class Row:
    """One row of a sequence: iteration `i` has number `step * i + offset` along `axis`, and all of the other axes."""

    axis: int
    step: int
    offset: int


class LoopRows:
    """A `loop` whose bounds are numbers.

    Attributes:
        node, body: the loop and its region.
        start, stop: its bounds.
        slots, invariants: the params of the body but for the index.
        producers: value of the body -> its node.
        uses: value of the body -> how often it is read, results included.
    """

    def __init__(self, node: Node, start: int, stop: int) -> None:
        self.node, self.start, self.stop = node, start, stop
        self.body: Graph = node.regions[0]
        self.carried: int = node.attrs["carried"]
        self.slots = self.body.params[1 : 1 + self.carried]
        self.invariants = self.body.params[1 + self.carried :]
        self.producers = {v: n for n in self.body.nodes for v in n.outputs}
        self.uses = Counter([*self.body.results, *(v for n in self.body.nodes for v in n.inputs)])

    @property
    def count(self) -> int:
        """The number of iterations."""
        return self.stop - self.start

    @cached_property
    def positions(self) -> Mapping[Value, tuple[int, int]]:
        """Number of the body -> (step, offset): what it is in iteration `i` is `step * i + offset`."""
        found: dict[Value, tuple[int, int]] = {self.body.params[0]: (1, 0)}
        for node in self.body.nodes:
            if node.op is OPS.constant:
                number = number_of(node, {})
                if number is not None and node.output.dtype.kind == "int":
                    found[node.output] = (0, int(number))
            elif node.op in (OPS.add, OPS.sub) and all(v in found for v in node.inputs):
                (a, b), (c, d) = (found[v] for v in node.inputs)
                found[node.output] = (a + c, b + d) if node.op is OPS.add else (a - c, b - d)
        return found

    def row(self, x: Value, sizes: Shape, starts: Sequence[Value]) -> Row | None:
        """The row of `x` that a box is which begins at `starts`; None when it is none, or does not always lie in x."""
        if not fixed_sizes(x) or not all(s in self.positions for s in starts):
            return None
        places = [self.positions[s] for s in starts]
        axes = [k for k, (size, n) in enumerate(zip(x.shape, sizes, strict=True)) if size != n]
        if len(axes) != 1 or sizes[axes[0]] != 1 or any(p != (0, 0) for k, p in enumerate(places) if k not in axes):
            return None
        row = Row(axes[0], *places[axes[0]])
        first, last = sorted(row.step * i + row.offset for i in (self.start, self.stop - 1))
        return row if row.step and first >= 0 and last < x.shape[row.axis] else None

    def row_read(self, value: Value) -> tuple[Value, Row] | None:
        """(the sequence, the row) when `value` is a row read from a param, with or without the axis of size 1."""
        node = self.producers.get(value)
        if node is not None and node.op is OPS.reshape:
            node = self.producers.get(node.inputs[0])
        if node is None or node.op is not OPS.dynamic_slice or node.inputs[0] not in self.body.params:
            return None
        x, *starts = node.inputs
        row = self.row(x, node.attrs["sizes"], starts)
        return (x, row) if row is not None and value.shape in (node.output.shape, without(x.shape, row.axis)) else None

    def row_written(self, slot: int) -> tuple[Node, Row] | None:
        """(the update, the row) when carried value number `slot` only ever gets another row, in each iteration."""
        node = self.producers.get(self.body.results[slot])
        if node is None or node.op is not OPS.dynamic_update or node.inputs[0] is not self.slots[slot]:
            return None
        x, u, *starts = node.inputs
        row = self.row(x, u.shape, starts)
        return None if row is None or self.uses[node.output] > 1 else (node, row)

    def covers(self, row: Row, x: Value) -> bool:
        """Whether the iterations pass through all rows of `x`."""
        return abs(row.step) == 1 and self.count == x.shape[row.axis]


def without(shape: Shape, axis: int) -> Shape:
    """`shape` without one axis."""
    return (*shape[:axis], *shape[axis + 1 :])


def known_bounds(node: Node, numbers: Mapping[Value, Any]) -> tuple[int, int] | None:
    """The bounds of a loop that runs at least once, when they are numbers."""
    start, stop = (numbers.get(v) for v in node.inputs[:2])
    return (int(start), int(stop)) if start is not None and stop is not None and stop > start else None
