"""Builds the body of one kernel: nested open loops, where each statement lands at the outermost loop that it may stand
in."""

from __future__ import annotations

import keyword
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from ..ir.graph import Location
from ..ir.index import Constant, Index, IndexLike, Variable, as_index, variables_of
from ..ir.loops import (
    LANES,
    START,
    STOP,
    Apply,
    Buffer,
    For,
    Let,
    Literal,
    Local,
    Position,
    Role,
    Scalar,
    Set,
    Site,
    Statement,
    Store,
)
from ..ir.sizes import Dim, Symbol
from ..ir.types import DType, bool_, int64

_RESERVED = frozenset(keyword.kwlist) | {"start", "stop", "buffers", "range", "inf", "nan"}


@dataclass
class Level:
    """The inside of one open loop: its statements so far, and the scalars already computed there."""

    statements: list[Statement] = field(default_factory=list)
    known: dict[Hashable, Scalar] = field(default_factory=dict)
    loop: tuple[Variable, Index, Index, int] | None = None


class KernelBuilder:
    """The kernel being written. Level 0 is outside of all loops; `depth` of a scalar is the level that computes it.

    Attributes:
        symbols: the symbolic sizes that the code may mention.
        fits: (size, what it must not exceed): what the code takes for granted.
    """

    def __init__(self, symbols: Sequence[Symbol] = ()) -> None:
        self.symbols = list(symbols)
        self.fits: list[tuple[Dim, int]] = []
        self.levels = [Level()]
        self.buffers: list[Buffer] = []
        self.sites: list[Site] = []
        self._names = {symbol.name: 1 for symbol in symbols}
        self._depths: dict[str, int] = {START.name: 0, STOP.name: 0}

    # Sizes

    def symbol(self, name: str) -> Symbol:
        """A new symbol for a positive number that must not be part of the code."""
        self.symbols.append(Symbol(self.name(name), least=1))
        return self.symbols[-1]

    # Names and buffers

    def name(self, hint: str) -> str:
        """A fresh identifier like `hint`."""
        stem = hint if hint.isidentifier() and hint not in _RESERVED and not hint.startswith("_") else "v"
        count = self._names.get(stem, 0)
        self._names[stem] = count + 1
        if count == 0 and not (stem[-1].isdigit() or "_" in stem):
            return stem
        fresh = f"{stem}_{count}"
        return fresh if fresh not in self._names else self.name(fresh)

    def buffer(self, hint: str, dtype: DType, size: int, role: Role, same_as: str = "") -> Buffer:
        """A new buffer of the kernel."""
        buffer = Buffer(self.name(hint), dtype, size, role, same_as)
        self.buffers.append(buffer)
        return buffer

    def site(self, op: str, size: int, loc: Location | None) -> int:
        """The status code of a new place that may fail."""
        self.sites.append(Site(op, size, loc))
        return len(self.sites)

    # Loops

    @property
    def level(self) -> int:
        """The level of the innermost open loop."""
        return len(self.levels) - 1

    def variable(self, hint: str, size: int) -> Variable:
        """A new loop variable; `open` gives it its loop."""
        return Variable(self.name(hint), size)

    def open(self, variable: Variable, start: IndexLike, stop: IndexLike, step: int = 1) -> None:
        """Opens a loop inside the innermost one."""
        self.levels.append(Level(loop=(variable, as_index(start), as_index(stop), step)))
        self._depths[variable.name] = self.level

    def close(self) -> None:
        """Closes the innermost loop."""
        done = self.levels.pop()
        assert done.loop is not None
        variable, start, stop, step = done.loop
        if done.statements:
            self.emit(For(variable, start, stop, tuple(done.statements), step))

    def open_branch(self) -> None:
        """Opens a body whose statements must not move out, for `close_branch`."""
        self.levels.append(Level())

    def close_branch(self) -> tuple[Statement, ...]:
        """The statements of the body that `open_branch` opened."""
        return tuple(self.levels.pop().statements)

    def bound(self, hint: str, scalar: Scalar, size: Dim) -> Variable:
        """A number in [0, size] as an index."""
        return Variable(self.let(hint, scalar, self.depth(scalar)).name, size + 1)

    def whole_steps(self, start: Index, stop: Index, step: int) -> Index:
        """Where the last whole step of a range ends."""
        if isinstance(start, Constant) and isinstance(stop, Constant) and isinstance(stop.value - start.value, int):
            return Constant(start.value + (stop.value - start.value) // step * step)
        rest = apply("maximum", (Position(stop - start), Literal(0, int64)), int64)
        return start + self.bound("length", rest, 1 << 47) // step * step

    # Statements

    def emit(self, statement: Statement, level: int | None = None) -> None:
        """Appends a statement to a level, the innermost by default."""
        self.levels[self.level if level is None else level].statements.append(statement)

    def depth(self, *items: Scalar | Index) -> int:
        """The level at which all of `items` are known."""
        return max((self._depth(item) for item in items), default=0)

    def _depth(self, item: Scalar | Index) -> int:
        match item:
            case Local(name=name):
                return self._depths[name]
            case Literal():
                return 0
            case Position(index=index):
                return self._depth(index)
            case Apply(operands=operands):
                return self.depth(*operands)
            case Index():
                return max((self._depths[v.name] for v in variables_of(item)), default=0)
        raise TypeError(f"{item!r} has no level")

    def let(self, hint: str, value: Scalar, level: int, loc: Location | None = None) -> Local:
        """A new local with `value`, defined at `level`."""
        local = Local(self.name(hint), value.dtype, value.lanes)
        self._depths[local.name] = level
        self.emit(Let(local, value, loc), level)
        return local

    def varies(self, locals_: Iterable[Local]) -> None:
        """Says that accumulators change from one round of the innermost loop to the next, so that what needs them
        stays inside."""
        for local in locals_:
            self._depths[local.name] = self.level

    def accumulator(self, hint: str, value: Scalar, loc: Location | None = None) -> Local:
        """A new local that `set` may change; it starts with `value` here and belongs to the innermost loop."""
        local = Local(self.name(hint), value.dtype, value.lanes)
        self._depths[local.name] = self.level
        self.emit(Set(local, value, loc))
        return local

    def set(self, target: Local, value: Scalar, loc: Location | None = None) -> None:
        """Changes an accumulator."""
        self.emit(Set(target, value, loc))

    def store(
        self, buffer: Buffer, index: Index, value: Scalar, loc: Location | None = None, count: Index | None = None
    ) -> None:
        """Writes an element, or a vector of them, or the first `count` of it."""
        self.emit(Store(buffer, index, value, loc, count))

    # Known scalars

    def known(self, key: Hashable) -> Scalar | None:
        """What was remembered under `key` in an open loop."""
        for level in reversed(self.levels):
            if key in level.known:
                return level.known[key]
        return None

    def remember(self, key: Hashable, scalar: Scalar, level: int) -> Scalar:
        """Remembers a scalar for as long as the loop at `level` is open."""
        self.levels[level].known[key] = scalar
        return scalar

    def forget_loads(self, buffer: Buffer) -> None:
        """Forgets what was loaded from a buffer, which holds another value from now on."""
        for level in self.levels:
            for key in [k for k in level.known if isinstance(k, tuple) and k[:2] == ("load", buffer.name)]:
                del level.known[key]

    # Indices computed from data

    def data_index(self, hint: str, value: Scalar, size: int) -> Variable:
        """A variable in [0, size) whose value is a scalar computed by the kernel."""
        local = self.let(hint, value, self.depth(value))
        return Variable(local.name, size)

    def clamped(self, index: Index, size: int) -> Variable:
        """A variable in [0, size) that is `index` where that lies in the range."""
        key = ("clamp", index, size)
        found = self.known(key)
        if found is None:
            low = Apply("maximum", (Position(index), Literal(0, int64)), int64)
            value = Apply("minimum", (low, integer(size - 1)), int64)
            level = self.depth(index)
            found = self.remember(key, self.let("at", value, level), level)
        assert isinstance(found, Local)
        return Variable(found.name, size)


def lanes_left(variable: Variable, start: Index, stop: Index) -> Index:
    """How many rounds are left at `variable`, in a loop from `start` in steps of whole vectors."""
    rest = stop - start
    known = isinstance(rest, Constant) and isinstance(rest.value, int) and rest.value <= LANES
    return rest if known else stop - variable


def integer(number: Dim) -> Scalar:
    """An i64, which may be a symbolic size."""
    return Literal(number, int64) if isinstance(number, int) else Position(Constant(number))


def splat(scalar: Scalar) -> Scalar:
    """A vector with every lane `scalar`; a vector stays."""
    if scalar.lanes == LANES:
        return scalar
    if isinstance(scalar, Literal):
        return Literal(scalar.value, scalar.dtype, LANES)
    return Apply("splat", (scalar,), scalar.dtype, LANES)


def apply(word: str, operands: tuple[Scalar, ...], dtype: DType) -> Apply:
    """A word applied to scalars, or to vectors when one operand is a vector."""
    lanes = max(o.lanes for o in operands)
    return Apply(word, operands if lanes == 1 else tuple(map(splat, operands)), dtype, lanes)


def both(left: Scalar | None, right: Scalar) -> Scalar:
    """The conjunction of two conditions; None is true."""
    return right if left is None else apply("logical_and", (left, right), bool_)
