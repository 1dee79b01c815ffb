"""Fused graph to kernels: every `fusion` node becomes one or more kernel calls."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from ..ir.errors import CompileError
from ..ir.graph import Graph, Node, Value
from ..ir.loops import Apply, Buffer, For, Kernel, Let, Load, Local, Role, Scalar, Statement, Store, named
from ..ir.ops import OPS
from ..ir.types import TensorType
from .base import KernelCall
from .lower_builder import KernelBuilder
from .lower_points import Memory, Place, _sizes, has_points
from .lower_stages import STAGES, Stages, emit_map, is_update

SERIAL_COST = 200_000
"""Additions' worth of work that one thread does before sharing pays."""

CHUNK_COST = 100_000
"""Additions' worth of work of one chunk of a shared kernel."""


def lower(graph: Graph) -> dict[Node, tuple[KernelCall, ...]]:
    """The kernel calls of every node of `graph`, and of the regions inside, that needs generated code."""
    calls: dict[Node, tuple[KernelCall, ...]] = {}
    for node in graph.nodes:
        if node.op is OPS.fusion:
            calls[node] = lower_fusion(node)
        else:
            for region in node.regions:
                calls.update(lower(region))
    return calls


@dataclass
class Arguments:
    """The arguments of a kernel call in the making."""

    builder: KernelBuilder
    buffers: list[Buffer] = field(default_factory=list)
    values: list[Value | TensorType] = field(default_factory=list)

    def add(self, value: Value | TensorType, hint: str, role: Role, same_as: str = "") -> Buffer:
        """One more argument and its buffer."""
        type = value.type if isinstance(value, Value) else value
        buffer = self.builder.buffer(hint, type.dtype, type.size, role, same_as)
        self.buffers.append(buffer)
        self.values.append(value)
        return buffer


def lower_fusion(node: Node) -> tuple[KernelCall, ...]:
    """The calls of one fusion node."""
    body = node.regions[0]
    builder = KernelBuilder()
    arguments = Arguments(builder)
    places: dict[Value, Place] = {}
    producers = {v: n for n in body.nodes for v in n.outputs}
    for outer, param in zip(node.inputs, body.params, strict=True):
        places[param] = Memory(arguments.add(outer, param.hint or "x", Role.INPUT))
    shared = _add_outputs(node, arguments, places, producers)
    plan = stage_plan(body)
    stages = Stages(builder, places, producers, split=len(plan) == 1)
    for values in plan:
        _place_scratch(stages, arguments, values)
        _emit_stage(stages, values)
    for buffer in builder.buffers:
        if buffer.role is Role.SCRATCH and buffer not in arguments.buffers:
            arguments.buffers.append(buffer)
            arguments.values.append(TensorType((buffer.size,), buffer.dtype))
    kernel = named(summary(body), _ordered(builder, arguments), builder.levels[0].statements, builder.sites)
    extent = stages.extent
    chunk = chunk_size(extent, stages.cost)
    in_place = in_place_pairs(kernel) if len(plan) == 1 else ()
    return (KernelCall(kernel, tuple(arguments.values), extent, chunk, in_place, shared),)


def _ordered(builder: KernelBuilder, arguments: Arguments) -> list[Buffer]:
    """Arguments in the order of the call, then the arrays on the stack."""
    return arguments.buffers + [b for b in builder.buffers if b.role is Role.LOCAL]


def _add_outputs(node: Node, arguments: Arguments, places: dict[Value, Place], producers: dict[Value, Node]) -> tuple[tuple[int, int], ...]:
    """Adds the outputs; the pairs (output, input) of arguments that must share memory because an update changes a part."""
    body = node.regions[0]
    shared = []
    for outer, result in zip(node.outputs, body.results, strict=True):
        producer = producers[result]
        base = ""
        if is_update(producer) and producer.inputs[0] in body.params:
            number = body.params.index(producer.inputs[0])
            base = arguments.buffers[number].name
            shared.append((len(arguments.values), number))
        places[result] = Memory(arguments.add(outer, result.hint or "out", Role.OUTPUT, base))
    return tuple(shared)


def _place_scratch(stages: Stages, arguments: Arguments, values: Sequence[Value]) -> None:
    for node in {stages.producers[v]: None for v in values}:
        for value in node.outputs if not has_points(node) or is_update(node) else ():
            if value not in stages.places:
                stages.places[value] = Memory(arguments.add(value.type, value.hint or node.op.name, Role.SCRATCH))


def _emit_stage(stages: Stages, values: Sequence[Value]) -> None:
    """One stage: a map over several values, or the nest of one node."""
    node = stages.producers[values[0]]
    if prod(_sizes(values[0])) == 0:
        return
    if node.op.name not in STAGES:
        emit_map(stages, values)
        return
    place = stages.places[values[0]]
    assert isinstance(place, Memory)
    if is_update(node) and not place.buffer.same_as:
        base = node.inputs[0]
        held = stages.places.get(base)
        stages.split = False
        emit_copy(stages, base, node.outputs[0])
        assert held is stages.places.get(base)
    STAGES[node.op.name](stages, node)


