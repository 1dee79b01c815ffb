"""Other dtypes and devices, and tensors as Python values."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.errors import DTypeError, ShapeError
from ..ir.ops import OPS
from ..ir.types import DType, bool_, float32, float64, int8, int16, int32, int64, uint8
from .axes import count
from .device import Device, as_device
from .dispatch import EMIT, apply, require_no_trace, write
from .dtypes import as_dtype
from .location import error
from .promotion import operand
from .shape import clone, expand
from .state import STATE
from .tensor import Tensor, method

_NO_VALUES = ("keep the computation in tensor operations (`weft.where` instead of `if`), or read the value outside the "
              "compiled function")


# ---- dtypes and devices ----------------------------------------------------------------------------------------------

@method()
def to(self: Tensor, *args: Any, dtype: DType | None = None, device: Any = None, non_blocking: bool = False,
       copy: bool = False) -> Tensor:
    """The tensor with another dtype or on another device: `x.to(weft.float64)`, `x.to("cpu")`, `x.to(other)`.

    The tensor itself when nothing changes, unless `copy`.
    """
    for argument in args:
        if isinstance(argument, Tensor):
            dtype = argument.dtype
        elif isinstance(argument, (str, Device)):
            device = argument
        elif isinstance(argument, bool):
            continue
        elif isinstance(argument, int):
            device = argument
        else:
            dtype = as_dtype(argument)
    as_device(device)
    wanted = self.dtype if dtype is None else as_dtype(dtype)
    if wanted is self.dtype:
        return clone(self) if copy else self
    return apply(OPS.convert, (self,), {"dtype": wanted})


@method()
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor with the dtype of `other`."""
    return to(self, other.dtype)


@method()
def type(self: Tensor, dtype: DType | None = None) -> Any:
    """The name of the tensor's type, or the tensor with another dtype."""
    return f"weft.{self.dtype.name}" if dtype is None else to(self, dtype)


def _cast(name: str, dtype: DType) -> None:
    def convert(self: Tensor) -> Tensor:
        return to(self, dtype)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {dtype.name}."
    setattr(Tensor, name, convert)


for _name, _dtype in (("float", float32), ("double", float64), ("long", int64), ("int", int32), ("short", int16),
                      ("char", int8),
                      ("byte", uint8), ("bool", bool_)):
    _cast(_name, _dtype)


@method()
def cpu(self: Tensor) -> Tensor:
    """The tensor on the CPU."""
    return self


@method()
def cuda(self: Tensor, device: Any = None) -> Tensor:
    """The tensor on a GPU."""
    return to(self, device="cuda" if device is None else device)


@method()
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Writes the elements of `src`, broadcast and converted, into this tensor."""
    source = operand("copy_", src)
    if not isinstance(source, Tensor):
        return self.fill_(source)
    shape = tuple(self.shape)
    value = EMIT.cast(source, self.dtype)
    if tuple(value.shape) != shape:
        value = expand(value, *shape)
    if value is source:  # a record of its own, so that the gradient does not end in the source's accumulator
        value = apply(OPS.reshape, (value,), {"shape": shape})
    edge = value._edge
    if edge is not None:
        edge[0].name = "CopyBackwards"
    return write(self, value, "copy_")


@method()
def set_(self: Tensor, source: Tensor) -> Tensor:
    """Lets this tensor use the memory of `source`."""
    self.data = source
    return self


# ---- Python values ---------------------------------------------------------------------------------------------------

def _single(x: Tensor, what: str) -> np.ndarray:
    if x._array is None:
        require_no_trace(f"{what} of a tensor", _NO_VALUES)
        raise x._no_memory()
    if x._array.size != 1:
        raise error(ShapeError, f"a Tensor with {count(x.shape)} elements cannot be converted to Scalar")
    return x._array


@method()
def item(self: Tensor) -> Any:
    """The only element as a Python number."""
    require_no_trace("the value that item() returns", _NO_VALUES)
    return _single(self, "item()").item()


@method()
def tolist(self: Tensor) -> Any:
    """The elements as nested lists of Python numbers."""
    require_no_trace("the values that tolist() returns", _NO_VALUES)
    return self._memory().tolist()


def _truth(self: Tensor) -> bool:
    require_no_trace("whether a tensor is true", _NO_VALUES)
    n = count(self.shape)
    if n != 1:
        how = "no values" if n == 0 else "more than one value"
        raise error(ShapeError, f"Boolean value of Tensor with {how} is ambiguous: use `.any()` or `.all()`")
    return bool(_single(self, "the truth").item())


def _index(self: Tensor) -> int:
    if self.dtype.is_floating_point or count(self.shape) != 1:
        raise error(DTypeError, "only integer tensors of a single element can be converted to an index")
    require_no_trace("the value of a tensor used as a Python index", _NO_VALUES)
    return int(_single(self, "the index").item())


def _number(kind: Any) -> Any:
    def convert(self: Tensor) -> Any:
        require_no_trace(f"the value that {kind.__name__}() returns", _NO_VALUES)
        return kind(_single(self, f"{kind.__name__}()").item())

    return convert


def _length(self: Tensor) -> int:
    if not self.ndim:
        raise error(DTypeError, "len() of a 0-d tensor")
    return int(self.shape[0])


def _contains(self: Tensor, element: Any) -> bool:
    require_no_trace("whether a tensor contains a value", "use `(x == value).any()`, which is a tensor")
    return bool((self == element)._memory().any())


def _iterate(self: Tensor) -> Any:
    if not self.ndim:
        raise error(DTypeError, "iteration over a 0-d tensor")
    return iter(self.unbind(0))


def _format(self: Tensor, spec: str) -> str:
    if spec:
        require_no_trace("the text of a number", _NO_VALUES)
    if self.ndim == 0 and self._array is not None and STATE.trace is None:
        return format(self._array.item(), spec) if spec else str(self._array.item())
    return format(repr(self), spec)


method("__bool__")(_truth)
method("__index__")(_index)
method("__int__")(_number(int))
method("__float__")(_number(float))
method("__len__")(_length)
method("__contains__")(_contains)
method("__iter__")(_iterate)
method("__format__")(_format)
