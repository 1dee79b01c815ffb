"""Writes the levels of a group as loops over blocks of rows."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..ir.builder import Builder, Rebuilder
from ..ir.graph import Graph, Node, Value
from ..ir.index import row_major_strides
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.types import TensorType, int64
from .axes import Axis, Link
from .tile_groups import Group, Level, operands

Unit = Node | Level


Finish = Callable[[Graph], Graph]
"""What is done to the body of a loop when it is written."""


def with_loops(group: Group, block: int, finish: Finish) -> Graph:
    """The graph with a loop over blocks of `block` rows for each level, and one iteration more for the rows left."""
    b = Rebuilder(group.graph)
    for unit in _in_order(group):
        if isinstance(unit, Node):
            b.copy(unit)
            continue
        b.loc = unit.nodes[-1].loc
        values = [_start(b, v, group.rows[v]) for v in unit.outputs]
        whole, left = divmod(group.count, block)
        values = _loop(b, group, unit, values, Blocks(0, whole, block), finish)
        if left:
            values = _loop(b, group, unit, values, Blocks(whole, whole + 1, left, block), finish)
        b.loc = None
        b.env.update(zip(unit.outputs, values, strict=True))
    return b.done()


def _start(b: Rebuilder, value: Value, axis: Axis) -> Value:
    """What an output is before the first block: every row will be written, sums grow from zero."""
    if axis is None:
        return b.full(value.shape, 0, value.dtype)
    return b.empty(shape=value.shape, dtype=value.dtype)


def _in_order(group: Group) -> list[Unit]:
    """The nodes outside of the group and the levels, as near to the order of the graph as dependences allow."""
    units: list[Unit] = [n for n in group.graph.nodes if n not in group.links]
    position = {node: k for k, node in enumerate(group.graph.nodes)}
    maker: dict[Value, Unit] = {v: node for node in units for v in node.outputs}
    for level in group.levels:
        units.append(level)
        maker.update(dict.fromkeys(level.outputs, level))
    place = {u: position[u] if isinstance(u, Node) else position[u.nodes[0]] for u in units}
    after: dict[Unit, list[Unit]] = {}
    waiting = {}
    for unit in units:
        read = unit.inputs if isinstance(unit, Node) else [v for v, _ in operands(group, unit)]
        sources = {maker[v]: None for v in read if v in maker}
        waiting[unit] = len(sources)
        for source in sources:
            after.setdefault(source, []).append(unit)
    ready = [(place[u], k, u) for k, u in enumerate(units) if not waiting[u]]
    heapq.heapify(ready)
    order = []
    while ready:
        unit = heapq.heappop(ready)[2]
        order.append(unit)
        for other in after.get(unit, ()):
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, (place[other], units.index(other), other))
    return order


@dataclass(frozen=True)
class Blocks:
    """Iterations `first` to `stop`, of `rows` rows each; iteration i begins at row i * `step`."""

    first: int
    stop: int
    rows: int
    step: int = 0

    @property
    def distance(self) -> int:
        """How many rows there are from one iteration's first to the next one's."""
        return self.step or self.rows


def _loop(b: Rebuilder, group: Group, level: Level, values: list[Value], blocks: Blocks, finish: Finish) -> list[Value]:
    """Emits one loop that goes on from `values`, the outputs so far; the outputs after it."""
    body = _Body(b, group, level, blocks)
    region = finish(body.graph())
    bounds = [b.index_scalar(n) for n in (blocks.first, blocks.stop)]
    inputs = (*bounds, *values, *map(b.new, body.outside))
    hints = [v.hint for v in level.outputs]
    return list(b.add_node(OPS.loop, inputs, {"carried": len(values)}, regions=(region,), hints=hints).outputs)


@dataclass
class _Body:
    """The body of one loop in the making."""

    outer: Rebuilder
    group: Group
    level: Level
    blocks: Blocks
    outside: dict[Value, Value] = field(default_factory=dict)
    """Value of the graph -> the param of the body that it is."""

    def graph(self) -> Graph:
        """The body."""
        self.b = b = Builder("body")
        index = b.param(TensorType((), int64), "i")
        carried = [b.param(v.type, v.hint) for v in self.level.outputs]
        self.start = b.mul(index, b.index_scalar(self.blocks.distance))
        env: dict[tuple[Value, Axis], Value] = {key: self._operand(*key) for key in operands(self.group, self.level)}
        for node in self.level.nodes:
            self._node(node, self.group.links[node], env)
        results = [
            self._joined(value, param, env[value, self.group.rows[value]])
            for value, param in zip(self.level.outputs, carried, strict=True)
        ]
        return b.finish(results)

    def _operand(self, value: Value, axis: Axis) -> Value:
        """A value from outside, or the rows of it that belong to the block."""
        node = self.group.producers.get(value)
        if node is not None and node.op.has(Trait.CONSTANT) and not value.type.rank:
            return self.b.append(Node(node.op, (), node.attrs, (Value(value.type, value.hint),), node.loc)).output
        if value not in self.outside:
            self.outside[value] = self.b.param(value.type, value.hint)
        if axis is None:
            return self.outside[value]
        sizes = _with(value.shape, axis, self.blocks.rows)
        return self.b.dynamic_slice(self.outside[value], *self._starts(value, axis), sizes=sizes)

    def _starts(self, value: Value, axis: int) -> list[Value]:
        return [self.start if d == axis else self.b.index_scalar(0) for d in range(value.type.rank)]

    def _node(self, node: Node, link: Link, env: dict[tuple[Value, Axis], Value]) -> None:
        self.b.loc = node.loc
        inputs = [env[v, axis] for v, axis in zip(node.inputs, link.inputs, strict=True)]
        if link.local is not None:
            index = inputs[link.local]
            inputs[link.local] = self.b.iota(shape=index.shape, dim=link.inputs[link.local], dtype=index.dtype)
        if node.op is OPS.iota and node.attrs["dim"] == link.output:
            env[node.output, link.output] = self._numbers(node)
            return
        if node.op is OPS.random_bits:
            env[node.output, link.output] = self._random_bits(node, inputs[0], link.output)
            return
        attrs, hints = _block_attrs(node, link, self.blocks.rows), [v.hint for v in node.outputs]
        outputs = self.b.add_node(node.op, inputs, attrs, hints=hints).outputs
        env.update({(v, link.output): new for v, new in zip(node.outputs, outputs, strict=True)})

    def _numbers(self, node: Node) -> Value:
        """The numbers of the block's rows."""
        shape = _with(node.output.shape, node.attrs["dim"], self.blocks.rows)
        counted = self.b.iota(shape=shape, dim=node.attrs["dim"], dtype=int64)
        return self.b.cast(self.b.add(counted, self.b.expand(self.start, shape)), node.output.dtype)

    def _random_bits(self, node: Node, state: Value, axis: Axis) -> Value:
        """The bits of the block's elements, which are drawn by their numbers in the whole."""
        assert axis is not None
        shape, strides = _with(node.output.shape, axis, self.blocks.rows), row_major_strides(node.output.shape)
        element = self.b.expand(self.b.mul(self.start, self.b.index_scalar(strides[axis])), shape)
        for d, stride in enumerate(strides):
            element = self.b.add(element, self.b.scale(self.b.iota(shape=shape, dim=d, dtype=int64), stride))
        words = [self.b.slice(state, starts=(k,), stops=(k + 1,), steps=(1,)) for k in range(2)]
        seed, draw = (self.b.expand(self.b.view_as(word, ()), shape) for word in words)
        return self.b.threefry(seed, draw, element, dtype=node.output.dtype)

    def _joined(self, value: Value, whole: Value, block: Value) -> Value:
        """An output so far with what the block gives."""
        axis = self.group.rows[value]
        self.b.loc = self.group.producers[value].loc
        if axis is None:
            return self.b.add(whole, block)
        return self.b.dynamic_update(whole, block, *self._starts(value, axis))


def _with(numbers: tuple[Any, ...], axis: int, number: int) -> tuple[Any, ...]:
    return tuple(number if d == axis else n for d, n in enumerate(numbers))


def _block_attrs(node: Node, link: Link, rows: int) -> Mapping[str, Any]:
    """The attributes of a node that computes `rows` rows."""
    attrs = dict(node.attrs)
    if link.output is not None and "shape" in attrs:
        attrs["shape"] = _with(attrs["shape"], link.output, rows)
    if node.op is OPS.slice:
        (axis,) = link.inputs
        assert axis is not None
        attrs["stops"] = _with(attrs["stops"], axis, rows)
    return attrs
