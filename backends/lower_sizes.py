"""Calls of kernels whose sizes have no value yet, and which symbols the code of a kernel mentions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.index import Constant, Index, Quotient, Remainder, Sum
from ..ir.loops import Apply, For, Let, Load, Position, Scalar, Set, Statement, Store, While
from ..ir.sizes import Dim, Symbol, symbols_of
from .base import KernelCall

if TYPE_CHECKING:
    from .lower_bodies import Chunks


@dataclass(frozen=True)
class SymbolicCall(KernelCall):
    """A call whose types and extent may have symbols; `lower_symbolic.py` makes `KernelCall`s of it.

    The kernel's last argument, the values of its symbols, is not among `arguments` yet. `chunk` is 0 when it follows
    from the sizes, and `in_place` is for a call of the whole range.

    Attributes:
        chunks: how the range is divided, if it is.
        split: symbols of this call alone: the size of a chunk, and the number of chunks.
        in_place_by_chunks: as `in_place`, when the range is divided.
        fits: (size, what it must not exceed): what the code takes for granted.
    """

    chunks: Chunks | None = None
    split: tuple[Symbol, Symbol] | None = None
    in_place_by_chunks: tuple[tuple[int, int], ...] = ()
    fits: tuple[tuple[Dim, int], ...] = ()


def symbols_in_code(body: Sequence[Statement]) -> tuple[Symbol, ...]:
    """The symbols that statements mention, each once, in order."""
    return tuple(dict.fromkeys(symbol for size in _sizes(body) for symbol in symbols_of(size)))


def _sizes(body: Iterable[Statement]) -> Iterator[Dim]:
    """Every number in the index expressions of statements."""
    for s in body:
        match s:
            case Let(value=value) | Set(value=value):
                yield from _in_scalar(value)
            case Store(index=index, value=value, count=count):
                yield from _in_index(index)
                yield from _in_index(count)
                yield from _in_scalar(value)
            case For(start=start, stop=stop, body=inner):
                yield from _in_index(start)
                yield from _in_index(stop)
                yield from _sizes(inner)
            case While(before=before, condition=condition, body=inner):
                yield from _sizes(before)
                yield from _in_scalar(condition)
                yield from _sizes(inner)


def _in_scalar(scalar: Scalar) -> Iterator[Dim]:
    match scalar:
        case Position(index=index):
            yield from _in_index(index)
        case Load(index=index, count=count):
            yield from _in_index(index)
            yield from _in_index(count)
        case Apply(operands=operands):
            for operand in operands:
                yield from _in_scalar(operand)


def _in_index(index: Index | None) -> Iterator[Dim]:
    match index:
        case Constant(value=value):
            yield value
        case Quotient(operand=operand, divisor=divisor) | Remainder(operand=operand, divisor=divisor):
            yield from _in_index(operand)
            yield divisor
        case Sum(offset=offset, terms=terms):
            yield offset
            for atom, coefficient in terms:
                yield coefficient
                yield from _in_index(atom)
