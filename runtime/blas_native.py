"""Routines of the runtime, in the low-level language: panels of matrix products through BLAS, copies of strided
views, zeros.

They are kernels like any other. The last argument of a product or copy is a block of numbers, written by
`backends/library.py`. Matrices are row-major here; BLAS sees their transposes, so that the operands change places.
"""

from __future__ import annotations

from ..ir import routines as of
from . import layout as at
from .memory import call, load, load8, load16, load32, local, store, store8, store16, store32

ONE_F32, ONE_F64 = 0x3F800000, 0x3FF0000000000000
NORMAL, TRANSPOSED = 0x4E, 0x54


def gemm(start, stop, buffers):
    """Panels [start, stop) of the products of batches of matrices; buffers: left, right, result, numbers."""
    numbers = load(buffers, 4)
    item = load(numbers, of.ITEM)
    columns = load(numbers, of.COLUMNS)
    panels = load(numbers, of.PANELS)
    by_columns = load(numbers, of.BY_COLUMNS)
    side = columns if by_columns else load(numbers, of.ROWS)
    small = local(7)
    reals = ones(local(2), item)
    store8(small, TRANSPOSED if load(numbers, of.RIGHT_TRANSPOSED) else NORMAL)
    store8(small + 8, TRANSPOSED if load(numbers, of.LEFT_TRANSPOSED) else NORMAL)
    store32(small + 32, load(numbers, of.INNER))
    store32(small + 40, load(numbers, of.RIGHT_LEADING))
    store32(small + 48, load(numbers, of.LEFT_LEADING))
    for t in range(start, stop):
        first = t % panels * load(numbers, of.PANEL)
        count = min(load(numbers, of.PANEL), side - first)
        store32(small + 16, count if by_columns else columns)
        store32(small + 24, load(numbers, of.ROWS) if by_columns else count)
        left = load(buffers, 1) + load(numbers, of.LEFT_OFFSET) + batch_offset(numbers, t // panels, 1)
        right = load(buffers, 2) + load(numbers, of.RIGHT_OFFSET) + batch_offset(numbers, t // panels, 2)
        result = load(buffers, 3) + t // panels * load(numbers, of.ROWS) * columns * item
        if by_columns:
            right += first * load(numbers, of.RIGHT_STEP)
            result += first * item
        else:
            left += first * load(numbers, of.LEFT_STEP)
            result += first * columns * item
        multiply(buffers, numbers, small, reals, left, right, result)
    return 0


def multiply(buffers, numbers, small, reals, left, right, result):
    """One call of BLAS's gemm, which takes the operands the other way round: transposes, by columns."""
    leading = local(1)
    store32(leading, load(numbers, of.COLUMNS))
    routine = load(load(load(buffers, 0), at.PROCESS), at.BLAS + load(numbers, of.BLAS_ROUTINE))
    call(routine, small, small + 8, small + 16, small + 24, small + 32, reals, right, small + 40, left, small + 48,
         reals + 8, result, leading)  # fmt: skip
    return 0


def ones(reals, item):
    """Writes a 1 and a 0 of the type with `item` bytes, which BLAS takes by address."""
    store(reals, 0, ONE_F32 if item == 4 else ONE_F64)
    store(reals, 1, 0)
    return reals


def batch_offset(numbers, batch, side):
    """Where the matrix of a batch begins in the left (1) or right (2) operand."""
    offset = 0
    for k in range(load(numbers, of.BATCHES)):
        axis = numbers + 8 * (of.FIRST_BATCH + 3 * (load(numbers, of.BATCHES) - 1 - k))
        offset += batch % load(axis, 0) * load(axis, side)
        batch = batch // load(axis, 0)
    return offset


def gemv(start, stop, buffers):
    """Panels [start, stop) of products of batches of matrices and vectors; buffers: left, right, result, numbers."""
    numbers = load(buffers, 4)
    item = load(numbers, of.ITEM)
    rows = load(numbers, of.ROWS)
    inner = load(numbers, of.INNER)
    panels = load(numbers, of.PANELS)
    by_rows = not load(numbers, of.LEFT_TRANSPOSED)
    routine = load(load(load(buffers, 0), at.PROCESS), at.BLAS + load(numbers, of.BLAS_ROUTINE))
    small = local(6)
    reals = ones(local(2), item)
    store8(small, TRANSPOSED if by_rows else NORMAL)
    store32(small + 24, load(numbers, of.LEFT_LEADING))
    store32(small + 32, load(numbers, of.RIGHT_LEADING))
    store32(small + 40, 1)
    for t in range(start, stop):
        first = t % panels * load(numbers, of.PANEL)
        count = min(load(numbers, of.PANEL), rows - first)
        store32(small + 8, inner if by_rows else count)
        store32(small + 16, count if by_rows else inner)
        left = load(buffers, 1) + load(numbers, of.LEFT_OFFSET) + batch_offset(numbers, t // panels, 1)
        right = load(buffers, 2) + load(numbers, of.RIGHT_OFFSET) + batch_offset(numbers, t // panels, 2)
        left += first * load(numbers, of.LEFT_STEP)
        result = load(buffers, 3) + (t // panels * rows + first) * item
        call(routine, small, small + 8, small + 16, reals, left, small + 24, right, small + 32, reals + 8, result,
             small + 40)  # fmt: skip
    return 0


def copy_view(start, stop, buffers):
    """Rows [start, stop) of a view, to contiguous memory; buffers: base, target, numbers."""
    numbers = load(buffers, 3)
    item = load(numbers, of.COPY_ITEM)
    row = load(numbers, of.COPY_ROW)
    axes = load(numbers, of.COPY_AXES)
    process = load(load(buffers, 0), at.PROCESS)
    target = load(buffers, 2) + start * row * item
    for r in range(start, stop):
        source = load(buffers, 1) + load(numbers, of.COPY_OFFSET)
        rest = r
        for k in range(axes):
            axis = numbers + 8 * (of.FIRST_AXIS + 2 * (axes - 1 - k))
            source += rest % load(axis, 0) * load(axis, 1)
            rest = rest // load(axis, 0)
        if load(numbers, of.COPY_STEP) == item:
            call(load(process, at.MEMCPY), target, source, row * item)
        else:
            copy_row(item, source, load(numbers, of.COPY_STEP), target, row)
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
