"""Products and sums that a loop adds up over its iterations, done once after it.

`c = c + x.T @ y` in every iteration reads and writes all of `c` for a product of few rows. After the loop it is one
product of the rows of all iterations, if these are kept: often they are already, as what the loop gives or what its
reverse reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.builder import Builder, Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from .fusion_products import is_large_product
from .options import Options
from .regions import with_regions
from .rewrite import number_of
from .rows import LoopRows, Row, known_bounds, without
from .sizes import bytes_of

MOST_KEPT = 1 << 25
"""Bytes of rows that a loop may keep for one product after it."""


@dataclass(frozen=True)
class LoopSums:
    """Takes sums of products out of loops. The terms of a sum are added up in another order.

    Only where the rows of an iteration that have to be kept in addition are smaller than the sum.
    """

    name: str = field(default="loop-sums", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with such sums after the loops, in regions too; the same object when there are none."""
        b = Rebuilder(graph)
        numbers: dict[Value, Any] = {}
        for node in graph.nodes:
            node = with_regions(node, lambda region: self(region, options))
            bounds = known_bounds(node, numbers) if node.op is OPS.loop else None
            if bounds is None or not _SumsOut(b, LoopRows(node, *bounds), numbers).emit():
                b.copy(node)
            if node.op is not OPS.loop and (known := number_of(node, numbers)) is not None:
                numbers[node.output] = known
        return b.done()


@dataclass(frozen=True)
class Kept:
    """Rows of all iterations: of an invariant of the loop, or of a carried sequence by its number."""

    source: Value | int
    row: Row


@dataclass
class Term:
    """One term of a sum: the node that computes it, and the rows that its operands are."""

    node: Node
    operands: list[Kept]


