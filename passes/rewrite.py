"""The rewriting machine: patterns, named rules, and one forward rebuild of a graph that applies them until none fits.

A rule is a row `(name, pattern, function)` with its algebra in a trailing comment. The function's parameter names say
what it gets: `b` is the Rewriter, which emits nodes and answers questions about values; `node` is the node that
matched; every other name is a capture of the pattern. It returns the value (or tuple of values) to use in place of the
node's, or None to decline. What it emits is rewritten in turn, so a rule must lead to something simpler.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.builder import Rebuilder
from ..ir.errors import WeftError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Op, Trait
from ..ir.ops import OPS
from ..ir.sizes import Polynomial, SymbolicSize

DEEPEST = 60
"""Rules that apply to what rules emit are nested at most so deep."""

# Patterns -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """What a value must look like. `name` captures: the node where there are `ops`, a known number, else the value."""

    name: str = ""
    ops: frozenset[Op] | None = None
    """The value is the only output of a node with one of these ops."""
    inputs: tuple[Pattern, ...] | None = None
    """Patterns of that node's inputs; None for any inputs. Both orders are tried for a commutative op."""
    is_number: bool = False
    """All elements of the value are one known number."""
    number: float | int | bool | None = None
    """That number; zeros must agree in sign."""
    where: Callable[[Any], bool] | None = field(default=None, compare=False)
    """A condition on what is captured."""


def some(name: str, where: Callable[[Value], bool] | None = None) -> Pattern:
    """Any value, called `name`; a name that comes twice stands for one value."""
    return Pattern(name, where=where)


def number(name_or_value: str | float | int | bool) -> Pattern:
    """A constant with one number in all its elements: any, captured as a NumPy scalar under a name, or a given one."""
    if isinstance(name_or_value, str):
        return Pattern(name_or_value, is_number=True)
    return Pattern(is_number=True, number=name_or_value)


def op(names: str, *inputs: Pattern, name: str = "") -> Pattern:
    """A node with one of the ops `names` (separated by spaces); any inputs when none are given."""
    return Pattern(name, frozenset(OPS[n] for n in names.split()), inputs or None)


def trait(wanted: Trait, name: str = "") -> Pattern:
    """A node whose op has a trait."""
    return Pattern(name, frozenset(o for o in OPS if o.has(wanted)))


# Rules ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """One rewrite rule."""

    name: str
    pattern: Pattern
    function: Callable[..., Any]
    ulp: int = 0
    """By how many units in the last place the result may differ; 0 means the same bits."""
    parameters: tuple[str, ...] = ()

    def apply(self, b: Rewriter, node: Node) -> Sequence[Value] | None:
        """The values to use in place of the outputs of `node`; None when the rule does not fit. Emits through `b`."""
        captures: dict[str, Any] = {}
        if not match_node(b, self.pattern, node, captures):
            return None
        captures.update(b=b, node=node)
        result = self.function(*(captures[p] for p in self.parameters))
        return (result,) if isinstance(result, Value) else result


def rules(*rows: tuple) -> tuple[Rule, ...]:
    """The rules of the rows `(name, pattern, function)` or `(name, pattern, function, ulp)`."""
    return tuple(
        Rule(name, pattern, function, ulp[0] if ulp else 0, tuple(inspect.signature(function).parameters))
        for name, pattern, function, *ulp in rows
    )


class RuleTable:
    """Rules by the op of the node that they match, in the order given."""

    def __init__(self, all_rules: Iterable[Rule], disabled: frozenset[str] = frozenset()) -> None:
        self.by_op: dict[Op, list[Rule]] = {}
        for rule in all_rules:
            assert rule.pattern.ops, f"the pattern of {rule.name} must begin with ops"
            for o in rule.pattern.ops if rule.name not in disabled else ():
                self.by_op.setdefault(o, []).append(rule)


# Matching -------------------------------------------------------------------------------------------------------------


def match_node(b: Rewriter, pattern: Pattern, node: Node, captures: dict[str, Any]) -> bool:
    """Whether `node` fits; fills `captures`."""
    if pattern.ops is None or node.op not in pattern.ops or (pattern.where is not None and not pattern.where(node)):
        return False
    if pattern.name:
        captures[pattern.name] = node
    if pattern.inputs is None:
        return True
    if len(pattern.inputs) != len(node.inputs):
        return False
    before = dict(captures)
    if all(_match(b, p, v, captures) for p, v in zip(pattern.inputs, node.inputs, strict=True)):
        return True
    if not node.op.has(Trait.COMMUTATIVE):
        return False
    captures.clear()
    captures.update(before)
    return all(_match(b, p, v, captures) for p, v in zip(pattern.inputs, reversed(node.inputs), strict=True))


