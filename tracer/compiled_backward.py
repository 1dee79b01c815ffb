"""The gradient of a compiled call from outside: `y = compiled(x); y.sum().backward()`.

The tape sees one record per call. Its derivative is a second compiled program, made from the same trace by the one
reverse-mode pass; it takes the call's inputs and the cotangents of its outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import GradientError, TraceError
from ..ir.graph import Graph, Node
from ..ir.op import Op
from ..ir.types import TensorType
from . import seam
from .autograd import flow, records_behind
from .dispatch import EMIT
from .location import error
from .loop_gradient import translate
from .outputs import Place, tensor_at
from .state import STATE
from .storage import Storage
from .tape import Edge, Placeholder, Record, gradient_edge
from .tensor import Tensor, wrap
from .trace import Trace
from .trace_inputs import Lifted

if TYPE_CHECKING:
    from .driver import Build


@dataclass(eq=False)
class BackwardProgram:
    """The derivative of one specialisation, compiled when it is first needed."""

    graph: Graph | None
    """(forward inputs, cotangents of the outputs) -> cotangents of what is wanted; None when no derivative can be
    had.
    """
    wanted: list[Place]
    """Where the tensors are that gradients are for."""
    inputs: list[int]
    """The forward inputs that the derivative reads."""
    output_types: list[TensorType]
    overwritten: frozenset[int] = frozenset()
    """The inputs that the forward program writes: saved as copies."""
    refusal: str = ""
    """Why no derivative can be had."""
    input_placeholders: tuple[Placeholder, ...] | None = None
    """Of the wanted tensors, whose types are the same in every call."""
    _build: Build | None = field(default=None, repr=False)

    @functools.cached_property
    def output_placeholders(self) -> tuple[Placeholder, ...]:
        """What records know of the outputs."""
        return tuple([Placeholder(t.sizes, t.dtype) for t in self.output_types])

    def save(self, arrays: Sequence[Any], tensors: Sequence[Tensor | None]) -> list[tuple[Any, Storage | None]]:
        """The forward inputs as the derivative will need them, with the storage of those that are not copied."""
        saved: list[tuple[Any, Storage | None]] = []
        for k in self.inputs:
            tensor = tensors[k]
            if tensor is None:
                saved.append((arrays[k], None))
            else:
                saved.append((arrays[k].copy(), None) if k in self.overwritten else (arrays[k], tensor._storage))
        return saved

    def record(self, saved: list[tuple[Any, Storage | None]], leaves: Sequence[Any]) -> CallRecord:
        """The record of a call that is about to run."""
        return CallRecord(self, saved, [tensor_at(place, leaves) for place in self.wanted])

    @functools.cached_property
    def refused(self) -> Record:
        """The record of every call when no derivative can be had: whoever reaches it is told why."""
        record = Record(COMPILED_CALL, {}, (), "CompiledBackward0")
        record.saved_outputs = self.output_placeholders
        record.refusal = self.refusal
        record.trace = None
        return record

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The gradients of the wanted tensors."""
        assert self.graph is not None
        if self._build is None:
            self._build = seam.driver().Build(self.graph)
        return self._build.run(arrays)


def trace_backward(
    trace: Trace,
    outputs: Sequence[tuple[Edge, TensorType]],
    sources: Mapping[Edge, Place],
    overwritten: Sequence[Lifted],
) -> BackwardProgram | None:
    """The backward program of the traced function, from its differentiable outputs to the edges that lead outside.

    None when no output is differentiable.
    """
    if not outputs:
        return None
    types = [type_ for _, type_ in outputs]
    refusal = _refusal(trace, [edge for edge, _ in outputs])
    if refusal:
        return BackwardProgram(None, list(sources.values()), [], types, refusal=refusal)
    cotangents: dict[Edge, Tensor] = {}
    seeds = [trace.builder.param(type_, f"g{k}") for k, type_ in enumerate(types)]
    try:
        for (edge, _), seed in zip(outputs, seeds, strict=True):
            target, g = translate(trace, edge), trace.new_tensor(seed)
            assert target is not None
            cotangents[target] = EMIT.add(cotangents[target], g) if target in cotangents else g
        found = flow(cotangents, list(sources), create_graph=False, retain_graph=True, within=trace)
    except GradientError as failure:  # an error for whoever calls backward on the result, not for the call
        return BackwardProgram(None, list(sources.values()), [], types, refusal=str(failure))
    reached = [edge for edge in sources if edge in found]
    graph = trace.graph([trace.read(found[edge]) for edge in reached])
    inputs, graph = _without_unused(graph, len(seeds))
    return BackwardProgram(
        graph, [sources[e] for e in reached], inputs, types, frozenset(e.position for e in overwritten)
    )