def emit_copy(stages: Stages, source: Value, target: Value) -> None:
    """Computes `source` into the memory of `target`."""
    place = stages.places.pop(target)
    held = stages.places.get(source)
    if held is None:
        stages.places[source] = place
        emit_map(stages, [source])
        del stages.places[source]
    else:
        _copy_memory(stages, source, place)
    stages.places[target] = place


def _copy_memory(stages: Stages, source: Value, place: Place) -> None:
    assert isinstance(place, Memory)
    variable = stages.builder.variable("i", source.type.size)
    held = stages.places[source]
    assert isinstance(held, Memory)
    stages.builder.open(variable, 0, source.type.size)
    stages.builder.store(place.buffer, variable, Load(held.buffer, variable))
    stages.builder.close()


def stage_plan(body: Graph) -> list[list[Value]]:
    """The stages in order: lists of values that one nest computes.

    Values with a nest of their own come where they stand; results without one are grouped by shape, at the place of the last one.
    """
    plan: list[list[Value]] = []
    results = dict.fromkeys(body.results)
    for node in body.nodes:
        if node.op.name in STAGES and (not has_points(node) or any(v in results for v in node.outputs)):
            plan.append(list(node.outputs))
        elif node.output in results:
            if plan and body_is_map(body, plan[-1][0]) and plan[-1][0].shape == node.output.shape:
                plan[-1].append(node.output)
            else:
                plan.append([node.output])
        elif not has_points(node):
            raise CompileError(f"{node.op.name} has no kernel")
    return plan


def body_is_map(body: Graph, value: Value) -> bool:
    """Whether `value` is computed element by element."""
    return all(value not in n.outputs or n.op.name not in STAGES for n in body.nodes)


def chunk_size(extent: int, cost: int) -> int:
    """The size of a chunk, from shapes only; `extent` when sharing does not pay."""
    if cost <= SERIAL_COST or extent <= 1:
        return max(extent, 1)
    chunk = max(1, extent * CHUNK_COST // cost)
    return chunk if chunk < 64 else chunk // 64 * 64


def summary(body: Graph) -> str:
    """A short name: the ops that do the work, in order."""
    names = [n.op.name for n in body.nodes if n.op.name not in ("constant", "broadcast", "reshape", "convert")] or ["copy"]
    distinct = list(dict.fromkeys(names))
    return "_".join(distinct if len(distinct) <= 4 else [*distinct[:3], "etc"])


# Sharing memory ------------------------------------------------------------------------------------------------------------------


def in_place_pairs(kernel: Kernel) -> tuple[tuple[int, int], ...]:
    """(output, input) arguments of a kernel of one nest that may be the same memory.

    That is so when the nest loads the input at no position but the one where it then stores the output, and what it stores there
    needs that load.
    """
    loads: dict[str, list[Load]] = {}
    needs: dict[str, set[str]] = {}
    stores: list[tuple[Store, set[str]]] = []
    if not _scan(kernel.body, loads, needs, stores):
        return ()
    pairs = []
    for out_number, out in enumerate(kernel.arguments):
        own = [(s, used) for s, used in stores if s.buffer.name == out.name]
        if out.role is not Role.OUTPUT or out.same_as or len(own) != 1:
            continue
        store, used = own[0]
        for number, source in enumerate(kernel.arguments):
            reads = loads.get(source.name, ())
            same = source.dtype.itemsize == out.dtype.itemsize and source.size == out.size
            if source.role is Role.INPUT and reads and same and all(r.index == store.index for r in reads) and source.name in used:
                pairs.append((out_number, number))
    return tuple(pairs)


def _scan(body: Sequence[Statement], loads: dict[str, list[Load]], needs: dict[str, set[str]], stores: list[tuple[Store, set[str]]]) -> bool:
    """Collects loads, what buffers locals depend on, and stores; False for statements that are not understood."""
    for s in body:
        match s:
            case For(body=inner):
                if not _scan(inner, loads, needs, stores):
                    return False
            case Let(target=target, value=value):
                needs[target.name] = _used(value, loads, needs)
            case Store(value=value):
                stores.append((s, _used(value, loads, needs)))
            case _:
                return False
    return True


def _used(scalar: Scalar, loads: dict[str, list[Load]], needs: dict[str, set[str]]) -> set[str]:
    match scalar:
        case Load(buffer=buffer):
            loads.setdefault(buffer.name, []).append(scalar)
            return {buffer.name}
        case Local(name=name):
            return needs.get(name, set())
        case Apply(operands=operands):
            return set().union(*(_used(o, loads, needs) for o in operands))
    return set()
