"""What one element needs: which elements of stored values, how much work, and how its positions move with the loop
variables."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .costs import DEAR, op_cost
from .graph import Node, Value
from .index import (
    Bound,
    Constant,
    Index,
    IndexLike,
    Predicate,
    Quotient,
    Sum,
    Variable,
    affine,
    coefficient,
    flatten,
    variables,
    variables_of,
)
from .op import Trait
from .points import Indices, Point, Walker
from .sizes import typical
from .types import DType

Dependence = frozenset[Variable]
"""The loop variables that an element depends on."""

NOTHING: Dependence = frozenset()


@dataclass(frozen=True, slots=True)
class Read:
    """One element of a stored value; `position` is its row-major place."""

    value: Value
    position: Index


class Access(Walker):
    """The report of a walk.

    Attributes:
        reads: the elements of stored values.
        positions: other index expressions that the element depends on.
        bounds: conditions on positions.
        rigid: variables that can not stand for a vector of successive values.
        cost: the work, in additions.
        once: the work on what no loop variable is behind, which is done once for all elements.
    """

    def __init__(self, stored: Container[Value], producers: Mapping[Value, Node]) -> None:
        self.stored = stored
        self.producers = producers
        self.reads: dict[Read, None] = {}
        self.positions: dict[Index, None] = {}
        self.bounds: dict[Bound, None] = {}
        self.rigid: set[Variable] = set()
        self.cost = 0
        self.once = 0
        self._known: dict[Point, Dependence] = {}
        self._behind: dict[Variable, Dependence] = {}
        self._clamps: dict[tuple[Index, int], Variable] = {}

    def _work(self, cost: int, behind: Dependence) -> Dependence:
        """Notes the work on an element; what is behind it."""
        if behind:
            self.cost += cost
        else:
            self.once += cost
        return behind

    def is_stored(self, value: Value) -> bool:
        return value in self.stored

    def known(self, point: Point) -> Dependence | None:
        return self._known.get(point)

    def remember(self, point: Point, element: Dependence) -> None:
        self._known[point] = element

    def constant(self, value: bool | int | float, dtype: DType) -> Dependence:
        return NOTHING

    def read(self, value: Value, indices: Indices) -> Dependence:
        position = flatten(indices, value.type.sizes)
        if Read(value, position) in self.reads:
            return self.behind(position)
        self.reads[Read(value, position)] = None
        return self._work(1, self.behind(position))

    def position(self, node: Node, index: Index) -> Dependence:
        self.positions[index] = None
        return self._work(1, self.behind(index))

    def table(self, node: Node, values: Sequence[Any], position: Index) -> Dependence:
        self.positions[position] = None
        return self._work(len(values), self.behind(position))

    def elementwise(self, node: Node, operands: Sequence[Dependence]) -> Dependence:
        return self._work(op_cost(node.op), NOTHING.union(*operands))

    def random(self, node: Node, state: tuple[Dependence, Dependence], position: Index) -> Dependence:
        self.positions[position] = None
        return self._work(3 * DEAR, self.behind(position))

    def clamped(self, index: Index, size: int) -> Index:
        if (index, size) not in self._clamps:
            self.positions[index] = None
            self._work(2, self.behind(index))
            self.rigid |= self.behind(index)
            variable = self._clamps[index, size] = Variable(f"clamped{len(self._clamps)}", size)
            self._behind[variable] = self.behind(index)
        return self._clamps[index, size]

    def choose(self, node: Node, predicate: Predicate, inside: Dependence, outside: Dependence) -> Dependence:
        result = inside | outside
        for bound in predicate.bounds:
            self.positions[bound.expression] = None
            self.bounds[bound] = None
            result |= self.behind(bound.expression)
        return self._work(len(predicate.bounds), result)

    def data_index(self, node: Node, number: Dependence, size: int) -> Index:
        variable = Variable(f"data{len(self._behind)}", size)
        self._work(1, number)
        self.rigid |= number
        self._behind[variable] = number
        return Constant(0) if size == 1 else variable

    def behind(self, index: Index) -> Dependence:
        """The loop variables behind an index expression."""
        return NOTHING.union(*(self._behind.get(v, frozenset((v,))) for v in variables_of(index)))

    # Questions

    def expressions(self) -> list[tuple[Index, int]]:
        """Every index expression, with the size of the value that it is a position in (0: none)."""
        return [(r.position, r.value.type.size) for r in self.reads] + [(p, 0) for p in self.positions]

    def can_be_vector(self, variable: Variable) -> bool:
        """Whether elements for successive values of `variable` can be computed side by side, from contiguous or equal
        operands."""
        if variable in self.rigid or any(step_of(b.expression, variable) not in (0, 1) for b in self.bounds):
            return False
        return all(in_vectors(r, variable) for r in self.reads)


SPACINGS = frozenset({(0, 1), (1, 1)})
"""How the elements of a vector may lie in memory, whatever they are."""

WIDE_SPACINGS = frozenset({(2, 1), (3, 1), (4, 1), (1, 2), (1, 4)})
"""How elements of at least four bytes may lie, too."""


def in_vectors(read: Read, variable: Variable) -> bool:
    """Whether the elements for successive values of `variable` can be loaded as a vector."""
    found = spacing(read.position, variable)
    return found in SPACINGS or found in WIDE_SPACINGS and read.value.dtype.itemsize >= 4


def spacing(expression: Index, variable: Variable) -> tuple[int, int] | None:
    """(step, repeats): `expression` moves by `step` after so many steps of `variable`, which starts at a multiple of
    them; None when it moves otherwise."""
    step = step_of(expression, variable)
    if step is not None:
        return step, 1
    terms = expression.terms if isinstance(expression, Sum) else ((expression, 1),)
    moving = [(atom, c) for atom, c in terms if variable in variables_of(atom)]
    match moving:
        case [(Quotient(operand=operand, divisor=int(repeats)), int(c))] if operand == variable:
            return c, repeats
    return None


def step_of(expression: Index, variable: Variable) -> int | None:
    """How far `expression` moves with one step of `variable`; None when that is not constant."""
    return coefficient(expression, variable)


def contiguous_axis(expressions: Sequence[tuple[Index, int]], axes: Sequence[Variable], allowed: Sequence[int]) -> int:
    """The axis of `allowed` along which most memory is contiguous, the last one when nothing is; -1 when none is
    allowed.

    `expressions` are positions with the sizes of the values they point into.
    """
    scores = dict.fromkeys(allowed, 0)
    for expression, size in expressions:
        for dim in allowed:
            if step_of(expression, axes[dim]) == 1:
                scores[dim] += typical(size)
    return max(allowed, key=lambda dim: (scores[dim], dim), default=-1)


def strides_of(operand: Value, producers: Mapping[Value, Node]) -> Sequence[int] | None:
    """How far one step along each axis of a (view of a) value goes in memory; None where that is not constant."""
    axes = variables(operand.type.sizes)
    value: Value = operand
    indices: Sequence[IndexLike] = axes
    while (node := producers.get(value)) is not None and node.op.has(Trait.VIEW):
        assert node.op.index is not None
        value, indices = node.inputs[0], node.op.index(indices, node.inputs[0].type, node.attrs)
    steps = affine(flatten(indices, value.type.sizes), axes)
    return None if steps is None else steps[1]