def _match(b: Rewriter, pattern: Pattern, value: Value, captures: dict[str, Any]) -> bool:
    if pattern.ops is not None:
        node = b.producer.get(value)
        return node is not None and len(node.outputs) == 1 and match_node(b, pattern, node, captures)
    if pattern.is_number:
        known = b.numbers.get(value)
        if known is None or not (pattern.number is None or same_number(known, pattern.number)):
            return False
        captures.setdefault(pattern.name, known)
        return True
    if captures.setdefault(pattern.name, value) is not value:
        return False
    return pattern.where is None or pattern.where(value)


def same_number(a: Any, b: Any) -> bool:
    """Whether two numbers are equal, zeros also in sign."""
    return bool(a == b) and (a != 0 or math.copysign(1, a) == math.copysign(1, b))


# Rebuilding -----------------------------------------------------------------------------------------------------------


class Rewriter(Rebuilder):
    """Rebuilds a graph; every node, old or emitted by a rule, becomes what the first fitting rule makes of it."""

    def __init__(self, graph: Graph, table: RuleTable) -> None:
        super().__init__(graph)
        self.table = table
        self.producer: dict[Value, Node] = {}
        """The node that defines a value of the new graph."""
        self.numbers: dict[Value, Any] = {}
        """The values whose elements are all one known number, as a NumPy scalar."""
        self.applying: list[str] = []

    def append(self, node: Node) -> Node:
        """Appends a finished node as it is, and notes what is known of its outputs."""
        for value in node.outputs:
            self.producer[value] = node
        known = number_of(node, self.numbers)
        if known is not None:
            self.numbers[node.outputs[0]] = known
        return super().append(node)

    def emit(self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> Value | tuple[Value, ...]:
        """Emits one node, rewritten."""
        outputs = self.settle(self.make_node(op, inputs, attrs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def control(
        self, op: Op, inputs: Sequence[Value], attrs: Mapping[str, Any], regions: Sequence[Graph]
    ) -> tuple[Value, ...]:
        """Emits one node with regions, all of it rewritten."""
        rewritten = [rewrite(region, self.table) for region in regions]
        return tuple(self.settle(self.make_node(op, inputs, attrs, regions=rewritten)))

    def settle(self, node: Node) -> Sequence[Value]:
        """Appends `node`, or what a rule puts in its place; the values that stand for its outputs."""
        for rule in self.table.by_op.get(node.op, ()):
            outputs = self._apply(rule, node)
            if outputs is None:
                continue
            for old, new in zip(node.outputs, outputs, strict=True):
                assert old.type == new.type, f"rule {rule.name} gives {new.type} for {old.type}"
            return outputs
        self.append(node)
        return node.outputs

    def _apply(self, rule: Rule, node: Node) -> Sequence[Value] | None:
        length, outer, self.loc = len(self.nodes), self.loc, node.loc
        self.applying.append(rule.name)
        if len(self.applying) > DEEPEST:
            raise WeftError(f"rewrite rules lead in a circle: {', '.join(self.applying[-6:])}")
        outputs = rule.apply(self, node)
        self.applying.pop()
        self.loc = outer
        if outputs is None:
            del self.nodes[length:]
        return outputs

    def run(self) -> Graph:
        """The rewritten graph; the same object when no rule fitted."""
        with np.errstate(all="ignore"):
            for node in self.graph.nodes:
                outputs = self.settle(self._renewed(node))
                self.env.update((old, new) for old, new in zip(node.outputs, outputs, strict=True) if old is not new)
        return self.done()

    def _renewed(self, node: Node) -> Node:
        inputs = tuple(self.env.get(v, v) for v in node.inputs)
        regions = tuple(rewrite(region, self.table) for region in node.regions)
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        if same and all(a is b for a, b in zip(regions, node.regions, strict=True)):
            return node
        outputs = node.outputs if same else tuple(Value(v.type, v.hint) for v in node.outputs)
        return Node(node.op, inputs, node.attrs, outputs, node.loc, regions)


def number_of(node: Node, numbers: Mapping[Value, Any]) -> Any:
    """The number in all elements of the output of `node`, a NumPy scalar; None when it has no such."""
    if node.op is OPS.constant:
        value = node.attrs["value"]  # a size that changes from call to call is not known
        return None if isinstance(value, (SymbolicSize, Polynomial)) else node.attrs["dtype"].numpy.type(value)
    if node.op is OPS.literal:
        elements = np.array(node.attrs["values"], node.attrs["dtype"].numpy)
        return elements[0] if elements.size and all(same_number(e, elements[0]) for e in elements) else None
    return numbers.get(node.inputs[0]) if node.op.has(Trait.VIEW) else None


def rewrite(graph: Graph, table: RuleTable) -> Graph:
    """`graph` and its regions with the rules applied to a fixpoint; the same object when none fits."""
    return Rewriter(graph, table).run()
