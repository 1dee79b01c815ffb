"""Index expressions: canonical forms, and agreement with plain integer arithmetic at every point."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.ir.index import (
    ALWAYS,
    NEVER,
    Constant,
    Variable,
    affine,
    compose,
    evaluate,
    flatten,
    substitute,
    unflatten,
    variables,
    variables_of,
    within,
)
from weft.ir.ops import OPS
from weft.ir.types import Symbol, TensorType, float64

A, J, K = Variable("i", 7), Variable("j", 32), Variable("k", 4)
DIMS = (Variable("a", 5), Variable("b", 4), Variable("c", 6), Variable("d", 1))
POINTS = {dim: grid for dim, grid in zip(DIMS, np.indices([d.size for d in DIMS]), strict=True)}

leaves = st.one_of(st.sampled_from(DIMS), st.integers(-9, 40))
divisors = st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12, 16, 32])
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("+"), inner, inner),
        st.tuples(st.just("-"), inner, inner),
        st.tuples(st.just("*"), inner, st.integers(-6, 40)),
        st.tuples(st.just("//"), inner, divisors),
        st.tuples(st.just("%"), inner, divisors),
    ),
    max_leaves=12,
)


def build(tree, leaf):
    """The tree with `leaf` applied to variables and Python's operators everywhere else."""
    if not isinstance(tree, tuple):
        return leaf(tree)
    sign, x, y = tree[0], build(tree[1], leaf), build(tree[2], leaf)
    return {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "//": lambda: x // y, "%": lambda: x % y}[
        sign
    ]()


@settings(max_examples=400, deadline=None)
@given(trees)
def test_simplified_equals_plain_arithmetic_everywhere(tree):
    expression = build(tree, lambda x: x)
    plain = np.broadcast_to(build(tree, lambda x: POINTS.get(x, x)), POINTS[DIMS[0]].shape)
    np.testing.assert_array_equal(np.broadcast_to(evaluate(expression, POINTS), plain.shape), plain)
    if not isinstance(expression, int):
        assert expression.low <= plain.min() and plain.max() <= expression.high
        text = eval(str(expression), {d.name: POINTS[d] for d in DIMS})  # the text is Python
        np.testing.assert_array_equal(np.broadcast_to(text, plain.shape), plain)
        assert substitute(expression, {}) == expression


