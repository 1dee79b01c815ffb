"""Compares two recorded iterations of a loop: are they the same graph, up to which values they read?

The earlier iteration is `a`, the later one `b`. Where both read the same outside value it is invariant; where `b` reads
a value of `a` (or the value that `a` itself read in another place: `a, b = b, a + b`), that value is carried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..ir.compare import same_graph
from ..ir.graph import Node, Value
from ..ir.op import Trait
from .loop_draft import Carried, LoopDraft


class Mismatch(Exception):
    """Why two iterations are not the same; the text is for the user."""


class Unifier:
    """Walks two segments side by side and collects what is carried."""

    def __init__(self, indices: Mapping[Value, Value]) -> None:
        self.match: dict[Value, Value] = dict(indices)
        """Value of `a` -> its counterpart in `b`."""
        self.top: set[Value] = set(indices)
        """The values of `a` itself (not of the bodies of loops in it)."""
        self.pairs: dict[Value, Value] = {}
        """Outside value that `b` reads -> the one that `a` reads in the same places."""
        self.invariant: set[Value] = set()
        self.before: list[Any] = []
        """Nodes of `a` that stand before the loop."""

    def segments(self, a: Sequence[Any], b: Sequence[Any], top: bool = True) -> None:
        """Compares two lists of nodes."""
        if top:
            a = self._without_first_views(a, b)
        for x, y in zip(a, b, strict=False):
            self.node(x, y, top)
        if len(a) != len(b):
            longer, extra = (a, "one iteration") if len(a) > len(b) else (b, "the next")
            raise Mismatch(f"{extra} has an operation more: {describe(longer[min(len(a), len(b))])}")

    def _without_first_views(self, a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
        """`a` without those views of outside values that `b` does not take: the first iteration takes a view of what
        the variables start with, for example of a row, where the others read what the iteration before computed.
        """
        made = {*self.match, *(v for node in a for v in node.outputs)}
        kept: list[Any] = []
        for x in a:
            like = b[len(kept)] if len(kept) < len(b) else None
            if is_view(x) and made.isdisjoint(x.inputs) and not (is_view(like) and same_kind(x, like)):
                self.before.append(x)
                made.difference_update(x.outputs)
            else:
                kept.append(x)
        return kept

    def node(self, x: Any, y: Any, top: bool) -> None:
        """Compares two nodes, or two drafts of inner loops."""
        if isinstance(x, LoopDraft) and isinstance(y, LoopDraft):
            self.draft(x, y, top)
            return
        if (
            isinstance(x, LoopDraft)
            or isinstance(y, LoopDraft)
            or len(x.inputs) != len(y.inputs)
            or not same_kind(x, y)
            or len(x.regions) != len(y.regions)
            or not all(map(same_graph, x.regions, y.regions))
        ):
            raise Mismatch(f"{describe(x)} in one iteration, {describe(y)} in the next")
        for u, v in zip(x.inputs, y.inputs, strict=True):
            self.read(u, v, x)
        for u, v in zip(x.outputs, y.outputs, strict=True):
            if u.type != v.type:
                raise Mismatch(f"{describe(x)} gives {u.type} in one iteration and {v.type} in the next")
            self.define(u, v, top)

    def define(self, u: Value, v: Value, top: bool) -> None:
        """Notes that `u` of `a` is `v` of `b`."""
        self.match[u] = v
        if top:
            self.top.add(u)

    def draft(self, x: LoopDraft, y: LoopDraft, top: bool) -> None:
        """Compares two inner loops up to the names of their values, and lets both give the same last values."""
        if len(x.carried) != len(y.carried):
            raise Mismatch(
                f"the inner loop at {x.loc} carries {len(x.carried)} values in one iteration and {len(y.carried)} in "
                "the next"
            )
        for u, v in (
            (x.start, y.start),
            (x.stop, y.stop),
            *((c.initial, d.initial) for c, d in zip(x.carried, y.carried, strict=True)),
        ):
            self.read(u, v, x)
        self.match[x.index] = y.index
        for c, d in zip(x.carried, y.carried, strict=True):
            self.match[c.current] = d.current
        self.segments(x.nodes, y.nodes, top=False)
        for c, d in zip(x.carried, y.carried, strict=True):
            self.read(c.following, d.following, x)
        for c, d in zip(x.carried, y.carried, strict=True):
            self.define(x.finals[c.following], y.finals[d.following], top)
        back = {v: u for u, v in self.match.items()}
        for value in list(x.lasts):
            y.last(self.match.get(value, value))
        for value in list(y.lasts):
            x.last(back.get(value, value))
        for value, outer in x.lasts.items():
            self.define(outer, y.lasts[self.match.get(value, value)], top)

    def read(self, u: Value, v: Value, where: Any) -> None:
        """Compares what two nodes read in one place."""
        if u in self.match:
            if self.match[u] is not v:
                raise Mismatch(f"{describe(where)} reads different results of its own iteration")
        elif u is v:
            self.invariant.add(v)
        elif self.pairs.setdefault(v, u) is not u:
            raise Mismatch(f"{describe(where)} reads, from one iteration to the next, one value in place of two")

    def carried(
        self, handed_on: Iterable[tuple[Value, Value]], following: Callable[[Value, Value], Value]
    ) -> list[Carried]:
        """The carried values.

        Args:
            handed_on: pairs (before `a`, before `b`) that must be carried though no node reads them.
            following: what is held after `b` where a value was held before `a` and another before `b`, of which neither
                iteration made the second.
        """
        for u, v in handed_on:
            if u is not v and self.pairs.setdefault(v, u) is not u:
                raise Mismatch("two variables that held different values hold the same one now")
        result, waiting = [], list(self.pairs.items())
        for v, u in waiting:  # grows: a value handed on needs a slot for each place it passes
            if u.type != v.type:
                raise Mismatch(f"a value is {u.type} before one iteration and {v.type} before the next")
            if v in self.top:
                result.append(Carried(u, v, self.match[v]))
                continue
            if v in self.invariant:
                raise Mismatch("an iteration reads an outside value that the one before it did not read")
            w = following(u, v)
            if w is v:
                raise Mismatch("a variable changes in one iteration and not in the next")
            if w not in self.pairs:
                self.pairs[w] = v
                waiting.append((w, v))
            elif self.pairs[w] is not v:
                raise Mismatch("two variables that held different values hold the same one now")
            result.append(Carried(u, v, w))
        return result


def is_view(node: Any) -> bool:
    """Whether a node (or a draft, or None) is a view."""
    return isinstance(node, Node) and node.op.has(Trait.VIEW)


def same_kind(x: Any, y: Any) -> bool:
    """Whether two nodes do the same to what they read."""
    return x.op is y.op and same_attrs(x.attrs, y.attrs)


def same_attrs(a: Any, b: Any) -> bool:
    """Attribute equality that tells 0.0 from -0.0 and lets nan equal nan."""
    return a.keys() == b.keys() and all(type(a[k]) is type(b[k]) and repr(a[k]) == repr(b[k]) for k in a)


def describe(node: Any) -> str:
    """A node in an error text."""
    if isinstance(node, LoopDraft):
        return f"an inner loop at {node.loc}"
    attrs = ", ".join(f"{k}={v}" for k, v in node.attrs.items())
    place = f" at {node.loc}" if node.loc is not None else ""
    return f"`{node.op.name}{' ' + attrs if attrs else ''}`{place}"
