"""The index function of every view agrees with its evaluation on ints, arrays and index expressions; no view copies."""
from __future__ import annotations

import math

import numpy as np
import pytest

from weft.ir import OPS
from weft.ir.index import evaluate, variables
from weft.ir.op import Trait
from weft.ir.ops.views import overlaps
from weft.ir.samples import samples
from weft.ir.types import float64

VIEWS = [op for op in OPS if op.has(Trait.VIEW)]
CASES = [s for op in VIEWS for s in samples(op) if s.types[0].dtype is float64]


def numbered(shape):
    return np.arange(math.prod(shape), dtype=np.float64).reshape(shape)


@pytest.mark.parametrize("sample", CASES, ids=str)
def test_index_function_agrees_with_evaluate(sample):
    x, *others = (numbered(t.shape) for t in sample.types)
    out = sample.op.evaluate(x, *others, **sample.attrs)
    indices = list(np.indices(out.shape))
    source = sample.op.index(indices, sample.types[0], sample.attrs)
    assert len(source) == x.ndim
    if out.size:
        found = x[tuple(np.broadcast_to(np.asarray(i, int), out.shape) for i in source)]
        np.testing.assert_array_equal(found, out)
        last = [n - 1 for n in out.shape]
        assert x[tuple(sample.op.index(last, sample.types[0], sample.attrs))] == out[tuple(last)]


@pytest.mark.parametrize("sample", [s for s in CASES if s.outputs()[0].size], ids=str)
def test_index_function_on_expressions(sample):
    (out,) = sample.outputs()
    dims = variables(out.shape)
    values = dict(zip(dims, np.indices(out.shape), strict=True))
    expected = sample.op.index(list(np.indices(out.shape)), sample.types[0], sample.attrs)
    for expression, numbers in zip(sample.op.index(list(dims), sample.types[0], sample.attrs), expected, strict=True):
        np.testing.assert_array_equal(
            np.broadcast_to(evaluate(expression, values), out.shape), np.broadcast_to(numbers, out.shape)
        )


@pytest.mark.parametrize("sample", [s for s in CASES if s.outputs()[0].size], ids=str)
def test_a_view_of_a_contiguous_array_shares_its_memory(sample):
    x, *others = (numbered(t.shape) for t in sample.types)
    assert np.shares_memory(x, sample.op.evaluate(x, *others, **sample.attrs))


def test_broadcast_of_every_layout():
    for x in (
        np.float32([[1], [2]]),
        np.arange(6.0).reshape(3, 2).T[:, :1],
        np.zeros((0, 1)),
        np.array(3.0),
        np.arange(4)[::2].reshape(2, 1),
    ):
        shape = (3, x.shape[0], 4) if x.ndim else (2,)
        np.testing.assert_array_equal(OPS.broadcast.evaluate(x, shape=shape), np.broadcast_to(x, shape))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2, 3), (3, 1)),
        ((3, 2), (1, 3)),
        ((4,), (2,)),
        ((1, 4), (0, 1)),
        ((), ()),
        ((2, 2), (1, 1)),
        ((3, 2), (1, 2)),
        ((2,), (0,)),
        ((2, 3, 2), (6, 2, 1)),
    ],
)
def test_overlap_is_never_denied_wrongly(shape, strides):
    places = sum((i * s for i, s in zip(np.indices(shape), strides, strict=True)), np.zeros(shape, int))
    assert overlaps(shape, strides) or len(np.unique(places)) == math.prod(shape)
    assert not overlaps(shape, strides) or len(np.unique(places)) < math.prod(shape)
