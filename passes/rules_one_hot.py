"""Rewrite rules of arrays in which each row has one element that counts, such as the gradient of a cross entropy."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.types import int64
from .axes import is_counted
from .rewrite import Rewriter, number, op, rules, some
from .rules_reductions import from_start, without_axes

p, q, u = some("p"), some("q"), some("u")


def _scatter(b: Rewriter, node: Node) -> Value | None:
    """A comparison of columns joins other elementwise work, a scatter joins nothing. The gather from an iota checks
    the index."""
    x, u, *indices = node.inputs
    known, counted = b.numbers.get(x), [k for k, v in enumerate(indices) if is_counted(v, 0, b.producer)]
    if known is None or not counted or not x.type.rank == len(indices) == 2 or node.attrs["mode"] not in ("set", "add"):
        return None
    row, column = (node.attrs["dims"][k] for k in (counted[0], 1 - counted[0]))
    if u.shape != (x.shape[row],):
        return None
    columns = b.iota(shape=(x.shape[column],), dim=0, dtype=int64)
    place = b.gather(columns, indices[1 - counted[0]], dims=(0,))
    written = u if node.attrs["mode"] == "set" else b.add(b.full(u.shape, known.item(), u.dtype), u)
    along = tuple(n if d == row else 1 for d, n in enumerate(x.shape))
    place, written = (b.expand(b.view_as(v, along), x.shape) for v in (place, written))
    return b.select(b.eq(place, b.iota(shape=x.shape, dim=column, dtype=int64)), written, x)


def _is_place(b: Rewriter, value: Value, size: int) -> bool:
    """Whether `value` shows elements of a gather from an iota: positions on an axis of `size`, checked to be such."""
    node = b.producer.get(value)
    while node is not None and node.op.has(Trait.VIEW):
        node = b.producer.get(node.inputs[0])
    if node is None or node.op is not OPS.gather or node.inputs[0].shape != (size,):
        return False
    return is_counted(node.inputs[0], 0, b.producer)


def _sum(b: Rewriter, node: Node, p: Value, q: Value, u: Value, zero: float) -> Value | None:
    """The one element of each row that is chosen, when the rest are zeros."""
    shape, dims = node.inputs[0].shape, node.attrs["dims"]
    if zero != 0 or len(dims) != 1:
        return None
    place, columns = (p, q) if is_counted(q, dims[0], b.producer) else (q, p)
    if not is_counted(columns, dims[0], b.producer) or not _is_place(b, place, shape[dims[0]]):
        return None
    one_place, one = (_in_each_row(b, v, dims) for v in (place, u))
    return None if one_place is None else one


def _in_each_row(b: Rewriter, value: Value, dims: Sequence[int]) -> Value | None:
    """What a broadcast shows in each row, when it is the same along all of it."""
    node = b.producer.get(value)
    return without_axes(b, node.inputs[0], value.shape, dims) if node and node.op is OPS.broadcast else None


def _sum_of_one(b: Rewriter, node: Node, p: Value, q: Value, u: Value, zero: float) -> Value | None:
    found = _sum(b, node, p, q, u, zero)
    return None if found is None else from_start(b, node, found)


def _sum_of_negated_one(b: Rewriter, node: Node, p: Value, q: Value, u: Value, zero: float) -> Value | None:
    found = _sum(b, node, p, q, u, zero)
    return None if found is None else from_start(b, node, b.neg(found))


# fmt: off
ONE_HOT = op("select", op("eq", p, q), u, number("zero"))

RULES = rules(
    ("scatter of one a row", op("scatter"), _scatter),                                  # zeros[i, t[i]] = u[i]
    ("sum of one a row", op("sum", ONE_HOT), _sum_of_one),                              # sum(u if j == t else 0) = u
    ("sum of negated one a row", op("sum", op("neg", ONE_HOT)), _sum_of_negated_one),
)
# fmt: on
