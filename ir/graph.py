"""The graph records: values, nodes and graphs in pure SSA form. Frozen, compared by identity; no algorithm lives here.

Passes never change a record: they rebuild a graph forward with an environment from old to new values (`ir/builder.py`).
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .text import print_graph
from .types import DType, Shape, TensorType

if TYPE_CHECKING:
    from .op import Op


@dataclass(frozen=True, slots=True)
class Location:
    """The user's source line that a node comes from."""

    file: str
    line: int
    backward: bool = field(default=False, compare=False)
    """Whether differentiation made the node, on behalf of that line. No part of the meaning: neither compared nor
    printed."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Value:
    """One SSA value: its type and, for reading only, a hint of a name."""

    type: TensorType
    hint: str = ""

    @property
    def shape(self) -> Shape:
        """The sizes of the axes."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype


@dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Node:
    """One operation, `outputs = op(*inputs, **attrs)`, with closed sub-graphs (`regions`) for control and fusion."""

    op: Op
    inputs: tuple[Value, ...]
    attrs: Mapping[str, Any]
    outputs: tuple[Value, ...]
    loc: Location | None = None
    regions: tuple[Graph, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.op.name} {', '.join(str(v.type) for v in self.outputs)}{f' at {self.loc}' if self.loc else ''}>"

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value


@dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Graph:
    """A function from `params` to `results`; `nodes` stand in an order that defines every value before its uses."""

    name: str
    params: tuple[Value, ...]
    nodes: tuple[Node, ...]
    results: tuple[Value, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Facts for later stages that are no part of the meaning. "writes": {result index: param index}, the results that
    end in a param's own memory, is printed and parsed; others are not."""

    def __repr__(self) -> str:
        return f"<graph {self.name}, {len(self.nodes)} nodes>"

    def __str__(self) -> str:
        return print_graph(self)
