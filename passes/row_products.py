"""Products of a row of a sequence and a matrix that a loop leaves alone: all rows are multiplied at once, before it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from ..ir.builder import Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .fusion_products import is_large_product
from .options import Options
from .regions import with_regions
from .rewrite import number_of
from .rows import LoopRows, Row, known_bounds, without
from .sizes import bytes_of

FEW_ROWS = 256
"""A product with so many rows of the sequence's side reads its matrix at the price of computing."""

MOST_BYTES = 1 << 25
"""Bytes of the products of all rows, at most."""


@dataclass(frozen=True)
class RowProducts:
    """Moves products in front of loops where one side is another row of an invariant in each iteration, the other side
    an invariant. BLAS may round a product of many rows in another way."""

    name: str = field(default="row-products", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with such products in front of loops, in regions too; the same object when there are none."""
        b = Rebuilder(graph)
        numbers: dict[Value, Any] = {}
        for node in graph.nodes:
            node = with_regions(node, lambda region: self(region, options))
            bounds = known_bounds(node, numbers) if node.op is OPS.loop else None
            b.copy(node if bounds is None else _with_products_before(b, LoopRows(node, *bounds)))
            if node.op is not OPS.loop and (known := number_of(node, numbers)) is not None:
                numbers[node.output] = known
        return b.done()


def _with_products_before(b: Rebuilder, loop: LoopRows) -> Node:
    """The loop without its products of rows, which are emitted into `b`."""
    body, inputs = Rebuilder(loop.body), list(loop.node.inputs)
    outside = dict(zip(loop.body.params[1:], loop.node.inputs[2:], strict=True))
    for node in loop.body.nodes:
        side = _side_of_rows(loop, node)
        if side is None:
            body.copy(node)
            continue
        x, row = loop.row_read(node.inputs[side])  # type: ignore[misc]
        products = _product(b, node, side, [outside.get(v, v) for v in node.inputs], outside[x], row)
        axis = _axis_of_rows(node, side, row.axis, len(x.shape))
        param = body.param(products.type)
        inputs.append(products)
        index, offset = loop.body.params[0], body.index_scalar(row.offset)
        place = body.add(index, offset) if row.step == 1 else body.sub(offset, index)
        starts = [place if d == axis else body.index_scalar(0) for d in range(len(param.shape))]
        sizes = tuple(1 if d == axis else n for d, n in enumerate(param.shape))
        read = body.dynamic_slice(param, *starts, sizes=sizes)
        body.replace(node, [body.view_as(read, node.output.shape)])
    region = body.done()
    return loop.node if region is loop.body else replace(loop.node, inputs=tuple(inputs), regions=(region,))


def _side_of_rows(loop: LoopRows, node: Node) -> int | None:
    """Which operand of a product is a row, if the other one is invariant and it pays to move the product."""
    if not is_large_product(node):
        return None
    for side in (0, 1):
        value, other = node.inputs[side], node.inputs[1 - side]
        read = loop.row_read(value)
        if read is None or read[0] not in loop.invariants or other not in loop.invariants:
            continue
        x, row = read
        if value.shape != without(x.shape, row.axis) or not loop.covers(row, x):
            continue
        bound = {*node.attrs[f"{SIDES[side]}_batch"], *node.attrs[f"{SIDES[side]}_contract"]}
        rows = prod(n for d, n in enumerate(value.shape) if d not in bound)
        if rows < FEW_ROWS and bytes_of(node.output) * loop.count <= MOST_BYTES:
            return side
    return None


SIDES = ("lhs", "rhs")


def _product(b: Rebuilder, node: Node, side: int, operands: list[Value], rows: Value, row: Row) -> Value:
    """The product with all rows."""
    attrs, name = dict(node.attrs), SIDES[side]
    for which in ("batch", "contract"):
        attrs[f"{name}_{which}"] = tuple(d + (d >= row.axis) for d in attrs[f"{name}_{which}"])
    operands = [b.new(rows if k == side else v) for k, v in enumerate(operands)]
    return b.add_node(OPS.dot_general, operands, attrs, loc=node.loc).output


def _axis_of_rows(node: Node, side: int, axis: int, rank: int) -> int:
    """The axis of the product with all rows along which they are."""
    attrs, name = node.attrs, SIDES[side]
    bound = {d + (d >= axis) for d in (*attrs[f"{name}_batch"], *attrs[f"{name}_contract"])}
    before = len(attrs["lhs_batch"]) if side == 0 else node.output.type.rank - (rank - 1 - len(bound))
    return before + sum(d not in bound for d in range(axis))
