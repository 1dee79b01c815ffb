"""Value numbering of a region: equal numbers are surely equal values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ..ir.graph import Graph, Value
from ..ir.op import Trait
from ..ir.text import print_attr

Numbers = dict[Hashable, int]
"""What a value is computed from -> its number; may be shared by several regions."""


def number_values(region: Graph, params: Iterable[Hashable], numbers: Numbers) -> dict[Value, int]:
    """A number for each value of `region`, supposing that params with equal keys in `params` are equal."""

    def number(key: Hashable) -> int:
        return numbers.setdefault(key, len(numbers))

    known = {param: number(key) for param, key in zip(region.params, params, strict=True)}
    for node in region.nodes:
        inputs = [known[v] for v in node.inputs]
        order = tuple(sorted(inputs) if node.op.has(Trait.COMMUTATIVE) else inputs)
        attrs = tuple(print_attr(node.attrs[name]) for name in sorted(node.attrs))
        for k, value in enumerate(node.outputs):
            known[value] = number((node.op, order, attrs, tuple(map(str, node.regions)), k))
    return known
