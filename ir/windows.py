"""Products that read overlapping windows: what a generated loop needs to know to read them where they stand.

A convolution is a product of a weight with the windows of an input, and its derivatives are such products, too. Stored
as a matrix, the windows hold every element many times. Here is said which products can do without, and which axes of
their space a loop keeps in registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from .graph import Graph, Node, Value
from .index import Index, IndexLike, affine, flatten, variables
from .op import Trait
from .ops import OPS
from .sizes import Dim, is_known, typical
from .stages import product_axes
from .types import Axes, float32, float64

OVERLAP = 1.5
"""An operand is read in place when it shows each element at least so often: stored, it would be so much larger."""

SPACINGS = (1, 2, 3, 4)
"""How far the elements of a vector may be apart in memory."""

LANES = 16
"""Places of the innermost axis that there must be."""


@dataclass(frozen=True)
class Steps:
    """A view of a value in memory: where its first element is, and how far a step along each axis goes."""

    base: Value
    offset: int
    steps: tuple[int, ...]

    def is_whole(self, sizes: Sequence[Dim]) -> bool:
        """Whether this is the whole base, element by element."""
        dense = [prod(sizes[k + 1 :]) for k in range(len(sizes))]
        steps = zip(sizes, self.steps, dense, strict=True)
        return self.base.type.size == prod(sizes) and self.offset == 0 and all(n == 1 or s == d for n, s, d in steps)

    def at(self, indices: Sequence[IndexLike]) -> Index:
        """The position in memory of an element."""
        total: Index = sum((i * s for i, s in zip(indices, self.steps, strict=True) if s != 0), start=_ZERO)  # type: ignore[assignment]
        return total + self.offset


_ZERO = flatten((), ())


def steps_of(view: Value, producers: Mapping[Value, Node]) -> Steps | None:
    """A (view of a) value by steps; None when a step along some axis does not always go equally far."""
    axes = variables(view.type.sizes)
    value, indices = view, list[IndexLike](axes)
    while (node := producers.get(value)) is not None and node.op.has(Trait.VIEW):
        assert node.op.index is not None
        value, indices = node.inputs[0], list(node.op.index(indices, node.inputs[0].type, node.attrs))
    found = affine(flatten(indices, value.type.sizes), axes)
    if found is None or not all(isinstance(n, int) for n in (found[0], *found[1])):
        return None
    return Steps(value, found[0], tuple(found[1]))


@dataclass(frozen=True)
class WindowProduct:
    """A product whose operands are read where they stand. Axes are those of its space: kept ones, then folded ones.

    Attributes:
        node: the product.
        sizes: of the space.
        kept: how many axes the result has.
        left, right: the operands, with a step for each axis of the space.
        lane: the axis that runs along vectors: the last kept one, or the last folded one.
        row: the axis in front of it, if it moves the right operand alone (or, folded, both).
        block: a kept axis that moves the left operand alone: several of its elements are in registers.
        beside: a kept axis that moves the right operand alone; only when the lanes are folded.
    """

    node: Node
    sizes: Axes
    kept: int
    left: Steps
    right: Steps
    lane: int
    row: int | None
    block: int | None
    beside: int | None

    @property
    def folds_lanes(self) -> bool:
        """Whether vectors are summed up, rather than stored."""
        return self.lane >= self.kept

    @property
    def work(self) -> Dim:
        """The multiplications."""
        return prod(self.sizes)

    @property
    def spacing(self) -> int:
        """How far the elements of a vector of the right operand are apart."""
        return self.right.steps[self.lane]

    @property
    def pitch(self) -> int:
        """How far rows of the right operand are apart, in steps along a row; 0 where that is no whole number."""
        steps = 0 if self.row is None else self.right.steps[self.row]
        return 0 if steps % self.spacing else steps // self.spacing

    @property
    def flat(self) -> bool:
        """Whether rows are so short that the memory between them is better computed, too, and thrown away."""
        if self.row is None or self.folds_lanes or self.pitch < self.sizes[self.lane]:
            return False
        rows, columns = self.sizes[self.row], self.sizes[self.lane]
        return vectors(self.span) < rows * vectors(columns) or columns < LANES

    @property
    def length(self) -> int:
        """The places that vectors are cut from."""
        return self.span if self.flat else self.sizes[self.lane]

    @property
    def used(self) -> float:
        """The part of all lanes that is of use."""
        rows = self.sizes[self.row] if self.flat and self.row is not None else 1
        return rows * self.sizes[self.lane] / (vectors(self.length) * LANES)

    @property
    def span(self) -> int:
        """The places from the first element of the first row to the last one of the last row."""
        assert self.row is not None
        return (self.sizes[self.row] - 1) * self.pitch + self.sizes[self.lane]


def vectors(count: int) -> int:
    """The vectors that `count` elements take."""
    return -(-count // LANES)


def window_product(node: Node, producers: Mapping[Value, Node]) -> WindowProduct | None:
    """The record of a product that can read its overlapping windows in place; None for every other node."""
    found = _operands(node, producers) if reads_windows(node, producers) else None
    if found is None:
        return None
    sizes, sides = found
    return _roles(node, sizes, len(sizes) - len(node.attrs["lhs_contract"]), *sides)


def reads_windows(node: Node, producers: Mapping[Value, Node]) -> bool:
    """Whether a node is a product with an operand that shows elements several times, other than by repeating all."""
    found = _operands(node, producers)
    return found is not None and any(overlap(side, found[0]) >= OVERLAP for side in found[1])


def _operands(node: Node, producers: Mapping[Value, Node]) -> tuple[Axes, list[Steps]] | None:
    """The sizes of a product's space and its operands, with a step for each of its axes; None where there are none."""
    if node.op is not OPS.dot_general or node.output.dtype not in (float32, float64):
        return None
    axes = product_axes(node)
    rank = 1 + max((d for side in axes for d in side), default=-1)
    sizes: list[Dim] = [1] * rank
    sides = []
    for x, side in zip(node.inputs, axes, strict=True):
        view = steps_of(x, producers)
        if view is None:
            return None
        steps = [0] * rank
        for d, n, step in zip(side, x.type.sizes, view.steps, strict=True):
            sizes[d], steps[d] = n, step if n != 1 else 0
        sides.append(Steps(view.base, view.offset, tuple(steps)))
    return tuple(sizes), sides  # type: ignore[arg-type]


