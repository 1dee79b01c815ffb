"""Products of overlapping windows: brought into the form in which a generated loop reads the windows in place, and made
kernels of their own.

A convolution's derivatives come as products with sums around them. A sum over a batch axis is one more contracted axis;
a sum of windows that are moved back to where they came from (the transpose of sliding windows) is a product with the
windows of a padded operand. Both hold for every product; they are applied where such a loop (`ir/windows.py`) is the
outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.builder import Builder, Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.sizes import Dim, is_known, typical
from ..ir.windows import LANES, WindowProduct, reads_windows, steps_of, vectors, window_product
from .fusion_products import LEAST_USE, direct_product, is_large_product
from .options import Options
from .regions import in_regions

GROWTH = 4
"""A product over a padded operand may have so many times the multiplications of the one whose windows are summed."""


@dataclass(frozen=True)
class WindowProducts:
    """Brings products of windows into their form while the values that are spared are not yet thought to be there;
    those that come about later are met by fusion. Sums over a batch are taken in another order."""

    name: str = field(default="window-products", init=False)

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The graph with gathered products, in regions too; the same object when there are none."""
        return gathered(in_regions(graph, lambda region: self(region, options)))


# Rewriting ----------------------------------------------------------------------------------------------------------


def gathered(graph: Graph) -> Graph:
    """The graph with sums of products, and products of short rows, made products that read windows in place."""
    builder = _Windows(graph)
    for node in graph.nodes:
        builder.loc = node.loc
        made = None
        if node.op is OPS.sum:
            made = builder.of_batches(node) or builder.of_windows(node)
        elif node.op is OPS.dot_general:
            made = builder.of_short_rows(builder.renewed(node))
        if made is None:
            builder.copy(node)
        else:
            builder.replace(node, [made])
    return builder.without_dead_nodes()


@dataclass(frozen=True)
class _Product:
    """A dot_general about to be changed: operands and, for each, its batch and contracted axes."""

    operands: tuple[Value, Value]
    batch: tuple[tuple[int, ...], tuple[int, ...]]
    contract: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, node: Node) -> _Product:
        """What `node` is."""
        a = node.attrs
        x, y = node.inputs
        return cls((x, y), (a["lhs_batch"], a["rhs_batch"]), (a["lhs_contract"], a["rhs_contract"]))

    @property
    def attrs(self) -> dict[str, Any]:
        """As attributes of a node."""
        (lb, rb), (lc, rc) = self.batch, self.contract
        return {"lhs_batch": lb, "rhs_batch": rb, "lhs_contract": lc, "rhs_contract": rc}

    def free(self, side: int) -> list[int]:
        """The axes that an operand gives to the result."""
        taken = {*self.batch[side], *self.contract[side]}
        return [d for d in range(self.operands[side].type.rank) if d not in taken]

    def origin(self, axis: int) -> tuple[int, int] | None:
        """(operand, its axis) behind a free axis of the result; None for a batch axis."""
        free = [(side, d) for side in (0, 1) for d in self.free(side)]
        number = axis - len(self.batch[0])
        return free[number] if number >= 0 else None


