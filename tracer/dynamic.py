"""Which axes of the arguments change their size from call to call, and the symbols that stand for them.

An axis becomes symbolic when a second size of it is seen, or because `weft.compile(dynamic=...)` names it. Every new
combination of sizes is still traced, so Python code that looks at sizes is always right; but the kernels of symbolic
axes do not know the sizes, and so need not be compiled again. Sizes 0 and 1 mean something else to broadcasting: they
are never symbolic.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.sizes import Symbol, SymbolicSize

Dynamic = bool | Mapping[str, Any] | None
"""What `weft.compile(dynamic=...)` takes: None (axes become symbolic by themselves), True (all are from the start),
False (none ever is), or the axes of each argument by name."""

Axis = tuple[int, int]
"""(argument leaf, axis)."""

BAND = 16
"""One way of writing kernels serves sizes up to so many times larger or smaller than that by which it was decided."""


MOST_LOWERED = 64
"""Programs with symbols that one function keeps."""

FROM_NOW_ON = " from now on"
"""Ends the news of an axis that became symbolic."""


@dataclass
class Sizes:
    """The symbolic sizes of one call.

    Attributes:
        values: symbol -> size.
        axes: symbol -> the axes that have this size, in words.
        shapes: argument leaf -> its shape, with sizes that remember their symbols.
        lowered: what all calls share: the programs that differ in the values of symbols alone, by their key.
    """

    values: dict[Symbol, int] = field(default_factory=dict)
    axes: dict[Symbol, list[str]] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    lowered: dict[str, Any] = field(default_factory=dict)

    def key(self, text: str) -> str:
        """The key of a program with symbols; it also tells by which sizes decisions are made."""
        hints = [(symbol.name, symbol.hint, symbol.least) for symbol in self.values]
        return hashlib.sha256(f"{hints}\n{text}".encode()).hexdigest()


@dataclass
class Family:
    """The calls that differ in sizes alone.

    Attributes:
        history: every axis's sizes in the calls that were traced.
        symbolic: the symbolic axes.
        hints: the sizes by which kernels were written, for each symbol.
    """

    history: dict[Axis, list[int]] = field(default_factory=dict)
    symbolic: set[Axis] = field(default_factory=set)
    hints: dict[str, list[int]] = field(default_factory=dict)


class DynamicAxes:
    """What one compiled function knows about the sizes of its arguments."""

    def __init__(self, wanted: Dynamic = None) -> None:
        self.wanted = wanted
        self.families: dict[Any, Family] = {}
        self.lowered: dict[str, Any] = {}

    def note(self, key: Any, names: Sequence[str]) -> tuple[Sizes, str]:
        """The symbolic sizes of a call that is about to be traced, and what is new about them, in words."""
        if self.wanted is False:
            return Sizes(), ""
        if len(self.lowered) > MOST_LOWERED:
            self.lowered.clear()
        shapes = {k: part[1] for k, part in enumerate(key[1][1:-1]) if is_dense_tensor(part)}
        family = self.families.setdefault(without_sizes(key), Family())
        now = {(leaf, axis): n for leaf, shape in shapes.items() for axis, n in enumerate(shape)}
        news = self._changes(family, now, names)
        for axis, n in now.items():
            family.history.setdefault(axis, []).append(n)
        if self.wanted is not None:
            family.symbolic.update(axis for axis in now if self._is_wanted(axis, names))
        return _symbols(family, shapes, names, self.lowered), news

    def _changes(self, family: Family, now: Mapping[Axis, int], names: Sequence[str]) -> str:
        """Makes axes symbolic whose size is a second one; what changed of symbolic axes, in words."""
        news: list[str] = []
        for axis, n in now.items():
            before = family.history.get(axis, [])
            if not before or n == before[-1]:
                continue
            text = f"argument {_name(axis[0], names)}: axis {axis[1]} was {before[-1]} and is {n}: symbolic"
            if axis not in family.symbolic and self.wanted is None and n > 1 and any(m > 1 for m in before):
                family.symbolic.add(axis)
                text += FROM_NOW_ON
            if axis in family.symbolic and n > 1:
                news.append(text)
        return "; ".join(news)

    def _is_wanted(self, axis: Axis, names: Sequence[str]) -> bool:
        if self.wanted is True:
            return True
        assert isinstance(self.wanted, Mapping)
        axes = self.wanted.get(_name(axis[0], names), ())
        return axis[1] in ((axes,) if isinstance(axes, int) else tuple(map(operator.index, axes)))


def _symbols(
    family: Family, shapes: Mapping[int, tuple[int, ...]], names: Sequence[str], lowered: dict[str, Any]
) -> Sizes:
    """A symbol for each symbolic axis; axes that have had equal sizes in every call share one."""
    result = Sizes(lowered=lowered)
    symbols: dict[Axis, Symbol] = {}
    for leaf, shape in shapes.items():
        made: list[int] = []
        for axis, n in enumerate(shape):
            place = leaf, axis
            if place not in family.symbolic or n <= 1:
                made.append(n)
                continue
            symbol = next((s for other, s in symbols.items() if _always_equal(family, place, other)), None)
            if symbol is None:
                name = f"{_name(leaf, names)}_{axis}"
                symbol = symbols[place] = Symbol(name, _hint(family.hints.setdefault(name, []), n), 2)
            result.values[symbol] = n
            result.axes.setdefault(symbol, []).append(f"axis {axis} of {_name(leaf, names)}")
            made.append(SymbolicSize(n, symbol))
        if any(isinstance(n, SymbolicSize) for n in made):
            result.shapes[leaf] = tuple(made)
    return result


def _always_equal(family: Family, a: Axis, b: Axis) -> bool:
    """Whether two axes had equal sizes in all calls, but for sizes 0 and 1."""
    pairs = zip(family.history[a], family.history[b], strict=True)
    return all(m == n or m <= 1 or n <= 1 for m, n in pairs)


def _hint(hints: list[int], size: int) -> int:
    """The size by which kernels for `size` are written: the first known one that is not too far away, or itself."""
    for known in hints:
        if known <= size * BAND and size <= known * BAND:
            return known
    hints.append(size)
    return size


def _name(leaf: int, names: Sequence[str]) -> str:
    """The name of an argument leaf, or its number."""
    name = names[leaf] if leaf < len(names) else ""
    return name if name.isidentifier() else f"argument{leaf}"


def is_dense_tensor(part: Any) -> bool:
    """Whether a part of a call key is that of a contiguous tensor."""
    return isinstance(part, tuple) and len(part) == 5 and isinstance(part[0], np.dtype) and part[2] is None


def without_sizes(key: Any) -> Any:
    """A call key with ranks in place of the shapes of contiguous tensors."""
    structure, parts = key
    return structure, tuple((p[0], len(p[1]), *p[2:]) if is_dense_tensor(p) else p for p in parts)
