"""Reverse-mode differentiation: the one pass behind `backward()` (eager and traced), `grad` and second derivatives.

`backpropagate` walks records of operations backwards and applies each op's rule; `vjp_graph` and `gradient` use it on
whole graphs. How ops with regions are differentiated is in `passes/reverse_control.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..ir.builder import inline
from ..ir.emitter import Emitter, Handle
from ..ir.errors import GradientError
from ..ir.graph import Graph, Value
from ..ir.op import NOT_DIFFERENTIABLE, ZERO_GRAD
from .records import Key, Keys, ReverseBuilder, active_keys, own_inputs, own_outputs, seed, steps_of
from .reverse_control import CONTROL_RULES, no_derivative


def backpropagate(
    nodes: Iterable[Any],
    cotangents: Mapping[Key, Handle],
    wanted: Iterable[Key],
    b: Emitter,
    *,
    accumulate: Callable[[Handle, Handle], Handle] | None = None,
    input_keys: Keys = own_inputs,
    output_keys: Keys = own_outputs,
    on_node: Callable[[Any], None] | None = None,
    arrive: Callable[[Any, tuple[Handle | None, ...]], tuple[Handle | None, ...]] | None = None,
) -> dict[Key, Handle]:
    """The cotangents of the `wanted` values, given those of others; values that nothing flows to are left out.

    Args:
        nodes: `Record`s in the order in which they were computed.
        cotangents: key of a value -> handle of its cotangent.
        wanted: keys of the values whose cotangents are asked for; may be intermediate values.
        b: emits what the rules ask for.
        accumulate: adds two cotangents of one value; `b.add` unless given.
        input_keys, output_keys: the keys of a record's inputs and outputs, one each; a key tells values apart. The
            inputs and outputs themselves unless given, which is right for graphs.
        on_node: called before the rules of a record run (to give their nodes its source line).
        arrive: may change the cotangents of a record's outputs, once they are complete.
    """
    steps, wanted, flowing = steps_of(nodes, input_keys, output_keys), dict.fromkeys(wanted), dict(cotangents)
    add = accumulate or b.add
    active = active_keys(steps, wanted)
    for node, inputs, outputs in reversed(steps):
        arriving = tuple([flowing.get(key) if key in wanted else flowing.pop(key, None) for key in outputs])
        if arrive is not None:
            arriving = arrive(node, arriving)
            flowing.update((k, g) for k, g in zip(outputs, arriving, strict=True) if k in wanted and g is not None)
        targets = [i for i, key in enumerate(inputs) if key in active]
        if not targets or not any([g is not None for g in arriving]):
            continue
        if on_node is not None:
            on_node(node)
        for i, cotangent in zip(targets, _input_cotangents(b, node, arriving, targets), strict=True):
            key = inputs[i]
            if cotangent is not None:
                flowing[key] = add(flowing[key], cotangent) if key in flowing else cotangent
    return {key: cotangent for key, cotangent in flowing.items() if key in wanted}


def _input_cotangents(
    b: Emitter, node: Any, arriving: tuple[Handle | None, ...], targets: Sequence[int]
) -> Iterable[Handle | None]:
    """One cotangent, or None, for each of the inputs numbered in `targets`."""
    if node.op.is_control:
        if node.op not in CONTROL_RULES:
            raise no_derivative(node)
        return CONTROL_RULES[node.op](b, node, arriving, targets, backpropagate)
    return [_apply_rule(b, node, arriving, i) for i in targets]


def _apply_rule(b: Emitter, node: Any, arriving: tuple[Handle | None, ...], i: int) -> Handle | None:
    rule = node.op.input_rule(i)
    if rule is ZERO_GRAD:
        return None
    if rule is NOT_DIFFERENTIABLE:
        raise no_derivative(node)
    cotangent = rule(b, node, arriving[0] if len(arriving) == 1 else arriving)
    assert cotangent is None or b.agrees(cotangent, node, i), (
        f"the rule of {node.op.name} for input {i} gave {cotangent.dtype}{cotangent.shape} for {node.inputs[i]}"
    )
    return cotangent


class Differentiator(ReverseBuilder):
    """A builder that holds a copy of `graph` and can differentiate it."""

    def __init__(self, graph: Graph, name: str) -> None:
        super().__init__(name)
        arguments = [self.param(p.type, p.hint) for p in graph.params]
        self.arguments: list[Value] = arguments
        self.values = inline(self, graph, arguments)
        """The results of the graph."""

    def pull_back(self, cotangents: Sequence[Value | None], wanted: Sequence[int]) -> list[Value]:
        """The cotangents of the params numbered in `wanted`, from those of the results; zeros where nothing flows."""
        keys = [self.arguments[i] for i in wanted]
        forward = tuple(self.nodes)
        found = backpropagate(
            forward,
            seed(self, zip(self.values, cotangents, strict=True)),
            keys,
            self,
            accumulate=self.sum_up,
            on_node=self.follow,
        )
        return [found[key] if key in found else self.full_like(key, 0) for key in keys]


def floating(values: Sequence[Value]) -> tuple[int, ...]:
    """The positions of the values that can have a cotangent."""
    return tuple(i for i, value in enumerate(values) if value.dtype.is_floating_point)


def vjp_graph(graph: Graph, flowing: Sequence[int] | None = None, wanted: Sequence[int] | None = None) -> Graph:
    """The graph (*params, *cotangents of the results in `flowing`) -> cotangents of the params in `wanted`.

    Both default to all that are floating-point, and hold positions.
    """
    flowing = floating(graph.results) if flowing is None else flowing
    wanted = floating(graph.params) if wanted is None else wanted
    b = Differentiator(graph, f"{graph.name}_vjp")
    cotangents: list[Value | None] = [None] * len(graph.results)
    for i in flowing:
        cotangents[i] = b.param(graph.results[i].type, f"g{i}")
    return b.finish(b.pull_back(cotangents, wanted))


def gradient(graph: Graph, wrt: Sequence[int] = (0,), of: int = 0) -> Graph:
    """The graph (*params) -> (*results, *gradients of result `of`, a floating scalar, by the params in `wrt`)."""
    target = graph.results[of]
    if target.shape != () or not target.dtype.is_floating_point:
        raise GradientError(f"a gradient is of a floating-point scalar, not of {target.type}")
    b = Differentiator(graph, f"{graph.name}_grad")
    cotangents: list[Value | None] = [None] * len(graph.results)
    cotangents[of] = b.scalar(1.0, target.dtype)
    gradients = b.pull_back(cotangents, wrt)
    return b.finish((*b.values, *gradients))
