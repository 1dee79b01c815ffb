"""Joining and rearranging: cat, stack, repeat, flip, roll and their relatives. The results have memory of their own."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.errors import DTypeError, ShapeError
from ..ir.ops import OPS
from ..ir.sizes import whole
from ..ir.types import int64
from .axes import axes, axis, count, sizes
from .comparison import select_by
from .dispatch import EMIT, apply, apply_copy, require_no_trace
from .inplace import in_place
from .location import error
from .promotion import common_shape, named, result_type
from .shape import expand, reshape, slice_step, unsqueeze
from .tensor import Tensor, method


def _tensors(name: str, tensors: Any) -> list[Tensor]:
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence):
        raise error(DTypeError, f"{name}(): argument 'tensors' must be a tuple or list of Tensors, not "
                                f"{type(tensors).__name__}")
    for k, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            raise error(DTypeError, f"{name}(): element {k} of the tensors is {type(x).__name__}, not a Tensor")
    if not tensors:
        raise error(ShapeError, f"{name}: expected a non-empty list of Tensors")
    return list(tensors)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along `dim`; all other sizes must agree."""
    parts = _tensors("cat", tensors)
    legacy = [x for x in parts if tuple(x.shape) != (0,)]  # as in torch, an empty vector fits everywhere
    parts = legacy or parts
    rank = parts[0].ndim
    if rank == 0:
        raise error(ShapeError, "zero-dimensional tensor (at position 0) cannot be concatenated: use weft.stack")
    d = axis(dim, rank)
    for k, x in enumerate(parts):
        if x.ndim != rank:
            raise error(ShapeError, f"cat: Tensors must have same number of dimensions: got {rank} and {x.ndim}")
        for j, (n, m) in enumerate(zip(parts[0].shape, x.shape, strict=True)):
            if j != d and n != m:
                raise error(ShapeError, f"cat: Sizes of tensors must match except in dimension {d}. Expected size {n} "
                                        f"but got size {m} for tensor "
                                        f"number {k} in the list (shapes {list(parts[0].shape)} and {list(x.shape)}).")
    dtype = result_type(*tensors)
    return apply(OPS.concatenate, [EMIT.cast(x, dtype) for x in parts], {"dim": d})


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis `dim`."""
    parts = _tensors("stack", tensors)
    shape = tuple(parts[0].shape)
    for k, x in enumerate(parts):
        if tuple(x.shape) != shape:
            raise error(ShapeError, f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 "
                                    f"and {list(x.shape)} at entry {k}")
    d = axis(dim, len(shape) + 1)
    new = (*shape[:d], 1, *shape[d:])
    dtype = result_type(*parts)
    pieces = [EMIT.view_as(EMIT.cast(x, dtype), new) for x in parts]
    return named(apply(OPS.concatenate, pieces, {"dim": d}), "StackBackward0")


def atleast_1d(*tensors: Any) -> Any:
    """The tensors with at least one axis."""
    return _at_least(tensors, lambda x: x if x.ndim else reshape(x, 1))


def atleast_2d(*tensors: Any) -> Any:
    """The tensors with at least two axes, new ones in front."""
    return _at_least(tensors, lambda x: x if x.ndim > 1 else reshape(x, 1, -1))


def atleast_3d(*tensors: Any) -> Any:
    """The tensors with at least three axes."""
    return _at_least(tensors, lambda x: x if x.ndim > 2 else unsqueeze(x, -1) if x.ndim == 2 else reshape(x, 1, -1, 1))


def _at_least(tensors: tuple, lift: Callable[[Tensor], Tensor]) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], Tensor):
        return lift(tensors[0])
    return tuple(map(lift, tensors[0] if len(tensors) == 1 else tensors))


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors side by side, column-wise."""
    parts = [atleast_1d(x) for x in _tensors("hstack", tensors)]
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors below each other, row-wise."""
    return cat([atleast_2d(x) for x in _tensors("vstack", tensors)], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors behind each other, along the third axis."""
    return cat([atleast_3d(x) for x in _tensors("dstack", tensors)], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors as the columns of a matrix."""
    return hstack([reshape(x, count(x.shape), 1) if x.ndim <= 1 else x for x in _tensors("column_stack", tensors)])


row_stack = vstack


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape."""
    shape = common_shape("broadcast_tensors", [tuple(x.shape) for x in tensors])
    return tuple(expand(x, *shape) for x in tensors)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids of vectors: output k varies along axis k (`"xy"`: the first two axes exchanged)."""
    vectors = list(tensors[0]) if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else list(tensors)
    if indexing not in ("ij", "xy"):
        raise error(ShapeError, f"meshgrid: indexing must be one of \"xy\" or \"ij\", but received: {indexing}")
    swap = indexing == "xy" and len(vectors) >= 2
    if swap:
        vectors[0], vectors[1] = vectors[1], vectors[0]
    shape = tuple(count(v.shape) for v in vectors)
    grids = [expand(reshape(v, *[-1 if j == k else 1 for j in range(len(vectors))]), *shape) for k,
             v in enumerate(vectors)]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of vectors, one a row."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, -1) for g in meshgrid(*tensors)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of `r` elements of a vector, one a row, in lexicographic order."""
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input.shape[0]), r))
    columns = [[row[k] for row in rows] for k in range(r)]
    return stack([input[column] for column in columns], 1) if rows else input.new_zeros(0, r)


