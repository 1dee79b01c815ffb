"""The bookkeeping of planning: which buffer holds which value of a region, and whether a node may write into it.

A region (a graph, the body of a loop, a branch) is lowered with its params bound to buffers and with a target buffer
for each result. A result is computed right in its target when every other reader of what stands there comes earlier;
otherwise it is copied there at the end of the region. Written params, carried values of loops and results of branches
are all the same problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..backends.base import KernelCall, KernelCalls
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.plan import Copy, Space
from ..ir.text import value_names
from .buffers import Buffer
from .layout import LOOP_WORDS
from .order import readers_first

NONE: frozenset[int] = frozenset()


def must_share(call: KernelCall) -> list[tuple[Value, Value]]:
    """(output, input) values of a call that must stand in one memory."""
    return [(call.arguments[o], call.arguments[k]) for o, k in call.shared]  # type: ignore[misc]


def changes(node: Node, calls: Sequence[KernelCall]) -> list[tuple[Value, Value]]:
    """(output, input) values of a node that stand in one memory when nothing is in the way: updates, and what a loop
    carries."""
    pairs = [pair for call in calls for pair in must_share(call)]
    if node.op is OPS.loop or node.op is OPS.while_loop:
        first = 2 if node.op is OPS.loop else 0
        pairs += zip(node.outputs, node.inputs[first : first + node.attrs["carried"]], strict=False)
    return pairs


def aliases_of(graph: Graph, calls: KernelCalls) -> dict[Value, Value]:
    """The views that need no code, with the value whose memory they are; others than `reshape` are read by library
    calls only. A sequence with another row is where it was."""
    roots: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op.has(Trait.VIEW) and node not in calls or node.op is OPS.row_update:
            roots[node.output] = roots.get(node.inputs[0], node.inputs[0])
    return roots


class Memory:
    """What all regions of one plan share: the buffers, the clock, the loops around the current step."""

    def __init__(self, calls: KernelCalls) -> None:
        self.calls = calls
        self.time = 0
        self.arena: list[Buffer] = []
        self.rows: list[tuple[Buffer, Buffer, int, int]] = []
        """For each buffer in the space ROW: the sequence, the index, the first byte, the bytes that it moves on."""
        self.words = 0
        self.constants: dict[bytes, Buffer] = {}
        self.nothing = Buffer(Space.FRAME, 0, 0)  # where values stand that hold nothing yet (the op `empty`)
        self.loops: list[tuple[int, set[Buffer]]] = []
        self.regions = 0

    def fresh(self, nbytes: int) -> Buffer:
        """New memory: a frame word for up to 8 bytes, else a part of the arena."""
        if nbytes <= 8:
            return self.word(nbytes)
        buffer = Buffer(Space.ARENA, 0, nbytes)
        self.arena.append(buffer)
        return buffer

    def word(self, nbytes: int) -> Buffer:
        """New words of the frame for `nbytes` bytes."""
        buffer = Buffer(Space.FRAME, 0, nbytes, 8 * self.words)
        self.words += max(1, -(-nbytes // 8))
        return buffer

    def index(self) -> Buffer:
        """The index of a new loop: the first word of its state."""
        return Buffer(Space.FRAME, 0, 8, self.word(8 * LOOP_WORDS).offset)

    def row(self, base: Buffer, index: Buffer, nbytes: int, step: int, offset: int) -> Buffer:
        """Memory that is row `step * index + offset` of a sequence."""
        self.rows.append((base, index, offset * nbytes, step * nbytes))
        return Buffer(Space.ROW, len(self.rows) - 1, nbytes)

    def loop_name(self, index: Buffer) -> str:
        """The name of a loop's index: both bodies of a loop read the same one."""
        return f"i{index.offset // 8}"

    def constant(self, data: bytes) -> Buffer:
        """Frame words that hold `data` from the start; never written."""
        if data not in self.constants:
            self.constants[data] = self.word(len(data))
        return self.constants[data]

    def tick(self, buffers: Iterable[Buffer]) -> None:
        """One step of time, in which `buffers` are used. What lives since before a loop lives until the loop's end."""
        self.time += 1
        for buffer in buffers:
            buffer.first = self.time if buffer.first < 0 else buffer.first
            buffer.last = self.time
            for start, held in self.loops:
                if buffer.first <= start:
                    held.add(buffer)
                    break

    def enter_loop(self, buffers: Iterable[Buffer]) -> None:
        """A loop begins that uses `buffers`."""
        self.tick(buffers)
        self.loops.append((self.time, set()))

    def leave_loop(self, buffers: Iterable[Buffer]) -> None:
        """The innermost loop ends."""
        _, held = self.loops.pop()
        self.tick([*held, *buffers])


