"""`x[...]` and `x[...] = value`: ints, slices, ellipsis, None, masks, integer tensors, and positions known only at run
time.

An index is taken apart into three stages: a view (ints, slices, None), then positions that are traced numbers
(dynamic_slice), then integer tensors (gather). Assignment walks the same stages backwards.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, IndexRangeError, ShapeError, TraceError
from ..ir.ops import OPS
from ..ir.sizes import whole
from ..ir.types import bool_, int64, uint8
from .comparison import ne, select_by
from .creation import tensor as make_tensor
from .dispatch import EMIT, apply, check_writable, link_view, part_at, require_no_trace, write
from .dtypes import torch_name
from .location import error
from .parts import check_index, wrapped_position
from .promotion import as_tensor_of, common_shape, named, operand, tensor_over, wants_grad
from .scalars import RuntimeScalar
from .shape import chain, reshape_step
from .state import STATE
from .tensor import Step, Tensor, method, wrap

_WHAT = "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices"

_SELECTED = "how many elements a mask selects"


@dataclass
class Index:
    """An index taken apart. `dynamic` and `tensors` name axes of the view."""

    shape: tuple[int, ...]
    """The shape that is indexed."""
    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    view: list[int] = field(default_factory=list)
    """The sizes of the view's axes."""
    dynamic: dict[int, Tensor] = field(default_factory=dict)
    """Axis of the view -> position along it, a traced int64 scalar; these axes disappear."""
    tensors: dict[int, Tensor] = field(default_factory=dict)
    """Axis of the view -> int64 indices along it."""
    mask: Tensor | None = None
    """The only mask, when it is the only advanced index, and where it starts."""
    mask_axis: int = 0
    inserted: bool = False
    """Whether the view drops or inserts axes."""
    named_select: bool = False

    @property
    def axis(self) -> int:
        """The next axis of the indexed tensor."""
        return len(self.starts)

    def take(self, start: int, stop: int, step: int, kept: bool) -> None:
        """Takes part of the next axis, which stays as an axis of the view when `kept`."""
        self.starts.append(start)
        self.stops.append(stop)
        self.steps.append(step)
        if kept:
            self.view.append(-((start - stop) // step))
        else:
            self.inserted = True

    def whole(self) -> None:
        """Takes all of the next axis."""
        self.take(0, self.shape[self.axis], 1, True)

    def view_steps(self) -> list[Step]:
        """The view steps of the first stage."""
        result: list[Step] = []
        shape = self.shape
        if any(self.starts) or tuple(self.stops) != shape or any(s != 1 for s in self.steps):
            result.append((OPS.slice, {"starts": tuple(self.starts), "stops": tuple(self.stops),
                                       "steps": tuple(self.steps)}))
        if self.inserted:
            result.append(reshape_step(self.view))
        return result


# ---- taking an index apart -------------------------------------------------------------------------------------------

def take_apart(x: Tensor, key: Any) -> Index:
    """The stages of `x[key]`."""
    items = list(key) if type(key) is tuple else [key]
    items = [_as_item(item) for item in items]
    index = Index(tuple(x.shape))
    rank = len(index.shape)
    used = sum(_consumed(item) for item in items)
    if used > rank:
        if rank == 0:
            raise error(IndexRangeError, "invalid index of a 0-dim tensor. Use `tensor.item()` to convert a 0-dim "
                                         "tensor to a number")
        raise error(IndexRangeError, f"too many indices for tensor of dimension {rank}")
    ellipsis = False
    for item in items:
        if item is Ellipsis:
            for _ in range(0 if ellipsis else rank - used):
                index.whole()
            ellipsis = True
        else:
            _add(index, item)
    while index.axis < rank:
        index.whole()
    if index.mask is not None and sum(isinstance(i, Tensor) and (i.ndim > 0 or i.dtype is bool_) for i in items) > 1:
        index.mask = None
        require_no_trace(_SELECTED, "index with the mask alone, or use `weft.where(mask, x, other)`")
    return index


def _as_item(item: Any) -> Any:
    """Lists, ranges and arrays as tensors; everything else must be an index."""
    if item is None or item is Ellipsis or isinstance(item, (bool, int, slice)) or type(item) is RuntimeScalar:
        return item
    if isinstance(item, Tensor):
        if item.dtype.is_floating_point:
            raise error(IndexRangeError, "tensors used as indices must be long, int, byte or bool tensors, got "
                                         f"{torch_name(item.dtype)}")
        if item.dtype is uint8:
            return ne(item, 0)
        if item.ndim == 0 and item.dtype is not bool_ and item._array is not None and STATE.trace is None:
            return int(item._array)
        return item
    if isinstance(item, np.bool_):
        return bool(item)
    if isinstance(item, np.integer):
        return int(item)
    if isinstance(item, np.ndarray):
        return _as_item(tensor_over(item))
    if isinstance(item, (list, tuple, range)):
        return make_tensor(list(item), dtype=None if len(item) else int64)
    if hasattr(item, "__index__"):
        return whole(item)
    raise error(IndexRangeError, f"{_WHAT} (got {type(item).__name__})")


def _consumed(item: Any) -> int:
    """How many axes an item uses up."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype is bool_ else 1


def _add(index: Index, item: Any) -> None:
    if item is None:
        index.view.append(1)
        index.inserted = True
    elif isinstance(item, bool):
        index.view.append(1)
        index.inserted = True
        index.tensors[len(index.view) - 1] = make_tensor([0] if item else [], dtype=int64)
    elif type(item) is RuntimeScalar:
        _add_dynamic(index, item.tensor)
    elif isinstance(item, int):
        n = index.shape[index.axis]
        first = check_index(item, n, index.axis)
        index.take(first, first + 1, 1, False)
        index.named_select = True
    elif isinstance(item, slice):
        _add_slice(index, item)
    elif item.dtype is bool_:
        _add_mask(index, item)
    elif item.ndim == 0:
        _add_dynamic(index, item)
    else:
        n, d = index.shape[index.axis], index.axis
        index.whole()
        index.tensors[len(index.view) - 1] = wrapped_indices(item, n, d)


def _add_slice(index: Index, item: slice) -> None:
    n = index.shape[index.axis]
    for bound in (item.start, item.stop, item.step):
        if (type(bound) is RuntimeScalar and bound.example is None or
                isinstance(bound, Tensor) and bound._array is None):
            raise error(TraceError, "a slice whose bounds change while the program runs has no fixed size: use "
                                    "`x.narrow(dim, start, length)` with a constant length")
    step = 1 if item.step is None else whole(item.step)
    if step <= 0:
        raise error(ShapeError, "step must be greater than zero: a slice cannot run backwards; use `weft.flip(x, "
                                "[dim])` and slice the result")
    start, stop = _slice_bound(item.start, n, 0), _slice_bound(item.stop, n, n)
    index.take(start, max(start, stop), step, True)


def _slice_bound(bound: Any, n: int, default: int) -> int:
    """A bound of a slice as a place in [0, n], as `slice.indices` has it."""
    if bound is None:
        return default
    place = whole(bound)
    return max(place + n, 0) if place < 0 else min(place, n)


def _add_dynamic(index: Index, position: Tensor) -> None:
    n = index.shape[index.axis]
    index.whole()
    index.dynamic[len(index.view) - 1] = wrapped_position(position, n)


def _add_mask(index: Index, mask: Tensor) -> None:
    first, d = len(index.view), index.axis
    shape = tuple(mask.shape)
    if not shape:
        index.view.append(1)
        index.inserted = True
        require_no_trace(_SELECTED, "use `weft.where(mask, x, other)`")
        index.tensors[first] = make_tensor([0] if bool(mask._memory()) else [], dtype=int64)
        return
    for k, n in enumerate(shape):
        if n != index.shape[d + k]:
            raise error(IndexRangeError, f"The shape of the mask {list(shape)} at index {k} does not match the shape "
                                         "of the indexed tensor "
                                         f"{list(index.shape)} at index {d + k}")
        index.whole()
    index.mask, index.mask_axis = mask, first
    if STATE.trace is None:
        for k, places in enumerate(np.nonzero(mask._memory())):
            index.tensors[first + k] = wrap(places)


def wrapped_indices(indices: Tensor, n: int, d: int) -> Tensor:
    """int64 indices along axis d of size n: negative ones count from the end; checked where the values are known."""
    indices = EMIT.cast(indices, int64)
    array = indices._array
    if array is None or STATE.trace is not None:
        shape = tuple(indices.shape)
        from_end = apply(OPS.add, (indices, EMIT.full(shape, n, int64)))
        return apply(OPS.select, (apply(OPS.lt, (indices, EMIT.full(shape, 0, int64))), from_end, indices))
    if not array.size:
        return indices
    low, high = int(array.min()), int(array.max())
    if low < -n or high >= n:
        raise error(IndexRangeError, f"index {high if high >= n else low} is out of bounds for dimension {d} with "
                                     f"size {n}")
    return indices if low >= 0 else wrap(np.where(array < 0, array + n, array))


# ---- reading ---------------------------------------------------------------------------------------------------------

def getitem(self: Tensor, key: Any) -> Tensor:
    """`x[key]`: a view for ints, slices, None and ellipsis; a copy for masks and integer tensors."""
    array = self._array
    if array is not None and STATE.trace is None and array.ndim and not (STATE.grad_enabled and wants_grad(self)):
        if type(key) is int:
            return _plain_int(self, array, key)
        if type(key) is slice and key.step is None:
            return _plain_slice(self, array, key)
        if type(key) is tuple:
            result = _plain_tuple(self, array, key)
            if result is not None:
                return result
    index = take_apart(self, key)
    steps = index.view_steps()
    name = "SelectBackward0" if index.named_select else "UnsqueezeBackward0" if index.inserted else ""
    if index.mask is None and not index.tensors and not index.dynamic:
        return chain(self, steps, name) if steps else chain(self, [reshape_step(index.shape)], "AliasBackward0")
    x = chain(self, steps, name) if steps else self
    shape: Sequence[int] = index.view
    if index.dynamic:
        x = _dynamic_slice(x, index)
        if not index.tensors and index.mask is None:
            return x
        shape = tuple(x.shape)
    if STATE.trace is not None and index.mask is not None:
        require_no_trace(_SELECTED, "use `weft.where(mask, x, other)`, or `x * mask` before a sum")
    return _gather(x, shape, _after_dynamic(index))


def _plain_int(x: Tensor, array: np.ndarray, key: int) -> Tensor:
    shape = array.shape
    n = shape[0]
    if not -n <= key < n:
        raise error(IndexRangeError, f"index {key} is out of bounds for dimension 0 with size {n}")
    first = key + n if key < 0 else key
    rest, zeros = shape[1:], (0,) * (len(shape) - 1)
    steps = ((OPS.slice, {"starts": (first, *zeros), "stops": (first + 1, *rest), "steps": (1,) * len(shape)}),
             (OPS.reshape, {"shape": rest}))
    return _plain_view(x, array[first, ...], steps)


def _plain_slice(x: Tensor, array: np.ndarray, key: slice) -> Tensor:
    shape = array.shape
    start, stop, _ = key.indices(shape[0])
    stop = max(start, stop)
    zeros = (0,) * (len(shape) - 1)
    steps = ((OPS.slice, {"starts": (start, *zeros), "stops": (stop, *shape[1:]), "steps": (1,) * len(shape)}),)
    return _plain_view(x, array[start:stop], steps)


def _plain_tuple(x: Tensor, array: np.ndarray, key: tuple) -> Tensor | None:
    """The view of several ints and slices; None for what takes the long way."""
    shape, rank = array.shape, array.ndim
    if len(key) > rank:
        return None
    starts, stops, steps, kept = [0] * rank, list(shape), [1] * rank, []
    for k, item in enumerate(key):
        n = shape[k]
        if type(item) is int:
            if not -n <= item < n:
                return None
            starts[k] = item + n if item < 0 else item
            stops[k] = starts[k] + 1
        elif type(item) is slice and (item.step is None or (type(item.step) is int and item.step > 0)):
            start, stop, step = item.indices(n)
            starts[k], stops[k], steps[k] = start, max(start, stop), step
            kept.append(-((start - stops[k]) // step))
        else:
            return None
    chain_: tuple[Step, ...] = ((OPS.slice, {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}),)
    rest = shape[len(key):]
    if len(kept) < len(key):
        chain_ += ((OPS.reshape, {"shape": (*kept, *rest)}),)
    return _plain_view(x, array[(*key, ...)], chain_)


def _plain_view(x: Tensor, array: np.ndarray, steps: tuple[Step, ...]) -> Tensor:
    """As `shape.chain` for a tensor that no gradient is recorded for."""
    result = Tensor()
    result._array = array
    link_view(result, x, steps)
    return result


def _starts(index: Index) -> list[Tensor]:
    return [index.dynamic[k] if k in index.dynamic else EMIT.scalar(0, int64) for k in range(len(index.view))]


def _dynamic_slice(x: Tensor, index: Index) -> Tensor:
    """The part at the traced positions, without their axes."""
    sizes = tuple(1 if k in index.dynamic else n for k, n in enumerate(index.view))
    part = part_at(x, _starts(index), sizes)
    shape = [n for k, n in enumerate(index.view) if k not in index.dynamic]
    return chain(part, [reshape_step(shape)], "SelectBackward0")


def _after_dynamic(index: Index) -> dict[int, Tensor]:
    """The integer tensors by axis of what `_dynamic_slice` leaves."""
    return {d - sum(k < d for k in index.dynamic): t for d, t in index.tensors.items()}


def _broadcast_indices(tensors: dict[int, Tensor]) -> tuple[list[int], list[Tensor]]:
    dims = sorted(tensors)
    try:
        shape = common_shape("indexing", [tuple(tensors[d].shape) for d in dims])
    except ShapeError:
        listed = ", ".join(str(list(tensors[d].shape)) for d in dims)
        raise error(IndexRangeError, "shape mismatch: indexing tensors could not be broadcast together with shapes "
                                     f"{listed}") from None
    return dims, [EMIT.expand(tensors[d], shape) for d in dims]


def _place(dims: Sequence[int]) -> int:
    """Where the indices' axes stand in the result: at the first of neighbouring indexed axes, else in front."""
    return dims[0] if list(dims) == list(range(dims[0], dims[0] + len(dims))) else 0


def _gather(x: Tensor, shape: Sequence[int], tensors: dict[int, Tensor]) -> Tensor:
    dims, indices = _broadcast_indices(tensors)
    result = apply(OPS.gather, (x, *indices), {"dims": tuple(dims)})
    lead, width = _place(dims), indices[0].ndim
    if lead:
        rank = result.ndim
        order = (*range(width, width + lead), *range(width), *range(width + lead, rank))
        result = apply(OPS.permute, (result,), {"dims": order})
    if result._array is not None and not (result._array.flags.c_contiguous and result._array.base is None):
        result._array = np.array(result._array, order="C")
    return named(result, "IndexBackward0")


# ---- writing ---------------------------------------------------------------------------------------------------------

def setitem(self: Tensor, key: Any, value: Any) -> None:
    """`x[key] = value`: writes into the memory of `x`; the value broadcasts to what the key selects."""
    if _written_plainly(self, key, value):
        return
    value = operand("setitem", value if not isinstance(value, (list, tuple)) else make_tensor(value))
    index = take_apart(self, key)
    steps = index.view_steps()
    view = chain(self, steps) if steps else self
    if isinstance(value, Tensor):
        if index.tensors and index.mask is None and value.dtype is not self.dtype:
            raise error(DTypeError, "Index put requires the source and destination dtypes match, got "
                                    f"{torch_name(self.dtype)} for the destination and {torch_name(value.dtype)} for "
                                    "the source.")
    if not index.tensors and not index.dynamic and index.mask is None:
        _assign(view, value)
        return
    new = _updated(view, index, value)
    write(view, new, "setitem")


def _written_plainly(x: Tensor, key: Any, value: Any) -> bool:
    """The short way for a number or a plain tensor written through ints and slices; False when the long way must be
    taken."""
    array = x._array
    if array is None or not array.ndim or not array.flags.c_contiguous or not _plain(x, value):
        return False
    for item in key if type(key) is tuple else (key,):
        if type(item) is not int and (type(item) is not slice or item.step is not None):
            return False
    kind = type(value)
    if kind is float and array.dtype.kind == "f":
        source = value
    elif isinstance(value, Tensor) and value._array is not None and value._array.dtype is array.dtype:
        source = value._array
    else:
        return False
    if STATE.grad_enabled:
        check_writable(x, "setitem")
    try:
        array[key] = source
    except (IndexError, ValueError):  # the long way explains
        return False
    x._storage.version += 1
    return True


def _plain(view: Tensor, value: Any) -> bool:
    """Whether NumPy may write at once."""
    return (view._array is not None and STATE.trace is None and not view._frozen
            and not (STATE.grad_enabled and (wants_grad(view) or wants_grad(value))))


def _assign(view: Tensor, value: Any) -> None:
    """Writes a value, without its leading axes of size 1, into a view."""
    if isinstance(value, Tensor) and value.ndim > view.ndim:
        extra = value.ndim - view.ndim
        if any(n != 1 for n in value.shape[:extra]):
            raise _misfit(value, tuple(view.shape))
        value = value.reshape(tuple(value.shape)[extra:])
    if _plain(view, value) and (not isinstance(value, Tensor) or value._array is not None):
        check_writable(view, "setitem")
        assert view._array is not None
        source = value._array if isinstance(value, Tensor) else np.array(_number(value, view), view._array.dtype)
        try:
            view._array[...] = source
        except ValueError:
            raise _misfit(value, tuple(view.shape)) from None
        view._storage.version += 1
        return
    write(view, _fitted(value, view, tuple(view.shape)), "setitem")


def _number(value: Any, view: Tensor) -> Any:
    return as_tensor_of(value, view.dtype)._memory().item()


def _misfit(value: Any, shape: tuple[int, ...]) -> Exception:
    return error(ShapeError, f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to "
                             f"indexing result of shape {list(shape)}")


def _fitted(value: Any, target: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The value in the dtype of `target`, broadcast to `shape`."""
    new = as_tensor_of(value, target.dtype)
    if new is value:  # a record of its own: the value's own edge is not the target's
        new = apply(OPS.reshape, (new,), {"shape": tuple(new.shape)})
        named(new, "CopySlices")
    while new.ndim > len(shape) and new.shape[0] == 1:
        new = EMIT.view_as(new, tuple(new.shape)[1:])
    try:
        wanted = common_shape("setitem", [tuple(new.shape), shape])
    except ShapeError:
        raise _misfit(new, shape) from None
    if wanted != shape:
        raise _misfit(new, shape)
    return EMIT.expand(new, shape)


def _updated(view: Tensor, index: Index, value: Any) -> Tensor:
    """The new value of the whole view."""
    if not index.dynamic:
        return _scattered(view, index, index.tensors, value)
    kept = tuple(n for k, n in enumerate(index.view) if k not in index.dynamic)
    boxed = tuple(1 if k in index.dynamic else n for k, n in enumerate(index.view))
    if index.tensors or index.mask is not None:
        inner = _scattered(_dynamic_slice(view, index), index, _after_dynamic(index), value)
    else:
        inner = _fitted(value, view, kept)
    return apply(OPS.dynamic_update, (view, EMIT.view_as(inner, boxed), *_starts(index)))


def _scattered(x: Tensor, index: Index, tensors: dict[int, Tensor], value: Any) -> Tensor:
    if index.mask is not None:
        masked = _masked(x, index, value)
        if masked is not None:
            return masked
        require_no_trace(_SELECTED, "assign one number or a value that fits every place, or use `weft.where`")
    dims, indices = _broadcast_indices(tensors)
    return put(x, dims, indices, value, "set")


def put(x: Tensor, dims: Sequence[int], indices: Sequence[Tensor], value: Any, mode: str) -> Tensor:
    """x with `value`, shaped as x[indices] would be, scattered to the places `indices` along the axes `dims`."""
    places, rest = tuple(indices[0].shape), tuple(n for k, n in enumerate(x.shape) if k not in dims)
    lead, width = _place(dims), len(places)
    update = _fitted(value, x, rest[:lead] + places + rest[lead:])
    if lead:
        order = (*range(lead, lead + width), *range(lead), *range(lead + width, update.ndim))
        update = apply(OPS.permute, (update,), {"dims": order})
    return named(apply(OPS.scatter, (x, update, *indices), {"dims": tuple(dims), "mode": mode}), "IndexPutBackward0")


def _masked(x: Tensor, index: Index, value: Any) -> Tensor | None:
    """The assignment through a mask as a choice, when the value does not depend on which elements are chosen."""
    mask = index.mask
    assert mask is not None
    d = index.mask_axis - sum(k < index.mask_axis for k in index.dynamic)
    rest = x.ndim - d - mask.ndim
    if isinstance(value, Tensor):
        if value.ndim > rest or (value.ndim and d):
            return None
        common_shape("setitem", [tuple(value.shape), tuple(x.shape)[x.ndim - rest:]])
    shape = (1,) * d + tuple(mask.shape) + (1,) * rest
    return named(select_by(EMIT.view_as(mask, shape), value, x, x.dtype, "setitem"), "IndexPutBackward0")


method("__getitem__")(getitem)
method("__setitem__")(setitem)


# ---- the functions ---------------------------------------------------------------------------------------------------

@method()
def index_put_(self: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """Writes `values` to the places `indices` (one tensor per axis, None for a whole axis); adds them when
    `accumulate`."""
    return write(self, _index_put(self, indices, values, accumulate), "index_put_")


@method()
def index_put(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `values` at the places `indices`."""
    return _index_put(input, indices, values, accumulate)


def _index_put(x: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool) -> Tensor:
    index = take_apart(x, tuple(slice(None) if i is None else i for i in indices))
    if STATE.trace is not None and index.mask is not None:
        require_no_trace(_SELECTED, "use `weft.where(mask, values, x)`")
    if values.dtype is not x.dtype:
        raise error(DTypeError, "Index put requires the source and destination dtypes match, got "
                                f"{torch_name(x.dtype)} for the destination and "
                                f"{torch_name(values.dtype)} for the source.")
    dims, places = _broadcast_indices(index.tensors)
    return put(x, dims, places, values, "add" if accumulate else "set")


@method()
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask (broadcast) holds, as a vector."""
    require_no_trace(_SELECTED, "use `weft.where(mask, x, other)`")
    shape = common_shape("masked_select", [tuple(input.shape), tuple(mask.shape)])
    return named(EMIT.expand(input, shape)[EMIT.expand(mask, shape)], "MaskedSelectBackward0")


@method()
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The places of the nonzero elements: one row each, or one vector per axis."""
    require_no_trace("how many elements are nonzero", "keep the mask and use `weft.where(mask, x, other)`")
    places = np.nonzero(np.atleast_1d(input._memory()))
    if as_tuple:
        return tuple(wrap(p) for p in places)
    return wrap(np.stack(places, 1) if input.ndim else np.zeros((len(places[0]), 0), np.int64))


def argwhere(input: Tensor) -> Tensor:
    """The places of the nonzero elements, one row each."""
    return nonzero(input)


def check_same_dtype(name: str, x: Tensor, y: Tensor) -> None:
    """Refuses operands of different dtypes."""
    if x.dtype is not y.dtype:
        raise error(DTypeError, f"{name}(): self and source expected to have the same dtype, but got "
                                f"{torch_name(x.dtype)} and {torch_name(y.dtype)}")