class _SumsOut:
    """One loop."""

    def __init__(self, b: Rebuilder, loop: LoopRows, numbers: dict[Value, Any]) -> None:
        self.b, self.loop = b, loop
        self.zeros = {b.new(v) for v in loop.node.inputs if numbers.get(v) == 0}
        self.added: list[tuple[Value, int]] = []
        """What is kept in addition, and whether from the first iteration on (1) or from the last (-1)."""
        self.written: dict[Value, Kept] = {}
        for k in range(loop.carried):
            written = loop.row_written(k)
            if written is not None:
                u = loop.producers.get(written[0].inputs[1])
                value = u.inputs[0] if u is not None and u.op is OPS.reshape else written[0].inputs[1]
                if value.shape == without(loop.slots[k].shape, written[1].axis):
                    self.written.setdefault(value, Kept(k, written[1]))

    def emit(self) -> bool:
        """Emits the loop without sums, and the sums; False, with nothing emitted, when there are none."""
        terms = {k: self._terms(k) for k in range(self.loop.carried)}
        moved: dict[Value, Term] = {}
        for move in (self._product, self._sum):  # sums last: they take what products keep
            for value in (v for values in terms.values() for v in values):
                term = move(value)
                if term is not None:
                    moved[value] = term
        if not moved:
            return False
        left = {k: [v for v in values if v not in moved] for k, values in terms.items() if values}
        outputs = self._loop(left)
        for k, rest in left.items():
            total = outputs[k] if rest else self.b.new(self.loop.node.inputs[2 + k])
            for value in terms[k]:
                if value in moved:
                    total = self._plus(total, self._total(moved[value], outputs))
            outputs[k] = total
        self.b.replace(self.loop.node, outputs[: self.loop.carried] + outputs[self.loop.carried + len(self.added) :])
        return True

    # What can move

    def _terms(self, k: int) -> list[Value]:
        """What each iteration adds to carried value `k`; nothing if that has other readers."""
        loop, slot = self.loop, self.loop.slots[k]
        found, pending = [], [loop.body.results[k]]
        while pending:
            value = pending.pop()
            node = loop.producers.get(value)
            if node is not None and node.op is OPS.add and loop.uses[value] == 1:
                pending += reversed(node.inputs)
            else:
                found.append(value)
        is_sum = len(found) > 1 and found.count(slot) == 1 and loop.uses[slot] == 1
        return [v for v in found if v is not slot] if is_sum else []

    def _product(self, value: Value) -> Term | None:
        """The term that a product is, if it is large and the rows it needs are small."""
        node, added = self.loop.producers.get(value), len(self.added)
        if node is None or self.loop.uses[value] > 1 or not is_large_product(node):
            return None
        known = [self._known(v) for v in node.inputs]
        step = next((k.row.step for k in known if k is not None), 1)
        operands = [
            k if k is not None and k.row.step == step else self._keep(v, step)
            for k, v in zip(known, node.inputs, strict=True)
        ]
        row = sum(bytes_of(v) for v, _ in self.added[added:])
        if row > bytes_of(value) or row * self.loop.count > MOST_KEPT:
            del self.added[added:]
            return None
        return Term(node, operands)

    def _sum(self, value: Value) -> Term | None:
        """The term that a sum is, if what it sums is kept anyway."""
        node = self.loop.producers.get(value)
        if node is None or node.op is not OPS.sum or self.loop.uses[value] > 1:
            return None
        known = self._known(node.inputs[0])
        return None if known is None else Term(node, [known])

    def _known(self, value: Value) -> Kept | None:
        """The rows of a value of the body, as far as they are kept."""
        kept = self.written.get(value)
        if kept is None and (read := self.loop.row_read(value)) is not None and read[0] in self.loop.invariants:
            x, row = read
            outer = self.loop.node.inputs[1 + self.loop.body.params.index(x)]
            kept = Kept(outer, row) if value.shape == without(x.shape, row.axis) else None
        if kept is None:
            kept = next((self._keep(v, step) for v, step in self.added if v is value), None)
        return kept if kept is not None and abs(kept.row.step) == 1 else None

    def _keep(self, value: Value, step: int) -> Kept:
        """Rows of a value that the loop is going to keep."""
        if (value, step) not in self.added:
            self.added.append((value, step))
        first = -self.loop.start if step == 1 else self.loop.stop - 1
        return Kept(self.loop.carried + self.added.index((value, step)), Row(0, step, first))

    # The loop

    def _loop(self, left: dict[int, list[Value]]) -> list[Value]:
        """Emits the loop, in which only the terms `left` are added; its outputs."""
        loop, b, carried = self.loop, self.b, self.loop.carried
        r = Builder(loop.body.name)
        r.nodes = list(loop.body.nodes)
        following = list(loop.body.results[:carried])
        for k, terms in left.items():
            following[k] = loop.slots[k]
            for term in terms:
                following[k] = r.add(following[k], term)
        rows, empty = [], []
        for value, step in self.added:
            shape = (loop.count, *value.shape)
            rows.append(r.param(value.type.with_shape(shape), "rows"))
            empty.append(b.empty(shape=shape, dtype=value.dtype))
            index, first = loop.body.params[0], r.index_scalar(loop.start if step == 1 else loop.stop - 1)
            place = r.sub(index, first) if step == 1 else r.sub(first, index)
            zeros = [r.index_scalar(0)] * len(value.shape)
            following.append(r.dynamic_update(rows[-1], r.view_as(value, (1, *value.shape)), place, *zeros))
        r.params = [loop.body.params[0], *loop.slots, *rows, *loop.invariants]
        region = r.finish([*following, *loop.body.results[carried:]], loop.body.notes)
        inputs = [b.new(v) for v in loop.node.inputs]
        inputs[2 + carried : 2 + carried] = empty
        attrs = {"carried": carried + len(rows)}
        return list(b.add_node(OPS.loop, inputs, attrs, regions=(region,), loc=loop.node.loc).outputs)

    # The sums

    def _total(self, term: Term, outputs: Sequence[Value]) -> Value:
        """A term of all iterations together."""
        b, attrs, rows = self.b, dict(term.node.attrs), [self._rows(kept, outputs) for kept in term.operands]
        axes = [kept.row.axis for kept in term.operands]
        b.loc = term.node.loc
        if term.node.op is OPS.sum:
            total = b.sum(rows[0], dims=tuple(sorted((axes[0], *_moved(attrs["dims"], axes[0])))))
        else:
            for side, axis in zip(("lhs", "rhs"), axes, strict=True):
                attrs[f"{side}_batch"] = _moved(attrs[f"{side}_batch"], axis)
                attrs[f"{side}_contract"] = (axis, *_moved(attrs[f"{side}_contract"], axis))
            total = b.dot_general(*rows, **attrs)
        b.loc = None
        return total

    def _rows(self, kept: Kept, outputs: Sequence[Value]) -> Value:
        """The rows of all iterations, no others."""
        x = outputs[kept.source] if isinstance(kept.source, int) else self.b.new(kept.source)
        row, count = kept.row, self.loop.count
        if x.shape[row.axis] == count:
            return x
        first = min(row.step * i + row.offset for i in (self.loop.start, self.loop.stop - 1))
        return self.b.slice(
            x,
            starts=tuple(first if d == row.axis else 0 for d in range(len(x.shape))),
            stops=tuple(first + count if d == row.axis else n for d, n in enumerate(x.shape)),
            steps=(1,) * len(x.shape),
        )

    def _plus(self, x: Value, total: Value) -> Value:
        """`x + total`, which is `total` for an `x` of zeros."""
        return total if x in self.zeros else self.b.add(x, total)


def _moved(dims: Iterable[int], axis: int) -> tuple[int, ...]:
    """Axes of a row as axes of the rows."""
    return tuple(d + (d >= axis) for d in dims)
