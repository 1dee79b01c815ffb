"""What differentiation asks of a record of one operation, and which values a derivative flows through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ..ir.builder import Builder
from ..ir.emitter import Emitter, Handle
from ..ir.graph import Graph, Value
from ..ir.op import ZERO_GRAD, Op
from .sparse_sums import add_cotangents

Key = Any
"""Something hashable that tells values apart: the value itself in a graph, an edge on a tape."""


class Record(Protocol):
    """One operation that was computed; a graph `Node` is one, and so is a record of a tape.

    `inputs` and `outputs` hold handles, and are indexed by number or iterated over. Those that no rule reads may be
    placeholders that know only shape and dtype; an op with regions reads all its inputs and none of its outputs.
    """

    op: Op
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    attrs: Mapping[str, Any]
    loc: Any
    regions: Sequence[Graph]


Keys = Callable[[Any], Sequence[Key]]
"""The keys of a record's inputs or outputs, one each."""


def own_inputs(node: Any) -> Sequence[Key]:
    """The inputs as their own keys."""
    return node.inputs


def own_outputs(node: Any) -> Sequence[Key]:
    """The outputs as their own keys."""
    return node.outputs


Step = tuple[Any, Sequence[Key], Sequence[Key]]
"""A record with the keys of its inputs and of its outputs."""


def steps_of(nodes: Iterable[Any], input_keys: Keys = own_inputs, output_keys: Keys = own_outputs) -> list[Step]:
    """The records with their keys."""
    return [(node, input_keys(node), output_keys(node)) for node in nodes]


def active_keys(steps: Iterable[Step], wanted: Iterable[Key]) -> set[Key]:
    """The keys whose values depend differentiably on those of `wanted`, which is included."""
    active = set(wanted)
    for node, inputs, outputs in steps:
        if node.regions:
            sources = {i for i, key in enumerate(inputs) if key in active}
            reached = outputs_reached(node.op.name, node.regions, sources, node.attrs.get("carried", 0))
            active |= {outputs[k] for k in reached if node.outputs[k].dtype.is_floating_point}
            continue
        for i, key in enumerate(inputs):
            if key in active and node.op.input_rule(i) is not ZERO_GRAD:
                for output, value in zip(outputs, node.outputs, strict=True):
                    if value.dtype.is_floating_point:
                        active.add(output)
                break
    return active


def outputs_reached(name: str, regions: Sequence[Graph], sources: set[int], carried: int = 0) -> set[int]:
    """The outputs of an op with regions that depend differentiably on the inputs `sources`."""
    if not sources:
        return set()
    match name:
        case "cond":
            return set().union(*(_results_reached(region, {i - 1 for i in sources if i}) for region in regions))
        case "loop":  # its region takes the index in place of the two bounds
            return _rounds_reached(regions[0], {i - 1 for i in sources if i > 1}, 1, carried)
        case "while_loop":
            return {k for k in _rounds_reached(regions[1], sources, 0, carried) if k < carried}
        case _:
            return _results_reached(regions[0], sources)


def _rounds_reached(body: Graph, sources: set[int], first: int, carried: int) -> set[int]:
    """The results of a body that depend on the parameters `sources` after any number of rounds; result k is parameter
    `first` + k of the next round for the first `carried` ones, which may also stay as they are."""
    while True:
        reached = _results_reached(body, sources)
        grown = sources | {first + k for k in reached if k < carried}
        if grown == sources:
            return reached | {p - first for p in sources if first <= p < first + carried}
        sources = grown


def _results_reached(region: Graph, sources: set[int]) -> set[int]:
    """The results of a region that depend differentiably on the parameters `sources`."""
    active = active_keys(steps_of(region.nodes), {region.params[i] for i in sources})
    return {k for k, value in enumerate(region.results) if value in active}


def seed(b: Emitter, pairs: Iterable[tuple[Key, Handle | None]]) -> dict[Key, Handle]:
    """A dict of cotangents from (key, cotangent) pairs; a key that comes twice gets the sum."""
    cotangents: dict[Key, Handle] = {}
    for key, g in pairs:
        if g is not None:
            cotangents[key] = b.add(cotangents[key], g) if key in cotangents else g
    return cotangents


class ReverseBuilder(Builder):
    """A builder for reverse code: `follow` gives what is emitted next the source line of the record whose rules run."""

    def follow(self, node: Any) -> None:
        """To be given to `backpropagate` as `on_node`."""
        loc = node.loc
        self.loc = loc if loc is None or loc.backward else replace(loc, backward=True)

    def sum_up(self, x: Value, y: Value) -> Value:
        """To be given to `backpropagate` as `accumulate`."""
        return add_cotangents(self, x, y)
