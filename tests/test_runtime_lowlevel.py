"""The low-level language: compiled and run as plain Python, it means the same; what is outside of it is refused."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from weft.ir.errors import CompileError
from weft.runtime import layout, seam
from weft.runtime.lowlevel import translate
from weft.runtime.memory import (
    atomic_add,
    call,
    exchange_if,
    load,
    load8,
    load16,
    load32,
    local,
    pause,
    store,
    store8,
    store16,
    store32,
)

SEVEN = 7


def arithmetic(x, y):
    """Operators, constants of this module and of others, choices."""
    total = x + y * 3 - (x ^ y) + (x & 255 | y) + (x << 3) + (y >> 2) + SEVEN + layout.HEADER
    a, b = y, x
    total += (a if a < b and not a == 3 or b > 100 else -b) + min(a, b) - max(a, b)
    total += x // (y + 1) + x % (y + 1) if x >= 0 and y >= 0 else 0
    return total + (x == y) + (x != y)


def loops(n, limit):
    """`while`, `for` with one to three bounds, `break`, `continue`."""
    total, i = 0, 0
    while True:
        i += 1
        if i > n:
            break
        if i % 3 == 0:
            continue
        for j in range(i):
            if j == limit:
                break
            total += j
        for j in range(1, n, 2):
            total += j
    return total


def memory(address, n):
    """Loads and stores of every width, atomics, the stack."""
    cells = local(4)
    for i in range(n):
        store(address, i, i - 3)
        store8(address + 8 * i + 7, i)
        store16(address + 8 * i + 4, i * 1000)
        store32(address + 8 * i, 70000 * i)
    store(cells, 0, 5)
    old = atomic_add(cells, 0, helper(n))
    changed = exchange_if(cells, 0, 5 + 2 * n, 40) + 10 * exchange_if(cells, 0, 5, 50)
    pause()
    return (
        old
        + 100 * load(cells, 0)
        + 1000000 * changed
        + load8(address + 15)
        + load16(address + 12)
        + load32(address + 8)
    )


def helper(n):
    """Called by another function."""
    return 2 * n


def through_a_pointer(function, x):
    """Calls machine code by address."""
    return call(function, x, 1) + 1


@pytest.fixture(scope="module")
def compiled():
    code = seam.loader().load_object(
        seam.codegen().emit_runtime(translate([arithmetic, loops, memory, through_a_pointer], [helper]))
    )
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    yield lambda f: kind(code.address(f.__name__))
    code.free()


@pytest.mark.parametrize("x, y", [(0, 0), (5, 3), (200, 7), (-4, 9), (3, -100), (2**40, 12345)])
def test_arithmetic(compiled, x, y):
    assert compiled(arithmetic)(x, y) == arithmetic(x, y)


@pytest.mark.parametrize("n, limit", [(0, 0), (1, 0), (10, 4), (25, 100)])
def test_loops(compiled, n, limit):
    assert compiled(loops)(n, limit) == loops(n, limit)


def test_memory(compiled):
    ours, plain = np.zeros(6, np.int64), np.zeros(6, np.int64)
    assert compiled(memory)(ours.ctypes.data, 6) == memory(plain.ctypes.data, 6)
    np.testing.assert_array_equal(ours, plain)


def test_calls_by_address(compiled):
    address = ctypes.cast(compiled(arithmetic), ctypes.c_void_p).value
    assert compiled(through_a_pointer)(address, 5) == through_a_pointer(address, 5) == arithmetic(5, 1) + 1


def strings(x):
    return "a"


def unknown_name(x):
    return x + undefined  # noqa: F821


def unknown_function(x):
    return print(x)


def chained(x):
    return 0 < x < 3


def lists(x):
    a = [x]
    return a


def attributes(x):
    return x.real


@pytest.mark.parametrize("function", [strings, unknown_name, unknown_function, chained, lists, attributes])
def test_what_is_not_in_the_language(function):
    with pytest.raises(CompileError, match=f"{function.__name__}, line 2"):
        translate([function])
