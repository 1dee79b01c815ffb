"""Loop spaces: which loops a stage has, in which order, and which neighbouring axes become one loop.

Everything is decided from the positions that the stage's code would touch, found by a rehearsal: the code of one element is
generated into a kernel that is thrown away.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ..ir.graph import Node, Value
from ..ir.index import Constant, Index, Variable, affine, unflatten, variables_of
from ..ir.loops import Apply, For, Let, Scalar, Set, Statement, Store
from .lower_builder import KernelBuilder
from .lower_points import Memory, NotVectorizable, Place, Points, Registers

CHEAP = frozenset("""add sub mul neg abs maximum minimum select convert bitcast eq ne lt le gt ge logical_and logical_or logical_not
logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not shift_left shift_right fma fmax fmin sign copysign isnan isinf isfinite
signbit floor ceil trunc round splat check_index""".split())
"""Words that take about as long as an addition."""

MODERATE = frozenset("div sqrt reciprocal rsqrt remainder floor_divide fmod hypot".split())


def word_cost(word: str) -> int:
    """How many additions one word of the scalar vocabulary takes, roughly."""
    return 1 if word in CHEAP else 4 if word in MODERATE else 12


@dataclass(frozen=True)
class Rehearsal:
    """What the code of one element does.

    Attributes:
        touched: index expressions that it depends on, with the size of the buffer (0: no load).
        cost: additions' worth of work.
        vectorizable: variables that may stand for LANES successive values.
    """

    touched: tuple[tuple[Index, int], ...]
    cost: int
    vectorizable: frozenset[Variable] = frozenset()


Element = Callable[[Points], object]
"""Generates the code of one element."""


def rehearse(places: Mapping[Value, Place], producers: Mapping[Value, Node], variables: Sequence[Variable], element: Element,
             vector: Variable | None = None) -> Rehearsal:
    """Generates the code of one element inside loops over `variables` and reports on it."""
    builder = KernelBuilder()
    for variable in variables:
        builder.open(variable, 0, 1)
    flat = {v: Memory(p.buffer) if isinstance(p, Memory) else Registers(p.elements) for v, p in places.items()}
    for place in places.values():
        if isinstance(place, Registers):
            builder.adopt(place.elements.values())
    points = Points(builder, flat, producers)
    points.vector = vector
    element(points)
    return Rehearsal(tuple(points.touched), sum(statements_cost(level.statements) for level in builder.levels))


def can_vectorize(places: Mapping[Value, Place], producers: Mapping[Value, Node], variables: Sequence[Variable], element: Element,
                  vector: Variable) -> bool:
    """Whether successive values of `vector` can be computed LANES at a time."""
    try:
        rehearse(places, producers, variables, element, vector)
    except NotVectorizable:
        return False
    return True


def statements_cost(statements: Sequence[Statement]) -> int:
    """Additions' worth of work of straight-line statements."""
    total = 0
    for s in statements:
        match s:
            case Let(value=value) | Set(value=value) | Store(value=value):
                total += scalar_cost(value)
            case For(body=body):
                total += statements_cost(body)
    return total


def scalar_cost(scalar: Scalar) -> int:
    """Additions' worth of work of a scalar expression; loads and locals count 1."""
    if isinstance(scalar, Apply):
        return word_cost(scalar.word) + sum(scalar_cost(o) for o in scalar.operands if isinstance(o, Apply))
    return 1


@dataclass(frozen=True)
class Axis:
    """One loop: a variable over the product of some axes of the space."""

    variable: Variable
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """The trip count."""
        assert isinstance(self.variable.size, int)
        return self.variable.size


def axes_of(builder: KernelBuilder, sizes: Sequence[int], order: Sequence[Sequence[int]],
            touched: Sequence[tuple[Index, int]], variables: Sequence[Variable]) -> list[list[Axis]]:
    """Loops for the axes `order[0]`, then `order[1]`, ...: axes of one group are merged where every position allows.

    `touched` is about `variables`, one per axis of `sizes`. Axes of size 1 get no loop.
    """
    groups = []
    for dims in order:
        merged: list[list[int]] = []
        for dim in (d for d in dims if sizes[d] != 1):
            if merged and _mergeable(merged[-1][-1], dim, sizes, touched, variables):
                merged[-1].append(dim)
            else:
                merged.append([dim])
        groups.append(merged)
    names = iter("ijklmnpq" * 4)
    return [[Axis(builder.variable(next(names), prod(sizes[d] for d in dims)), tuple(dims)) for dims in merged] for merged in groups]


def _mergeable(outer: int, inner: int, sizes: Sequence[int], touched: Sequence[tuple[Index, int]],
               variables: Sequence[Variable]) -> bool:
    """Whether every position moves through `outer` as `sizes[inner]` steps of `inner`."""
    for expression, _ in touched:
        mentioned = variables_of(expression)
        if variables[outer] not in mentioned and variables[inner] not in mentioned:
            continue
        steps = affine(expression, mentioned)
        if steps is None:
            return False
        step = dict(zip(mentioned, steps[1], strict=True))
        if step.get(variables[outer], 0) != step.get(variables[inner], 0) * sizes[inner]:
            return False
    return True


def indices_of(axes: Sequence[Axis], sizes: Sequence[int]) -> tuple[Index, ...]:
    """The index of every axis of the space, from the loops' variables."""
    indices: list[Index] = [Constant(0)] * len(sizes)
    for axis in axes:
        for dim, index in zip(axis.dims, unflatten(axis.variable, [sizes[d] for d in axis.dims]), strict=True):
            indices[dim] = index
    return tuple(indices)


def contiguous_axis(touched: Sequence[tuple[Index, int]], variables: Sequence[Variable], allowed: Sequence[int]) -> int:
    """The axis of `allowed` along which most of the touched memory is contiguous; the last one of them when nothing is."""
    scores = dict.fromkeys(allowed, 0)
    for expression, size in touched:
        mentioned = variables_of(expression)
        steps = affine(expression, mentioned)
        if steps is None:
            continue
        for variable, step in zip(mentioned, steps[1], strict=True):
            if step == 1 and variable in variables and (dim := variables.index(variable)) in scores:
                scores[dim] += size
    return max(allowed, key=lambda dim: (scores[dim], dim))
