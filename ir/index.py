"""Index expressions: integer arithmetic over loop variables with known ranges, put into canonical form as it is
written.

An expression is an offset plus a sum of atoms times integers; an atom is a variable in [0, size), a floor quotient by a
positive integer, or a remainder by one. Python's operators build expressions and simplify at once, so two expressions
that simplify to the same form are equal and hash equally. Views are functions from output to input index expressions
(`Op.index`); piecewise ops add a `Predicate`. Nothing here knows about graphs or kernels.

All integers may be symbolic sizes (`ir/sizes.py`): an expression is simplified where that is right for all of them, so
its form does not depend on their values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, prod
from typing import Any

from .sizes import (
    Dim,
    Polynomial,
    Symbol,
    Undecided,
    common_factor,
    descending,
    divides,
    exact_quotient,
    floor_divide,
    is_known,
    is_less,
    is_negative,
)
from .types import TensorType

LONGEST_AXIS = 1 << 47
"""No axis is longer."""

UNBOUNDED = 1 << 100
"""What stands for the bound of an expression of which nothing is known."""


class Index:
    """Base of the expressions. `low` and `high` are inclusive bounds that hold whatever the variables are."""

    __slots__ = ()
    low: Dim
    high: Dim

    def __add__(self, other: IndexLike) -> Index:
        return _combine(((self, 1), (as_index(other), 1)))

    __radd__ = __add__

    def __sub__(self, other: IndexLike) -> Index:
        return _combine(((self, 1), (as_index(other), -1)))

    def __rsub__(self, other: IndexLike) -> Index:
        return _combine(((as_index(other), 1), (self, -1)))

    def __neg__(self) -> Index:
        return _combine(((self, -1),))

    def __mul__(self, factor: Dim) -> Index:
        return _combine(((self, factor),))

    __rmul__ = __mul__

    def __floordiv__(self, divisor: Dim) -> Index:
        return divide(self, divisor)[0]

    def __mod__(self, divisor: Dim) -> Index:
        return divide(self, divisor)[1]

    def __repr__(self) -> str:
        return str(self)


IndexLike = Index | Dim


@dataclass(frozen=True, slots=True, repr=False)
class Constant(Index):
    """An integer."""

    value: Any

    @property
    def low(self) -> Dim:  # type: ignore[override]
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
    def high(self) -> Dim:  # type: ignore[override]
        """The last value; 0 for an empty axis, whose expressions are never evaluated."""
        return (max(self.size, 1) if isinstance(self.size, int) else self.size) - 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, repr=False)
class Quotient(Index):
    """`operand // divisor`, for an operand that is never negative. Made by `//` only."""

    operand: Index
    divisor: Dim
    low: Dim = field(compare=False)
    high: Dim = field(compare=False)

    def __str__(self) -> str:
        return f"{_factor_text(self.operand)}//{number_text(self.divisor)}"


@dataclass(frozen=True, slots=True, repr=False)
class Remainder(Index):
    """`operand % divisor`, for an operand that is never negative. Made by `%` only."""

    operand: Index
    divisor: Dim
    low: Dim = field(compare=False)
    high: Dim = field(compare=False)

    def __str__(self) -> str:
        return f"{_factor_text(self.operand)} % {number_text(self.divisor)}"


@dataclass(frozen=True, slots=True, repr=False)
class Sum(Index):
    """`offset + coefficient * atom + ...`; terms stand in descending order of coefficients, then by text. Made by
    operators only."""

    offset: Dim
    terms: tuple[tuple[Index, Dim], ...]
    low: Dim = field(compare=False)
    high: Dim = field(compare=False)

    def __str__(self) -> str:
        pieces = [_signed(c, atom) for atom, c in self.terms]
        if self.offset != 0:
            piece = _signed(self.offset, None)
            pieces.insert(0 if pieces[0][0] == "-" and piece[0] == "+" else len(pieces), piece)
        sign, text = pieces[0]
        if sign == "-":  # -(a//2), for Python reads -a//2 as (-a)//2
            text = "-" + (_factor_text(self.terms[0][0]) if self.terms[0][1] == -1 else text)
        return text + "".join(f" {sign} {text}" for sign, text in pieces[1:])


def _signed(number: Dim, atom: Index | None) -> tuple[str, str]:
    """(sign, text without it) of `number`, or of `number` times an atom."""
    minus = is_negative(number)
    size = -number if minus else number
    text = str(size) if atom is None else str(atom) if size == 1 else f"{number_text(size)}*{_factor_text(atom)}"
    return "-" if minus else "+", text


def number_text(number: Dim) -> str:
    """A coefficient or divisor."""
    return str(number) if isinstance(number, (int, Symbol)) else f"({number})"


def _factor_text(expression: Index) -> str:
    return str(expression) if isinstance(expression, (Variable, Constant)) else f"({expression})"


ZERO = Constant(0)


def as_index(value: IndexLike) -> Index:
    """`value` as an expression."""
    if isinstance(value, Polynomial):
        return Constant(value)
    return value if isinstance(value, Index) else Constant(int(value))


# Sums -----------------------------------------------------------------------------------------------------------------


def _parts(expression: Index) -> tuple[Dim, Sequence[tuple[Index, Dim]]]:
    """(offset, terms) of any expression."""
    match expression:
        case Sum(offset=offset, terms=terms):
            return offset, terms
        case Constant(value=value):
            return value, ()
        case _:
            return (expression.low, ()) if expression.low == expression.high else (0, ((expression, 1),))


def _combine(scaled: Iterable[tuple[Index, Dim]]) -> Index:
    """The sum of expressions times integers."""
    offset: Dim = 0
    terms: dict[Index, Dim] = {}
    for expression, factor in scaled:
        more, inner = _parts(expression)
        offset += more * factor
        for atom, coefficient in inner:
            terms[atom] = terms.get(atom, 0) + coefficient * factor
    return _build(offset, terms)


def _build(offset: Dim, terms: dict[Index, Dim]) -> Index:
    """The canonical form of a sum; `terms` maps atoms to coefficients and is consumed."""
    while (rejoined := _rejoin(terms)) is not None:
        more, inner = _parts(rejoined[0])
        offset += more * rejoined[1]
        for atom, coefficient in inner:
            terms[atom] = terms.get(atom, 0) + coefficient * rejoined[1]
    kept = [(atom, c) for atom, c in terms.items() if c != 0]
    if not kept:
        return Constant(offset)
    if len(kept) == 1 and offset == 0 and kept[0][1] == 1:
        return kept[0][0]
    kept.sort(key=lambda term: (descending(term[1]), str(term[0])))
    low, high = offset, offset
    for atom, c in kept:
        least, most = _extremes(atom, c)
        low, high = low + least, high + most
    return Sum(offset, tuple(kept), low, high)


def _extremes(atom: Index, c: Dim) -> tuple[Dim, Dim]:
    """Bounds of an atom times a coefficient."""
    if is_less(0, c):
        return c * atom.low, c * atom.high
    if is_less(c, 0):
        return c * atom.high, c * atom.low
    return -UNBOUNDED, UNBOUNDED


def _rejoin(terms: dict[Index, Dim]) -> tuple[Index, Dim] | None:
    """Takes a quotient and a remainder that belong together out of `terms`; (what they make, its coefficient), or None.

    x//a * a + x % a == x, and (x//a % b) * a + x % a == x % (a*b).
    """
    for atom, c in terms.items():
        if not isinstance(atom, Remainder) or c == 0:
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


def divide(operand: Index, divisor: Dim) -> tuple[Index, Index]:
    """(operand // divisor, operand % divisor) with floor semantics; `divisor` is positive."""
    if not is_less(0, divisor):
        if not isinstance(divisor, int):
            raise Undecided(f"whether {divisor} is positive")
        raise ValueError(f"index expressions are divided by positive integers, not by {divisor}")
    whole, rest = _take_multiples(operand, divisor)
    if is_less(rest.high, divisor):
        return whole, rest
    factor, coarse, fine = _separate(rest, divisor)
    if factor != 1:
        quotient, remainder = divide(coarse, floor_divide(divisor, factor))
        return whole + quotient, remainder * factor + fine
    return whole + _quotient(rest, divisor), _remainder(rest, divisor)


def _take_multiples(operand: Index, divisor: Dim) -> tuple[Index, Index]:
    """(whole, rest) with operand == divisor * whole + rest, coefficients of rest under the divisor and 0 <= rest.low <
    divisor, as far as that can be said."""
    offset, terms = _parts(operand)
    whole: dict[Index, Dim] = {}
    rest: dict[Index, Dim] = {}
    for atom, c in terms:
        multiples = _multiples(c, divisor)
        whole[atom], rest[atom] = multiples, c - multiples * divisor
    candidate = _build(offset, rest)
    shift = floor_divide(candidate.low, divisor)
    return _build(shift, whole), candidate - shift * divisor


def _multiples(c: Dim, divisor: Dim) -> Dim:
    """How often `divisor` can be taken out of `c`, towards zero."""
    if isinstance(c, int) and isinstance(divisor, int):
        return c // divisor if c >= 0 else -(-c // divisor)
    return exact_quotient(c, divisor) or 0


def _separate(rest: Index, divisor: Dim) -> tuple[Dim, Index, Index]:
    """(factor, coarse, fine) with rest == factor * coarse + fine and 0 <= fine < factor, factor a divisor of `divisor`;
    or factor 1."""
    offset, terms = _parts(rest)
    for factor in sorted({common_factor(c, divisor) for _, c in terms} - {1}, key=descending):
        fine = _build(offset, {atom: c for atom, c in terms if not divides(factor, c)})
        shift = floor_divide(fine.low, factor)
        if is_less(fine.high - shift * factor, factor):
            coarse = _build(shift, {atom: floor_divide(c, factor) for atom, c in terms if divides(factor, c)})
            return factor, coarse, fine - shift * factor
    return 1, rest, ZERO


def _quotient(operand: Index, divisor: Dim) -> Index:
    match operand:
        case Quotient(operand=inner, divisor=first):  # x // a // b == x // (a*b)
            return inner // (first * divisor)
        case Remainder(operand=inner, divisor=first) if divides(divisor, first):  # x % (a*b) // b == x//b % a
            return (inner // divisor) % floor_divide(first, divisor)
    return Quotient(operand, divisor, floor_divide(operand.low, divisor), _last_quotient(operand.high, divisor))


def _last_quotient(high: Dim, divisor: Dim) -> Dim:
    """A bound of x // divisor for x <= high: the least, where that is one polynomial."""
    if isinstance(high, int) and isinstance(divisor, int):
        return high // divisor
    count = exact_quotient(high + 1, divisor)
    return high if count is None else count - 1


def _remainder(operand: Index, divisor: Dim) -> Index:
    offset, terms = _parts(operand)
    opened = {atom: c for atom, c in terms if isinstance(atom, Remainder) and divides(divisor, c * atom.divisor)}
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


def affine(expression: IndexLike, dims: Sequence[Variable]) -> tuple[Any, tuple[Any, ...]] | None:
    """(offset, one coefficient per dim) when `expression` is offset + sum of coefficient * dim, else None."""
    offset, terms = _parts(as_index(expression))
    coefficients = dict(terms)
    result = tuple(coefficients.pop(dim, 0) for dim in dims)
    return None if coefficients else (offset, result)


def disjoint(a: Index, b: Index) -> bool:
    """Whether two expressions have no value in common, each with values of its own for the variables."""
    if is_less(a.high, b.low) or is_less(b.high, a.low):
        return True
    (first, terms), (second, others) = _parts(a), _parts(b)
    steps = [c for _, c in (*terms, *others)]
    if not is_known(first, second, *steps):
        return False
    step = gcd(*steps)
    return step > 1 and (first - second) % step != 0


def coefficient(expression: IndexLike, variable: Variable) -> Any:
    """How far `expression` moves with one step of `variable`, whatever the others are; None when that is not
    constant."""
    terms = dict(_parts(as_index(expression))[1])
    step = terms.pop(variable, 0)
    return None if any(variable in variables_of(atom) for atom in terms) else step


def variables(shape: Sequence[Dim], prefix: str = "i") -> tuple[Variable, ...]:
    """One variable per axis: `i0`, `i1`, ..."""
    return tuple(Variable(f"{prefix}{k}", size) for k, size in enumerate(shape))


def row_major_strides(shape: Sequence[Any]) -> tuple[Any, ...]:
    """Elements to step per axis in a contiguous buffer; an empty axis counts as one of size 1."""
    sizes = [max(size, 1) if isinstance(size, int) else size for size in shape]
    return tuple(prod(sizes[k + 1 :]) for k in range(len(sizes)))


def flatten(indices: Sequence[IndexLike], shape: Sequence[Any]) -> Index:
    """The row-major position of `indices` in an array of `shape`."""
    strides = row_major_strides(shape)
    return _combine((as_index(i), stride) for i, stride in zip(indices, strides, strict=True))


def unflatten(position: IndexLike, shape: Sequence[Any]) -> tuple[Index, ...]:
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
    low: Any
    high: Any

    @property
    def needs_low(self) -> bool:
        """Whether the range of the expression does not already say `low <= expression`."""
        return not is_less(self.low, self.expression.low + 1)

    @property
    def needs_high(self) -> bool:
        """Whether the range of the expression does not already say `expression < high`."""
        return not is_less(self.expression.high, self.high)

    def __str__(self) -> str:
        if not self.needs_low:
            return f"{self.expression} < {self.high}"
        if not self.needs_high:
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
        merged: dict[object, Bound] = {}
        for bound in (*self.bounds, *other.bounds):
            known = merged.get(bound.expression, bound)
            low, high = _largest(bound.low, known.low), _least(bound.high, known.high)
            if low is None or high is None:
                merged[bound] = bound
                continue
            if is_less(high, low + 1):
                return NEVER
            merged[bound.expression] = Bound(bound.expression, low, high)
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


def within(expression: IndexLike, low: Dim, high: Dim) -> Predicate:
    """The predicate `low <= expression < high`, with offsets and common factors moved to the bounds."""
    offset, terms = _parts(as_index(expression))
    if not terms:
        return ALWAYS if low <= offset < high else NEVER
    factor = _factor_of(terms, low - offset, high - 1 - offset)
    reduced = _build(0, {atom: floor_divide(c, factor) for atom, c in terms})
    first, last = low - offset, high - 1 - offset
    if is_negative(factor):
        first, last, factor = -last, -first, -factor
    first, last = -floor_divide(-first, factor), floor_divide(last, factor)  # what factor * reduced may be between
    if is_less(first, reduced.low + 1) and is_less(reduced.high, last + 1):
        return ALWAYS
    if is_less(last, reduced.low) or is_less(reduced.high, first) or is_less(last, first):
        return NEVER
    larger, smaller = _largest(first, reduced.low), _least(last, reduced.high)
    return Predicate((Bound(reduced, first if larger is None else larger, (last if smaller is None else smaller) + 1),))


def _factor_of(terms: Sequence[tuple[Index, Dim]], first: Dim, last: Dim) -> Dim:
    """What all coefficients have in common, with the sign of the first one; symbols are left in when the bounds do not
    have them in common."""
    common: Dim = 0
    for _, c in terms:
        common = common_factor(common, c)
    if not isinstance(common, int) and not (divides(common, first) and divides(common, last)):
        common = 1
    elif isinstance(common, int) and not (isinstance(first, int) and isinstance(last, int)):
        common = common if divides(common, first) and divides(common, last) else 1
    return -common if is_negative(terms[0][1]) else common


def _largest(a: Dim, b: Dim) -> Dim | None:
    """The larger one; None when that depends on the sizes."""
    return b if a == b or is_less(a, b) else a if is_less(b, a) else None


def _least(a: Dim, b: Dim) -> Dim | None:
    """The smaller one; None when that depends on the sizes."""
    return a if a == b or is_less(a, b) else b if is_less(b, a) else None
