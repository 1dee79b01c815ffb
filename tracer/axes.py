"""Checks of dimension numbers and sizes, as the functions of shapes, reductions and indexing share them."""
from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ..ir.errors import DTypeError, IndexRangeError, ShapeError
from ..ir.sizes import whole
from .location import error


def axis(dim: Any, rank: int) -> int:
    """The dimension number `dim`, counted from the front; -1 is the last. A tensor without axes has 0 and -1."""
    span = max(rank, 1)
    number = operator.index(dim)
    if not -span <= number < span:
        raise error(IndexRangeError, f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but "
                                     f"got {number})")
    return number % span


def axes(dim: Any, rank: int) -> tuple[int, ...]:
    """The dimension numbers named by an int, a sequence, or None (all), sorted."""
    if dim is None:
        return tuple(range(rank))
    if not isinstance(dim, Sequence):
        number = axis(dim, rank)
        return (number,) if rank else ()
    chosen = [axis(d, rank) for d in dim]
    for d in chosen:
        if chosen.count(d) > 1:
            raise error(ShapeError, f"dim {d} appears multiple times in the list of dims")
    return tuple(sorted(chosen)) if rank else ()


def sizes(args: Sequence[Any]) -> tuple[int, ...]:
    """Sizes given as separate ints or as one sequence."""
    if len(args) == 1 and isinstance(args[0], Sequence):
        args = args[0]
    try:
        return tuple(map(whole, args))
    except TypeError:
        raise error(DTypeError, f"sizes must be integers, got {list(args)!r}") from None


def check_sizes(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A new tensor's shape: no negative sizes."""
    for n in shape:
        if n < 0:
            raise error(ShapeError, f"{name}: Dimension size must be non-negative, got {list(shape)}")
    return tuple(shape)


def count(shape: Sequence[int]) -> int:
    """The number of elements of a shape."""
    total = 1
    for n in shape:
        total *= n
    return total


def infer_sizes(shape: Sequence[int], total: int) -> tuple[int, ...]:
    """`shape` with its -1 replaced so that it holds `total` elements; torch's errors when that is impossible."""
    free = [k for k, n in enumerate(shape) if n == -1]
    if any(n < -1 for n in shape):
        raise error(ShapeError, f"invalid shape dimension {min(shape)}: sizes are not negative, and -1 stands for the "
                                "one to infer")
    if len(free) > 1:
        raise error(ShapeError, "only one dimension can be inferred")
    known = count([n for n in shape if n != -1])
    if not free:
        if known != total:
            raise error(ShapeError, f"shape '{list(shape)}' is invalid for input of size {total}")
        return tuple(shape)
    if known == 0 and total == 0:
        raise error(ShapeError, f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                                "unspecified dimension size -1 can be "
                                "any value and is ambiguous")
    if known == 0 or total % known:
        raise error(ShapeError, f"shape '{list(shape)}' is invalid for input of size {total}")
    return tuple(total // known if n == -1 else n for n in shape)
