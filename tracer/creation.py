"""Tensors from nothing but a description, and from Python data."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, GradientError, ShapeError
from ..ir.ops import OPS
from ..ir.sizes import whole
from ..ir.types import DType, bool_, float64, int64
from .axes import check_sizes, sizes
from .device import as_device
from .dispatch import EMIT, apply, apply_copy, check_writable
from .dtypes import as_dtype, dtype_of_numpy, get_default_dtype
from .inplace import assign
from .location import error
from .promotion import NUMBERS, Operand, as_tensor_of, category, is_recorded, number, operand, tensor_over, weak_dtype
from .scalars import RuntimeScalar
from .shape import chain, permute_step
from .state import STATE
from .tensor import Tensor, method, wrap
from .trace import outside

LITERAL_LIMIT = 16
"""Python data of more elements becomes an input of a compiled program instead of part of it."""


def finished(result: Tensor, requires_grad: bool) -> Tensor:
    """A new leaf."""
    if requires_grad:
        if not result.dtype.is_floating_point:
            raise error(GradientError, "Only Tensors of floating point and complex dtype can require gradients")
        result._requires_grad = True
    return result


# ---- from Python data ------------------------------------------------------------------------------------------------

def tensor(data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: a number, nested lists, a NumPy array of any layout, a pandas column, or a
    tensor.

    Python floats become the default dtype, ints int64; NumPy data keeps its dtype.

    Raises:
        ShapeError: ragged lists; the text names the place.
        DTypeError: strings and other objects.
    """
    as_device(device)
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        source = data.detach().clone()
        return finished(source if wanted is None else EMIT.cast(source, wanted), requires_grad)
    if type(data) is RuntimeScalar:
        return finished(apply_copy(OPS.reshape, as_tensor_of(data, wanted or weak_dtype(data)), {"shape": ()}),
                        requires_grad)
    if _holds_tensors(data):
        return finished(_stacked(data, wanted), requires_grad)
    return finished(from_array(_as_array(data, wanted)), requires_grad)


def from_array(array: np.ndarray) -> Tensor:
    """A tensor over an array that nobody else uses: a literal in a trace when it is small, else a captured input's
    copy."""
    if STATE.trace is None:
        return wrap(array)
    dtype = dtype_of_numpy(array.dtype)
    if array.size <= LITERAL_LIMIT:
        if not array.size:
            return EMIT.full(array.shape, 0, dtype)
        if array.ndim == 0:
            return EMIT.scalar(array.item(), dtype)
        return EMIT.literal(values=tuple(array.reshape(-1).tolist()), shape=array.shape, dtype=dtype)
    with outside():
        source = wrap(array)
    return apply_copy(OPS.reshape, source, {"shape": array.shape})


def _as_array(data: Any, wanted: DType | None) -> np.ndarray:
    """A fresh contiguous array of `data`."""
    if isinstance(data, NUMBERS):
        dtype = wanted or weak_dtype(data)
        return np.array(_checked(data, dtype), dtype.numpy)
    if hasattr(data, "__array__") or hasattr(data, "__array_interface__"):
        return _from_array_like(data, wanted)
    if isinstance(data, (str, bytes)):
        raise error(DTypeError, f"tensor: a string ({data!r}) cannot become a tensor: map its values to numbers first")
    if not isinstance(data, Sequence) and not hasattr(data, "__iter__"):
        raise error(DTypeError, f"tensor: Could not infer dtype of {type(data).__name__}; data are numbers, nested "
                                "lists of numbers, arrays or tensors")
    shape, leaves = _flattened(data)
    dtype = wanted or _leaf_dtype(leaves)
    try:
        array = np.array([_checked(x, dtype) for x in leaves], dtype.numpy)
    except OverflowError:
        raise error(DTypeError, f"tensor: value cannot be converted to type {dtype.name} without overflow") from None
    return array.reshape(shape)


