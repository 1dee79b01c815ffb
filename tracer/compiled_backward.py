"""The gradient of a compiled call from outside: `y = compiled(x); y.sum().backward()`.

The tape sees one record per call. Its derivative is a second compiled program, made from the same trace by the one reverse-mode pass; it
takes the call's inputs and the cotangents of its outputs.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.errors import GradientError, TraceError
from ..ir.graph import Graph, Value
from ..ir.op import Op
from ..ir.types import TensorType
from .autograd import records_behind, sweep
from .driver import Build
from .location import error
from .loop_gradient import translate
from .state import STATE
from .tape import Edge, Placeholder, Record, gradient_edge, tensor_requires_grad
from .tensor import Tensor, wrap
from .trace import Lifted, Trace


@dataclass(eq=False)
class BackwardProgram:
    """The derivative of one specialisation, compiled when it is first needed."""

    graph: Graph | None
    """None when no derivative can be had, for the reason in `refusal`."""
    wanted: list[int]
    """The inputs that gradients are for."""
    overwritten: frozenset[int]
    """The inputs that the forward program writes: saved as copies."""
    refusal: str = ""
    _build: Build | None = field(default=None, repr=False)

    def save(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The forward inputs as the backward program will need them."""
        return [] if self.graph is None else [a.copy() if k in self.overwritten else a for k, a in enumerate(arrays)]

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The gradients of the wanted inputs."""
        if self.graph is None:
            raise error(GradientError, self.refusal)
        if self._build is None:
            self._build = Build(self.graph)
        return self._build.run(arrays)


def trace_backward(trace: Trace, outputs: Sequence[Tensor], overwritten: Sequence[Lifted]) -> BackwardProgram | None:
    """The backward graph of the traced function whose differentiable outputs are given; None when no gradient reaches outside."""
    sources = [e for e in trace.lifted if tensor_requires_grad(e.tensor)]
    edges: dict[Edge, Lifted] = {}
    for entry in sources:
        edge = gradient_edge(entry.tensor)
        if edge is not None:
            edges[edge] = entry
    if not outputs or not edges:
        return None
    refusal = _refusal(trace, outputs)
    if refusal:
        return BackwardProgram(None, [e.position for e in edges.values()], frozenset(), refusal)
    cotangents = [trace.new_tensor(trace.builder.param(TensorType(tuple(t.shape), t.dtype), f"g{k}")) for k, t in enumerate(outputs)]
    try:
        found = sweep(outputs, cotangents, list(edges), create_graph=False, retain_graph=True)
    except GradientError as failure:            # an error for whoever calls backward on the result, not for the call
        return BackwardProgram(None, [e.position for e in edges.values()], frozenset(), str(failure))
    reached = [(edge, entry) for edge, entry in edges.items() if edge in found]
    results: list[Value] = [trace.read(found[edge]) for edge, _ in reached]
    graph = trace.graph(results)
    return BackwardProgram(graph, [e.position for _, e in reached], frozenset(e.position for e in overwritten))


def _refusal(trace: Trace, outputs: Sequence[Tensor]) -> str:
    """Why no gradient can flow from the outputs, "" when it can."""
    for record in records_behind([edge for t in outputs if (edge := translate(trace, gradient_edge(t))) is not None]):
        if record.trace is trace and record.freed:
            return ("Trying to backward through a compiled call whose graph was freed: the function itself called backward on this value. Specify "
                    "retain_graph=True there")
    return ""


class CallRecord(Record):
    """The record of one compiled call: what it saved, and the gradients of its inputs once they are computed."""

    __slots__ = ("program", "saved", "versions", "dropped", "cache", "output_types")

    def __init__(self, program: BackwardProgram, saved: list[np.ndarray], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        super().__init__(COMPILED_CALL, {}, tuple(gradient_edge(t) for t in inputs), "CompiledBackward0")
        self.saved_inputs = tuple(Placeholder(tuple(t.shape), t.dtype) for t in inputs)
        self.saved_outputs = tuple(Placeholder(tuple(t.shape), t.dtype) for t in outputs)
        self.output_types = [TensorType(tuple(t.shape), t.dtype) for t in outputs]
        self.program, self.saved, self.dropped = program, saved, False
        self.versions = [(t._storage, t._storage.version) for t in inputs]
        self.cache: tuple[Any, list[Tensor]] | None = None

    def free(self) -> None:
        self.dropped, self.saved = True, []

    def cotangent(self, arriving: tuple[Any, ...], i: int) -> Tensor:
        """The gradient of input `i`; one run of the backward program serves all inputs."""
        if self.dropped:
            raise error(GradientError, "Trying to backward through the graph of a compiled call a second time: pass retain_graph=True to the first")
        if STATE.grad_enabled:
            raise error(GradientError, "create_graph=True through a compiled call: take the second derivative inside the compiled function")
        for storage, version in self.versions:
            if storage.version != version:
                raise error(GradientError, "an input of a compiled call has been modified by an inplace operation since the call, and its "
                            "gradient needs the old value: call backward before the update, or clone() the input")
        if self.cache is None or any(a is not b for a, b in zip(self.cache[0], arriving, strict=True)):
            seeds = [np.zeros(t.sizes, t.dtype.numpy) if g is None else np.ascontiguousarray(g._memory())
                     for g, t in zip(arriving, self.output_types, strict=True)]
            self.cache = (arriving, [wrap(r) for r in self.program.run([*self.saved, *seeds])])
        return self.cache[1][i]


def _compiled_rule(b: Any, node: CallRecord, g: Any, i: int) -> Tensor:
    return node.cotangent(g if isinstance(g, tuple) else (g,), i)


def _not_an_ir_op(*_: Any, **__: Any) -> Any:
    raise TraceError("compiled_call stands on the tape only")


COMPILED_CALL = Op("compiled_call", infer=_not_an_ir_op, evaluate=_not_an_ir_op, vjp=_compiled_rule, arity=None, torch_name="Compiled")


def attach_record(program: BackwardProgram, saved: list[np.ndarray], inputs: Sequence[Tensor], recipes: Sequence[Any],
                  values: Sequence[Any]) -> None:
    """Lets the differentiable outputs of a call point to one record of it."""
    pairs = sorted(((r.record_output, v) for r, v in zip(recipes, values, strict=True) if getattr(r, "record_output", None) is not None),
                   key=lambda pair: pair[0])
    if not pairs or not STATE.grad_enabled:
        return
    record = CallRecord(program, saved, inputs, [v for _, v in pairs])
    for k, (_, value) in enumerate(pairs):
        value._edge, value._requires_grad = (record, k), True
