"""Views: other shapes, orders and parts of the same memory. Each is a chain of the IR's view ops."""
from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.errors import GradientError, IndexRangeError, ShapeError, TraceError
from ..ir.ops import OPS
from ..ir.types import DType, int64
from .axes import axes, axis, count, infer_sizes, sizes
from .dispatch import EMIT, apply, apply_copy, link_view
from .dispatch import view as view_step
from .layout import contiguous_strides, view_strides
from .location import error
from .promotion import named, wants_grad
from .scalars import RuntimeScalar
from .slots import EPOCH
from .state import STATE
from .tape import tensor_requires_grad
from .tensor import Step, Tensor, method, tensor_property, wrap

# ---- making views ----------------------------------------------------------------------------------------------------

def chain(x: Tensor, steps: Sequence[Step], name: str = "", array: np.ndarray | None = None) -> Tensor:
    """The view of `x` that `steps` lead to; `array` is its memory where the caller has it already. `name` is what
    `grad_fn` shows."""
    memory = x._array
    if memory is not None and STATE.trace is None and not (STATE.grad_enabled and wants_grad(x)):
        if array is None:
            for op, attrs in steps:
                memory = op.evaluate(memory, **attrs)
            array = memory
        return _plain_view(x, array, steps)
    result = x
    for op, attrs in steps:
        result = view_step(op, result, attrs)
    if array is not None and memory is not None:
        result._array = array
    return named(result, name) if name and result is not x else result


def _plain_view(x: Tensor, array: np.ndarray, steps: Sequence[Step]) -> Tensor:
    """A view outside a trace that no gradient is recorded for."""
    result = wrap(array)
    link_view(result, x, tuple(steps))
    return result


def slice_step(shape: Sequence[int], dim: int, start: int, stop: int, step: int = 1) -> Step:
    """The view step that takes start:stop:step along one axis."""
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[dim], stops[dim], steps[dim] = start, stop, step
    return OPS.slice, {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}


def reshape_step(shape: Sequence[int]) -> Step:
    """The view step to another shape."""
    return OPS.reshape, {"shape": tuple(shape)}


def permute_step(dims: Sequence[int]) -> Step:
    """The view step to another order of axes."""
    return OPS.permute, {"dims": tuple(dims)}


def can_view(x: Tensor, shape: Sequence[int]) -> bool:
    """Whether `shape` (of as many elements) is a view of the memory of `x`."""
    array = x._array
    if array is not None and array.flags.c_contiguous:
        return True
    return view_strides(tuple(x.shape), x.stride(), shape) is not None


# ---- shapes ----------------------------------------------------------------------------------------------------------

@method()
def view(input: Tensor, *shape: Any) -> Tensor:
    """The same memory in another shape; one size may be -1. An error when the memory's layout does not allow it."""
    if len(shape) == 1 and isinstance(shape[0], DType):
        raise error(ShapeError, "view(dtype): a tensor's memory has one dtype; use `.to(dtype)` for the values")
    wanted = infer_sizes(sizes(shape), count(input.shape))
    if not can_view(input, wanted):
        raise error(ShapeError, "view size is not compatible with input tensor's size and stride (at least one "
                                "dimension spans across two "
                                "contiguous subspaces). Use .reshape(...) instead.")
    return chain(input, [reshape_step(wanted)])


@method()
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: a view where the memory's layout allows it, else a copy."""
    wanted = infer_sizes(sizes(shape), count(input.shape))
    if can_view(input, wanted):
        return chain(input, [reshape_step(wanted)])
    return named(apply_copy(OPS.reshape, input, {"shape": wanted}), "UnsafeViewBackward0")