def _from_array_like(data: Any, wanted: DType | None) -> np.ndarray:
    array = data.to_numpy() if hasattr(data, "to_numpy") else np.asarray(data)
    if array.dtype.kind in "OSUMmV":
        raise error(DTypeError, f"tensor: can't convert {type(data).__name__} of type {array.dtype} to a tensor: "
                                f"{_advice(array)}")
    if array.dtype == np.float16 and wanted is None:
        raise error(DTypeError, "tensor: float16 arrays are not supported: pass dtype=weft.float32")
    if wanted is None:
        wanted = dtype_of_numpy(array.dtype)
    return np.array(array, dtype=wanted.numpy, order="C")


def _advice(array: np.ndarray) -> str:
    if array.dtype.kind in "Mm":
        return "weft.from_dataframe turns dates into days since 1970-01-01"
    return ("the elements are not numbers; map strings to numbers first (weft.from_dataframe turns categories into "
            "codes)")


def _checked(x: Any, dtype: DType) -> Any:
    """One element of Python data as a number of `dtype`."""
    if isinstance(x, np.generic):
        x = x.item()
    if not isinstance(x, NUMBERS):
        raise error(DTypeError, f"tensor: an element is {type(x).__name__} ({x!r}), not a number")
    if dtype.is_floating_point:
        return float(x)
    if dtype is bool_:
        return bool(x)
    value = int(x)
    limits = np.iinfo(dtype.numpy)
    if not limits.min - (dtype.kind == "uint") * limits.max <= value <= limits.max:
        raise error(DTypeError, f"tensor: value {value} cannot be converted to type {dtype.name} without overflow")
    return number(value, dtype)


def _flattened(data: Any) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested sequences, and their elements in order; an error names the first place that does not fit."""
    shape: list[int] = []
    level, first = [data], data
    while _is_sequence(first):
        size = len(first)
        shape.append(size)
        following: list[Any] = []
        for k, item in enumerate(level):
            if not _is_sequence(item) or len(item) != size:
                raise _ragged(data, shape, k, item, size)
            following.extend(item)
        level = following
        if not level:
            break
        first = level[0]
    for k, item in enumerate(level):
        if _is_sequence(item):
            raise _ragged(data, [*shape, 0], k, item, None)
    return tuple(shape), level


def _is_sequence(x: Any) -> bool:
    if isinstance(x, (str, bytes, Tensor)):
        return False
    return hasattr(x, "__len__") and hasattr(x, "__iter__") and getattr(x, "ndim", 1) > 0


def _ragged(data: Any, shape: Sequence[int], position: int, item: Any, size: int | None) -> Exception:
    """What is wrong at the element number `position` of the last level of `shape`."""
    place, rest = "", position
    for n in reversed(shape[:-1]):
        place, rest = f"[{rest % n}]{place}", rest // n
    found = f"a sequence of length {len(item)}" if _is_sequence(item) else f"{type(item).__name__} {item!r}"
    due = "a number" if size is None else f"expected sequence of length {size} at dim {len(shape) - 1}"
    return error(ShapeError, f"tensor: the lists are ragged: {due}, got {found} at data{place}. All rows must have "
                             "the same length")


def _leaf_dtype(leaves: Sequence[Any]) -> DType:
    """float (the default dtype) over int over bool; NumPy scalars keep their own dtype when all agree."""
    if not leaves:
        return get_default_dtype()
    kinds = {type(x) for x in leaves}
    if len(kinds) == 1 and issubclass(next(iter(kinds)), np.generic):
        return dtype_of_numpy(np.dtype(next(iter(kinds))))
    order = (bool_, int64, get_default_dtype())
    rank = 0
    for kind in kinds:
        if issubclass(kind, (bool, np.bool_)):
            continue
        if issubclass(kind, (int, np.integer)):
            rank = rank or 1
        elif issubclass(kind, (float, np.floating)):
            rank = 2
        else:
            example = next(x for x in leaves if type(x) is kind)
            raise error(DTypeError, f"tensor: Could not infer dtype of {kind.__name__} (the element {example!r}): "
                                    "elements must be numbers; "
                                    "map strings to numbers and missing values to float('nan')")
    return order[rank]


def _holds_tensors(data: Any) -> bool:
    """Whether nested lists contain tensors or traced numbers."""
    while isinstance(data, (list, tuple)) and data:
        if any(isinstance(x, Tensor) or type(x) is RuntimeScalar for x in data):
            return True
        data = data[0]
    return False


def _stacked(data: Any, wanted: DType | None) -> Tensor:
    """Nested lists with tensors in them: values of 0-d tensors and numbers, side by side."""
    parts = []
    for item in data:
        if isinstance(item, (list, tuple)):
            parts.append(_stacked(item, wanted))
        else:
            x = item.detach() if isinstance(item, Tensor) else item
            parts.append(as_tensor_of(operand("tensor", x), wanted
                                      or (x.dtype if isinstance(x, Tensor) else weak_dtype(x))))
    shape = tuple(parts[0].shape)
    for k, x in enumerate(parts):
        if tuple(x.shape) != shape:
            raise error(ShapeError, f"tensor: the tensors in a list must have equal shapes, got {list(shape)} and "
                                    f"{list(x.shape)} at place {k}")
    dtype = wanted
    if dtype is None:
        dtype = max((x.dtype for x in parts), key=lambda d: (category(d), d.bits))
    return apply(OPS.concatenate, [EMIT.view_as(EMIT.cast(x, dtype), (1, *shape)) for x in parts], {"dim": 0})


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor, without a copy where possible (tensors, NumPy arrays of the dtype)."""
    as_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(as_dtype(dtype))
    if isinstance(data, np.ndarray) and (dtype is None or as_dtype(dtype).numpy == data.dtype):
        return tensor_over(data)
    return tensor(data, dtype=dtype)


