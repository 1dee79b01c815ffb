"""Routines: the kernels that the runtime brings itself (`runtime/blas_native.py`), and the numbers that they take.

A routine's last argument is a block of 8-byte numbers, at the places below; strides, steps and offsets count bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Routine:
    """A routine by its name; `note` says what it is called for."""

    name: str
    note: str = ""


BLAS_ROUTINES = ("sgemm", "dgemm", "sgemv", "dgemv")
"""What products call, by their place in the process table."""

# `gemm`: panels of result = left right, matrices in row-major order; `gemv`: the same with a vector on the right.
(BLAS_ROUTINE, ITEM, ROWS, COLUMNS, INNER, LEFT_OFFSET, LEFT_TRANSPOSED, LEFT_LEADING, RIGHT_OFFSET, RIGHT_TRANSPOSED,
 RIGHT_LEADING, BY_COLUMNS, PANELS, PANEL, LEFT_STEP, RIGHT_STEP, BATCHES, FIRST_BATCH) = range(18)  # fmt: skip
"""ITEM: bytes of an element. LEADING: distance of rows (of columns if transposed) in elements; for a vector, of its
elements. The longer side, the result's columns if BY_COLUMNS, is cut into PANELS of PANEL rows or columns, which are
STEP apart in an operand. BATCHES triples (size, stride of left, stride of right) from FIRST_BATCH on."""

# `copy_view`: rows of a view, to contiguous memory.
COPY_ITEM, COPY_OFFSET, COPY_ROW, COPY_STEP, COPY_AXES, FIRST_AXIS = range(6)
"""A row is COPY_ROW elements of COPY_ITEM bytes, COPY_STEP apart. COPY_AXES pairs (size, stride) from FIRST_AXIS on."""


def numbers(values: Mapping[int, int], rest: Sequence[Sequence[int]]) -> bytes:
    """A block of numbers by their places, and what follows them."""
    block = [values[k] for k in range(len(values))]
    return np.array([*block, *(n for group in rest for n in group)], np.int64).tobytes()