def only_product(body: Graph) -> WindowProduct | None:
    """The product of windows that a graph consists of, beside views."""
    *views, last = body.nodes
    if body.results != last.outputs or not all(n.op.has(Trait.VIEW) for n in views):
        return None
    return window_product(last, {v: n for n in views for v in n.outputs})


def overlap(view: Steps, sizes: Sequence[Dim]) -> float:
    """How often a view shows an element, on average."""
    moving = [(typical(n), abs(step)) for n, step in zip(sizes, view.steps, strict=True) if step]
    reach = 1 + sum((n - 1) * step for n, step in moving)
    return prod(n for n, _ in moving) / reach


def _roles(node: Node, sizes: Axes, kept: int, left: Steps, right: Steps) -> WindowProduct | None:
    wide = [d for d, n in enumerate(sizes) if n != 1]
    results, folded = [d for d in wide if d < kept], [d for d in wide if d >= kept]
    only_left = [d for d in results if left.steps[d] and not right.steps[d]]
    only_right = [d for d in results if right.steps[d] and not left.steps[d]]
    block = max(only_left, key=lambda d: typical(sizes[d]), default=None)
    found = []
    if results and results[-1] in only_right and right.steps[results[-1]] in SPACINGS:
        row = results[-2] if len(results) > 1 and results[-2] in only_right else None
        found.append(WindowProduct(node, sizes, kept, left, right, results[-1], row, block, None))
    if folded and left.steps[folded[-1]] == 1 and right.steps[folded[-1]] in SPACINGS:
        row, beside = (axes[-1] if axes else None for axes in (folded[:-1], only_right))
        found.append(WindowProduct(node, sizes, kept, left, right, folded[-1], row, block, beside))
    return max(filter(_is_legal, found), key=lambda p: p.used, default=None)


def _is_legal(product: WindowProduct) -> bool:
    """Whether what is in registers has known sizes, and vectors fit in."""
    inner = (product.lane, product.row, product.block, product.beside)
    if not all(is_known(product.sizes[d]) for d in inner if d is not None) or 0 in product.sizes:
        return False
    return product.length >= LANES