asarray = as_tensor


def scalar_tensor(s: Operand, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor without axes, of the default dtype."""
    return tensor(s, dtype=dtype or get_default_dtype(), device=device, requires_grad=requires_grad)


# ---- filled ----------------------------------------------------------------------------------------------------------

def filled(shape: Sequence[int], value: Operand, dtype: DType) -> Tensor:
    """A new tensor of one value, in memory of its own."""
    if STATE.trace is None:
        return wrap(np.full(shape, number(value, dtype), dtype.numpy))
    return EMIT.expand(as_tensor_of(value, dtype), tuple(shape))


def _new(name: str, size: Sequence[Any], value: Operand, dtype: DType | None, device: Any,
         requires_grad: bool) -> Tensor:
    as_device(device)
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    return finished(filled(check_sizes(name, sizes(size)), value, chosen), requires_grad)


def zeros(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return _new("zeros", size, 0, dtype, device, requires_grad)


def ones(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return _new("ones", size, 1, dtype, device, requires_grad)


def empty(*size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor to be filled; it holds zeros, so that programs are deterministic."""
    return _new("empty", size, 0, dtype, device, requires_grad)


def full(size: Sequence[int] | int, fill_value: Operand, *, dtype: DType | None = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
    """A tensor of one value; its dtype is the value's unless given."""
    if isinstance(fill_value, Tensor):
        as_device(device)
        chosen = fill_value.dtype if dtype is None else as_dtype(dtype)
        shape = check_sizes("full", sizes([size]))
        value = apply_copy(OPS.broadcast, EMIT.cast(fill_value.detach(), chosen), {"shape": shape})
        return finished(value, requires_grad)
    return _new("full", [size], fill_value, weak_dtype(operand("full", fill_value)) if dtype is None else dtype, device,
                requires_grad)


def empty_strided(size: Sequence[int], stride: Sequence[int], *, dtype: DType | None = None, device: Any = None,
                  requires_grad: bool = False) -> Tensor:
    """A tensor of zeros with the given strides, which must describe some order of dense axes."""
    as_device(device)
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    order = sorted(range(len(size)), key=lambda k: -stride[k])
    step, expected = 1, {}
    for k in reversed(order):
        expected[k] = step
        step *= max(size[k], 1)
    if any(size[k] > 1 and expected[k] != stride[k] for k in order):
        raise error(ShapeError, f"empty_strided: strides {tuple(stride)} are not dense for the sizes {tuple(size)}")
    base = filled([size[k] for k in order], 0, chosen)
    return finished(chain(base, [permute_step([order.index(k) for k in range(len(size))])]).detach(), requires_grad)


def _like(name: str, value: Operand, doc: str) -> Any:
    def function(input: Tensor, *, dtype: DType | None = None, device: Any = None,
                 requires_grad: bool = False) -> Tensor:
        return _new(name, [tuple(input.shape)], value, dtype or input.dtype, device, requires_grad)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


zeros_like = _like("zeros_like", 0, "Zeros in the shape and dtype of a tensor.")
ones_like = _like("ones_like", 1, "Ones in the shape and dtype of a tensor.")
empty_like = _like("empty_like", 0, "A tensor to be filled, in the shape and dtype of another.")


def full_like(input: Tensor, fill_value: Operand, *, dtype: DType | None = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    """One value in the shape and dtype of a tensor."""
    return _new("full_like", [tuple(input.shape)], fill_value, dtype or input.dtype, device, requires_grad)


@method()
def new_tensor(self: Tensor, data: Any, *, dtype: DType | None = None, device: Any = None,
               requires_grad: bool = False) -> Tensor:
    """`weft.tensor` with this tensor's dtype."""
    return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


@method()
def new_zeros(self: Tensor, *size: Any, dtype: DType | None = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    """Zeros of this tensor's dtype."""
    return _new("new_zeros", size, 0, dtype or self.dtype, device, requires_grad)


@method()
def new_ones(self: Tensor, *size: Any, dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """Ones of this tensor's dtype."""
    return _new("new_ones", size, 1, dtype or self.dtype, device, requires_grad)


@method()
def new_empty(self: Tensor, *size: Any, dtype: DType | None = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    """A tensor of this tensor's dtype, to be filled."""
    return _new("new_empty", size, 0, dtype or self.dtype, device, requires_grad)


@method()
def new_full(self: Tensor, size: Sequence[int], fill_value: Operand, *, dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """One value, of this tensor's dtype."""
    return _new("new_full", [size], fill_value, dtype or self.dtype, device, requires_grad)


# ---- sequences and patterns ------------------------------------------------------------------------------------------

def _counted(n: int, dtype: DType) -> Tensor:
    """0, 1, ..., n - 1."""
    if STATE.trace is None:
        return wrap(np.arange(n).astype(dtype.numpy))
    return apply(OPS.iota, (), {"shape": (n,), "dim": 0, "dtype": dtype})


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: DType | None = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:
    """start, start + step, ... below `end`. `arange(end)` counts from 0. Integers give int64, floats the default
    dtype."""
    as_device(device)
    if end is None:
        start, end = 0, start
    start, end, step = map(_known, (start, end, step))
    integral = not any(isinstance(x, float) for x in (start, end, step))
    chosen = as_dtype(dtype) if dtype is not None else int64 if integral else get_default_dtype()
    if step == 0:
        raise error(ShapeError, "arange: step must be nonzero")
    if (end - start) * step < 0:
        raise error(ShapeError, "arange: upper bound and lower bound inconsistent with step sign")
    n = -(-(end - start) // step) if integral else math.ceil((end - start) / step)
    if STATE.trace is None:
        wide = np.int64 if integral else np.float64
        return finished(wrap((np.arange(n, dtype=wide) * wide(step) + wide(start)).astype(chosen.numpy)), requires_grad)
    wide_type = int64 if integral else float64
    return finished(EMIT.cast(_affine(_counted(n, wide_type), step, start), chosen), requires_grad)


def _known(x: Any) -> Any:
    """A bound as a plain Python number: the size of the result depends on it."""
    if type(x) is RuntimeScalar:
        return x.concrete("the size of a new tensor")
    return x.item() if isinstance(x, (Tensor, np.generic)) else x


def _affine(x: Tensor, factor: Any, offset: Any) -> Tensor:
    """x * factor + offset in the dtype of x; operations that do nothing are left out."""
    if factor != 1:
        x = EMIT.mul(x, EMIT.full_like(x, factor))
    return EMIT.add(x, EMIT.full_like(x, offset)) if offset != 0 else x


def linspace(start: Any, end: Any, steps: int, *, dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included; symmetric, computed from both ends as
    torch does."""
    as_device(device)
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    if steps < 0:
        raise error(ShapeError, "linspace: number of steps must be non-negative")
    steps = whole(steps)
    start, end = (x.item() if isinstance(x, (Tensor, np.generic)) else x for x in (start, end))
    work = chosen if chosen.is_floating_point else float64
    place = _counted(steps, work)
    first, last, step = (EMIT.expand(as_tensor_of(x, work), (steps,))
                         for x in (start, end, (end - start) / (steps - 1) if steps > 1 else 0.0))
    back = EMIT.sub(EMIT.full_like(place, steps - 1), place)
    left, right = EMIT.add(first, EMIT.mul(place, step)), EMIT.sub(last, EMIT.mul(back, step))
    result = EMIT.select(EMIT.lt(place, EMIT.full_like(place, max(steps // 2, 1))), left, right)
    return finished(EMIT.cast(result, chosen), requires_grad)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` numbers from base ** start to base ** end, at equal ratios."""
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    exponent = linspace(start, end, steps, dtype=float64, device=device)
    powers = EMIT.pow(EMIT.expand(as_tensor_of(operand("logspace", base), float64), tuple(exponent.shape)), exponent)
    return finished(EMIT.cast(powers, chosen), requires_grad)


def eye(n: int, m: int | None = None, *, dtype: DType | None = None, device: Any = None,
        requires_grad: bool = False) -> Tensor:
    """The n x m matrix with ones on the diagonal."""
    as_device(device)
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    shape = check_sizes("eye", (n, n if m is None else m))
    if STATE.trace is None:
        return finished(wrap(np.eye(*shape, dtype=chosen.numpy)), requires_grad)
    rows, columns = (EMIT.iota(shape=shape, dim=d, dtype=int64) for d in (0, 1))
    return finished(EMIT.cast(EMIT.eq(rows, columns), chosen), requires_grad)


def _triangle_indices(row: int, col: int, offset: int, lower: bool, dtype: DType) -> Tensor:
    rows, columns = np.tril_indices(row, offset, col) if lower else np.triu_indices(row, offset, col)
    return from_array(np.stack([rows, columns]).astype(dtype.numpy))


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType = int64, device: Any = None) -> Tensor:
    """The places on and below a diagonal, as a 2 x n tensor of rows and columns."""
    as_device(device)
    return _triangle_indices(row, col, offset, True, dtype)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType = int64, device: Any = None) -> Tensor:
    """The places on and above a diagonal, as a 2 x n tensor of rows and columns."""
    as_device(device)
    return _triangle_indices(row, col, offset, False, dtype)


# ---- filling in place ------------------------------------------------------------------------------------------------

def fill(input: Tensor, value: Operand) -> Tensor:
    """One value in the shape of a tensor."""
    return EMIT.expand(as_tensor_of(operand("fill", value), input.dtype), tuple(input.shape))


@method()
def fill_(self: Tensor, value: Operand) -> Tensor:
    """Sets every element to `value`."""
    array = self._array
    if array is None or type(value) not in NUMBERS or self._frozen or is_recorded((self,)):
        return assign(self, fill(self, value), "fill_")
    check_writable(self, "fill_")
    array.fill(number(value, self.dtype))
    self._storage.version += 1
    return self


@method()
def zero_(self: Tensor) -> Tensor:
    """Sets every element to 0."""
    return fill_(self, 0)


@method()
def fill_diagonal_(self: Tensor, fill_value: Operand, wrap: bool = False) -> Tensor:
    """Sets the diagonal to one value."""
    if self.ndim < 2:
        raise error(ShapeError, "dimensions must larger than 1")
    shape = tuple(self.shape)
    if len(shape) == 2:
        for start in range(0, shape[0] if wrap else 1, shape[1] + 1):
            self[start:].diagonal().fill_(fill_value)
        return self
    if len(set(shape)) != 1:
        raise error(ShapeError, "all dimensions of input must be of equal length")
    for k in range(shape[0]):
        self[(k,) * len(shape)] = fill_value
    return self
