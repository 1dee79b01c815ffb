"""Loop IR to Python source in the vocabulary of `native/vocabulary.py`: what people read, and what runs as plain
Python."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..ir.index import Constant, Index, Quotient, Remainder, Sum, Variable
from ..ir.loops import (
    INFIX,
    LANES,
    Apply,
    For,
    Kernel,
    Let,
    Literal,
    Load,
    Local,
    Position,
    Role,
    Scalar,
    Set,
    Statement,
    Store,
    While,
    with_location,
)
from ..ir.sizes import Dim, Symbol, is_negative

_OPERATORS = {name: {"and": "&", "or": "|"}.get(sign, sign) for name, sign in INFIX.items() if name != "div"}
_BY_RESULT = frozenset({"convert", "bitcast", "select", "threefry"})
_UNTYPED = frozenset(
    "check_index lane even_blocks odd_blocks first_lanes fold_add fold_mul fold_maximum fold_minimum fold_and "
    "fold_or every_2 every_3 every_4 repeat_2 repeat_4".split()
)


def python_source(kernel: Kernel, locations: bool = True) -> str:
    """The kernel as the source of one Python function named `kernel.name`.

    `locations` says whether the user's source lines stand behind the lines.
    """
    lines = [f"def {kernel.name}(start, stop, buffers):"]
    if locations:
        lines += [f"    # site {code}: {site}" for code, site in enumerate(kernel.sites, 1)]
    lines += _bindings(kernel)
    lines += _body(kernel.body, 1, locations)
    return "\n".join(lines) + "\n"


def _bindings(kernel: Kernel) -> Iterator[str]:
    """The lines that give the buffers their names; a buffer with the memory of another one is that one."""
    for k, buffer in enumerate(kernel.arguments):
        if not buffer.same_as:
            yield f"    {buffer.name} = pointer_{buffer.dtype.short}(buffers, {k + 1})"
    for buffer in kernel.buffers:
        if buffer.same_as:
            yield f"    {buffer.name} = {buffer.same_as}"
        elif buffer.role is Role.LOCAL:
            yield f"    {buffer.name} = local_{buffer.dtype.short}({buffer.size})"
    for k, symbol in enumerate(kernel.symbols):
        yield f"    {symbol} = {kernel.arguments[-1].name}[{k}]"


def _body(body: Sequence[Statement], depth: int, locations: bool) -> Iterator[str]:
    pad = "    " * depth
    if not body:
        yield pad + "pass"
    for s in body:
        match s:
            case Let(target=target, value=value, loc=loc) | Set(target=target, value=value, loc=loc):
                yield pad + with_location(f"{target.name} = {scalar_text(value)}", loc if locations else None)
            case Store(loc=loc):
                yield pad + with_location(_store(s), loc if locations else None)
            case For(variable=variable, start=start, stop=stop, body=inner, step=step):
                steps = f", {step}" if step != 1 else ""
                yield f"{pad}for {variable.name} in range({index_text(start)}, {index_text(stop)}{steps}):"
                yield from _body(inner, depth + 1, locations)
            case While(before=before, condition=condition, body=inner):
                yield f"{pad}while True:"
                yield from _body(before, depth + 1, locations) if before else ()
                yield f"{pad}    if not {scalar_text(condition)}:"
                yield f"{pad}        break"
                yield from _body(inner, depth + 1, locations)


def _store(s: Store) -> str:
    place, value = index_text(s.index), scalar_text(s.value)
    if s.value.lanes == 1:
        return f"{s.buffer.name}[{place}] = {value}"
    return f"store_x{LANES}({s.buffer.name}, {place}, {value}{_count(s.count)})"


def _count(count: Index | None) -> str:
    """The last argument of a load or store that does not go to all lanes."""
    return "" if count is None else f", {index_text(count)}"


def scalar_text(scalar: Scalar, nested: bool = False) -> str:
    """A scalar expression in the vocabulary; `nested` puts brackets around infix operators."""
    match scalar:
        case Literal():
            text = _literal(scalar)
            return text if scalar.lanes == 1 else f"splat_x{LANES}({text})"
        case Local(name=name):
            return name
        case Position(index=index, lanes=lanes):
            return index_text(index, nested) if lanes == 1 else f"iota_x{LANES}({index_text(index)})"
        case Load(buffer=buffer, index=index, lanes=lanes, count=count):
            place = index_text(index)
            return f"{buffer.name}[{place}]" if lanes == 1 else f"load_x{LANES}({buffer.name}, {place}{_count(count)})"
        case Apply(word=word, operands=operands):
            if word in _OPERATORS:
                left, right = (scalar_text(o, nested=True) for o in operands)
                return f"({left} {_OPERATORS[word]} {right})" if nested else f"{left} {_OPERATORS[word]} {right}"
            first = ["buffers"] if word == "check_index" else []
            return f"{_word(scalar)}({', '.join(first + [scalar_text(o) for o in operands])})"
    raise TypeError(f"not a scalar: {scalar!r}")


def _word(call: Apply) -> str:
    """The word with the suffix of its dtype."""
    word = call.word
    if word == "splat":
        return f"splat_x{LANES}"
    if word in _UNTYPED:
        return word
    dtype = call.dtype if word in _BY_RESULT else call.operands[0].dtype
    lanes = max(call.lanes, *(o.lanes for o in call.operands)) if call.operands else call.lanes
    return f"{word}_{dtype.short}" + ("" if lanes == 1 else f"x{LANES}")


def _literal(literal: Literal) -> str:
    value, dtype = literal.value, literal.dtype
    if dtype.kind == "bool":
        return str(bool(value))
    if dtype.kind == "float":
        number = float(value)
        text = (
            ("-" if number < 0 else "") + "inf" if math.isinf(number) else "nan" if math.isnan(number) else repr(number)
        )
        return text if dtype.short == "f64" else f"{dtype.short}({text})"
    return str(int(value)) if dtype.short == "i64" else f"{dtype.short}({int(value)})"


def index_text(index: Index, nested: bool = False) -> str:
    """An index expression in the vocabulary; `nested` puts brackets around sums and products."""
    match index:
        case Constant(value=value):
            return _size_text(value, nested)
        case Variable(name=name):
            return name
        case Quotient(operand=operand, divisor=divisor):
            return f"quotient({index_text(operand)}, {_size_text(divisor)})"
        case Remainder(operand=operand, divisor=divisor):
            return f"modulus({index_text(operand)}, {_size_text(divisor)})"
        case Sum(offset=offset, terms=terms):
            pieces = [(is_negative(c), _product_text(-c if is_negative(c) else c, atom)) for atom, c in terms]
            if offset != 0:
                pieces.append((is_negative(offset), _size_text(-offset if is_negative(offset) else offset)))
            pieces.sort(key=lambda piece: piece[0])
            text = (
                ("-" if pieces[0][0] else "")
                + pieces[0][1]
                + "".join(f" {'-' if minus else '+'} {t}" for minus, t in pieces[1:])
            )
            return f"({text})" if nested else text
    raise TypeError(f"not an index expression: {index!r}")


def _product_text(size: Dim, atom: Index) -> str:
    """An atom times a coefficient."""
    text = index_text(atom, True)
    return text if size == 1 else f"{_size_text(size, True)} * {text}"


def _size_text(size: Dim, nested: bool = False) -> str:
    """A number, or a polynomial in symbols; `nested` puts brackets around sums and products."""
    text = str(size)
    return text if not nested or isinstance(size, (int, Symbol)) else f"({text})"