def block_diag(*tensors: Tensor) -> Tensor:
    """The matrices along the diagonal of a larger one, zeros elsewhere."""
    blocks = [atleast_2d(x) for x in tensors]
    dtype = result_type(*blocks)
    width, left, rows = sum(b.shape[1] for b in blocks), 0, []
    for b in blocks:
        rows.append(EMIT.pad(EMIT.cast(b, dtype), low=(0, left), high=(0, width - left - b.shape[1]), value=0))
        left += b.shape[1]
    return cat(rows, 0)


# ---- repeats ---------------------------------------------------------------------------------------------------------

@method()
def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor repeated along its axes (new axes in front), as a copy."""
    times = sizes(repeats)
    if len(times) < input.ndim:
        raise error(ShapeError, "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
                                "tensor")
    shape = (1,) * (len(times) - input.ndim) + tuple(input.shape)
    paired = EMIT.view_as(input, tuple(m for n in shape for m in (1, n)))
    wide = EMIT.expand(paired, tuple(m for r, n in zip(times, shape, strict=True) for m in (r, n)))
    result = apply_copy(OPS.reshape, wide, {"shape": tuple(r * n for r, n in zip(times, shape, strict=True))})
    return named(result, "RepeatBackward0")


@method()
def tile(input: Tensor, *dims: Any) -> Tensor:
    """The tensor repeated along its last axes, as NumPy's tile."""
    times = sizes(dims)
    return repeat(input, *((1,) * (input.ndim - len(times)) + times))