def _refusal(trace: Trace, edges: Sequence[Edge]) -> str:
    """Why no gradient can flow from the outputs, "" when it can."""
    for record in records_behind([edge for e in edges if (edge := translate(trace, e)) is not None]):
        if record.trace is trace and record.freed:
            return (
                "Trying to backward through a compiled call whose graph was freed: the function itself called backward "
                "on this value. Specify retain_graph=True there"
            )
    return ""


def _without_unused(graph: Graph, seeds: int) -> tuple[list[int], Graph]:
    """The numbers of the params but the last `seeds` that the results depend on, and the graph with only these and
    the last ones.
    """
    needed = set(graph.results)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v in needed for v in node.outputs):
            needed.update(node.inputs)
            nodes.insert(0, node)
    border = len(graph.params) - seeds
    used = [k for k, p in enumerate(graph.params[:border]) if p in needed]
    params = (*(graph.params[k] for k in used), *graph.params[border:])
    return used, Graph(graph.name, params, tuple(nodes), graph.results, graph.notes)


class CallRecord(Record):
    """The record of one compiled call: what it saved, and the gradients of its inputs once they are computed."""

    __slots__ = ("program", "saved", "versions", "dropped", "cache")

    def __init__(
        self, program: BackwardProgram, saved: list[tuple[Any, Storage | None]], inputs: Sequence[Tensor]
    ) -> None:
        super().__init__(COMPILED_CALL, {}, tuple([gradient_edge(t) for t in inputs]), "CompiledBackward0")
        if program.input_placeholders is None:
            program.input_placeholders = tuple([Placeholder(tuple(t.shape), t.dtype) for t in inputs])
        self.saved_inputs, self.saved_outputs = program.input_placeholders, program.output_placeholders
        self.program, self.dropped = program, False
        self.saved = [value for value, _ in saved]
        self.versions = [(storage, storage.version) for _, storage in saved if storage is not None]
        self.cache: tuple[Any, list[Tensor]] | None = None

    def free(self) -> None:
        self.dropped, self.saved, self.cache = True, [], None

    def cotangent(self, arriving: tuple[Any, ...], i: int) -> Tensor:
        """The gradient of input `i`; one run of the backward program serves all inputs."""
        if self.dropped:
            raise error(
                GradientError,
                "Trying to backward through the graph of a compiled call a second time: pass retain_graph=True to the "
                "first",
            )
        if STATE.grad_enabled:
            raise error(
                GradientError,
                "create_graph=True through a compiled call: take the second derivative inside the compiled function",
            )
        for storage, version in self.versions:
            if storage.version != version:
                raise error(
                    GradientError,
                    "an input of a compiled call has been modified by an inplace operation since the call, and its "
                    "gradient needs the old value: call backward before the update, or clone() the input",
                )
        if self.cache is None or any(a is not b for a, b in zip(self.cache[0], arriving, strict=True)):
            seeds = [
                np.zeros(t.sizes, t.dtype.numpy) if g is None else np.asarray(g._memory(), order="C")
                for g, t in zip(arriving, self.program.output_types, strict=True)
            ]
            self.cache = (arriving, [wrap(r) for r in self.program.run([*self.saved, *seeds])])
        return self.cache[1][i]


def _compiled_rule(b: Any, node: CallRecord, g: Any, i: int) -> Tensor:
    return node.cotangent(g if isinstance(g, tuple) else (g,), i)


def _not_an_ir_op(*_: Any, **__: Any) -> Any:
    raise TraceError("compiled_call stands on the tape only")


COMPILED_CALL = Op(
    "compiled_call", infer=_not_an_ir_op, evaluate=_not_an_ir_op, vjp=_compiled_rule, arity=None, torch_name="Compiled"
)