class _Windows(Rebuilder):
    """Rebuilds a graph; the methods give the value that replaces a node, or None."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.producers: dict[Value, Node] = {}

    def append(self, node: Node) -> Node:
        self.producers.update(dict.fromkeys(node.outputs, node))
        return super().append(node)

    def renewed(self, node: Node) -> Node:
        """A node that has not been copied yet, on the new values."""
        return Node(node.op, tuple(map(self.new, node.inputs)), node.attrs, node.outputs, node.loc)

    def of_batches(self, node: Node) -> Value | None:
        """A sum over batch axes of a product contracts them, too."""
        inner, dims = self.producers.get(self.new(node.inputs[0])), node.attrs["dims"]
        if inner is None or inner.op is not OPS.dot_general or max(dims, default=0) >= len(inner.attrs["lhs_batch"]):
            return None
        product = _Product.of(inner)
        batch, contract = [], []
        for side in (0, 1):
            axes = product.batch[side]
            batch.append(tuple(d for k, d in enumerate(axes) if k not in dims))
            contract.append((*(axes[k] for k in dims), *product.contract[side]))
        return self._direct(_Product(product.operands, (batch[0], batch[1]), (contract[0], contract[1])))

    def of_windows(self, node: Node) -> Value | None:
        """A sum over windows that are moved by their number, of a product: the product with moved windows of the
        operand whose axis is moved, in which the windows' axis is contracted."""
        slant = self.producers.get(self.new(node.inputs[0]))
        if slant is None or slant.op is not OPS.slant or node.attrs["dims"] != (slant.attrs["window"],):
            return None
        dim, window = slant.attrs["dim"], slant.attrs["window"]
        inner, ends = self.producers.get(slant.inputs[0]), (0, 0)
        if inner is not None and inner.op is OPS.pad and inner.attrs["value"] == 0:
            ends = inner.attrs["low"][dim], inner.attrs["high"][dim]
            if sum(map(_nonzero, (*inner.attrs["low"], *inner.attrs["high"]))) > sum(map(_nonzero, ends)):
                return None
            inner = self.producers.get(inner.inputs[0])
        if inner is None or inner.op is not OPS.dot_general:
            return None
        product = _Product.of(inner)
        moved, counted = product.origin(dim), product.origin(window)
        if moved is None or counted is None or moved[0] == counted[0]:
            return None
        if typical(node.output.type.sizes[dim - (window < dim)]) > GROWTH * typical(inner.output.type.sizes[dim]):
            return None
        return self._moved(product, slant, moved, counted, ends)

    def _moved(
        self, product: _Product, slant: Node, moved: tuple[int, int], counted: tuple[int, int], ends: tuple[Dim, Dim]
    ) -> Value | None:
        (side, axis), (other, number) = moved, counted
        operands, contract, batch = list(product.operands), list(product.contract), list(product.batch)
        x, count = operands[side], operands[other].type.shape[number]
        if any(map(_nonzero, ends)):
            x = self._padded(x, axis, ends)
        shape = x.type.shape
        x = self.reshape(x, shape=(*shape[:axis], 1, *shape[axis:]))
        x = self.broadcast(x, shape=(*shape[:axis], count, *shape[axis:]))
        a = slant.attrs
        operands[side] = self.slant(
            x, dim=axis + 1, window=axis, step=a["step"], offset=a["offset"], size=a["size"]
        )
        batch[side] = tuple(d + (d >= axis) for d in batch[side])
        contract[side] = (*(d + (d >= axis) for d in contract[side]), axis)
        contract[other] = (*contract[other], number)
        (x, y), (of_x, of_y), (from_x, from_y) = operands, batch, contract
        return self._direct(_Product((x, y), (of_x, of_y), (from_x, from_y)))

    def _padded(self, x: Value, axis: int, ends: tuple[Dim, Dim]) -> Value:
        """A value with zeros before and behind one axis, put there before windows are taken of other ones."""
        node, shape = self.producers.get(x), x.type.shape
        if node is not None and node.op is OPS.slant and axis not in (node.attrs["dim"], node.attrs["window"]):
            return self.add_node(node.op, (self._padded(node.inputs[0], axis, ends),), node.attrs).output
        longer = (*shape[:axis], shape[axis] + sum(ends), *shape[axis + 1 :])
        source = node.inputs[0] if node is not None else x
        if node is not None and node.op is OPS.broadcast and source.type.rank == x.type.rank:
            if source.type.shape[axis] == shape[axis]:
                return self.broadcast(self._padded(source, axis, ends), shape=longer)
        if node is not None and node.op is OPS.reshape:
            for k in (d for d, n in enumerate(shape) if n == 1 and d != axis):
                if source.type.shape == (*shape[:k], *shape[k + 1 :]):
                    return self.reshape(self._padded(source, axis - (k < axis), ends), shape=longer)
        low, high = (tuple(n if d == axis else 0 for d in range(x.type.rank)) for n in ends)
        if node is not None and node.op is OPS.pad and node.attrs["value"] == 0:
            low, high = (
                tuple(a + b for a, b in zip(node.attrs[side], more, strict=True))
                for side, more in (("low", low), ("high", high))
            )
            x = source
        return self.pad(x, low=low, high=high, value=0)

    def _direct(self, product: _Product) -> Value | None:
        """The product, if it is to read windows in place."""
        node = self.make_node(OPS.dot_general, product.operands, product.attrs)
        return None if direct_product(node, self.producers) is None else self.append(node).output

    def of_short_rows(self, node: Node) -> Value | None:
        """A product that contracts rows shorter than a vector, and the rows themselves: with zeros behind each row of
        the left operand, as long as the rows of the right one are apart, they are one axis."""
        if not is_large_product(node) or len(node.attrs["lhs_contract"]) < 2:
            return None
        product = _Product.of(node)
        x, y = product.operands
        pairs = sorted(zip(*product.contract, strict=True))
        (row, right_row), (column, right_column) = pairs[-2:]
        length, count = x.type.shape[column], x.type.shape[row]
        view = steps_of(y, self.producers)
        if view is None or (row, column) != (x.type.rank - 2, x.type.rank - 1) or right_column != right_row + 1:
            return None
        pitch, left = divmod(view.steps[right_row], view.steps[right_column] or 1)
        if left or not is_known(length, count) or not length < min(pitch, LANES):
            return None
        places = (count - 1) * pitch + length
        as_it_is = direct_product(node, self.producers)
        least = LEAST_USE if as_it_is is None else as_it_is.used
        if typical(count * length) <= least * vectors(typical(places)) * LANES:
            return None
        lead = x.type.shape[:row]
        none = (0,) * (row + 1)
        wide = self.pad(x, low=(*none, 0), high=(*none, pitch - length), value=0)
        wide = self.reshape(wide, shape=(*lead, count * pitch))
        wide = self.slice(
            wide, starts=(0,) * (row + 1), stops=(*lead, places), steps=(1,) * (row + 1)
        )
        shape = (*y.type.shape[:right_row], places, *y.type.shape[right_column + 1 :])
        steps = (*view.steps[:right_row], *view.steps[right_column:])
        if min(steps) < 0:
            return None
        flat = self.as_strided(view.base, shape=shape, strides=steps, offset=view.offset)
        rest = pairs[:-2]
        contract = (*(a for a, _ in rest), row), (*(b - (b > right_row) for _, b in rest), right_row)
        batch = product.batch[0], tuple(b - (b > right_row) for b in product.batch[1])
        return self._direct(_Product((wide, flat), batch, contract))

    def without_dead_nodes(self) -> Graph:
        """The rebuilt graph less what was tried in vain and what became superfluous."""
        graph = self.done()
        return graph if graph is self.graph else pruned(graph)


