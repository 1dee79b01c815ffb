"""Which axis of a node's operands an axis of its output is, as the letters of an einsum say it.

A link is one letter. A node can be computed for a range of indices of a letter from the same range of the operands that
have it and from the whole of those that do not; for a letter that the output lacks, that is one term of a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from ..ir.graph import Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.stages import CUMULATIVE, REDUCTIONS, product_axes

Axis = int | None


@dataclass(frozen=True, slots=True)
class Link:
    """A letter: the axis that has it, of the outputs and of each input; None where there is none."""

    output: Axis
    inputs: tuple[Axis, ...]
    local: int | None = None
    """The input that numbers the rows of others with this letter: for a range it counts from the start of the range."""


Producers = Mapping[Value, Node]
Links = Iterator[Link]


def links(node: Node, producers: Producers) -> Links:
    """The letters of a node; none for an op that nothing is known about. Axes of size one are left out."""
    if node.op.has(Trait.ELEMENTWISE):
        yield from _same_axes(node, range(node.output.type.rank))
    elif node.op in _LINKS:
        yield from _LINKS[node.op](node, producers)


def output_link(node: Node, axis: int, producers: Producers) -> Link | None:
    """The letter of an axis of the output."""
    return next((link for link in links(node, producers) if link.output == axis), None)


def _same_axes(node: Node, axes: range) -> Links:
    for d in axes:
        yield Link(d, (d,) * len(node.inputs))


def _reduction(node: Node, producers: Producers) -> Links:
    dims = node.attrs["dims"]
    kept = [d for d in range(node.inputs[0].type.rank) if d not in dims]
    yield from (Link(k, (d,)) for k, d in enumerate(kept))
    if node.op is OPS.sum:
        yield from (Link(None, (d,)) for d in dims)


def _line(node: Node, producers: Producers) -> Links:
    dim, rank = node.attrs["dim"], node.inputs[0].type.rank
    kept = [d for d in range(rank) if d != dim]
    same = node.outputs[0].type.rank == rank
    return (Link(d if same else k, (d,)) for k, d in enumerate(kept))


def _product(node: Node, producers: Producers) -> Links:
    left, right = product_axes(node)
    rank = node.output.type.rank
    for letter in dict.fromkeys((*left, *right)):
        found = tuple(axes.index(letter) if letter in axes else None for axes in (left, right))
        yield Link(letter if letter < rank else None, found)


def _constant(node: Node, producers: Producers) -> Links:
    return (Link(d, ()) for d in range(node.output.type.rank))


def _broadcast(node: Node, producers: Producers) -> Links:
    sizes, new = node.inputs[0].type.sizes, node.output.type.sizes
    lead = len(new) - len(sizes)
    return (Link(d, (d - lead if d >= lead and sizes[d - lead] == n else None,)) for d, n in enumerate(new))


def _reshape(node: Node, producers: Producers) -> Links:
    old, new = node.inputs[0].type.sizes, node.output.type.sizes
    place = {(prod(old[:d]), n): d for d, n in enumerate(old) if n != 1}
    found = ((d, place.get((prod(new[:d]), n))) for d, n in enumerate(new))
    return (Link(d, (e,)) for d, e in found if e is not None)


def _permute(node: Node, producers: Producers) -> Links:
    return (Link(k, (d,)) for k, d in enumerate(node.attrs["dims"]))


def _slice(node: Node, producers: Producers) -> Links:
    starts, steps, sizes = node.attrs["starts"], node.attrs["steps"], node.inputs[0].type.sizes
    whole = zip(starts, steps, sizes, node.output.type.sizes, strict=True)
    return (Link(d, (d,)) for d, (a, step, n, m) in enumerate(whole) if (a, step) == (0, 1) and n == m)


def _others(node: Node, used: tuple[int, ...]) -> Links:
    return (Link(d, (d,) * len(node.inputs)) for d in range(node.output.type.rank) if d not in used)


def _pad(node: Node, producers: Producers) -> Links:
    return _others(node, tuple(d for d, n in enumerate(node.output.type.sizes) if n != node.inputs[0].type.sizes[d]))


def _gather(node: Node, producers: Producers) -> Links:
    x, *indices = node.inputs
    rank, dims = indices[0].type.rank, node.attrs["dims"]
    rest = [d for d in range(x.type.rank) if d not in dims]
    for j in range(rank):
        yield from _rows(node, j, 1, producers, output=j)
        yield Link(j, (None, *(j for _ in indices)))
    yield from (Link(rank + k, (d, *(None for _ in indices))) for k, d in enumerate(rest))


def _scatter(node: Node, producers: Producers) -> Links:
    x, _, *indices = node.inputs
    rank, dims = indices[0].type.rank, node.attrs["dims"]
    rest = [d for d in range(x.type.rank) if d not in dims]
    for j in range(rank):
        yield from _rows(node, j, 2, producers)
    yield from (Link(d, (d, rank + k, *(None for _ in indices))) for k, d in enumerate(rest))


def _rows(node: Node, j: int, first: int, producers: Producers, output: Axis = None) -> Links:
    """Axis `j` of the indices, which begin at input `first`, when one of them numbers the rows of the input there."""
    for k, d in enumerate(node.attrs["dims"]):
        index = node.inputs[first + k]
        if node.inputs[0].type.sizes[d] == index.type.sizes[j] and is_counted(index, j, producers):
            inputs = (d, *(j for _ in node.inputs[1:]))
            yield Link(d if output is None else output, inputs, first + k)


def is_counted(value: Value, axis: int, producers: Producers) -> bool:
    """Whether every element of `value` is surely its own index on `axis`."""
    node = producers.get(value)
    if node is None:
        return False
    if node.op is OPS.iota:
        return node.attrs["dim"] == axis
    link = output_link(node, axis, producers) if node.op.has(Trait.VIEW) else None
    return link is not None and link.inputs[0] is not None and is_counted(node.inputs[0], link.inputs[0], producers)


_LINKS: Mapping[object, Callable[[Node, Producers], Links]] = {
    **{OPS[name]: _reduction for name in REDUCTIONS},
    **{OPS[name]: _line for name in (*CUMULATIVE, "argmax", "argmin", "sort")},
    OPS.dot_general: _product,
    OPS.iota: _constant,
    OPS.random_bits: lambda node, producers: (Link(d, (None,)) for d in range(node.output.type.rank)),
    OPS.broadcast: _broadcast,
    OPS.reshape: _reshape,
    OPS.permute: _permute,
    OPS.slice: _slice,
    OPS.flip: lambda node, producers: _others(node, node.attrs["dims"]),
    OPS.stop_gradient: lambda node, producers: _others(node, ()),
    OPS.pad: _pad,
    OPS.concatenate: lambda node, producers: _others(node, (node.attrs["dim"],)),
    OPS.gather: _gather,
    OPS.scatter: _scatter,
}
