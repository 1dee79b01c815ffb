"""Which symbols the code of a kernel mentions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..ir.index import Constant, Index, Quotient, Remainder, Sum
from ..ir.loops import Apply, For, Let, Load, Position, Scalar, Set, Statement, Store, While
from ..ir.sizes import Dim, Symbol, symbols_of


def symbols_in_code(body: Sequence[Statement]) -> tuple[Symbol, ...]:
    """The symbols that statements mention, each once, in order."""
    return tuple(dict.fromkeys(symbol for size in _sizes(body) for symbol in symbols_of(size)))


def _sizes(body: Iterable[Statement]) -> Iterator[Dim]:
    """Every number in the index expressions of statements."""
    for s in body:
        match s:
            case Let(value=value) | Set(value=value):
                yield from _in_scalar(value)
            case Store(index=index, value=value):
                yield from _in_index(index)
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
        case Position(index=index) | Load(index=index):
            yield from _in_index(index)
        case Apply(operands=operands):
            for operand in operands:
                yield from _in_scalar(operand)


def _in_index(index: Index) -> Iterator[Dim]:
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