def _nonzero(n: Dim) -> bool:
    return n != 0


def pruned(graph: Graph) -> Graph:
    """The graph without views, pads and products that nobody reads."""
    used, nodes = set(graph.results), []
    for node in reversed(graph.nodes):
        dead = not any(v in used for v in node.outputs)
        if not (dead and (node.op.has(Trait.VIEW) or node.op in (OPS.pad, OPS.sum, OPS.dot_general))):
            used.update(node.inputs)
            nodes.append(node)
    return Graph(graph.name, graph.params, tuple(nodes[::-1]), graph.results, graph.notes)


def described(graph: Graph) -> Iterator[tuple[Node, str]]:
    """How each large product of overlapping windows is computed."""
    graph = gathered(graph)
    producers = {v: n for n in graph.nodes for v in n.outputs}
    for node in graph.nodes:
        for region in node.regions:
            yield from described(region)
        if is_large_product(node) and reads_windows(node, producers):
            yield node, _how(window_product(node, producers))


def _how(product: WindowProduct | None) -> str:
    if product is None:
        return "stored as a matrix for BLAS: neighbours along the innermost axes are not neighbours in memory"
    use = f"{product.used:.0%} of the lanes are of use"
    return f"read in place: {use}" if product.used >= LEAST_USE else f"stored as a matrix for BLAS: only {use}"


# Kernels of their own -----------------------------------------------------------------------------------------------


def enclosed(graph: Graph) -> Graph:
    """The fused graph with every product that reads windows in place, and the views it reads through, as a fusion."""
    producers = {v: n for n in graph.nodes for v in n.outputs}
    nodes = [n if direct_product(n, producers) is None else _kernel(n, producers) for n in graph.nodes]
    return pruned(Graph(graph.name, graph.params, tuple(nodes), graph.results, graph.notes))


def _kernel(node: Node, producers: Mapping[Value, Node]) -> Node:
    body = Builder("windows")
    inside: dict[Value, Value] = {}

    def copied(value: Value) -> Value:
        maker = producers.get(value)
        if value not in inside:
            if maker is None or not maker.op.has(Trait.VIEW) or maker.op is OPS.barrier:
                inside[value] = body.param(value.type, value.hint)
            else:
                source = copied(maker.inputs[0])
                inside[value] = body.add_node(maker.op, (source,), maker.attrs, loc=maker.loc).output
        return inside[value]

    operands = [copied(x) for x in node.inputs]
    result = body.add_node(node.op, operands, node.attrs, loc=node.loc, hints=[node.output.hint])
    outer: Sequence[Value] = [v for v, inner in inside.items() if inner in body.params]
    return Node(OPS.fusion, tuple(outer), {}, node.outputs, node.loc, (body.finish(result.outputs),))
