"""Sizes that change from call to call: symbols and polynomials in them, and Python ints that remember which they are.

Kernels are written with polynomials in place of the sizes of symbolic axes, so that their text is the same for every
size. A question about polynomials is answered when the answer is the same for all values of the symbols; otherwise it
is `Undecided`, and whoever asked is left with the sizes of the call at hand. Programs are traced and optimised with
`SymbolicSize`s: plain ints, correct wherever they get to, that only remember where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import gcd
from operator import index
from typing import NoReturn, SupportsIndex, TypeAlias

from .errors import WeftError

Monomial: TypeAlias = "tuple[Symbol, ...]"
"""A product of symbols, sorted by name; () is 1."""


class Undecided(WeftError):
    """A question about symbolic sizes whose answer depends on their values."""


class Polynomial:
    """A sum of products of symbols times integers; not constant. Made by operators, compared and hashed by structure.

    Attributes:
        terms: monomial -> coefficient, none of them 0, in descending order of monomials.
    """

    __slots__ = ("_hash", "_lowest", "terms")
    terms: Mapping[Monomial, int]

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = terms
        self._hash = hash(tuple((tuple(s.name for s in m), c) for m, c in terms.items()))
        self._lowest: Mapping[Monomial, int] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    # Arithmetic

    def __add__(self, other: Dim) -> Dim:
        return _sum(self, other, 1) if isinstance(other, (int, Polynomial)) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _sum(self, other, -1) if isinstance(other, (int, Polynomial)) else NotImplemented

    def __rsub__(self, other: int) -> Dim:
        return _sum(other, self, -1) if isinstance(other, int) else NotImplemented

    def __neg__(self) -> Dim:
        return _made({m: -c for m, c in self.terms.items()})

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return _made({m: c * other for m, c in self.terms.items()})
        return _product(self.terms, other.terms) if isinstance(other, Polynomial) else NotImplemented

    __rmul__ = __mul__

    def __floordiv__(self, divisor: Dim) -> Dim:
        return floor_divide(self, divisor)

    def __rfloordiv__(self, number: int) -> Dim:
        return floor_divide(number, self)

    def __mod__(self, divisor: Dim) -> Dim:
        return self - floor_divide(self, divisor) * divisor

    def __rmod__(self, number: int) -> Dim:
        return number - floor_divide(number, self) * self

    # Questions

    def __lt__(self, other: Dim) -> bool:
        return _decided(self, other, is_less(self, other), is_less(other, self + 1))

    def __le__(self, other: Dim) -> bool:
        return _decided(self, other, is_less(self, other + 1), is_less(other, self))

    def __gt__(self, other: Dim) -> bool:
        return _decided(other, self, is_less(other, self), is_less(self, other + 1))

    def __ge__(self, other: Dim) -> bool:
        return _decided(other, self, is_less(other, self + 1), is_less(self, other))

    def __bool__(self) -> bool:
        if is_less(0, self) or is_less(self, 0):
            return True
        raise Undecided(f"whether {self} is 0")

    def _number(self) -> NoReturn:
        raise Undecided(f"the size {self} is not known before the program runs")

    __index__ = __int__ = __float__ = __complex__ = _number

    def lowest(self) -> Mapping[Monomial, int]:
        """The polynomial in what the symbols exceed their least values by."""
        if self._lowest is None:
            found: dict[Monomial, int] = {}
            for monomial, coefficient in self.terms.items():
                places = range(len(monomial))
                for count in range(len(monomial) + 1):
                    for kept in combinations(places, count):
                        part = coefficient
                        for k in places:
                            part *= 1 if k in kept else monomial[k].least
                        key = tuple(monomial[k] for k in kept)
                        found[key] = found.get(key, 0) + part
            self._lowest = found
        return self._lowest

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        text = ""
        for monomial, c in self.terms.items():
            factors = ([] if abs(c) == 1 and monomial else [str(abs(c))]) + [s.name for s in monomial]
            text += (" - " if c < 0 else " + ") if text else "-" if c < 0 else ""
            text += "*".join(factors)
        return text


class Symbol(Polynomial):
    """A size that is known only when the program runs; prints as its name.

    Attributes:
        name: an identifier; two symbols of one name are equal.
        hint: the size by which decisions are made that any size would be right for.
        least: no size is smaller.
    """

    __slots__ = ("hint", "least", "name")

    def __init__(self, name: str, hint: int = 64, least: int = 0) -> None:
        self.name, self.hint, self.least = name, hint, least
        super().__init__({(self,): 1})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbol) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


Dim = int | Polynomial
"""The size of an axis."""


# Making polynomials ---------------------------------------------------------------------------------------------------


def _order(monomial: Monomial) -> tuple[int, tuple[str, ...]]:
    return -len(monomial), tuple(s.name for s in monomial)


def _made(terms: Mapping[Monomial, int]) -> Dim:
    """The polynomial, symbol or int that terms are."""
    kept = {m: terms[m] for m in sorted((m for m, c in terms.items() if c), key=_order)}
    if not kept:
        return 0
    (first, coefficient), *rest = kept.items()
    if not rest and not first:
        return coefficient
    return first[0] if not rest and len(first) == coefficient == 1 else Polynomial(kept)


def terms_of(size: Dim) -> Mapping[Monomial, int]:
    """The terms of a size; none for 0."""
    return size.terms if isinstance(size, Polynomial) else {(): int(size)} if size else {}


def _sum(a: Dim, b: Dim, factor: int) -> Dim:
    terms = dict(terms_of(a))
    for monomial, c in terms_of(b).items():
        terms[monomial] = terms.get(monomial, 0) + c * factor
    return _made(terms)


def _product(a: Mapping[Monomial, int], b: Mapping[Monomial, int]) -> Dim:
    terms: dict[Monomial, int] = {}
    for m, c in a.items():
        for n, d in b.items():
            key = tuple(sorted((*m, *n), key=lambda s: s.name))
            terms[key] = terms.get(key, 0) + c * d
    return _made(terms)


# Answers for all values -----------------------------------------------------------------------------------------------


def is_less(a: Dim, b: Dim) -> bool:
    """Whether a < b, whatever the sizes are; False when that depends."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    difference = b - a
    if isinstance(difference, int):
        return difference > 0
    lowest = difference.lowest()
    return lowest.get((), 0) > 0 and min(lowest.values()) >= 0


