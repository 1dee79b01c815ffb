"""Sums of cotangents of which one is zero but for a small box: the box alone is read, added to and written.

The reverse of `x[i]` is a tensor of zeros with one row. Added up over the iterations of a loop, all of it each time, it
would cost the size of `x` an iteration instead of the size of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ir.builder import Builder
from ..ir.graph import Node, Value
from ..ir.op import Op
from ..ir.ops import OPS
from .sizes import known_sizes

LEAST = 64
"""Elements from which on it matters."""
SHARE = 4
"""The box must be this many times smaller than the whole."""

AddBox = Callable[[Builder, Node, Value], Value]
"""(b, node that writes a box into zeros, dense cotangent) -> their sum."""


def add_cotangents(b: Builder, x: Value, y: Value) -> Value:
    """`x + y`, except that a sum of zeros may have either sign."""
    for dense, sparse in ((x, y), (y, x)):
        node = _producer(b, sparse)
        if node is not None and node.op in BOXES and _is_small(node) and _writes_into_zeros(b, node):
            return BOXES[node.op](b, node, dense)
    return b.add(x, y)


def _producer(b: Builder, value: Value) -> Node | None:
    return next((node for node in reversed(b.nodes) if value in node.outputs), None)


def _is_small(node: Node) -> bool:
    box = node.inputs[0] if node.op is OPS.pad else node.inputs[1]
    return (
        known_sizes(node.output) and node.output.type.size >= LEAST and box.type.size * SHARE <= node.output.type.size
    )


def _writes_into_zeros(b: Builder, node: Node) -> bool:
    if node.op is OPS.pad:
        return node.attrs["value"] == 0
    if node.op is OPS.scatter and node.attrs["mode"] != "add":
        return False
    target = _producer(b, node.inputs[0])
    while target is not None and target.op is OPS.broadcast:
        target = _producer(b, target.inputs[0])
    return target is not None and target.op is OPS.constant and target.attrs["value"] == 0


def _at_run_time(b: Builder, node: Node, dense: Value) -> Value:
    box, starts = node.inputs[1], node.inputs[2:]
    there = b.dynamic_slice(dense, *starts, sizes=box.shape)
    return b.dynamic_update(dense, b.add(there, box), *starts)


def _at_fixed_place(b: Builder, node: Node, dense: Value) -> Value:
    if node.op is OPS.pad:
        box, starts, steps = node.inputs[0], node.attrs["low"], (1,) * node.output.type.rank
    else:
        box, starts, steps = node.inputs[1], node.attrs["starts"], node.attrs["steps"]
    ends = zip(starts, box.type.sizes, steps, strict=True)
    stops = tuple(start + (n - 1) * step + 1 if n else start for start, n, step in ends)
    there = b.slice(dense, starts=starts, stops=stops, steps=steps)
    return b.slice_update(dense, b.add(there, box), starts=starts, steps=steps)


def _in_window(b: Builder, node: Node, dense: Value) -> Value:
    box = node.inputs[1]
    there = b.as_strided(dense, shape=box.shape, **node.attrs)
    return b.as_strided_update(dense, b.add(there, box), **node.attrs)


def _at_indices(b: Builder, node: Node, dense: Value) -> Value:
    return b.scatter(dense, *node.inputs[1:], **node.attrs)


BOXES: Mapping[Op, AddBox] = {
    OPS.dynamic_update: _at_run_time,
    OPS.slice_update: _at_fixed_place,
    OPS.pad: _at_fixed_place,
    OPS.as_strided_update: _in_window,
    OPS.scatter: _at_indices,
}