@method()
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` in the shape of `other`."""
    return view(input, *other.shape)


@method()
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` in the shape of `other`."""
    return reshape(input, *other.shape)


@method()
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from `start_dim` to `end_dim` as one; the tensor itself when there is nothing to join."""
    shape, rank = tuple(input.shape), input.ndim
    if rank == 0:
        return reshape(input, 1)
    first, last = axis(start_dim, rank), axis(end_dim, rank)
    if first > last:
        raise error(ShapeError, "flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return input
    return reshape(input, *shape[:first], count(shape[first:last + 1]), *shape[last + 1:])


@method()
def ravel(input: Tensor) -> Tensor:
    """All elements on one axis."""
    return reshape(input, -1) if input.ndim != 1 else contiguous(input)


@method()
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One axis split into `sizes`, of which one may be -1."""
    shape = tuple(input.shape)
    d = axis(dim, len(shape))
    try:
        parts = infer_sizes(tuple(sizes), shape[d])
    except ShapeError:
        raise error(ShapeError, f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} "
                                f"({shape[d]}) in the input tensor") \
            from None
    return view(input, *shape[:d], *parts, *shape[d + 1:])


@method()
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the axes of size 1 (all of them, or those named by `dim`)."""
    shape = tuple(input.shape)
    chosen = axes(dim, len(shape))
    dropped = tuple(k for k in chosen if shape[k] == 1)
    kept = [n for k, n in enumerate(shape) if k not in dropped]
    array = None if input._array is None else input._array.squeeze(dropped)
    name = "SqueezeBackward0" if dim is None else "SqueezeBackward1" if isinstance(dim, int) else "SqueezeBackward2"
    return chain(input, [reshape_step(kept)], name, array)


@method()
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new axis of size 1 before axis `dim`."""
    shape = list(input.shape)
    d = axis(dim, len(shape) + 1)
    shape.insert(d, 1)
    return chain(input, [reshape_step(shape)], "UnsqueezeBackward0", _with_axis(input._array, d))


def _with_axis(array: np.ndarray | None, d: int) -> np.ndarray | None:
    """The memory with a new axis whose stride spans what follows it, as torch has it; None where NumPy's reshape gives
    just that."""
    if array is None or array.flags.c_contiguous:
        return None
    strides = list(array.strides)
    strides.insert(d, array.shape[d] * array.strides[d] if d < array.ndim else array.itemsize)
    return np.lib.stride_tricks.as_strided(array, (*array.shape[:d], 1, *array.shape[d:]), strides)


@method()
def expand(input: Tensor, *size: Any) -> Tensor:
    """Axes of size 1 repeated without using memory; -1 keeps a size, new axes stand in front."""
    wanted, shape = list(sizes(size)), tuple(input.shape)
    lead = len(wanted) - len(shape)
    if lead < 0:
        raise error(ShapeError, f"expand: the number of sizes provided ({len(wanted)}) must be greater or equal to "
                                "the number of dimensions in "
                                f"the tensor ({len(shape)})")
    for k, n in enumerate(wanted):
        if n == -1 and k < lead:
            raise error(ShapeError, "The expanded size of the tensor (-1) isn't allowed in a leading, non-existing "
                                    "dimension 0")
        if n == -1:
            wanted[k] = shape[k - lead]
        elif k >= lead and shape[k - lead] not in (1, n):
            raise error(ShapeError, f"The expanded size of the tensor ({n}) must match the existing size "
                                    f"({shape[k - lead]}) at non-singleton "
                                    f"dimension {k}.  Target sizes: {list(sizes(size))}.  Tensor sizes: {list(shape)}")
    steps: list[Step] = [(OPS.broadcast, {"shape": tuple(wanted)})]
    if lead and 1 in wanted[:lead]:  # so that an axis of size 1 has the stride that unsqueeze gives it
        steps.insert(0, reshape_step((1,) * lead + shape))
    return chain(input, steps, "ExpandBackward0")


@method()
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`."""
    return expand(input, *other.shape)


@method()
def broadcast_to(input: Tensor, *size: Any) -> Tensor:
    """As `expand`."""
    return expand(input, *size)


# ---- order of axes ---------------------------------------------------------------------------------------------------

@method()
def permute(input: Tensor, *dims: Any) -> Tensor:
    """The axes in the order `dims`."""
    order, rank = sizes(dims), input.ndim
    if len(order) != rank:
        raise error(ShapeError, "permute: number of dimensions in the tensor input does not match the length of the "
                                "desired ordering of "
                                f"dimensions i.e. input.dim() = {rank} is not equal to len(dims) = {len(order)}")
    order = tuple(axis(d, rank) for d in order)
    if len(set(order)) != rank:
        raise error(ShapeError, "permute(): duplicate dims are not allowed.")
    return chain(input, [permute_step(order)], "PermuteBackward0")


@method("transpose", "swapaxes", "swapdims")
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    rank = input.ndim
    a, b = axis(dim0, rank), axis(dim1, rank)
    order = list(range(rank))
    if rank:
        order[a], order[b] = b, a
    return chain(input, [permute_step(order)], "TransposeBackward0")


swapaxes = swapdims = transpose


@method()
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars as they are."""
    if input.ndim > 2:
        raise error(ShapeError, f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return chain(input, [permute_step(range(input.ndim)[::-1])], "TBackward0")


@tensor_property
def T(self: Tensor) -> Tensor:
    """The axes in reverse order."""
    return permute(self, *range(self.ndim)[::-1])


@tensor_property
def mT(self: Tensor) -> Tensor:
    """The last two axes exchanged."""
    if self.ndim < 2:
        raise error(ShapeError, f"tensor.mT is only supported on matrices or batches of matrices. Got {self.ndim}-D "
                                "tensor.")
    return transpose(self, -2, -1)


@tensor_property
def H(self: Tensor) -> Tensor:
    """The transpose of a matrix (tensors are real)."""
    if self.ndim not in (0, 2):
        raise error(ShapeError, f"tensor.H is only supported on matrices (2-D tensors). Got {self.ndim}-D tensor.")
    return transpose(self, 0, 1) if self.ndim else self


@tensor_property
def mH(self: Tensor) -> Tensor:
    """The last two axes exchanged (tensors are real)."""
    return transpose(self, -2, -1)


@method("movedim", "moveaxis")
def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes `source` moved to the places `destination`; the others keep their order."""
    rank = input.ndim
    moved = [axis(d, rank) for d in (source if isinstance(source, Sequence) else [source])]
    places = [axis(d, rank) for d in (destination if isinstance(destination, Sequence) else [destination])]
    if len(moved) != len(places) or len(set(moved)) != len(moved) or len(set(places)) != len(places):
        raise error(ShapeError, f"movedim: source {source} and destination {destination} must name as many axes, each "
                                "once")
    rest = iter([k for k in range(rank) if k not in moved])
    at = dict(zip(places, moved, strict=True))
    return permute(input, *[at[k] if k in at else next(rest) for k in range(rank)])


moveaxis = movedim


# ---- parts -----------------------------------------------------------------------------------------------------------

def traced_position(position: Any) -> Tensor | None:
    """The 0-d tensor behind a position that is known only when the compiled program runs; None for a plain int."""
    if type(position) is RuntimeScalar:
        return position.tensor
    return position if isinstance(position, Tensor) and STATE.trace is not None and not position.ndim else None


def wrapped_position(position: Tensor, n: int) -> Tensor:
    """A traced position along an axis of size n, with negative ones counted from the end."""
    position = EMIT.cast(position, int64)
    from_end = apply(OPS.add, (position, EMIT.scalar(n, int64)))
    return apply(OPS.select, (apply(OPS.lt, (position, EMIT.scalar(0, int64))), from_end, position))


def _part_at(x: Tensor, d: int, start: Tensor, length: int) -> Tensor:
    """`length` elements of axis d from a traced position, as a new value."""
    shape = tuple(x.shape)
    if not 0 <= length <= shape[d]:
        raise error(IndexRangeError, f"narrow: {length} elements do not fit dimension {d} of size {shape[d]}")
    starts = [wrapped_position(start, shape[d]) if k == d else EMIT.scalar(0, int64) for k in range(len(shape))]
    return apply(OPS.dynamic_slice, (x, *starts), {"sizes": (*shape[:d], length, *shape[d + 1:])})


@method()
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements from `start` along `dim`. In a compiled function `start` may be a traced number; the result is
    then a copy."""
    shape = tuple(input.shape)
    if not shape:
        raise error(ShapeError, "narrow() cannot be applied to a 0-dim tensor.")
    d, length = axis(dim, len(shape)), operator.index(length)
    n, traced = shape[d], traced_position(start)
    if traced is not None:
        return named(_part_at(input, d, traced, length), "SliceBackward0")
    start = operator.index(start)
    if not -n <= start <= n:
        raise error(IndexRangeError, f"start out of range (expected to be in range of [{-n}, {n}], but got {start})")
    first = start + n if start < 0 else start
    if length < 0 or first + length > n:
        raise error(IndexRangeError, f"start ({first}) + length ({length}) exceeds dimension size ({n}).")
    return chain(input, [slice_step(shape, d, first, first + length)])


def check_index(index: int, size: int, dim: int) -> int:
    """An index along one axis, counted from the front."""
    if not -size <= index < size:
        raise error(IndexRangeError, f"index {index} is out of bounds for dimension {dim} with size {size}")
    return index + size if index < 0 else index


def select_steps(shape: Sequence[int], d: int, index: int) -> list[Step]:
    """The view steps that take one index of axis `d`, which disappears."""
    return [slice_step(shape, d, index, index + 1), reshape_step([*shape[:d], *shape[d + 1:]])]


@method()
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The part at one index of axis `dim`, which disappears. In a compiled function `index` may be a traced number: a
    copy then."""
    shape = tuple(input.shape)
    if not shape:
        raise error(IndexRangeError, "select() cannot be applied to a 0-dim tensor.")
    d, traced = axis(dim, len(shape)), traced_position(index)
    if traced is not None:
        return named(EMIT.view_as(_part_at(input, d, traced, 1), (*shape[:d], *shape[d + 1:])), "SelectBackward0")
    return _selected(input, d, check_index(operator.index(index), shape[d], d), "SelectBackward0")


def _selected(x: Tensor, d: int, index: int, name: str) -> Tensor:
    array = x._array
    key: tuple[Any, ...] = (*(slice(None),) * d, index, ...)
    part = None if array is None else array[key]
    return chain(x, select_steps(tuple(x.shape), d, index), name, part)


@method()
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The parts at all indices of axis `dim`."""
    shape = tuple(input.shape)
    if not shape:
        raise error(ShapeError, "Dimension specified as 0 but tensor has no dimensions")
    d = axis(dim, len(shape))
    return tuple(_selected(input, d, k, "UnbindBackward0") for k in range(shape[d]))


@method()
def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along `dim`: of one size (the last may be smaller), or of the sizes given."""
    shape = tuple(input.shape)
    if not shape:
        raise error(ShapeError, "split expects at least a 1-dimensional tensor")
    d = axis(dim, len(shape))
    n = shape[d]
    if isinstance(split_size_or_sections, int):
        size = operator.index(split_size_or_sections)
        if size < 0 or (size == 0 and n):
            raise error(ShapeError, f"split expects split_size be non-negative, but got split_size={size}"
                        if size < 0 else
                        f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}")
        bounds = [(a, min(a + size, n)) for a in range(0, n, size)] if n else [(0, 0)]
        return tuple(chain(input, [slice_step(shape, d, a, b)], "SplitBackward0") for a, b in bounds)
    return split_with_sizes(input, split_size_or_sections, d)


@method()
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the sizes given along `dim`."""
    shape, split_sizes = tuple(input.shape), sizes([split_sizes])
    d = axis(dim, len(shape))
    if sum(split_sizes) != shape[d] or min(split_sizes, default=0) < 0:
        raise error(ShapeError, f"split_with_sizes expects split_sizes to sum exactly to {shape[d]} (input tensor's "
                                f"size at dimension {d}), but got "
                                f"split_sizes={list(split_sizes)}")
    pieces, start = [], 0
    for n in split_sizes:
        pieces.append(chain(input, [slice_step(shape, d, start, start + n)], "SplitWithSizesBackward0"))
        start += n
    return tuple(pieces)


@method()
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (the last may be smaller)."""
    chunks = operator.index(chunks)
    if chunks <= 0:
        raise error(ShapeError, f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input.shape[axis(dim, input.ndim)] if input.ndim else 1
    return split(input, max(-(-n // chunks), 1), dim)


@method()
def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along `dim`: as many as said, of nearly equal sizes, or cut at the indices given."""
    shape = tuple(input.shape)
    d = axis(dim, len(shape))
    n = shape[d]
    if isinstance(indices_or_sections, int):
        parts = operator.index(indices_or_sections)
        cuts = [k * (n // parts) + min(k, n % parts) for k in range(1, parts)]
    else:
        cuts = [min(max(c + n if c < 0 else c, 0), n) for c in sizes([indices_or_sections])]
    bounds = zip([0, *cuts], [*cuts, n], strict=True)
    return tuple(chain(input, [slice_step(shape, d, a, max(a, b))]) for a, b in bounds)


def _split_along(name: str, minimum: int, dim: int) -> Any:
    def function(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
        if input.ndim < minimum:
            raise error(ShapeError, f"{name} requires a tensor with at least {minimum} "
                                    f"dimension{'s' * (minimum > 1)}, but got {input.ndim}")
        d = 0 if name == "hsplit" and input.ndim == 1 else dim
        if isinstance(indices_or_sections, int) and input.shape[d] % indices_or_sections:
            raise error(ShapeError, f"{name} attempted to split along dimension {d}, but the size of the dimension "
                                    f"{input.shape[d]} is not divisible "
                                    f"by the split_size {indices_or_sections}!")
        return tensor_split(input, indices_or_sections, d)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`tensor_split` along axis {dim}."
    return method()(function)


hsplit = _split_along("hsplit", 1, 1)
vsplit = _split_along("vsplit", 2, 0)
dsplit = _split_along("dsplit", 3, 2)


# ---- strided views ---------------------------------------------------------------------------------------------------

def strided(x: Tensor, shape: Sequence[int], factors: Sequence[dict[int, int]], starts: dict[int, int],
            name: str) -> Tensor:
    """A view whose axis k moves along axis d of `x` by `factors[k][d]` elements for each d, from the position `starts`.

    Expressed as `as_strided` on the row-major order of `x`; its memory in eager mode comes from the true strides.
    """
    dense, true = contiguous_strides(x.shape), x.stride()
    strides = tuple(sum(dense[d] * f for d, f in move.items()) for move in factors)
    step = OPS.as_strided, {"shape": tuple(shape), "strides": strides,
                            "offset": sum(dense[d] * s for d, s in starts.items())}
    array = x._array
    if array is not None:
        width = array.itemsize
        inner = array[tuple(slice(starts.get(d, 0), None) for d in range(array.ndim))] if 0 not in shape else array
        moved = [sum(true[d] * f for d, f in move.items()) * width for move in factors]
        array = np.lib.stride_tricks.as_strided(inner, tuple(shape), moved)
    return chain(x, [step], name, array)


@method()
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two axes, as the last axis; `offset` > 0 is above the main diagonal."""
    shape, offset = tuple(input.shape), operator.index(offset)
    a, b = axis(dim1, len(shape)), axis(dim2, len(shape))
    if a == b:
        raise error(ShapeError, f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rest = [k for k in range(len(shape)) if k not in (a, b)]
    length = max(min(shape[a] + min(offset, 0), shape[b] - max(offset, 0)), 0)
    starts = {a: max(-offset, 0), b: max(offset, 0)} if length else {}
    return strided(input, [*(shape[k] for k in rest), length], [*({k: 1} for k in rest), {a: 1, b: 1}], starts,
                   "DiagonalBackward0")


@method()
def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements along an axis, `step` apart, as a view with one more axis."""
    shape, size, step = tuple(input.shape), operator.index(size), operator.index(step)
    d = axis(dimension, len(shape))
    if size > (shape[d] if shape else 1):
        raise error(ShapeError, f"maximum size for tensor at dimension {d} is {shape[d] if shape else 1} but size is "
                                f"{size}")
    windows = (shape[d] - size) // step + 1
    factors = [{k: step if k == d else 1} for k in range(len(shape))] + [{d: 1}]
    return strided(input, [*shape[:d], windows, *shape[d + 1:], size], factors, {}, "UnfoldBackward0")


@method()
def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """A view of the tensor's memory with any strides, counted in elements of the storage."""
    size, stride = sizes([size]), sizes([stride])
    offset = input.storage_offset() if storage_offset is None else operator.index(storage_offset)
    base = input if input._base is None else input._base
    if not is_contiguous(base) or base.storage_offset() != 0:
        raise error(ShapeError, f"as_strided: the memory has shape {list(base.shape)} with strides {base.stride()}; "
                                "only views of contiguous "
                                "memory can be re-strided: call .contiguous() first")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if offset < 0 or (0 not in size and last >= count(base.shape)):
        raise error(IndexRangeError, f"as_strided: sizes {list(size)}, strides {list(stride)}, storage offset "
                                     f"{offset} reach element {last} of a storage "
                                     f"of {count(base.shape)} elements")
    return chain(base, [(OPS.as_strided, {"shape": tuple(size), "strides": tuple(stride), "offset": offset})],
                 "AsStridedBackward0")


# ---- copies and layout -----------------------------------------------------------------------------------------------

@method()
def is_contiguous(input: Tensor) -> bool:
    """Whether the elements lie in memory in row-major order."""
    if input._array is not None:
        return bool(input._array.flags.c_contiguous)
    dense = contiguous_strides(input.shape)
    return 0 in input.shape or all(n == 1 or s == e for n, s, e in zip(input.shape, input.stride(), dense, strict=True))


@method()
def contiguous(input: Tensor) -> Tensor:
    """The tensor itself when it is contiguous, else a contiguous copy."""
    if is_contiguous(input):
        return input
    return named(apply_copy(OPS.reshape, input, {"shape": tuple(input.shape)}), "CloneBackward0")


@method()
def clone(input: Tensor) -> Tensor:
    """A copy in memory of its own, through which gradients flow; strides of dense memory are kept."""
    result = named(apply_copy(OPS.reshape, input, {"shape": tuple(input.shape)}), "CloneBackward0")
    array = input._array
    if array is not None and result._array is not None and not array.flags.c_contiguous:
        result._array = np.array(array, order="K")
    return result


# ---- facts -----------------------------------------------------------------------------------------------------------

@method()
def size(input: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one axis."""
    return input.shape if dim is None else input.shape[axis(dim, input.ndim)] if input.ndim else input.shape[dim]


@method("dim", "ndimension")
def dim(input: Tensor) -> int:
    """The number of axes."""
    return input.ndim


@method("numel", "nelement")
def numel(input: Tensor) -> int:
    """The number of elements."""
    return count(input.shape)


@method()
def element_size(input: Tensor) -> int:
    """Bytes of one element."""
    return input.dtype.itemsize


@tensor_property
def itemsize(self: Tensor) -> int:
    """Bytes of one element."""
    return self.dtype.itemsize


@tensor_property
def nbytes(self: Tensor) -> int:
    """Bytes of all elements."""
    return count(self.shape) * self.dtype.itemsize


@method()
def is_floating_point(self: Tensor) -> bool:
    """Whether the tensor holds real numbers."""
    return self.dtype.is_floating_point


@method("is_complex")
def is_complex(input: Tensor) -> bool:
    """False: there are no complex tensors."""
    return False


@method()
def is_signed(self: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return self.dtype.is_signed


# ---- other geometry for the same tensor ------------------------------------------------------------------------------

def _turned(function: Callable[..., Tensor], name: str) -> None:
    """Attaches the in-place form of a view function: the tensor itself takes the view's shape and strides."""

    def method_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if STATE.trace is not None:
            raise error(TraceError, f"{name} in a compiled function: write `x = x.{name[:-1]}(...)`")
        if self._base is not None or tensor_requires_grad(self):
            raise error(GradientError, f"{name}: a tensor that takes part in gradients, or a view, cannot change its "
                                       "shape in place: write "
                                       f"`x = x.{name[:-1]}(...)`")
        storage = self._storage
        self._array, self._storage_or_none = function(self, *args, **kwargs)._memory(), storage
        EPOCH.bump()
        return self

    method_.__name__ = method_.__qualname__ = name
    method_.__doc__ = f"Gives this tensor itself the shape of `{name[:-1]}`."
    setattr(Tensor, name, method_)


for _function, _name in ((t, "t_"), (transpose, "transpose_"), (swapaxes, "swapaxes_"), (swapdims, "swapdims_"),
                         (squeeze, "squeeze_"),
                         (unsqueeze, "unsqueeze_")):
    _turned(_function, _name)