def _decided(a: Dim, b: Dim, yes: bool, no: bool) -> bool:
    if yes == no:
        raise Undecided(f"how {a} compares with {b}")
    return yes


def exact_quotient(number: Dim, divisor: Dim) -> Dim | None:
    """number / divisor as a polynomial; None when the division leaves a rest, or its value depends on the sizes."""
    if isinstance(number, int) and isinstance(divisor, int):
        return None if number % divisor else number // divisor
    rest, by = number, terms_of(divisor)
    leading, coefficient = next(iter(by.items()))
    quotient: Dim = 0
    while rest != 0:
        monomial, c = next(iter(terms_of(rest).items()))
        left = _without(monomial, leading)
        if left is None or c % coefficient:
            return None
        part = _made({left: c // coefficient})
        quotient, rest = quotient + part, rest - part * divisor
    return quotient


def _without(monomial: Monomial, factors: Monomial) -> Monomial | None:
    """What is left of a product when factors are taken out; None if they are not all there."""
    left = list(monomial)
    for factor in factors:
        if factor not in left:
            return None
        left.remove(factor)
    return tuple(left)


def divides(divisor: Dim, number: Dim) -> bool:
    """Whether `divisor` divides `number`, whatever the sizes are."""
    return exact_quotient(number, divisor) is not None


def floor_divide(number: Dim, divisor: Dim) -> Dim:
    """number // divisor, when that is one polynomial for all sizes."""
    if isinstance(number, int) and isinstance(divisor, int):
        return number // divisor
    exact = exact_quotient(number, divisor)
    if exact is not None:
        return exact
    if is_less(-1, number) and is_less(number, divisor):
        return 0
    if is_less(number, 0) and is_less(-1, number + divisor):
        return -1
    raise Undecided(f"{number} divided by {divisor}")


def common_factor(a: Dim, b: Dim) -> Dim:
    """A common divisor of two sizes: the greatest number times all symbols that they share."""
    if isinstance(a, int) and isinstance(b, int):
        return gcd(a, b)
    terms = [*terms_of(a).items(), *terms_of(b).items()]
    content, shared = 0, None
    for monomial, c in terms:
        content = gcd(content, c)
        shared = monomial if shared is None else _shared(shared, monomial)
    return _made({shared or (): content})


def _shared(a: Monomial, b: Monomial) -> Monomial:
    rest, found = list(b), []
    for symbol in a:
        if symbol in rest:
            rest.remove(symbol)
            found.append(symbol)
    return tuple(found)


NO_VALUES: Mapping[Symbol, int] = {}
"""The values of symbols where there are none."""


# Values ---------------------------------------------------------------------------------------------------------------


def is_known(*sizes: Dim) -> bool:
    """Whether all of `sizes` are numbers."""
    return all(isinstance(n, int) for n in sizes)


def at_most(size: Dim, bound: int) -> bool:
    """Whether a size is known and not larger than `bound`: what code is unrolled by."""
    return isinstance(size, int) and size <= bound


def typical(size: Dim) -> int:
    """The size to decide by, where any decision would be right."""
    if isinstance(size, int):
        return size
    return sum(c * _at(m, {s: s.hint for s in m}) for m, c in size.terms.items())


def value_of(size: Dim, values: Mapping[Symbol, int]) -> int:
    """The number that a size is where the symbols are `values`."""
    if isinstance(size, int):
        return size
    return sum(c * _at(m, values) for m, c in size.terms.items())


def replaced(size: Dim, values: Mapping[Symbol, Dim]) -> Dim:
    """A size with symbols replaced by sizes."""
    if isinstance(size, int):
        return size
    total: Dim = 0
    for monomial, c in size.terms.items():
        part: Dim = c
        for symbol in monomial:
            part = part * values.get(symbol, symbol)
        total = total + part
    return total


def _at(monomial: Monomial, values: Mapping[Symbol, int]) -> int:
    product = 1
    for symbol in monomial:
        product *= values[symbol]
    return product


def symbols_of(size: Dim) -> tuple[Symbol, ...]:
    """The symbols that occur, each once."""
    return tuple(dict.fromkeys(s for m in terms_of(size) for s in m))


def descending(size: Dim) -> tuple[int, int, str]:
    """A key that puts sizes in descending order: higher products of symbols first, then larger numbers."""
    if isinstance(size, int):
        return 0, -size, ""
    leading, coefficient = next(iter(size.terms.items()))
    return -len(leading), -coefficient, str(size)


def is_negative(size: Dim) -> bool:
    """Whether a size is written with a minus in front: no term of it is positive, and some are negative."""
    return size < 0 if isinstance(size, int) else max(size.terms.values()) < 0


# Ints that remember ---------------------------------------------------------------------------------------------------


class SymbolicSize(int):
    """An int that remembers that it is the size of a symbolic axis, or computed from such sizes.

    It is a plain int in every other way. Sums, differences, products and exact quotients remember; anything else
    gives an int that does not, which costs no more than a kernel that is compiled again for another size.
    """

    expression: Polynomial

    def __new__(cls, number: int, expression: Dim) -> int:  # type: ignore[misc]
        """`number` itself when the expression is none."""
        if isinstance(expression, int):
            return int(number)
        made = int.__new__(cls, number)
        made.expression = expression
        return made

    def __add__(self, other: int) -> int:
        return _remembered(int.__add__(self, other), self, other, "+")

    def __radd__(self, other: int) -> int:
        return _remembered(int.__radd__(self, other), other, self, "+")

    def __sub__(self, other: int) -> int:
        return _remembered(int.__sub__(self, other), self, other, "-")

    def __rsub__(self, other: int) -> int:
        return _remembered(int.__rsub__(self, other), other, self, "-")

    def __mul__(self, other: int) -> int:
        return _remembered(int.__mul__(self, other), self, other, "*")

    def __rmul__(self, other: int) -> int:
        return _remembered(int.__rmul__(self, other), other, self, "*")

    def __floordiv__(self, other: int) -> int:
        return _remembered(int.__floordiv__(self, other), self, other, "/")

    def __rfloordiv__(self, other: int) -> int:
        return _remembered(int.__rfloordiv__(self, other), other, self, "/")

    def __neg__(self) -> int:
        return SymbolicSize(int.__neg__(self), -self.expression)

    def __pos__(self) -> int:
        return self

    def __reduce__(self) -> tuple:
        return int, (int(self),)


def whole(number: SupportsIndex) -> int:
    """As `operator.index`, which makes plain ints of all others; a size remembers on."""
    return number if isinstance(number, SymbolicSize) else index(number)


def expression_of(number: int) -> Dim:
    """The polynomial that an int remembers, or the int."""
    return number.expression if isinstance(number, SymbolicSize) else number


def memory_of(attr: object) -> object:
    """What the ints in an attribute remember; None when that is nothing. Two attributes are the same for all sizes only
    if this is equal too."""
    if isinstance(attr, SymbolicSize):
        return attr.expression
    if isinstance(attr, tuple):
        memories = tuple(map(memory_of, attr))
        return memories if any(m is not None for m in memories) else None
    return None


def _remembered(result: object, a: int, b: int, sign: str) -> int:
    """The result of int arithmetic with the expression that it follows."""
    if result is NotImplemented or type(a) is bool or type(b) is bool:
        return result  # type: ignore[return-value]
    assert isinstance(result, int)
    x, y = expression_of(a), expression_of(b)
    if sign == "/":
        quotient = exact_quotient(x, y) if y != 0 else None
        return result if quotient is None else SymbolicSize(result, quotient)
    return SymbolicSize(result, x + y if sign == "+" else x - y if sign == "-" else x * y)
