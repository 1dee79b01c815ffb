"""Rows that a loop writes once: what it reads of them is what they began with, and where it writes all of them, nothing
else is left of that.

The reverse of a loop is full of such sequences (passes/reverse_control.py): rows that are kept, cotangents of rows.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .dce import used_values
from .options import Options
from .regions import with_regions
from .rewrite import number_of
from .rows import LoopRows, known_bounds


@dataclass(frozen=True)
class WrittenOnce:
    """Reads rows of carried sequences from their start values, and lets sequences of which every row is written start
    with anything (`empty`). Unchanged to the bit, but for the sign of zeros that are added to zeros.

    A row is read from the start value only where that is one number throughout or the final sequence is not needed:
    else both would have to be kept.
    """

    name: str = field(default="written-once", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with such loops, in regions too; the same object when there is none."""
        b, used = Rebuilder(graph), used_values(graph)
        numbers: dict[Value, Any] = {}
        for node in graph.nodes:
            node = with_regions(node, lambda region: self(region, options))
            bounds = known_bounds(node, numbers) if node.op is OPS.loop else None
            if bounds is not None:
                node = _improved(b, LoopRows(node, *bounds), numbers, used)
            elif (known := number_of(node, numbers)) is not None:
                numbers[node.output] = known
            b.copy(node)
        return b.done()


def _improved(b: Rebuilder, loop: LoopRows, numbers: dict[Value, Any], used: Container[Value]) -> Node:
    """The loop with reads from start values, and with start values that are empty."""
    node, body = loop.node, Rebuilder(loop.body)
    inputs = list(node.inputs)
    begins: dict[Node, Value] = {}  # read of a row -> what the sequence begins with
    params: dict[Value, Value] = {}  # that -> its param of the body
    for k, slot in enumerate(loop.slots):
        written, initial = loop.row_written(k), node.inputs[2 + k]
        if written is None:
            continue
        reads = [n for n in loop.body.nodes if slot in n.inputs and n is not written[0]]
        if reads and (not _read_same_rows(loop, k) or initial not in numbers and node.outputs[k] in used):
            continue
        begins.update(dict.fromkeys(reads, initial))
        if reads and initial not in numbers and initial not in params:
            inputs.append(initial)
            params[initial] = body.param(slot.type, slot.hint)
        if loop.covers(written[1], slot) and not _is_empty(b, initial):
            inputs[2 + k] = b.empty(shape=slot.shape, dtype=slot.dtype)
    for n in loop.body.nodes:
        begin = begins.get(n)
        if begin is None:
            body.copy(n)
        elif begin in numbers:
            number = numbers[begin].item()
            if number == 0 and n.output.dtype.is_floating_point and _is_added(loop.body, n.output):
                number = -0.0  # then the sum is what is added, to the bit
            body.replace(n, [body.full(n.output.shape, number, n.output.dtype)])
        else:
            body.replace(n, body.add_node(n.op, (params[begin], *map(body.new, n.inputs[1:])), n.attrs).outputs)
    region = body.done()
    same = region is loop.body and all(a is z for a, z in zip(inputs, node.inputs, strict=True))
    return node if same else replace(node, inputs=tuple(inputs), regions=(region,))


def _read_same_rows(loop: LoopRows, k: int) -> bool:
    """Whether all that reads carried sequence `k` reads the row that is written afterwards."""
    slot, written = loop.slots[k], loop.row_written(k)
    assert written is not None
    reads = [n for n in loop.body.nodes if n.op is OPS.dynamic_slice and n.inputs[0] is slot]
    rows = [loop.row(slot, n.attrs["sizes"], n.inputs[1:]) for n in reads]
    return loop.uses[slot] == len(reads) + 1 and all(row == written[1] for row in rows)


def _is_added(body: Graph, value: Value) -> bool:
    """Whether all that is done with a value is to add it to others."""
    readers = [n for n in body.nodes if value in n.inputs]
    return value not in body.results and all(
        n.op is OPS.add or n.op is OPS.reshape and _is_added(body, n.output) for n in readers
    )


def _is_empty(b: Rebuilder, value: Value) -> bool:
    return any(n.op is OPS.empty and n.output is b.new(value) for n in b.nodes)