@settings(max_examples=100, deadline=None)
@given(trees, st.integers(-20, 60), st.integers(-20, 60))
def test_predicates_hold_where_the_bounds_do(tree, low, high):
    expression = build(tree, lambda x: x)
    predicate = within(expression, low, high) & within(DIMS[0], 1, 5) & within(DIMS[0] + 2, 0, 6)
    value = np.broadcast_to(evaluate(expression, POINTS), POINTS[DIMS[0]].shape)
    expected = (low <= value) & (value < high) & (POINTS[DIMS[0]] >= 1) & (POINTS[DIMS[0]] + 2 < 6)
    np.testing.assert_array_equal(np.broadcast_to(predicate.evaluate(POINTS), value.shape), expected)
    np.testing.assert_array_equal(np.broadcast_to(predicate.substitute({}).evaluate(POINTS), value.shape), expected)
    if predicate.never:
        assert not expected.any()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ((A * 32 + J) // 32, A),
        ((A * 32 + J) % 32, J),
        ((A * 32 + J) // 8, A * 4 + J // 8),
        ((A * 8 + J % 8) // 32, A // 4),
        ((A * 8 + J % 8) % 32, (A % 4) * 8 + J % 8),
        (A * 40 % 8, Constant(0)),
        (J // 4 // 2, J // 8),
        (J % 8 % 4, J % 4),
        (J % 16 // 4, J // 4 % 4),
        (J // 4 * 4 + J % 4, J),
        (J // 4 % 4 * 4 + J % 4, J % 16),
        ((J * 2 + 1) % 8, J % 4 * 2 + 1),
        (31 - (31 - J), J),
        (A + J - A, J),
        (J + A, A + J),
        (Variable("s", 1) * 7 + A, A),
        ((A + 70) // 7, Constant(10)),
        ((6 - A) % 7, 6 - A),
    ],
)
def test_canonical_forms(expression, expected):
    assert expression == expected and hash(expression) == hash(expected)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (A * 32 + J - 3, "32*i + j - 3"),
        (6 - A, "6 - i"),
        (-1 - A * 2, "-2*i - 1"),
        (-(J // 5), "-(j//5)"),
        (J // 5 * 3 + J % 7, "3*(j//5) + j % 7"),
        ((A * 3 + J) // 5, "(3*i + j)//5"),
        (within(A - 2, 0, 4), "2 <= i < 6"),
        (within(5 - A, 0, 9), "i < 6"),
        (within(A, 0, 7), "True"),
        (within(A, 7, 9), "False"),
    ],
)
def test_text(expression, text):
    assert str(expression) == text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=4))
def test_unflatten_undoes_flatten(shape):
    dims = variables(shape)
    ones = {d: 0 for d in dims if d.size == 1}
    assert unflatten(flatten(dims, shape), shape) == tuple(substitute(d, ones) for d in dims)
    position = Variable("p", int(np.prod(shape)))
    assert flatten(unflatten(position, shape), shape) == substitute(
        position, {position: 0} if position.size == 1 else {}
    )


def test_affine_recovers_strides_and_refuses_what_has_none():
    assert affine(A * 32 + J - 3, (A, J, K)) == (-3, (32, 1, 0))
    assert affine(J // 4, (J,)) is None
    assert affine(A + J, (A,)) is None
    assert affine(Constant(4), (A,)) == (4, (0,))


def test_substitution_simplifies_again():
    outer, inner = Variable("o", 8), Variable("n", 4)
    split = outer * 4 + inner
    assert substitute(J // 4 + J % 4 * 100, {J: split}) == outer + inner * 100
    assert variables_of(substitute(J // 4, {J: split})) == (outer,)


def test_constant_predicates():
    assert within(3, 0, 4) == ALWAYS and within(4, 0, 4) == NEVER
    assert (within(A, 0, 3) & within(A, 3, 7)) == NEVER
    assert within(A * 2, 3, 4) == NEVER


def test_symbolic_sizes_are_bounded_only_by_what_exists():
    n = Variable("n", Symbol("batch"))
    assert (n * 8 + K) // 8 == n and (n * 8 + K) % 8 == K
    assert str(n // 8) == "n//8" and str(n % 8) == "n % 8"


def test_division_is_by_positive_integers():
    for divisor in (0, -2):
        with pytest.raises(ValueError, match="positive"):
            A // divisor


def test_every_point_of_a_reshape_chain():
    dims = variables((3, 8))
    source = flatten(
        unflatten(flatten(tuple(reversed(unflatten(flatten(dims, (3, 8)), (4, 6)))), (6, 4)), (2, 12)), (2, 12)
    )
    expected = np.arange(24).reshape(6, 4).transpose(1, 0).reshape(3, 8)
    for point in itertools.product(range(3), range(8)):
        assert evaluate(source, dict(zip(dims, point, strict=True))) == expected[point]


def random_view(rng, shape):
    """A random view op for a tensor of `shape` that is not empty: (op, attributes)."""
    rank, kind = len(shape), rng.integers(6)
    if kind == 0:
        size = int(np.prod(shape))
        first = int(rng.choice([d for d in range(1, size + 1) if size % d == 0]))
        return OPS.reshape, {"shape": (first, 1, size // first)}
    if kind == 1:
        return OPS.permute, {"dims": tuple(map(int, rng.permutation(rank)))}
    if kind == 2:
        starts = tuple(int(rng.integers(n)) for n in shape)
        stops = tuple(int(rng.integers(a + 1, n + 1)) for a, n in zip(starts, shape, strict=True))
        return OPS.slice, {"starts": starts, "stops": stops, "steps": tuple(int(rng.integers(1, 4)) for _ in shape)}
    if kind == 3:
        return OPS.flip, {"dims": tuple(k for k in range(rank) if rng.random() < 0.5)}
    if kind == 4:
        return OPS.broadcast, {
            "shape": (int(rng.integers(1, 3)), *(n if n > 1 else int(rng.integers(1, 3)) for n in shape))
        }
    size = int(np.prod(shape))
    window = tuple(int(rng.integers(1, 4)) for _ in range(rng.integers(3)))
    strides = tuple(int(rng.integers((size - 1) // max(sum(window), 1) + 1)) for _ in window)
    return OPS.as_strided, {"shape": window, "strides": strides, "offset": 0}


@settings(max_examples=200)
@given(st.integers(0, 2**31))
def test_a_chain_of_views_reads_what_its_index_map_says(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(rng.integers(1, 6)) for _ in range(rng.integers(1, 4)))
    source = result = np.arange(np.prod(shape)).reshape(shape)
    views = []
    for _ in range(rng.integers(1, 7)):
        op, attrs = random_view(rng, result.shape)
        views.append((op, TensorType(result.shape, float64), attrs))
        result = op.evaluate(result, **attrs)
        if result.size > 2000:
            break
    dims = variables(result.shape)
    indices = compose(views, dims)
    points = dict(zip(dims, np.indices(result.shape), strict=True))
    np.testing.assert_array_equal(
        source[tuple(np.broadcast_to(evaluate(i, points), result.shape) for i in indices)], result
    )
    for index, size in zip(indices, shape, strict=True):
        assert index.low >= 0 and index.high < size
