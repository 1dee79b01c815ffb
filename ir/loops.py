"""The loop IR: kernels as loops, loads, stores and scalar expressions; frozen records that print like Python.

A kernel is a function over `[start, stop)` and typed buffers. Scalars are in single-assignment form except for named
accumulators (`Set`); positions in buffers are index expressions (`ir/index.py`) in elements. Nothing here knows about
graphs or a target language.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from .graph import Location
from .index import LONGEST_AXIS, Index, Variable
from .sizes import Dim, Symbol
from .text import print_location
from .types import DType, bool_, int64

LANES = 16
"""The lanes of every vector, whatever the machine's own width: results do not depend on the machine."""

START, STOP = Variable("start", LONGEST_AXIS), Variable("stop", LONGEST_AXIS)
"""The two bounds that a kernel is called with."""


class Role(Enum):
    """What a buffer is to the kernel."""

    INPUT = "in"
    OUTPUT = "out"
    SCRATCH = "scratch"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that the kernel reads or writes.

    Attributes:
        name: an identifier, unique in the kernel.
        dtype: the type of the elements.
        size: the number of elements.
        role: an argument's direction, or LOCAL for an array on the stack of the call.
        same_as: the name of the argument whose memory this one is (both are arguments of the call).
    """

    name: str
    dtype: DType
    size: Dim
    role: Role
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """A place where the kernel may fail: its number is the status code, counted from 1."""

    op: str
    size: Dim
    loc: Location | None = None

    def __str__(self) -> str:
        return f"{self.op}: an index outside [0, {self.size})" + print_location(self.loc)


# Scalars ------------------------------------------------------------------------------------------------------------


class Scalar:
    """Base of the scalar expressions: a number of one dtype, or a vector of LANES of them."""

    __slots__ = ()
    dtype: DType
    lanes: int


@dataclass(frozen=True, slots=True)
class Literal(Scalar):
    """A number known now."""

    value: bool | int | float
    dtype: DType
    lanes: int = 1

    def __str__(self) -> str:
        return f"{self.dtype.short}({self.value})"


@dataclass(frozen=True, slots=True)
class Local(Scalar):
    """A named local."""

    name: str
    dtype: DType
    lanes: int = 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Position(Scalar):
    """An index expression as an i64 number; with lanes, the vector of `LANES` successive positions."""

    index: Index
    lanes: int = 1

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        """Always i64."""
        return int64

    def __str__(self) -> str:
        return str(self.index) if self.lanes == 1 else f"[{self.index} ...]"


@dataclass(frozen=True, slots=True)
class Load(Scalar):
    """The element of a buffer at a position; with lanes, that and the following ones, of which only the first `count`
    are read if one is given: the others are 0."""

    buffer: Buffer
    index: Index
    lanes: int = 1
    count: Index | None = None

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        """The buffer's element type."""
        return self.buffer.dtype

    def __str__(self) -> str:
        return f"{self.buffer.name}[{self.index}{lanes_text(self.lanes, self.count)}]"


def lanes_text(lanes: int, count: Index | None) -> str:
    """What stands behind a position to say how many elements follow."""
    if lanes == 1:
        return ""
    return " ..." if count is None else f" ... {count}"


INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "logical_and": "and",
    "logical_or": "or",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}


@dataclass(frozen=True, slots=True)
class Apply(Scalar):
    """A word of the scalar vocabulary applied to operands: every elementwise op under its own name, and a few more."""

    word: str
    operands: tuple[Scalar, ...]
    dtype: DType
    lanes: int = 1

    def __str__(self) -> str:
        if self.word in INFIX:
            left, right = (f"({o})" if isinstance(o, Apply) and o.word in INFIX else str(o) for o in self.operands)
            return f"{left} {INFIX[self.word]} {right}"
        name = self.dtype.short if self.word == "convert" else self.word
        return f"{name}({', '.join(map(str, self.operands))})"


# Statements ---------------------------------------------------------------------------------------------------------


