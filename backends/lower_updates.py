"""Stages that write a part of a buffer which already holds the rest: slices, windows, boxes at places known at run
time, scatter."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.access import Access
from ..ir.index import Index, flatten, variables
from ..ir.loops import START, STOP, Load
from ..ir.stages import Kind, Stage, StagePlan, target_position
from .lower_builder import KernelBuilder, apply
from .lower_points import Points
from .lower_spaces import Loop, indices_of, merged_loops

SCATTER_MODES = {"add": "add", "mul": "mul", "amin": "minimum", "amax": "maximum"}
"""scatter's mode -> the word that joins an update with what stands there."""


def emit_update(builder: KernelBuilder, points: Points, plan: StagePlan, stage: Stage, split: bool) -> int:
    """Writes an UPDATE or SCATTER stage; with `split`, its first loop runs over the kernel's own range, whose size is
    the result."""
    if stage.kind is Kind.SCATTER:
        loops = [Loop(builder.variable("i", n), (d,)) for d, n in enumerate(stage.sizes) if n != 1]
        split = False
    else:
        loops = _update_loops(builder, plan, stage)
    for k, loop in enumerate(loops):
        builder.open(loop.variable, *((START, STOP) if k == 0 and split else (0, loop.size)))
    indices = indices_of(loops, stage.sizes)
    (_scatter if stage.kind is Kind.SCATTER else _update)(builder, points, stage, indices)
    for _ in loops:
        builder.close()
    buffer = points.places[stage.value].buffer
    assert buffer is not None
    builder.forget_loads(buffer)
    return loops[0].size if split and loops else 1


def _update_loops(builder: KernelBuilder, plan: StagePlan, stage: Stage) -> list[Loop]:
    axes = variables(stage.sizes, "n")
    report = Access(plan.stored, plan.producers)
    stage.walk(report, axes)
    starts = [0] * len(stage.sizes) if stage.node.op.name == "dynamic_update" else None
    position = target_position(stage.node, axes, starts)
    return merged_loops(builder, stage.sizes, [*report.expressions(), (position, stage.value.type.size)], axes)


def _update(builder: KernelBuilder, points: Points, stage: Stage, indices: Sequence[Index]) -> None:
    node, starts = stage.node, None
    if node.op.name == "dynamic_update":
        x, u = node.inputs[:2]
        limits = [size - extent + 1 for size, extent in zip(x.type.sizes, u.type.sizes, strict=True)]
        starts = [
            points.data_index(node, points.at(s, ()), limit) for s, limit in zip(node.inputs[2:], limits, strict=True)
        ]
    place = points.places[stage.value]
    assert place.buffer is not None
    builder.store(place.buffer, target_position(node, indices, starts), points.at(node.inputs[1], indices), node.loc)


def _scatter(builder: KernelBuilder, points: Points, stage: Stage, indices: Sequence[Index]) -> None:
    node = stage.node
    x, u, *positions = node.inputs
    rank, place = positions[0].type.rank, points.places[stage.value]
    rest, chosen = list(indices[rank:]), {}
    for dim, position in zip(node.attrs["dims"], positions, strict=True):
        chosen[dim] = points.data_index(node, points.at(position, indices[:rank]), x.type.sizes[dim])
    target = flatten([chosen[d] if d in chosen else rest.pop(0) for d in range(x.type.rank)], x.type.sizes)
    scalar, mode = points.at(u, indices), node.attrs["mode"]
    assert place.buffer is not None
    if mode != "set":
        scalar = apply(SCATTER_MODES[mode], (Load(place.buffer, target), scalar), x.dtype)
    builder.store(place.buffer, target, scalar, node.loc)
