"""fn.explain(): what was compiled, in a form for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.plan import Call, Copy, Slot
from ..ir.product_tiles import is_tiled
from ..passes.tiling import left_whole
from ..passes.window_products import described

if TYPE_CHECKING:
    from .driver import Build


TIMED = ("trace", "find", "optimize", "fuse", "lower", "emit", "compile", "plan", "keep")
"""The stages that take time, in order: `find` looks for the whole program on the disk, and loads its machine code if it
is there; `compile` does it if only the kernels are; `keep` stores the program."""

ORIGINS = {"compiled": "compiled", "disk": "on the disk", "memory": "in memory"}
"""Where machine code comes from -> in words."""


def explain(build: Build) -> str:
    """Kernels and what they fused, library calls, copies, memory, seconds per stage."""
    time, plan = _time(build), build.plan
    lines = list(_sizes(build))
    lines.append(f"{len(build.kernels())} kernel(s):")
    for node, calls in build.calls.items():
        fixed = f"; for these sizes alone: {build.fixed[node]}" if node in build.fixed else ""
        for call in calls:
            lines.append(f"  {call.kernel.name}: {_ops(node)}{_place(node)}{fixed}")
    library = [n for n in _all_nodes(build.fused) if n.op.has(Trait.LIBRARY)]
    if library:
        lines.append("library calls:")
        lines += [f"  {n.op.name} {', '.join(str(v.type) for v in n.inputs)}{_place(n)}" for n in library]
    copies = [_copy(step, loops) for step, loops in plan.copies] + list(_moved(build))
    lines.append("copies: none" if not copies else "copies:")
    lines += copies
    for value, why in left_whole(build.optimized):
        lines.append(f"computed as a whole: a product, {value.type}: {why}")
    lines += [f"windows, {n.output.type}: {how}{_place(n)}" for n, how in described(build.optimized)]
    lines.append(f"arena: {plan.arena_bytes} bytes")
    lines.append(time)
    return "\n".join(lines)


def _sizes(build: Build) -> Iterator[str]:
    """The sizes that change from call to call."""
    sizes = build.sizes
    if sizes is not None:
        for symbol, size in sizes.values.items():
            yield f"symbolic size {symbol}, here {size}: {', '.join(sizes.axes[symbol])}"
    if build.not_symbolic:
        yield f"all kernels are for these sizes alone: {build.not_symbolic}"


def _time(build: Build) -> str:
    """Where the time went, stage by stage, and where the kernels come from."""
    seconds = {stage: build.seconds[stage] for stage in TIMED if stage in build.seconds}
    found = [f"{build.origins[origin]} {words}" for origin, words in ORIGINS.items() if build.origins[origin]]
    total = f"{sum(seconds.values()):.3f}" + (f" for kernels that were {', '.join(found)}" if found else "")
    return f"seconds: {', '.join(f'{stage} {spent:.3f}' for stage, spent in seconds.items())}; {total}"


def _copy(step: Copy | Call, loops: int) -> str:
    """One copy of the plan: how much, how often, and why."""
    often = (
        "" if loops == 0 else " in every iteration" if loops == 1 else f" in every iteration of {loops} nested loops"
    )
    slot, reason = copied(step)
    place = "" if step.node is None else _place(step.node)
    return f"  {slot.nbytes} bytes of {slot.value}{often}: {reason}{place}"


def copied(step: Copy | Call) -> tuple[Slot, str]:
    """What a copy writes, and why; the note of a routine also says how much and of which type."""
    if isinstance(step, Copy):
        return step.target, step.reason
    return step.arguments[step.modes.index("w")], step.code.note.partition(": ")[2] or step.code.note


def _moved(build: Build) -> Iterator[str]:
    """Arrays that a kernel writes without computing anything, and who wants them to stand together."""
    readers: dict[Value, dict[str, None]] = {}
    for graph in _all_graphs(build.fused):
        for node in graph.nodes:
            for x in node.inputs:
                readers.setdefault(x, {})[_reading(node, x)] = None
        for x in graph.results:
            readers.setdefault(x, {})["it is a result"] = None
    for node in build.calls:
        if node.op is not OPS.fusion:
            continue
        (body,) = node.regions
        for outer, result in zip(node.outputs, body.results, strict=True):
            if only_moves(body, result):
                yield f"  {outer.type.nbytes} bytes, moved by a kernel: {', '.join(readers[outer])}{_place(node)}"


def _reading(node: Node, value: Value) -> str:
    """What a node wants a value for."""
    if node.op is OPS.fusion:
        param = node.regions[0].params[node.inputs.index(value)]
        if any(is_tiled(n) and n.inputs[1] is param for n in node.regions[0].nodes):
            return "a product reads its rows in vectors"
    return f"{node.op.name} reads it"


def only_moves(graph: Graph, value: Value) -> bool:
    """Whether a value has elements of params, or of none, in another order and number, and no others."""
    producers = {v: n for n in graph.nodes for v in n.outputs}
    pending, found = [value], False
    while pending:
        node = producers.get(pending.pop())
        if node is None:
            found = True
        elif node.op.has(Trait.VIEW) or node.op.has(Trait.PIECEWISE):
            pending += node.inputs
        elif node.inputs:
            return False
    return found


def _all_graphs(graph: Graph) -> Iterator[Graph]:
    """The graph and the regions inside, but for those that are kernels."""
    yield graph
    for node in graph.nodes:
        for region in node.regions if node.op is not OPS.fusion else ():
            yield from _all_graphs(region)


def _all_nodes(graph: Graph) -> Iterator[Node]:
    for each in _all_graphs(graph):
        yield from each.nodes


def _ops(node: Node) -> str:
    names: dict[str, int] = {}
    for inner in node.regions[0].nodes if node.regions else (node,):
        names[inner.op.name] = names.get(inner.op.name, 0) + 1
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in names.items())


def _place(node: Node) -> str:
    inner = node.regions[0].nodes if node.regions else (node,)
    lines = sorted({(n.loc.file.rsplit("/", 1)[-1], n.loc.line) for n in inner if n.loc is not None})
    if not lines:
        return ""
    return "  # " + ", ".join(f"{file}:{line}" for file, line in lines[:4]) + (" ..." if len(lines) > 4 else "")
