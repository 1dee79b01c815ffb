"""Symbolic sizes: polynomials whose questions are answered only when one answer is right for all values, index
expressions over them, and ints that remember."""

from __future__ import annotations

import itertools
import pickle
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.ir.index import Constant, Quotient, Remainder, Sum, Variable, flatten, unflatten, within
from weft.ir.sizes import (
    Polynomial,
    Symbol,
    SymbolicSize,
    Undecided,
    common_factor,
    divides,
    exact_quotient,
    expression_of,
    is_less,
    memory_of,
    replaced,
    typical,
    value_of,
)

N, M = Symbol("n", hint=48, least=2), Symbol("m", hint=5, least=1)
VALUES = [{N: n, M: m} for n in (2, 3, 4, 7, 16) for m in (1, 2, 5, 16)]


def polynomials():
    terms = st.tuples(st.integers(-3, 3), st.integers(0, 2), st.integers(0, 1))

    def total(parts):
        return sum((c * prod([N] * i) * prod([M] * j) for c, i, j in parts), start=0)

    return st.lists(terms, max_size=3).map(total)


def value(size, values):
    return value_of(size, values)


def test_arithmetic_gives_one_form():
    assert N + N == 2 * N == N * 2 and N - N == 0 and N * M == M * N and (N + 1) * (N - 1) == N * N - 1
    assert type(N * 1) is Symbol and N + 0 == N and 0 - (0 - N) == N and 3 - (3 - N) == N
    assert hash(N * M + 1) == hash(1 + M * N) and N != 48 and N * M != N
    assert str(2 * N * N - N * M + 3) == "-m*n + 2*n*n + 3"


@given(polynomials(), polynomials())
def test_operators_agree_with_numbers(a, b):
    for values in VALUES:
        x, y = value(a, values), value(b, values)
        assert value(a + b, values) == x + y and value(a - b, values) == x - y and value(a * b, values) == x * y
        assert value(replaced(a, {N: M + 1}), values) == value(a, {**values, N: values[M] + 1})


@given(polynomials(), polynomials())
def test_answers_hold_for_all_values(a, b):
    if is_less(a, b):
        assert all(value(a, v) < value(b, v) for v in VALUES)
    try:
        less, at_most = a < b, a <= b
    except Undecided:
        return
    assert all((value(a, v) < value(b, v)) is less and (value(a, v) <= value(b, v)) is at_most for v in VALUES)


@given(polynomials(), polynomials())
def test_quotients_hold_for_all_values(a, b):
    if b == 0 or not is_less(0, b):
        return
    exact = exact_quotient(a, b)
    if exact is not None:
        assert exact * b == a and divides(b, a)
    try:
        quotient, rest = a // b, a % b
    except Undecided:
        return
    for v in VALUES:
        assert (value(quotient, v), value(rest, v)) == divmod(value(a, v), value(b, v))


@given(polynomials(), polynomials())
def test_a_common_factor_divides_both(a, b):
    factor = common_factor(a, b)
    if factor != 0:
        assert divides(factor, a) and divides(factor, b)


def test_what_depends_on_the_values_is_not_decided():
    questions = [lambda: N < 20, lambda: N // 16, lambda: N % 3, lambda: bool(N - 7), lambda: range(N), lambda: int(N)]
    for question in questions:
        with pytest.raises(Undecided):
            question()
    assert N > 1 and bool(N) and M >= 1 and N * M >= 2 and 1 // N == 0 and (N * M) // N == M and -1 // N == -1
    assert typical(N * M + 1) == 241


# index expressions ------------------------------------------------------------------------------------------------


def number(index, variables, values):
    """The value of an index expression."""
    match index:
        case Constant(value=size):
            return value(size, values)
        case Variable(name=name):
            return variables[name]
        case Quotient(operand=operand, divisor=divisor):
            return number(operand, variables, values) // value(divisor, values)
        case Remainder(operand=operand, divisor=divisor):
            return number(operand, variables, values) % value(divisor, values)
        case Sum(offset=offset, terms=terms):
            return value(offset, values) + sum(value(c, values) * number(a, variables, values) for a, c in terms)
    raise TypeError(index)


SHAPES = [(N, 3), (3, N), (N, M), (2, N, M), (N, N), (N, 2 * M, 3), (M, 4)]


def points(shape, values):
    """Every point of a shape, by the names of the variables that `variables_of_shape` makes."""
    for place in itertools.product(*(range(value(n, values)) for n in shape)):
        yield {f"i{k}": i for k, i in enumerate(place)}


def variables_of_shape(shape):
    return [Variable(f"i{k}", n) for k, n in enumerate(shape)]


@pytest.mark.parametrize("shape", SHAPES)
def test_positions_and_indices_are_inverse(shape):
    axes = variables_of_shape(shape)
    assert list(unflatten(flatten(axes, shape), shape)) == axes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((N, 3), (3, N)),
        ((N, M), (M, N)),
        ((N, 6), (2 * N, 3)),
        ((N, M), (N * M,)),
        ((2, N, M), (N, M, 2)),
        ((N, 4), (2, 2, N)),
        ((N, N), (N * N,)),
    ],
)
def test_reshapes_read_the_right_elements(old, new):
    axes = variables_of_shape(new)
    indices = unflatten(flatten(axes, new), old)
    for values in VALUES[:12]:
        for at in points(new, values):
            position = 0
            for k, n in zip(new, at.values(), strict=True):
                position = position * value(k, values) + n
            expected = []
            for k in reversed(old):
                position, rest = divmod(position, value(k, values))
                expected.insert(0, rest)
            assert [number(i, at, values) for i in indices] == expected


