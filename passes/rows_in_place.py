"""Rows that a loop writes of sequences it carries, made ready to be computed right where they belong.

The memory plan lets what a kernel or BLAS computes stand in another row in each iteration (`row_update`); an update by
a kernel of its own would copy it there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from .regions import with_regions
from .rewrite import number_of
from .rows import LoopRows, known_bounds


def rows_in_place(graph: Graph, is_kernel: Callable[[Node], bool]) -> Graph:
    """The graph with `row_update` in its loops, but for those that become one kernel; regions too. The same object when
    there is nothing to change."""
    b = Rebuilder(graph)
    numbers = {n.output: known for n in graph.nodes if n.op is OPS.constant and (known := number_of(n, {})) is not None}
    for node in graph.nodes:
        if not node.op.has(Trait.CONTROL) or not node.regions or node.op is OPS.fusion or is_kernel(node):
            b.copy(node)
            continue
        node = with_regions(node, lambda region: rows_in_place(region, is_kernel))
        bounds = known_bounds(node, numbers) if node.op is OPS.loop else None
        b.copy(node if bounds is None else _with_rows(LoopRows(node, *bounds)))
    return b.done()


def _with_rows(loop: LoopRows) -> Node:
    """The loop with `row_update` wherever a row is computed that nobody reads from the sequence."""
    b = Rebuilder(loop.body)
    updates = {}
    for k, slot in enumerate(loop.slots):
        written = loop.row_written(k)
        if written is not None and written[1].axis == 0 and loop.uses[slot] == 1 and _is_computed(loop, written[0]):
            updates[written[0]] = written[1]
    for node in loop.body.nodes:
        row = updates.get(node)
        if row is None:
            b.copy(node)
            continue
        operands = [*map(b.new, node.inputs[:2]), loop.body.params[0]]
        update = b.add_node(OPS.row_update, operands, {"step": row.step, "offset": row.offset}, loc=node.loc)
        b.replace(node, update.outputs)
    region = b.done()
    return loop.node if region is loop.body else replace(loop.node, regions=(region,))


def _is_computed(loop: LoopRows, update: Node) -> bool:
    """Whether what an update writes is a value with memory of its own, not a view of one."""
    value: Value = update.inputs[1]
    node = loop.producers.get(value)
    while node is not None and node.op is OPS.reshape:
        value, node = node.inputs[0], loop.producers.get(node.inputs[0])
    return node is None or not node.op.has(Trait.VIEW) and not node.op.has(Trait.CONSTANT)