@dataclass(frozen=True, slots=True)
class Move:
    """A copy that belongs to a group that happens at once."""

    source: Any
    target: Buffer
    reason: str


class Region:
    """One graph on its way into steps: where values stand, when they die, where results have to end.

    An alias (a view that is the whole of its base) has the memory of its root; everything below is kept by root.
    """

    def __init__(
        self,
        memory: Memory,
        graph: Graph,
        params: Sequence[Buffer],
        targets: Sequence[Buffer],
        labels: Mapping[Value, str] | None = None,
    ) -> None:
        """Binds the params of `graph` to buffers and its results to targets; `labels` renames params as the values
        they are outside."""
        self.memory, self.graph, self.targets = memory, graph, targets
        self.aliases = aliases_of(graph, memory.calls)
        self.local: set[Buffer] = set()  # buffers that were made here
        self.place: dict[Value, Buffer] = {}
        self.residents: dict[Buffer, list[Value]] = {}
        self.steps: list[Any] = []
        self.rows: dict[Node, Buffer] = {}
        mark = f"'{memory.regions}" if memory.regions else ""
        memory.regions += 1
        self.names = {v: f"%{name}{mark}" for v, name in value_names(graph).items()} | dict(labels or {})
        for param, buffer in zip(graph.params, params, strict=True):
            self.settle(param, buffer)
        self.want: dict[Value, Buffer] = {}  # where a result has to end
        for result, target in zip(graph.results, targets, strict=True):
            self.want.setdefault(self.find(result), target)
        self._want_rows()
        self.nodes = readers_first(graph, self.find, self.overwrites())
        self.last_use: dict[Value, int] = {}
        self.defined: dict[Value, int] = {}
        for i, node in enumerate(self.nodes):
            extents = [c.extent for c in memory.calls.get(node, ()) if isinstance(c.extent, Value)]
            self.last_use.update((self.find(v), i) for v in (*node.inputs, *extents))
            for value in node.outputs:
                self.defined.setdefault(self.find(value), i)
        self.last_use.update((self.find(r), len(self.nodes)) for r in graph.results)
        self._want_ahead()

    def _want_ahead(self) -> None:
        """Lets what a node changes in place be computed where the result has to end, if the node is its last reader."""
        for i in range(len(self.nodes) - 1, -1, -1):
            for output, value in changes(self.nodes[i], self.memory.calls.get(self.nodes[i], ())):
                target, root = self.want.get(self.find(output)), self.find(value)
                if target is not None and self.last_use[root] == i and root in self.defined:
                    self.want.setdefault(root, target)

    def _want_rows(self) -> None:
        """Lets rows be computed where they belong."""
        for node in self.graph.nodes:
            if node.op is OPS.row_update:
                x, u, index = node.inputs
                attrs = node.attrs
                row = self.memory.row(self.at(x), self.at(index), u.type.nbytes, attrs["step"], attrs["offset"])
                self.local.add(row)
                self.rows[node] = row
                self.want.setdefault(self.find(u), row)

    def overwrites(self) -> Iterator[tuple[Node, Value]]:
        """What nodes would like to overwrite: what stands where their result must end, and what they change a part
        of."""
        for node in self.graph.nodes:
            for output in node.outputs:
                for value in self.residents.get(self.want.get(self.find(output)), ()):  # type: ignore[arg-type]
                    yield node, value
            for call in self.memory.calls.get(node, ()):
                for _, value in must_share(call):
                    yield node, value

    def find(self, value: Value) -> Value:
        """The value whose memory `value` is."""
        return self.aliases.get(value, value)

    def at(self, value: Value) -> Buffer:
        """The buffer of a value."""
        return self.place[self.find(value)]

    def label(self, value: Value) -> str:
        """The name of what stands in a value's memory."""
        return self.names[self.find(value)]

    def slot(self, value: Value) -> Any:
        """A value's buffer and label: a Pending slot."""
        return self.at(value).slot(self.label(value))

    def settle(self, value: Value, buffer: Buffer) -> None:
        """From now on `value` stands in `buffer`."""
        self.place[value] = buffer
        self.residents.setdefault(buffer, []).append(value)

    def fresh(self, nbytes: int) -> Buffer:
        """New memory that belongs to this region."""
        buffer = self.memory.fresh(nbytes)
        self.local.add(buffer)
        return buffer

    def emit(self, step: Any, buffers: Iterable[Buffer]) -> None:
        """Appends a step that uses `buffers`."""
        self.memory.tick(buffers)
        self.steps.append(step)

    def is_free(self, buffer: Buffer, i: int, inputs: Sequence[Value], allowed: frozenset[int]) -> bool:
        """Whether node `i` may write `buffer`: what stands there is dead by then, or read at last by it at input
        numbers `allowed`."""
        if buffer not in self.local and buffer not in self.targets:
            return False
        if buffer.space is Space.ROW and buffer in self.local and self.residents.get(buffer):
            return False  # it stays there
        for value in self.residents.get(buffer, ()):
            last = self.last_use.get(value, -1)
            if last > i:
                return False
            if last == i and any(self.find(v) is value and k not in allowed for k, v in enumerate(inputs)):
                return False
        return True

    def is_in_the_way(self, buffer: Buffer, output: Value) -> bool:
        """Whether `output` would stand in `buffer` at the time when another value wants to be computed there."""
        return any(
            target is buffer and other is not output and self.last_use.get(output, -1) >= self.defined.get(other, -1)
            for other, target in self.want.items()
        )

    def choose(
        self, i: int, output: Value, allowed: frozenset[int], preferred: Sequence[int], taken: Sequence[Buffer]
    ) -> Buffer:
        """The buffer for an output of node `i`: its target, or the memory of one of the `preferred` inputs when it
        dies, or new memory.

        `allowed` are the input numbers that the node may still read while it writes this output.
        """
        inputs = self.nodes[i].inputs
        target = self.want.get(output)
        if target is not None and target not in taken and self.is_free(target, i, inputs, allowed):
            return target
        for k in preferred:
            buffer = self.at(inputs[k])
            if (
                buffer.nbytes == output.type.nbytes
                and buffer not in taken
                and self.is_free(buffer, i, inputs, allowed)
                and not self.is_in_the_way(buffer, output)
            ):
                return buffer
        return self.fresh(output.type.nbytes)

    def move_all(self, moves: Sequence[Move], node: Node | None) -> None:
        """Copies that happen at once: ordered so that nothing is overwritten before it is read, cycles broken by one
        more copy."""
        pending = [m for m in moves if m.source.buffer not in (m.target, self.memory.nothing)]
        while pending:
            ready = next(
                (m for m in pending if all(o.source.buffer is not m.target for o in pending if o is not m)), None
            )
            if ready is None:
                source = pending[0].source
                spare = self.fresh(source.buffer.nbytes).slot(source.value)
                self.copy(Move(source, spare.buffer, "values change places"), node)
                pending = [replace(m, source=spare) if m.source.buffer is source.buffer else m for m in pending]
                continue
            pending.remove(ready)
            self.copy(ready, node)

    def copy(self, move: Move, node: Node | None) -> None:
        """One copy of a whole buffer."""
        target = move.target.slot(move.source.value)
        self.emit(Copy(move.source, target, move.reason, node), [move.source.buffer, move.target])
