"""Views: other shapes and orders of the same memory, each a chain of the IR's view ops; copies, and facts of layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.errors import GradientError, ShapeError, TraceError
from ..ir.ops import OPS
from ..ir.types import DType
from .axes import axes, axis, count, infer_sizes, sizes
from .dispatch import apply_copy, link_view
from .dispatch import view as view_step
from .layout import contiguous_strides, view_strides
from .location import error
from .promotion import named, wants_grad
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
        raise error(
            ShapeError,
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead.",
        )
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
    return reshape(input, *shape[:first], count(shape[first : last + 1]), *shape[last + 1 :])


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
        raise error(
            ShapeError,
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} "
            f"({shape[d]}) in the input tensor",
        ) from None
    return view(input, *shape[:d], *parts, *shape[d + 1 :])


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
        raise error(
            ShapeError,
            f"expand: the number of sizes provided ({len(wanted)}) must be greater or equal to the number of "
            f"dimensions in the tensor ({len(shape)})",
        )
    for k, n in enumerate(wanted):
        if n == -1 and k < lead:
            raise error(
                ShapeError, "The expanded size of the tensor (-1) isn't allowed in a leading, non-existing dimension 0"
            )
        if n == -1:
            wanted[k] = shape[k - lead]
        elif k >= lead and shape[k - lead] not in (1, n):
            raise error(
                ShapeError,
                f"The expanded size of the tensor ({n}) must match the existing size ({shape[k - lead]}) at "
                f"non-singleton dimension {k}.  Target sizes: {list(sizes(size))}.  Tensor sizes: {list(shape)}",
            )
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
        raise error(
            ShapeError,
            "permute: number of dimensions in the tensor input does not match the length of the desired ordering of "
            f"dimensions i.e. input.dim() = {rank} is not equal to len(dims) = {len(order)}",
        )
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
        raise error(
            ShapeError, f"tensor.mT is only supported on matrices or batches of matrices. Got {self.ndim}-D tensor."
        )
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
        raise error(
            ShapeError, f"movedim: source {source} and destination {destination} must name as many axes, each once"
        )
    rest = iter([k for k in range(rank) if k not in moved])
    at = dict(zip(places, moved, strict=True))
    return permute(input, *[at[k] if k in at else next(rest) for k in range(rank)])


moveaxis = movedim


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
            raise error(
                GradientError,
                f"{name}: a tensor that takes part in gradients, or a view, cannot change its shape in place: write `x "
                f"= x.{name[:-1]}(...)`",
            )
        storage = self._storage
        self._array, self._storage_or_none = function(self, *args, **kwargs)._memory(), storage
        EPOCH.bump_tensors()
        return self

    method_.__name__ = method_.__qualname__ = name
    method_.__doc__ = f"Gives this tensor itself the shape of `{name[:-1]}`."
    setattr(Tensor, name, method_)


for _function, _name in (
    (t, "t_"),
    (transpose, "transpose_"),
    (swapaxes, "swapaxes_"),
    (swapdims, "swapdims_"),
    (squeeze, "squeeze_"),
    (unsqueeze, "unsqueeze_"),
):
    _turned(_function, _name)
