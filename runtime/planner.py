"""Makes the plan of a fused graph: in which order things run, where results live, and which copies are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from ..backends.base import KernelCall, KernelCalls
from ..ir.errors import VerifyError
from ..ir.graph import Graph, Node, Value
from ..ir.ops import OPS
from ..ir.plan import EMPTY, Body, Call, Carry, Cond, Copy, Keep, Last, Loop, LoopCall, Plan, Row, Space, While
from ..ir.types import TensorType
from .buffers import Buffer, Pending, place_in_arena
from .regions import NONE, Memory, Move, Region, must_share

ALTERNATE_BYTES = 4096
"""Carried values from this size on alternate between two pieces of memory when they cannot be computed in place."""

ALTERNATE_NODES = 200
"""Loop bodies with more nodes are not written down twice for that."""


def plan_program(graph: Graph, calls: KernelCalls) -> Plan:
    """The plan of a fused graph with kernel calls; `graph.notes["writes"]` says which params are written."""
    memory = Memory(calls)
    writes: Mapping[int, int] = graph.notes.get("writes", {})
    inputs = [Buffer(Space.INPUT, i, p.type.nbytes) for i, p in enumerate(graph.params)]
    new = [j for j in range(len(graph.results)) if j not in writes]
    outputs = {j: Buffer(Space.OUTPUT, n, graph.results[j].type.nbytes) for n, j in enumerate(new)}
    targets = [inputs[writes[j]] if j in writes else outputs[j] for j in range(len(graph.results))]
    region = Lowering(memory, graph, inputs, targets)
    steps = region.run()
    arena = place_in_arena(memory.arena)
    params = tuple(b.slot(region.label(p)) for b, p in zip(inputs, graph.params, strict=True))
    results = [t.slot(region.label(r)) for t, r in zip(targets, graph.results, strict=True)]
    constants = [(b.slot(constant_name(b)).placed(), data) for data, b in memory.constants.items()]
    return Plan(
        graph.name,
        tuple(p.type for p in graph.params),
        tuple(graph.results[j].type for j in new),
        placed(params),
        placed(tuple(results)),
        tuple(constants),
        8 * memory.words,
        arena,
        placed(tuple(steps)),
        tuple(Row(x.slot("%rows").placed(), i.slot("%index").placed(), *moves) for x, i, *moves in memory.rows),
    )


def placed(record: Any) -> Any:
    """`record` with every pending slot in it placed."""
    if isinstance(record, Pending):
        return record.placed()
    if isinstance(record, tuple):
        return tuple(map(placed, record))
    if is_dataclass(record) and not isinstance(record, type) and type(record).__module__ == Plan.__module__:
        inside = [f.name for f in fields(record) if f.name not in ("node", "code")]
        return replace(record, **{name: placed(getattr(record, name)) for name in inside})
    return record


class Lowering(Region):
    """Lowers the nodes of one region to steps."""

    def run(self) -> list[Any]:
        """The steps that leave every result in its target."""
        for i, node in enumerate(self.nodes):
            self.lower(i, node)
        pairs = zip(self.graph.results, self.targets, strict=True)
        self.move_all([Move(self.slot(r), t, self.why_moved(r)) for r, t in pairs], None)
        return self.steps

    def why_moved(self, result: Value) -> str:
        """Why a result does not stand where it must end."""
        if self.find(result) in self.graph.params:
            return "a result is what was passed in"
        if self.at(result) in self.targets:
            return "a value is a result more than once"
        return "a result cannot be computed in the memory where it must end"

    def lower(self, i: int, node: Node) -> None:
        """One node."""
        if node in self.memory.calls:
            (self.loop_kernel if node.op is OPS.loop else self.kernels)(i, node)
        elif node.op is OPS.constant or node.op is OPS.literal:
            buffer = self.memory.constant(constant_bytes(node))
            self.names[node.output] = constant_name(buffer)
            self.settle(node.output, buffer)
        elif node.op is OPS.empty:
            self.names[node.output] = EMPTY
            self.settle(node.output, self.memory.nothing)
        elif node.op is OPS.row_update:
            self.row(node)
        elif node.op is OPS.loop:
            self.loop(i, node)
        elif node.op is OPS.while_loop:
            self.while_loop(i, node)
        elif node.op is OPS.cond:
            self.cond(i, node)
        elif node.output not in self.aliases:
            raise VerifyError(f"there is no code for {node.op.name}")

    def place_outputs(
        self, i: int, node: Node, rules: Mapping[int, tuple[frozenset[int], Sequence[int]]]
    ) -> list[Buffer]:
        """A buffer for each output of node `i`; `rules` has (allowed, preferred) input numbers by output number."""
        buffers: list[Buffer] = []
        for j, output in enumerate(node.outputs):
            buffers.append(self.choose(i, output, *rules.get(j, (NONE, ())), buffers))
        return buffers

    def settle_outputs(self, node: Node, buffers: Sequence[Buffer]) -> None:
        """The outputs of `node` stand in `buffers` now."""
        for output, buffer in zip(node.outputs, buffers, strict=True):
            self.settle(output, buffer)

    def row(self, node: Node) -> None:
        """A row of a sequence, which usually stands there already."""
        x, u, _ = node.inputs
        row = self.rows[node]
        self.move_all([Move(self.slot(u), row, "a row of a sequence stands elsewhere, where it is needed too")], node)
        self.emit(Keep(row.slot(self.label(u)), self.slot(x), node), [row])

    # Kernels

    def prepare(self, i: int, node: Node) -> list[Buffer]:
        """Buffers for the outputs of a node with kernels; those that must be an input's memory hold the input then."""
        calls = self.memory.calls[node]
        buffers = self.place_outputs(i, node, {j: self.sharing(node, calls, o) for j, o in enumerate(node.outputs)})
        reason = f"{node.op.name} changes a part of a value that is still needed"
        self.move_all(
            [
                Move(self.slot(value), buffers[node.outputs.index(output)], reason)
                for call in calls
                for output, value in must_share(call)
            ],
            node,
        )
        return buffers

    def sharing(self, node: Node, calls: Sequence[KernelCall], output: Value) -> tuple[frozenset[int], list[int]]:
        """The inputs that may be read while `output` is written, and those of them whose memory it could take."""
        roots = [self.find(v) for v in node.inputs]
        allowed, writers = set(range(len(roots))), [n for n, call in enumerate(calls) if output in call.arguments]
        shared = [value for call in calls for o, value in must_share(call) if o is output]
        for n, call in enumerate(calls):
            for position, value in enumerate(call.arguments):
                pairs = call.shared if shared else call.in_place
                paired = any(call.arguments[o] is output and k == position for o, k in pairs)
                if isinstance(value, Value) and (n > writers[0] or (n == writers[0] and not paired)):
                    allowed -= {k for k, root in enumerate(roots) if root is self.find(value)}
            if isinstance(call.extent, Value):
                allowed -= {k for k, root in enumerate(roots) if root is self.find(call.extent)}
        if node.op is OPS.loop:
            allowed -= {0, 1}
        return frozenset(allowed), sorted(allowed)

    def kernels(self, i: int, node: Node) -> None:
        """A node with kernels that run one after another."""
        buffers = self.prepare(i, node)
        private: dict[Value, Buffer] = {}
        for call in self.memory.calls[node]:
            step = self.call(node, call, buffers, private)
            self.emit(step, used(step))
        self.settle_outputs(node, buffers)

    def loop_kernel(self, i: int, node: Node) -> None:
        """A loop that is one kernel."""
        buffers = self.prepare(i, node)
        (call,) = self.memory.calls[node]
        start, stop = self.slot(node.inputs[0]), self.slot(node.inputs[1])
        step = self.call(node, call, buffers, {})
        nonempty = len(node.outputs) > node.attrs["carried"]
        self.emit(LoopCall(step, start, stop, nonempty, node), [*used(step), start.buffer, stop.buffer])
        self.settle_outputs(node, buffers)

    def call(self, node: Node, call: KernelCall, buffers: Sequence[Buffer], private: dict[Value, Buffer]) -> Call:
        """One kernel call; `private` holds values that pass between the calls of one node."""
        slots, modes = [], []
        shared = {
            k: node.outputs.index(output) for (_, k), (output, _) in zip(call.shared, must_share(call), strict=True)
        }
        for position, argument in enumerate(call.arguments):
            if isinstance(argument, TensorType):
                slots.append(self.fresh(argument.nbytes).slot("%scratch"))
                modes.append("s")
            elif isinstance(argument, bytes):
                buffer = self.memory.constant(argument)
                slots.append(buffer.slot(constant_name(buffer)))
                modes.append("r")
            elif argument in node.outputs:
                slots.append(buffers[node.outputs.index(argument)].slot(self.label(argument)))
                modes.append("w")
            elif position in shared:
                slots.append(buffers[shared[position]].slot(self.label(argument)))
                modes.append("r")
            elif self.place.get(self.find(argument)) is self.memory.nothing:
                slots.append(self.fresh(argument.type.nbytes).slot(EMPTY))
                modes.append("r")
            elif self.find(argument) in self.place:
                slots.append(self.slot(argument))
                modes.append("r")
            else:
                modes.append("r" if argument in private else "w")
                buffer = private.setdefault(argument, private.get(argument) or self.fresh(argument.type.nbytes))
                slots.append(buffer.slot(f"%part{list(private).index(argument)}"))
        extent = call.extent if isinstance(call.extent, int) else self.slot(call.extent)
        return Call(
            call.kernel, tuple(slots), "".join(modes), extent, call.chunk, (*call.in_place, *call.shared), node=node
        )

    # Control

    def labels(self, params: Sequence[Value], values: Sequence[Value]) -> dict[Value, str]:
        """Params of a region with the names of the values that they are outside."""
        return {p: self.label(v) for p, v in zip(params, values, strict=True)}

    def carry_in(self, i: int, node: Node, first: int, carried: int) -> list[Buffer]:
        """Buffers for the outputs of a loop; those of carried values hold the start values afterwards."""
        positions = range(first, first + carried)
        # Other carried start values may stand in a carried buffer: all are moved at once, before the loop begins.
        buffers = self.place_outputs(i, node, {j: (frozenset(positions), (first + j,)) for j in range(carried)})
        reason = "the start value of a carried value is still needed, or stands elsewhere"
        starts = [self.slot(node.inputs[k]) for k in positions]
        self.move_all([Move(start, b, reason) for start, b in zip(starts, buffers, strict=False)], node)
        return buffers

    def starts(self, values: Sequence[Value], buffers: Sequence[Buffer]) -> tuple[Any, ...]:
        """The carried values before a loop, where they have been brought."""
        return tuple(b.slot(self.label(v)) for v, b in zip(values, buffers, strict=False))

    def loop(self, i: int, node: Node) -> None:
        """A loop whose body is a sequence of steps."""
        carried = node.attrs["carried"]
        buffers = self.carry_in(i, node, 2, carried)
        start, stop, index = self.slot(node.inputs[0]), self.slot(node.inputs[1]), self.memory.index()
        self.memory.enter_loop([start.buffer, stop.buffer, *map(self.at, node.inputs[2 + carried :]), *buffers])
        rows = len(self.memory.rows)
        inner = self.iteration(node, index, buffers, buffers)
        others = [self.fresh(b.nbytes) if k < carried and inner.must_alternate(k) else b for k, b in enumerate(buffers)]
        if others == buffers:
            regions = [inner]
        else:
            del self.memory.rows[rows:]
            regions = [self.iteration(node, index, buffers, others), self.iteration(node, index, others, buffers)]
            self.memory.tick(others)
        bodies = tuple(self.body(region, region.graph.params[1 : 1 + carried]) for region in regions)
        self.memory.leave_loop([*buffers, *others])
        self.settle_outputs(node, buffers)
        names = [regions[-1].label(p) for p in node.regions[0].params[1 : 1 + carried]]
        odd = tuple(
            Copy(o.slot(name), b.slot(name), "brings a value home after an odd number of iterations", node)
            for name, o, b in zip(names, others, buffers, strict=False)
            if o is not b
        )
        results = tuple(map(self.slot, node.outputs))
        lasts = tuple(
            Last(slot, tuple(region.label(region.graph.results[k]) for region in regions))
            for k, slot in enumerate(results)
            if k >= carried
        )
        starts = self.starts(node.inputs[2:], buffers[:carried])
        counter = index.slot(inner.label(node.regions[0].params[0]))
        self.steps.append(Loop(counter, start, stop, starts, bodies, odd, results[:carried], lasts, node))

    def iteration(self, node: Node, index: Buffer, sources: Sequence[Buffer], targets: Sequence[Buffer]) -> Lowering:
        """The region of one iteration, which reads carried values in `sources` and leaves the next in `targets`."""
        carried, body = node.attrs["carried"], node.regions[0]
        invariants = node.inputs[2 + carried :]
        labels = self.labels(body.params[1 + carried :], invariants)
        labels[body.params[0]] = f"%{self.memory.loop_name(index)}"
        return Lowering(self.memory, body, [index, *sources[:carried], *map(self.at, invariants)], targets, labels)

    def must_alternate(self, k: int) -> bool:
        """Whether carried value `k` is large and computed by kernels that cannot write into its own memory."""
        result, target = self.find(self.graph.results[k]), self.targets[k]
        i = self.defined.get(result)
        if target.nbytes < ALTERNATE_BYTES or len(self.nodes) > ALTERNATE_NODES:
            return False
        if i is None or self.want[result] is not target:
            return False
        node = self.nodes[i]
        calls = self.memory.calls.get(node, ())
        if not calls or any(o is result for call in calls for o, _ in must_share(call)):
            return False
        return not self.is_free(target, i, node.inputs, self.sharing(node, calls, result)[0])

    def body(self, region: Lowering, params: Sequence[Value]) -> Body:
        """One iteration: its steps, and where its carried values stand before and after."""
        before = [(region.slot(p), region.label(p)) for p in params]
        steps = tuple(region.run())
        after = [
            (target.slot(region.label(r)), region.label(r))
            for target, r in zip(region.targets, region.graph.results, strict=True)
        ]
        return Body(tuple(Carry(*here, *there) for here, there in zip(before, after, strict=False)), steps)

    def while_loop(self, i: int, node: Node) -> None:
        """A loop that runs while its condition holds."""
        carried, (condition, body) = node.attrs["carried"], node.regions
        buffers, invariants, predicate = self.carry_in(i, node, 0, carried), node.inputs[carried:], self.fresh(1)
        self.memory.enter_loop([predicate, *map(self.at, invariants), *buffers])
        bound = [*buffers, *map(self.at, invariants)]
        inner = Lowering(self.memory, body, bound, buffers, self.labels(body.params[carried:], invariants))
        test = Lowering(self.memory, condition, bound, [predicate], inner.labels(condition.params, body.params))
        tests = tuple(test.run())
        iteration = self.body(inner, body.params[:carried])
        self.memory.leave_loop(buffers)
        self.settle_outputs(node, buffers)
        starts = self.starts(node.inputs, buffers)
        holds = predicate.slot(test.label(condition.results[0]))
        self.steps.append(While(tests, holds, starts, iteration, tuple(map(self.slot, node.outputs)), node))

    def cond(self, i: int, node: Node) -> None:
        """Two branches that leave their results in the same memory."""
        operands, everything = node.inputs[1:], frozenset(range(len(node.inputs)))
        rules = {
            j: (everything, [1 + r.params.index(r.results[j]) for r in node.regions if r.results[j] in r.params])
            for j in range(len(node.outputs))
        }
        buffers = self.place_outputs(i, node, rules)
        predicate = self.slot(node.inputs[0])
        self.memory.tick([predicate.buffer, *map(self.at, operands), *buffers])
        branches = []
        for region in node.regions:
            labels = self.labels(region.params, operands)
            branch = Lowering(self.memory, region, [*map(self.at, operands)], buffers, labels)
            branches.append((branch, tuple(branch.run())))
            self.memory.tick([*map(self.at, operands), *buffers])
        self.settle_outputs(node, buffers)
        results = tuple(
            Last(self.slot(o), tuple(b.label(b.graph.results[j]) for b, _ in branches))
            for j, o in enumerate(node.outputs)
        )
        self.steps.append(Cond(predicate, branches[0][1], branches[1][1], results, node))


def used(call: Call) -> Iterator[Buffer]:
    """The buffers that a call uses."""
    for slot in (*call.arguments, call.extent):
        if isinstance(slot, Pending):
            yield slot.buffer


def constant_name(buffer: Buffer) -> str:
    """The name of a constant's value: equal constants are one."""
    return f"%constant{buffer.offset // 8}"


def constant_bytes(node: Node) -> bytes:
    """The content of a constant or literal."""
    values = node.attrs["value"] if node.op is OPS.constant else node.attrs["values"]
    return np.asarray(values, node.attrs["dtype"].numpy).tobytes()