@method()
def repeat_interleave(input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each element repeated in place: `repeats` times, or as often as the tensor `repeats` says."""
    x = reshape(input, -1) if dim is None else input
    d = axis(0 if dim is None else dim, x.ndim)
    if isinstance(repeats, int):
        repeats = whole(repeats)
    if isinstance(repeats, Tensor):
        require_no_trace("the result's size of repeat_interleave with a tensor of repeats", "pass a Python int")
        repeats = repeats.tolist()
        repeats = repeats if isinstance(repeats, list) else [repeats]
    if not isinstance(repeats, int):
        times = list(repeats) * (x.shape[d] if len(repeats) == 1 else 1)
        if len(times) != x.shape[d]:
            raise error(ShapeError, f"repeats must have the same size as input along dim, but got {len(times)} and "
                                    f"{x.shape[d]}")
        index = [k for k, r in enumerate(times) for _ in range(r)]
        return x.index_select(d, x.new_tensor(index, dtype=int64))
    shape = tuple(x.shape)
    wide = EMIT.expand(EMIT.view_as(x, (*shape[:d + 1], 1, *shape[d + 1:])), (*shape[:d + 1], repeats, *shape[d + 1:]))
    return apply_copy(OPS.reshape, wide, {"shape": (*shape[:d], shape[d] * repeats, *shape[d + 1:])})


# ---- rearrangements --------------------------------------------------------------------------------------------------

@method()
def flip(input: Tensor, *dims: Any) -> Tensor:
    """The axes `dims` reversed, as a copy."""
    return apply_copy(OPS.flip, input, {"dims": axes(sizes(dims), input.ndim)})


@method()
def fliplr(input: Tensor) -> Tensor:
    """The columns reversed."""
    return flip(input, 1)


@method()
def flipud(input: Tensor) -> Tensor:
    """The rows reversed."""
    return flip(input, 0)


@method()
def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved along axes, re-entering at the other end; without `dims`, in flattened order."""
    if dims is None:
        if not isinstance(shifts, int) and len(shifts) != 1:
            raise error(ShapeError, "roll: shifts and dimensions must align: give `dims`")
        return named(EMIT.view_as(roll(reshape(input, -1), shifts, 0), tuple(input.shape)), "RollBackward0")
    steps = sizes([shifts])
    along = [dims] if isinstance(dims, int) else list(dims)
    if len(steps) != len(along):
        raise error(ShapeError, f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(along)}")
    result = input
    for shift, dim in zip(steps, along, strict=True):
        d = axis(dim, input.ndim)
        n = input.shape[d]
        if n == 0:
            continue
        cut = -shift % n
        shape = tuple(result.shape)
        tail, head = (EMIT.emit(*_part(result, slice_step(shape, d, a, b))) for a, b in ((cut, n), (0, cut)))
        result = apply(OPS.concatenate, [tail, head], {"dim": d})
    return named(result, "RollBackward0") if result is not input else input.clone()


def _part(x: Tensor, step: Any) -> tuple[Any, tuple[Tensor], Any]:
    return step[0], (x,), step[1]


@method()
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """The plane of two axes turned by k quarter turns, from the first toward the second."""
    a, b = axis(dims[0], input.ndim), axis(dims[1], input.ndim)
    match k % 4:
        case 1:
            return flip(input, b).transpose(a, b).clone()
        case 2:
            return flip(input, a, b)
        case 3:
            return flip(input, a).transpose(a, b).clone()
    return input.clone()


# ---- triangles and diagonals -----------------------------------------------------------------------------------------

def _triangle(input: Tensor, diagonal: int, lower: bool, name: str) -> Tensor:
    shape, diagonal = tuple(input.shape), whole(diagonal)
    if len(shape) < 2:
        raise error(ShapeError, f"{name}: input tensor must have at least 2 dimensions")
    rows, columns = (apply(OPS.iota, (), {"shape": shape[-2:], "dim": d, "dtype": int64}) for d in (0, 1))
    limit = apply(OPS.add, (rows, EMIT.full(shape[-2:], diagonal, int64)))
    keep = apply(OPS.le if lower else OPS.ge, (columns, limit))
    return named(select_by(keep, input, 0, input.dtype, name), f"{name.title()}Backward0")


@method()
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and below a diagonal of the last two axes; zeros elsewhere."""
    return _triangle(input, diagonal, True, "tril")


@method()
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and above a diagonal of the last two axes; zeros elsewhere."""
    return _triangle(input, diagonal, False, "triu")


@method()
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last axis as the diagonal of a new matrix of zeros, on the axes `dim1` and `dim2` of the result."""
    shape, offset = tuple(input.shape), whole(offset)
    n, rank = shape[-1] + (offset if offset >= 0 else -offset), len(shape) + 1
    flat = EMIT.full((*shape[:-1], n * n), 0, input.dtype)
    start = offset if offset >= 0 else -offset * n
    lead = len(shape) - 1
    update = {"starts": (0,) * lead + (start,), "steps": (1,) * lead + (n + 1,)}
    square = EMIT.view_as(apply(OPS.slice_update, (flat, input), update), (*shape[:-1], n, n))
    a, b = axis(dim1, rank), axis(dim2, rank)
    return named(square, "DiagEmbedBackward0") if (a, b) == (rank - 2, rank - 1) else square.movedim((-2, -1), (a, b))


@method()
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, as a copy; or the matrix that has a vector as its diagonal."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise error(ShapeError, f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return input.diagonal(diagonal).clone()


@method()
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix that has all elements as its diagonal."""
    return diag_embed(reshape(input, -1), offset)


@method()
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input.ndim != 2:
        raise error(ShapeError, "trace: expected a matrix")
    return named(input.diagonal().sum(), "TraceBackward0")




for _function in (tril, triu):
    in_place(_function)
