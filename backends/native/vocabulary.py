"""The words of which kernel sources are made: one table of names, the dtypes each exists for, one line of meaning.

A kernel's source, which `python_source.py` writes, is a plain Python function `def kernel(start, stop, buffers):` over
these names, `range`, `while`, and int64 index arithmetic. `plain.py` gives each word its NumPy meaning, in which the
source runs; `llvm_scalars.py` gives it the machine meaning.

Rules of the language
- Every value has one dtype; nothing promotes. `f32(0.5)` makes a constant of another type than the Python literal's own
  (Python ints are i64, Python floats are f64, True and False are bool).
- Words carry the dtype of their *operands*: `add_i32(a, b)`, `lt_f32(a, b) -> bool`; `convert_u8(x)` carries the
  result's.
- The operators `+ - *`, `& | ^` and the comparisons work on two operands of one dtype and mean the word of that dtype
  (`a * b` on i32 is `mul_i32`, wraps, and stays i32).
- A word with an `x16` dtype (`mul_f32x16`) works on a vector of 16 lanes, on each lane alone; operators do too.
- Arithmetic is exact IEEE, never contracted or reassociated; only `fma_*` fuses.

To add an elementwise word, give it a line in the tables below and a definition in `words.py` (or `elementary/`): both
meanings follow. A word of memory or of lanes needs one function in `plain.py` and one in `llvm_scalars.SPECIAL`.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.loops import LANES
from ...ir.types import DTYPES

BOOL = ("bool",)
INTS = tuple(d.short for d in DTYPES if d.is_integer)
FLOATS = tuple(d.short for d in DTYPES if d.is_floating_point)
NUMBERS = INTS + FLOATS
ALL = BOOL + NUMBERS
BITS = BOOL + INTS


@dataclass(frozen=True)
class Word:
    """One word of the table; `<name>_<dtype>` for each of `dtypes`, or `name` itself when there are none.

    Attributes:
        name: the word without its dtype.
        arguments: the arguments as they are written; `x`, `y`, `z` have the word's dtype, others say what they are.
        result: `same` (the word's dtype), a dtype's short name, or `none`.
        dtypes: short names of the dtypes that the word exists for.
        doc: the meaning in one line.
        vector: whether the word also exists for vectors of 16 lanes.
    """

    name: str
    arguments: str
    result: str
    dtypes: tuple[str, ...]
    doc: str
    vector: bool = True


def _memory() -> Iterator[Word]:
    yield Word("pointer", "buffers, k", "pointer", ALL,
               "argument k of the kernel: x[i] loads, x[i] = v stores. Buffers are taken to be disjoint", vector=False)
    yield Word("local", "count", "pointer", ALL,
               "a scratch array of `count` (a literal) elements on the stack, uninitialised; x[i] as for pointers",
               vector=False)
    yield Word("load_x16", "pointer, i, [count]", "vector", (),
               "the vector of elements i ... i + 15; only the first `count` are read, the others are 0")
    yield Word("store_x16", "pointer, i, vector, [count]", "none", (),
               "stores 16 elements from i on; only the first `count`")
    yield Word("first_lanes", "count", "vector", (), "the bool vector whose first `count` lanes are true")
    yield Word("splat_x16", "x", "vector", (), "a vector with every lane x")
    yield Word("iota_x16", "i", "vector", (), "the i64 vector i, i + 1, ... i + 15")
    yield Word("lane", "vector, k", "element", (), "lane k of a vector")
    for n in (2, 3, 4):
        operands = ", ".join(f"part{k}" for k in range(n))
        yield Word(f"every_{n}", operands, "vector", (), f"every {n}th element of {n} vectors, from the first on")
    for n in (2, 4):
        yield Word(f"repeat_{n}", "vector", "vector", (), f"each of the first {LANES // n} lanes {n} times")
    yield Word("even_blocks", "vector, vector, n", "vector", (),
               "lanes in blocks of n (1, 2, 4 or 8): block 0 of the first vector, 0 of the second, 2, 2, 4, 4, ...")
    yield Word("odd_blocks", "vector, vector, n", "vector", (), "the same with blocks 1, 1, 3, 3, 5, 5, ...")
    yield Word("fold_add", "vector", "element", (), "sum over the lanes by halves: (8 + 8), (4 + 4), (2 + 2), (1 + 1)")
    for name in ("mul", "maximum", "minimum"):
        yield Word(f"fold_{name}", "vector", "element", (), f"{name} over the lanes by halves")
    yield Word("fold_and", "vector", "element", (), "whether every lane of a bool vector is true")
    yield Word("fold_or", "vector", "element", (), "whether any lane of a bool vector is true")
    yield Word("check_index", "buffers, i, size, site", "i64", (),
               "i when 0 <= i < size; otherwise 0, after the nonzero code `site` went to the status word")
    yield Word("quotient", "i, n", "i64", (), "i // n for an index i >= 0 and n > 0")
    yield Word("modulus", "i, n", "i64", (), "i % n for an index i >= 0 and n > 0")


def _conversions() -> Iterator[Word]:
    yield Word("convert", "value", "same", ALL,
               "value of any dtype in this one: floats truncate toward zero, saturate at the ends of the range, NaN "
               "gives 0; integers wrap; to bool is `!= 0`. f32(v), i64(v), ... are the same words, for short")
    yield Word("bitcast", "value", "same", NUMBERS, "the bits of a value of the same width, read in this dtype")
    yield Word("select", "condition, x, y", "same", ALL, "x where the bool is true, y elsewhere; both are computed")


_UNARY = {
    "neg": (NUMBERS, "-x; integers wrap"),
    "abs": (NUMBERS, "the absolute value; the least integer stays"),
    "sign": (NUMBERS, "-1, 0 or 1; NaN stays"),
    "ceil": (NUMBERS, "up to a whole number"),
    "floor": (NUMBERS, "down to a whole number"),
    "round": (NUMBERS, "to the nearest whole number, ties to even"),
    "trunc": (NUMBERS, "toward zero to a whole number"),
    "sqrt": (FLOATS, "the square root, correctly rounded"),
    "reciprocal": (FLOATS, "1 / x, correctly rounded"),
    "bitwise_not": (BITS, "all bits flipped; on bool, not"),
    "logical_not": (BOOL, "not"),
}
_ELEMENTARY = ("exp exp2 expm1 log log2 log10 log1p rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh "
               "sigmoid erf erfc erfinv lgamma digamma").split()
_TESTS = {
    "isnan": "whether x is NaN", "isinf": "whether x is infinite", "isfinite": "whether x is neither infinite nor NaN",
    "signbit": "whether the sign is minus, -0.0 included",
}
_BINARY = {
    "add": (ALL, "x + y; integers wrap; on bool, or"),
    "sub": (NUMBERS, "x - y; integers wrap"),
    "mul": (ALL, "x * y; integers wrap; on bool, and"),
    "div": (FLOATS, "x / y"),
    "floor_divide": (NUMBERS, "x / y rounded down; integers: 0 when y is 0, wraps at the least number / -1"),
    "remainder": (NUMBERS, "x - y * floor(x / y), the sign of y; integers: 0 when y is 0"),
    "fmod": (NUMBERS, "x - y * trunc(x / y), the sign of x; integers: 0 when y is 0"),
    "pow": (NUMBERS, "x to the power y; integers wrap, a negative power of an integer other than 1 and -1 is 0"),
    "maximum": (ALL, "the larger one; NaN if either is"),
    "minimum": (ALL, "the smaller one; NaN if either is"),
    "fmax": (ALL, "the larger one; a NaN loses"),
    "fmin": (ALL, "the smaller one; a NaN loses"),
    "atan2": (FLOATS, "the angle of the point (y, x), called as atan2(x=ordinate, y=abscissa)"),
    "hypot": (FLOATS, "sqrt(x * x + y * y) without overflow"),
    "copysign": (FLOATS, "the size of x with the sign of y"),
    "nextafter": (FLOATS, "the next number from x toward y"),
    "logaddexp": (FLOATS, "log(exp(x) + exp(y)) without overflow"),
    "bitwise_and": (BITS, "bits of both"),
    "bitwise_or": (BITS, "bits of either"),
    "bitwise_xor": (BITS, "bits of one alone"),
    "shift_left": (INTS, "x << y in the width of x; 0 for y outside [0, width)"),
    "shift_right": (INTS, "x >> y, signed ones arithmetically; only the sign is left for y outside [0, width)"),
    "logical_and": (BOOL, "and"), "logical_or": (BOOL, "or"), "logical_xor": (BOOL, "one alone"),
}
_COMPARISONS = {"eq": "x == y", "ne": "x != y", "lt": "x < y", "le": "x <= y", "gt": "x > y", "ge": "x >= y"}


def _elementwise() -> Iterator[Word]:
    for name, (dtypes, doc) in _UNARY.items():
        yield Word(name, "x", "same", dtypes, doc)
    for name in _ELEMENTARY:
        yield Word(name, "x", "same", FLOATS, f"{name}(x), see elementary/ for its error bound")
    for name, doc in _TESTS.items():
        yield Word(name, "x", "bool", NUMBERS, doc)
    for name, (dtypes, doc) in _BINARY.items():
        yield Word(name, "x, y", "same", dtypes, doc)
    for name, doc in _COMPARISONS.items():
        yield Word(name, "x, y", "bool", ALL, doc)
    yield Word("fma", "x, y, z", "same", FLOATS, "x * y + z with one rounding")
    yield Word("threefry", "state0, state1, element", "same", ("u32", "u64"),
               "random bits of the op random_bits: (u64, u64, i64) -> u32 or u64, Threefry-2x32 with 20 rounds")


TABLE: tuple[Word, ...] = (*_memory(), *_conversions(), *_elementwise())
"""Every word."""

WORDS: dict[str, tuple[Word, str]] = {}
"""Full name as written in a kernel -> (word, dtype short name or "")."""

for _word in TABLE:
    if not _word.dtypes:
        WORDS[_word.name] = (_word, "")
    for _short in _word.dtypes:
        WORDS[f"{_word.name}_{_short}"] = (_word, _short)
        if _word.vector:
            WORDS[f"{_word.name}_{_short}x{LANES}"] = (_word, f"{_short}x{LANES}")
        if _word.name == "convert" and _short != "bool":
            WORDS[_short] = (_word, _short)


CONSTANTS = {"inf": math.inf, "nan": math.nan}
"""Names of numbers that Python has no literal for; f64, as any float literal."""


def describe() -> str:
    """The vocabulary as text, one line a word."""
    lines = []
    for word in TABLE:
        dtypes = f"_[{' '.join(word.dtypes)}]" if word.dtypes else ""
        lines.append(f"{word.name}{dtypes}({word.arguments}) -> {word.result}: {word.doc}")
    return "\n".join(lines)
