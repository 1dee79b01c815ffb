"""dtype promotion: torch's table, weak operands, in-place results; random operands against torch."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from weft.tracer.scalars import RuntimeScalar

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"]
TABLE = """
      bool    uint8   int8    int16   int32   int64   float32 float64
bool  bool    uint8   int8    int16   int32   int64   float32 float64
uint8 uint8   uint8   int16   int16   int32   int64   float32 float64
int8  int8    int16   int8    int16   int32   int64   float32 float64
int16 int16   int16   int16   int16   int32   int64   float32 float64
int32 int32   int32   int32   int32   int32   int64   float32 float64
int64 int64   int64   int64   int64   int64   int64   float32 float64
float32 float32 float32 float32 float32 float32 float32 float32 float64
float64 float64 float64 float64 float64 float64 float64 float64 float64
"""


def dtype(name):
    return weft.bool if name == "bool" else getattr(weft, name)


def test_table():
    _, columns, *rows = [line.split() for line in TABLE.splitlines()[:]]
    for name, *results in rows:
        for other, result in zip(columns, results, strict=True):
            assert weft.promote_types(dtype(name), dtype(other)) is dtype(result)
            assert (weft.ones(1, dtype=dtype(name)) * weft.ones(1, dtype=dtype(other))).dtype is dtype(result)


WEAK = [
    ("weft.ones(2, dtype=weft.int32) + weft.tensor(1)", weft.int32),
    ("weft.ones(2) + weft.tensor(1.0, dtype=weft.float64)", weft.float32),
    ("weft.ones(2, dtype=weft.int32) + weft.tensor(1.0, dtype=weft.float64)", weft.float64),
    ("weft.tensor(1.0) + weft.tensor(1.0, dtype=weft.float64)", weft.float64),
    ("weft.ones(2, dtype=weft.uint8) + 300", weft.uint8),
    ("weft.ones(2, dtype=weft.int8) + 1.5", weft.float32),
    ("weft.tensor([True]) + 1", weft.int64),
    ("weft.tensor([True]) + True", weft.bool),
    ("weft.ones(2, dtype=weft.float64) * 1.5", weft.float64),
    ("weft.tensor(1) + 1.5", weft.float32),
    ("weft.tensor([1, 2]) / 2", weft.float32),
    ("weft.tensor([True]) / weft.tensor([True])", weft.float32),
    ("weft.tensor([1, 2]) // 2", weft.int64),
    ("weft.tensor([1, 2]) ** 0.5", weft.float32),
    ("weft.exp(weft.tensor([1]))", weft.float32),
    ("weft.tensor([1.0]) < weft.tensor([1])", weft.bool),
    ("weft.where(weft.tensor([True]), 1, 2.0)", weft.float32),
    ("weft.cat([weft.ones(1), weft.ones(1, dtype=weft.int64)])", weft.float32),
    ("weft.ones(1, dtype=weft.int8).sum()", weft.int64),
    ("weft.atan2(weft.tensor([1]), weft.tensor([2]))", weft.float32),
    ("weft.clamp(weft.tensor([1]), 0.5)", weft.float32),
    ("2 ** weft.tensor([1])", weft.int64),
    ("weft.tensor([1.5]).round()", weft.float32),
    ("weft.tensor([1]).floor()", weft.int64),
]


@pytest.mark.parametrize(("text", "result"), WEAK, ids=[w[0] for w in WEAK])
def test_weak_operands_and_functions(text, result):
    assert eval(text, {"weft": weft}).dtype is result
    assert weft.compile(eval(f"lambda: {text}", {"weft": weft}))().dtype is result


def test_integer_numbers_wrap_around():
    assert (weft.tensor([1], dtype=weft.uint8) + 300).tolist() == [45]
    assert (weft.tensor([1], dtype=weft.int8) * 200).tolist() == [-56]


def test_numbers_of_a_compiled_function_are_weak():
    @weft.compile
    def scale(x, a):
        assert type(a) is RuntimeScalar
        return x * a, x + a

    for x, a in itertools.product(
        (weft.ones(2), weft.ones(2, dtype=weft.int32), weft.ones(2, dtype=weft.float64)), (2, 2.5)
    ):
        for compiled, eager in zip(scale(x, a), (x * a, x + a), strict=True):
            assert compiled.dtype is eager.dtype and compiled.tolist() == eager.tolist()


def test_can_cast_and_result_type():
    assert weft.can_cast(weft.int64, weft.float32) and weft.can_cast(weft.float64, weft.float32)
    assert not weft.can_cast(weft.float32, weft.int64) and not weft.can_cast(weft.int8, weft.bool)
    assert weft.result_type(weft.ones(2, dtype=weft.int8), 1.5) is weft.float32


operand = st.tuples(st.sampled_from(DTYPES), st.sampled_from([(), (2,)]))
number = st.sampled_from([True, 3, 2.5])


@given(
    st.sampled_from(["add", "mul", "true_divide", "maximum", "eq", "pow", "where"]),
    st.lists(st.one_of(operand, number), min_size=2, max_size=2),
)
def test_random_operands_as_torch(name, operands):
    torch = pytest.importorskip("torch")
    if not any(isinstance(x, tuple) for x in operands) or (
        name in ("maximum",) and not all(isinstance(x, tuple) for x in operands)
    ):
        return
    results = []
    for library in (weft, torch):
        made = [library.ones(x[1], dtype=getattr(library, x[0])) if isinstance(x, tuple) else x for x in operands]
        condition = [library.tensor([True, False])] if name == "where" else []
        try:
            results.append(getattr(library, name)(*condition, *made))
        except (RuntimeError, TypeError) as failure:
            results.append(failure)
    if not isinstance(results[1], Exception):  # torch's functions refuse some numbers where weft takes them
        assert repr(results[0].dtype).split(".")[1] == repr(results[1].dtype).split(".")[1]
        assert results[0].tolist() == results[1].tolist()
