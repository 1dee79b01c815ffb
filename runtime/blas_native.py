"""Routines of the runtime, in the low-level language: panels of matrix products through BLAS, copies of strided
views, zeros.

They are kernels like any other. The last argument of a product or copy is a block of numbers, written by
`backends/library.py`. Matrices are row-major here; BLAS sees their transposes, so that the operands change places.
"""

from __future__ import annotations

from . import layout as at
from .memory import call, load, load8, load16, load32, local, store, store8, store16, store32

ONE_F32, ONE_F64 = 0x3F800000, 0x3FF0000000000000
NORMAL, TRANSPOSED = 0x4E, 0x54


def gemm(start, stop, buffers):
    """Panels [start, stop) of C = A B for batches of matrices; buffers: A, B, C, numbers."""
    numbers = load(buffers, 4)
    item = load(numbers, 1)
    panels = load(numbers, 15)
    size = load(numbers, 16)
    by_columns = load(numbers, 14)
    side = load(numbers, 3) if by_columns else load(numbers, 2)
    routine = load(load(load(buffers, 0), at.PROCESS), at.BLAS + load(numbers, 0))
    small = local(8)
    reals = local(2)
    store8(small, TRANSPOSED if load(numbers, 7) else NORMAL)
    store8(small + 8, TRANSPOSED if load(numbers, 5) else NORMAL)
    store32(small + 32, load(numbers, 4))
    store32(small + 40, load(numbers, 8))
    store32(small + 48, load(numbers, 6))
    store32(small + 56, load(numbers, 3))
    store(reals, 0, ONE_F32 if item == 4 else ONE_F64)
    store(reals, 1, 0)
    for t in range(start, stop):
        batch = t // panels
        first = t % panels * size
        count = min(size, side - first)
        store32(small + 16, count if by_columns else load(numbers, 3))
        store32(small + 24, load(numbers, 2) if by_columns else count)
        a = load(buffers, 1) + load(numbers, 9) + batch * load(numbers, 11)
        b = load(buffers, 2) + load(numbers, 10) + batch * load(numbers, 12)
        c = load(buffers, 3) + batch * load(numbers, 13)
        if by_columns:
            b += first * load(numbers, 18)
            c += first * item
        else:
            a += first * load(numbers, 17)
            c += first * item * load(numbers, 3)
        call(
            routine,
            small,
            small + 8,
            small + 16,
            small + 24,
            small + 32,
            reals,
            b,
            small + 40,
            a,
            small + 48,
            reals + 8,
            c,
            small + 56,
        )
    return 0


def gemv(start, stop, buffers):
    """Panels [start, stop) of y = M x for batches of matrices and vectors; buffers: M, x, y, numbers."""
    numbers = load(buffers, 4)
    item = load(numbers, 1)
    length = load(numbers, 2)
    inner = load(numbers, 3)
    transposed = load(numbers, 4)
    panels = load(numbers, 12)
    size = load(numbers, 13)
    routine = load(load(load(buffers, 0), at.PROCESS), at.BLAS + load(numbers, 0))
    small = local(6)
    reals = local(2)
    store8(small, TRANSPOSED if transposed else NORMAL)
    store32(small + 24, load(numbers, 5))
    store32(small + 32, load(numbers, 6))
    store32(small + 40, 1)
    store(reals, 0, ONE_F32 if item == 4 else ONE_F64)
    store(reals, 1, 0)
    for t in range(start, stop):
        batch = t // panels
        first = t % panels * size
        count = min(size, length - first)
        store32(small + 8, inner if transposed else count)
        store32(small + 16, count if transposed else inner)
        matrix = load(buffers, 1) + load(numbers, 7) + batch * load(numbers, 9) + first * load(numbers, 14)
        vector = load(buffers, 2) + load(numbers, 8) + batch * load(numbers, 10)
        result = load(buffers, 3) + batch * load(numbers, 11) + first * item
        call(
            routine,
            small,
            small + 8,
            small + 16,
            reals,
            matrix,
            small + 24,
            vector,
            small + 32,
            reals + 8,
            result,
            small + 40,
        )
    return 0


def copy_view(start, stop, buffers):
    """Rows [start, stop) of a view, to contiguous memory; buffers: base, target, numbers."""
    numbers = load(buffers, 3)
    item = load(numbers, 0)
    row = load(numbers, 2)
    step = load(numbers, 3)
    rank = load(numbers, 4)
    target = load(buffers, 2) + start * row * item
    for r in range(start, stop):
        source = load(buffers, 1) + load(numbers, 1)
        rest = r
        for k in range(rank):
            axis = rank - 1 - k
            n = load(numbers, 5 + axis)
            source += rest % n * load(numbers, 5 + rank + axis)
            rest = rest // n
        copy_row(item, source, step, target, row)
        target += row * item
    return 0


def copy_row(item, source, step, target, count):
    """`count` elements of `item` bytes, `step` bytes apart, to `target`."""
    if item == 4:
        for i in range(count):
            store32(target + 4 * i, load32(source + step * i))
    elif item == 8:
        for i in range(count):
            store(target, i, load(source + step * i, 0))
    elif item == 1:
        for i in range(count):
            store8(target + i, load8(source + step * i))
    else:
        for i in range(count):
            store16(target + 2 * i, load16(source + step * i))
    return 0


def fill_zero(start, stop, buffers):
    """Bytes [start, stop) of the argument become zero."""
    target = load(buffers, 1)
    for i in range(start, stop):
        store8(target + i, 0)
    return 0