@given(st.data())
def test_division_by_symbolic_sizes_is_right(data):
    shape = data.draw(st.sampled_from(SHAPES))
    axes = variables_of_shape(shape)
    sizes = st.sampled_from([1, 2, 3, N, M, 2 * N, N * M, 3 * M])
    expression = sum((a * data.draw(sizes) for a in axes), start=Constant(data.draw(st.integers(0, 3))))
    divisor = data.draw(sizes)
    try:
        quotient, rest = expression // divisor, expression % divisor
    except Undecided:
        return
    for values in VALUES[:9]:
        for at in points(shape, values):
            got = number(quotient, at, values), number(rest, at, values)
            assert got == divmod(number(expression, at, values), value(divisor, values))


@given(st.data())
def test_predicates_hold_where_they_say(data):
    shape = data.draw(st.sampled_from(SHAPES))
    axes = variables_of_shape(shape)
    sizes = st.sampled_from([0, 1, 2, 5, N, M, N - 1, N + M, N * M])
    expression = sum((a * data.draw(st.sampled_from([1, 2, -1, N, M])) for a in axes), start=Constant(0))
    low, high = data.draw(sizes), data.draw(sizes)
    more = data.draw(sizes), data.draw(sizes)
    try:
        predicate = within(expression, low, high)
        both = predicate & within(expression, *more)
    except Undecided:
        return
    for values in VALUES[:9]:
        for at in points(shape, values):
            here, lowest, highest = number(expression, at, values), value(low, values), value(high, values)
            right = lowest <= here < highest
            assert holds(predicate, at, values) is right
            assert holds(both, at, values) is (right and value(more[0], values) <= here < value(more[1], values))


def holds(predicate, at, values):
    if predicate.never:
        return False
    return all(
        value(b.low, values) <= number(b.expression, at, values) < value(b.high, values) for b in predicate.bounds
    )


# ints that remember -----------------------------------------------------------------------------------------------


def test_a_size_is_an_int_that_remembers():
    n = SymbolicSize(48, N)
    assert n == 48 and hash(n) == hash(48) and repr(n) == "48" and f"{n}" == "48" and isinstance(n, int) and n in {48}
    sums = [(2 * n + 1, 2 * N + 1), (1 - n, 1 - N), (-n, -N), (sum([n, n]), 2 * N)]
    for made, expected in [*sums, (n * n // n, N), (prod((n, 3)), 3 * N)]:
        assert type(made) is SymbolicSize and expression_of(made) == expected and made == value_of(expected, {N: 48})


def test_what_has_no_polynomial_is_forgotten():
    n = SymbolicSize(48, N)
    for plain in (n // 5, n % 5, n - n, n & 1, n << 1, int(n), abs(n), n**2, pickle.loads(pickle.dumps(n))):
        assert type(plain) is int
    assert type(n / 2) is float and type(n * 0.5) is float and n / 2 == 24.0 and n * "a" == "a" * 48
    assert memory_of((1, (n, 2))) == (None, (N, None)) and memory_of((1, 2)) is None and memory_of("x") is None


def test_polynomials_are_no_ints():
    assert not isinstance(N, int) and isinstance(N * M, Polynomial)
