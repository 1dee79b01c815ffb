"""Index expressions: integer arithmetic over loop variables with known ranges, put into canonical form as it is
written.

An expression is an offset plus a sum of atoms times integers; an atom is a variable in [0, size), a floor quotient by a
positive integer, or a remainder by one. Python's operators build expressions and simplify at once, so two expressions
that simplify to the same form are equal and hash equally. Views are functions from output to input index expressions
(`Op.index`); piecewise ops add a `Predicate`. Nothing here knows about graphs or kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, prod
from typing import Any

from .types import Dim, Symbol, TensorType

LONGEST_AXIS = 1 << 47
"""No axis is longer: what is assumed of a symbolic size."""


class Index:
    """Base of the expressions. `low` and `high` are inclusive bounds that hold whatever the variables are."""

    __slots__ = ()
    low: int
    high: int

    def __add__(self, other: IndexLike) -> Index:
        return _combine(((self, 1), (as_index(other), 1)))

    __radd__ = __add__

    def __sub__(self, other: IndexLike) -> Index:
        return _combine(((self, 1), (as_index(other), -1)))

    def __rsub__(self, other: IndexLike) -> Index:
        return _combine(((as_index(other), 1), (self, -1)))

    def __neg__(self) -> Index:
        return _combine(((self, -1),))

    def __mul__(self, factor: int) -> Index:
        return _combine(((self, factor),))

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Index:
        return divide(self, divisor)[0]

    def __mod__(self, divisor: int) -> Index:
        return divide(self, divisor)[1]

    def __repr__(self) -> str:
        return str(self)


IndexLike = Index | int


@dataclass(frozen=True, slots=True, repr=False)
class Constant(Index):
    """An integer."""

    value: int

    @property
    def low(self) -> int:  # type: ignore[override]
        """The value."""
        return self.value

    high = low

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True, repr=False)
class Variable(Index):
    """A loop variable in [0, size). `name` must be a Python identifier for the text to be Python."""

    name: str
    size: Dim

    @property
    def low(self) -> int:  # type: ignore[override]
        """Always 0."""
        return 0

    @property
    def high(self) -> int:  # type: ignore[override]
        """The last value; 0 for an empty axis, whose expressions are never evaluated."""
        return (LONGEST_AXIS if isinstance(self.size, Symbol) else max(self.size, 1)) - 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, repr=False)
class Quotient(Index):
    """`operand // divisor`, for an operand that is never negative. Made by `//` only."""

    operand: Index
    divisor: int
    low: int = field(compare=False)
    high: int = field(compare=False)

    def __str__(self) -> str:
        return f"{_factor_text(self.operand)}//{self.divisor}"


@dataclass(frozen=True, slots=True, repr=False)
class Remainder(Index):
    """`operand % divisor`, for an operand that is never negative. Made by `%` only."""

    operand: Index
    divisor: int
    low: int = field(compare=False)
    high: int = field(compare=False)

    def __str__(self) -> str:
        return f"{_factor_text(self.operand)} % {self.divisor}"


@dataclass(frozen=True, slots=True, repr=False)
class Sum(Index):
    """`offset + coefficient * atom + ...`; terms stand in descending order of coefficients, then by text. Made by
    operators only."""

    offset: int
    terms: tuple[tuple[Index, int], ...]
    low: int = field(compare=False)
    high: int = field(compare=False)

    def __str__(self) -> str:
        pieces = [("-" if c < 0 else "+", _term_text(atom, abs(c))) for atom, c in self.terms]
        if self.offset:
            first = self.terms[0][1] < 0 < self.offset
            pieces.insert(0 if first else len(pieces), ("-" if self.offset < 0 else "+", str(abs(self.offset))))
        sign, text = pieces[0]
        if sign == "-":  # -(a//2), for Python reads -a//2 as (-a)//2
            text = "-" + (_factor_text(self.terms[0][0]) if self.terms[0][1] == -1 else text)
        return text + "".join(f" {sign} {text}" for sign, text in pieces[1:])


def _term_text(atom: Index, coefficient: int) -> str:
    return str(atom) if coefficient == 1 else f"{coefficient}*{_factor_text(atom)}"


def _factor_text(expression: Index) -> str:
    return str(expression) if isinstance(expression, (Variable, Constant)) else f"({expression})"


ZERO = Constant(0)


def as_index(value: IndexLike) -> Index:
    """`value` as an expression."""
    return value if isinstance(value, Index) else Constant(int(value))


# Sums -----------------------------------------------------------------------------------------------------------------


def _parts(expression: Index) -> tuple[int, Sequence[tuple[Index, int]]]:
    """(offset, terms) of any expression."""
    match expression:
        case Sum(offset=offset, terms=terms):
            return offset, terms
        case Constant(value=value):
            return value, ()
        case _:
            return (expression.low, ()) if expression.low == expression.high else (0, ((expression, 1),))


def _combine(scaled: Iterable[tuple[Index, int]]) -> Index:
    """The sum of expressions times integers."""
    offset = 0
    terms: dict[Index, int] = {}
    for expression, factor in scaled:
        more, inner = _parts(expression)
        offset += more * factor
        for atom, coefficient in inner:
            terms[atom] = terms.get(atom, 0) + coefficient * factor
    return _build(offset, terms)


def _build(offset: int, terms: dict[Index, int]) -> Index:
    """The canonical form of a sum; `terms` maps atoms to coefficients and is consumed."""
    while (rejoined := _rejoin(terms)) is not None:
        more, inner = _parts(rejoined[0])
        offset += more * rejoined[1]
        for atom, coefficient in inner:
            terms[atom] = terms.get(atom, 0) + coefficient * rejoined[1]
    kept = [(atom, c) for atom, c in terms.items() if c]
    if not kept:
        return Constant(offset)
    if len(kept) == 1 and offset == 0 and kept[0][1] == 1:
        return kept[0][0]
    kept.sort(key=lambda term: (-term[1], str(term[0])))
    low = offset + sum(c * (atom.low if c > 0 else atom.high) for atom, c in kept)
    high = offset + sum(c * (atom.high if c > 0 else atom.low) for atom, c in kept)
    return Sum(offset, tuple(kept), low, high)


def _rejoin(terms: dict[Index, int]) -> tuple[Index, int] | None:
    """Takes a quotient and a remainder that belong together out of `terms`; (what they make, its coefficient), or None.

    x//a * a + x % a == x, and (x//a % b) * a + x % a == x % (a*b).
    """
    for atom, c in terms.items():
        if not isinstance(atom, Remainder) or not c:
            continue
        above = atom.operand // atom.divisor
        for other, other_coefficient in terms.items():
            if other_coefficient != c * atom.divisor:
                continue
            if other == above:
                del terms[atom], terms[other]
                return atom.operand, c
            if isinstance(other, Remainder) and other.operand == above:
                del terms[atom], terms[other]
                return atom.operand % (atom.divisor * other.divisor), c
    return None


# Quotients and remainders ---------------------------------------------------------------------------------------------


def divide(operand: Index, divisor: int) -> tuple[Index, Index]:
    """(operand // divisor, operand % divisor) with floor semantics; `divisor` is positive."""
    if divisor <= 0:
        raise ValueError(f"index expressions are divided by positive integers, not by {divisor}")
    whole, rest = _take_multiples(operand, divisor)
    if rest.high < divisor:
        return whole, rest
    factor, coarse, fine = _separate(rest, divisor)
    if factor > 1:
        quotient, remainder = divide(coarse, divisor // factor)
        return whole + quotient, remainder * factor + fine
    return whole + _quotient(rest, divisor), _remainder(rest, divisor)


def _take_multiples(operand: Index, divisor: int) -> tuple[Index, Index]:
    """(whole, rest) with operand == divisor * whole + rest, coefficients of rest under the divisor and 0 <= rest.low <
    divisor."""
    offset, terms = _parts(operand)
    whole, rest = {}, {}
    for atom, c in terms:
        multiples = c // divisor if c >= 0 else -(-c // divisor)
        whole[atom], rest[atom] = multiples, c - multiples * divisor
    candidate = _build(offset, rest)
    shift = candidate.low // divisor
    return _build(shift, whole), candidate - shift * divisor


def _separate(rest: Index, divisor: int) -> tuple[int, Index, Index]:
    """(factor, coarse, fine) with rest == factor * coarse + fine and 0 <= fine < factor, factor a divisor of `divisor`;
    or factor 1."""
    offset, terms = _parts(rest)
    for factor in sorted({gcd(c, divisor) for _, c in terms} - {1}, reverse=True):
        fine = _build(offset, {atom: c for atom, c in terms if c % factor})
        shift = fine.low // factor
        if fine.high - shift * factor < factor:
            coarse = _build(shift, {atom: c // factor for atom, c in terms if c % factor == 0})
            return factor, coarse, fine - shift * factor
    return 1, rest, ZERO


def _quotient(operand: Index, divisor: int) -> Index:
    match operand:
        case Quotient(operand=inner, divisor=first):  # x // a // b == x // (a*b)
            return inner // (first * divisor)
        case Remainder(operand=inner, divisor=first) if first % divisor == 0:  # x % (a*b) // b == x//b % a
            return (inner // divisor) % (first // divisor)
    return Quotient(operand, divisor, operand.low // divisor, operand.high // divisor)


def _remainder(operand: Index, divisor: int) -> Index:
    offset, terms = _parts(operand)
    opened = {atom: c for atom, c in terms if isinstance(atom, Remainder) and c * atom.divisor % divisor == 0}
    if opened:  # c * (x % a) == c * x modulo any divisor of c*a
        return (
            _combine(((atom.operand if atom in opened else atom), c) for atom, c in (*terms, (Constant(offset), 1)))
            % divisor
        )
    return Remainder(operand, divisor, 0, divisor - 1)


# Questions and changes ------------------------------------------------------------------------------------------------


def evaluate(expression: IndexLike, values: Mapping[Variable, Any]) -> Any:
    """The number (or NumPy array of numbers) that `expression` is where its variables are `values`."""
    match as_index(expression):
        case Constant(value=value):
            return value
        case Variable() as variable:
            return values[variable]
        case Quotient(operand=operand, divisor=divisor):
            return evaluate(operand, values) // divisor
        case Remainder(operand=operand, divisor=divisor):
            return evaluate(operand, values) % divisor
        case Sum(offset=offset, terms=terms):
            return offset + sum(c * evaluate(atom, values) for atom, c in terms)
    raise TypeError(f"not an index expression: {expression!r}")


def substitute(expression: IndexLike, replacements: Mapping[Variable, IndexLike]) -> Index:
    """`expression` with variables replaced by expressions, simplified anew."""
    match as_index(expression):
        case Variable() as variable:
            return as_index(replacements.get(variable, variable))
        case Quotient(operand=operand, divisor=divisor):
            return substitute(operand, replacements) // divisor
        case Remainder(operand=operand, divisor=divisor):
            return substitute(operand, replacements) % divisor
        case Sum(offset=offset, terms=terms):
            return _combine((*((substitute(atom, replacements), c) for atom, c in terms), (Constant(offset), 1)))
        case constant:
            return constant


def variables_of(expression: IndexLike) -> tuple[Variable, ...]:
    """The variables that occur, each once, in the order of the text."""
    match as_index(expression):
        case Variable() as variable:
            return (variable,)
        case Quotient(operand=operand) | Remainder(operand=operand):
            return variables_of(operand)
        case Sum(terms=terms):
            return tuple(dict.fromkeys(v for atom, _ in terms for v in variables_of(atom)))
    return ()


def affine(expression: IndexLike, dims: Sequence[Variable]) -> tuple[int, tuple[int, ...]] | None:
    """(offset, one coefficient per dim) when `expression` is offset + sum of coefficient * dim, else None."""
    offset, terms = _parts(as_index(expression))
    coefficients = dict(terms)
    result = tuple(coefficients.pop(dim, 0) for dim in dims)
    return None if coefficients else (offset, result)


def variables(shape: Sequence[Dim], prefix: str = "i") -> tuple[Variable, ...]:
    """One variable per axis: `i0`, `i1`, ..."""
    return tuple(Variable(f"{prefix}{k}", size) for k, size in enumerate(shape))


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements to step per axis in a contiguous buffer; an empty axis counts as one of size 1."""
    sizes = [max(size, 1) for size in shape]
    return tuple(prod(sizes[k + 1 :]) for k in range(len(sizes)))


def flatten(indices: Sequence[IndexLike], shape: Sequence[int]) -> Index:
    """The row-major position of `indices` in an array of `shape`."""
    strides = row_major_strides(shape)
    return _combine((as_index(i), stride) for i, stride in zip(indices, strides, strict=True))


def unflatten(position: IndexLike, shape: Sequence[int]) -> tuple[Index, ...]:
    """The indices of the row-major `position` in an array of `shape`; the inverse of `flatten`."""
    rest, indices = as_index(position), []
    for stride in row_major_strides(shape):
        index, rest = divide(rest, stride)
        indices.append(index)
    return tuple(indices)


def compose(
    views: Sequence[tuple[Any, TensorType, Mapping[str, Any]]], indices: Sequence[IndexLike]
) -> tuple[Index, ...]:
    """The indices that a chain of views reads.

    `views` are (op, type of its input, attrs), in the order in which they are applied; `indices` index the result of
    the last one.
    """
    current: Sequence[IndexLike] = indices
    for op, type, attrs in reversed(views):
        current = op.index(current, type, attrs)
    return tuple(as_index(i) for i in current)


# Predicates -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """`low <= expression < high`."""

    expression: Index
    low: int
    high: int

    def __str__(self) -> str:
        if self.low <= self.expression.low:
            return f"{self.expression} < {self.high}"
        if self.high > self.expression.high:
            return f"{self.low} <= {self.expression}"
        return f"{self.low} <= {self.expression} < {self.high}"


@dataclass(frozen=True, slots=True)
class Predicate:
    """A conjunction of bounds, none of which holds by ranges alone. Made by `within` and `&`."""

    bounds: tuple[Bound, ...] = ()
    never: bool = False
    """Whether ranges alone show that it never holds; it has no bounds then."""

    @property
    def always(self) -> bool:
        """Whether it holds everywhere."""
        return not self.bounds and not self.never

    def __and__(self, other: Predicate) -> Predicate:
        if self.never or other.never:
            return NEVER
        merged: dict[Index, Bound] = {}
        for bound in (*self.bounds, *other.bounds):
            known = merged.get(bound.expression, bound)
            both = Bound(bound.expression, max(bound.low, known.low), min(bound.high, known.high))
            if both.low >= both.high:
                return NEVER
            merged[bound.expression] = both
        return Predicate(tuple(merged.values()))

    def evaluate(self, values: Mapping[Variable, Any]) -> Any:
        """Whether it holds where the variables are `values` (numbers or arrays)."""
        truth: Any = not self.never
        for bound in self.bounds:
            number = evaluate(bound.expression, values)
            truth = truth & (bound.low <= number) & (number < bound.high)
        return truth

    def substitute(self, replacements: Mapping[Variable, IndexLike]) -> Predicate:
        """The same condition with variables replaced by expressions."""
        result = NEVER if self.never else ALWAYS
        for bound in self.bounds:
            result = result & within(substitute(bound.expression, replacements), bound.low, bound.high)
        return result

    def __str__(self) -> str:
        if self.never:
            return "False"
        return " and ".join(map(str, self.bounds)) or "True"


ALWAYS = Predicate()
NEVER = Predicate(never=True)


def within(expression: IndexLike, low: int, high: int) -> Predicate:
    """The predicate `low <= expression < high`, with offsets and common factors moved to the bounds."""
    offset, terms = _parts(as_index(expression))
    if not terms:
        return ALWAYS if low <= offset < high else NEVER
    factor = gcd(*(c for _, c in terms)) * (1 if terms[0][1] > 0 else -1)
    reduced = _build(0, {atom: c // factor for atom, c in terms})
    first, last = low - offset, high - 1 - offset
    if factor < 0:
        first, last, factor = -last, -first, -factor
    first, last = -(-first // factor), last // factor  # the integers that factor * reduced may be between
    if first <= reduced.low and reduced.high <= last:
        return ALWAYS
    if last < reduced.low or reduced.high < first or last < first:
        return NEVER
    return Predicate((Bound(reduced, max(first, reduced.low), min(last, reduced.high) + 1),))