class Statement:
    """Base of the statements."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Let(Statement):
    """Defines a local that never changes."""

    target: Local
    value: Scalar
    loc: Location | None = None


@dataclass(frozen=True, slots=True)
class Set(Statement):
    """Gives a local that may change (an accumulator, a carried scalar) its first or next value."""

    target: Local
    value: Scalar
    loc: Location | None = None


@dataclass(frozen=True, slots=True)
class Store(Statement):
    """Writes one element of a buffer, or LANES successive ones, of which only the first `count` if one is given."""

    buffer: Buffer
    index: Index
    value: Scalar
    loc: Location | None = None
    count: Index | None = None


@dataclass(frozen=True, slots=True)
class For(Statement):
    """`for variable in range(start, stop, step)`."""

    variable: Variable
    start: Index
    stop: Index
    body: tuple[Statement, ...]
    step: int = 1


@dataclass(frozen=True, slots=True)
class While(Statement):
    """Repeats `body`; the scalar `condition` is evaluated before each round, after the statements of `before`."""

    before: tuple[Statement, ...]
    condition: Scalar
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Kernel:
    """A function `(start, stop, buffers)`.

    Attributes:
        name: a readable summary and a hash of the content.
        buffers: the arguments in order (inputs, outputs, scratch), then the arrays on the stack.
        body: the statements.
        sites: what the nonzero status codes mean, code 1 first.
        symbols: the sizes that the code does not know: the elements, in order, of the last argument, `sizes`.
    """

    name: str
    buffers: tuple[Buffer, ...]
    body: tuple[Statement, ...]
    sites: tuple[Site, ...] = ()
    symbols: tuple[Symbol, ...] = ()

    @property
    def arguments(self) -> tuple[Buffer, ...]:
        """The buffers that the caller passes."""
        return tuple(b for b in self.buffers if b.role is not Role.LOCAL)

    def __str__(self) -> str:
        return print_kernel(self)


def named(summary: str, buffers: Sequence[Buffer], body: Sequence[Statement], sites: Sequence[Site] = (),
          symbols: Sequence[Symbol] = ()) -> Kernel:
    """A kernel whose name is `summary` and a hash of everything but names and the user's source lines."""
    bare = Kernel(summary, tuple(buffers), tuple(body), tuple(Site(s.op, s.size) for s in sites), tuple(symbols))
    digest = hashlib.sha256(renamed(print_kernel(bare, locations=False), bare).encode()).hexdigest()[:8]
    return Kernel(f"{summary}_{digest}", bare.buffers, bare.body, tuple(sites), bare.symbols)


def names_of(kernel: Kernel) -> set[str]:
    """The names that a kernel gives to buffers, sizes, locals and loop variables."""
    names = {b.name for b in kernel.buffers} | {s.name for s in kernel.symbols}
    pending = list(kernel.body)
    while pending:
        match pending.pop():
            case Let(target=target) | Set(target=target):
                names.add(target.name)
            case For(variable=variable, body=body):
                names.add(variable.name)
                pending += body
            case While(before=before, body=body):
                pending += (*before, *body)
    return names


def renamed(text: str, kernel: Kernel) -> str:
    """A text of `kernel` with the names it gives replaced by numbers in order of appearance: equal for kernels that do
    the same."""
    numbers: dict[str, str] = {}
    names = names_of(kernel)

    def replacement(match: re.Match[str]) -> str:
        word = match.group()
        return numbers.setdefault(word, f"n{len(numbers)}") if word in names else word

    return re.sub(r"[A-Za-z_]\w*", replacement, text)


# Text ---------------------------------------------------------------------------------------------------------------


def print_kernel(kernel: Kernel, locations: bool = True) -> str:
    """The kernel as text, one statement a line, each with the user's source line when `locations`."""
    heads = [
        f"{b.role.value} {b.name}: {b.dtype.short}[{b.size}]" + (f" = {b.same_as}" if b.same_as else "")
        for b in kernel.buffers
    ]
    lines = [f"kernel {kernel.name}(start, stop):", *("    " + head for head in heads)]
    lines += [f"    site {code}: {site}" for code, site in enumerate(kernel.sites, 1)]
    lines += [f"    {symbol} = sizes[{k}]" for k, symbol in enumerate(kernel.symbols)]
    lines += body_lines(kernel.body, 1, locations)
    return "\n".join(lines) + "\n"


def body_lines(body: Sequence[Statement], depth: int, locations: bool = True) -> Iterator[str]:
    """The lines of statements."""
    pad = "    " * depth
    for s in body:
        match s:
            case Let(target=target, value=value, loc=loc) | Set(target=target, value=value, loc=loc):
                yield pad + with_location(f"{target} = {value}", loc if locations else None)
            case Store(buffer=buffer, index=index, value=value, loc=loc, count=count):
                place = f"{buffer.name}[{index}{lanes_text(value.lanes, count)}]"
                yield pad + with_location(f"{place} = {value}", loc if locations else None)
            case For(variable=variable, start=start, stop=stop, body=inner, step=step):
                yield f"{pad}for {variable} in {start}..{stop}{f' step {step}' if step != 1 else ''}:"
                yield from body_lines(inner, depth + 1, locations)
            case While(before=before, condition=condition, body=inner):
                yield f"{pad}while:"
                yield from body_lines(before, depth + 1, locations)
                yield f"{pad}holds {condition}:"
                yield from body_lines(inner, depth + 1, locations)


def with_location(text: str, loc: Location | None) -> str:
    """`text` with the source line behind it."""
    return text + print_location(loc)


def condition(left: Scalar, comparison: str, right: Scalar) -> Apply:
    """A comparison of two scalars."""
    return Apply(comparison, (left, right), bool_)
