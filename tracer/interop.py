"""Exchange with NumPy, DLPack, copy and pickle. Memory is shared where the name says so."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.errors import DTypeError, GradientError
from .dispatch import require_no_trace
from .location import error
from .promotion import tensor_over
from .storage import publish
from .tape import alias_of, tensor_requires_grad
from .tensor import Tensor, method, wrap


@method()
def numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The memory of the tensor as a NumPy array; writes are seen on both sides.

    Raises:
        GradientError: the tensor requires grad, and `force` is not given.
    """
    require_no_trace("the array that numpy() returns", "keep the computation in tensor operations")
    if tensor_requires_grad(self) and not force:
        raise error(GradientError, "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() "
                                   "instead.")
    array = self._memory()
    publish(self._storage)
    return array


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor over the memory of a NumPy array; writes are seen on both sides."""
    if not isinstance(ndarray, np.ndarray):
        raise error(DTypeError, f"from_numpy: expected np.ndarray (got {type(ndarray).__name__})")
    if any(s < 0 for s in ndarray.strides):
        raise error(DTypeError, "from_numpy: At least one stride in the given numpy array is negative, and tensors "
                                "with negative strides are not currently supported. (You can probably work around this "
                                "by making a copy of your array with "
                                "array.copy().)")
    return tensor_over(ndarray)


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    array = numpy(self)
    if dtype is not None and np.dtype(dtype) != array.dtype:
        return array.astype(dtype)
    return array.copy() if copy else array


def _dlpack(self: Tensor, **options: Any) -> Any:
    if tensor_requires_grad(self):
        raise error(GradientError, "Can't export tensors that require gradient, use tensor.detach()")
    return numpy(self).__dlpack__(**options)


def _dlpack_device(self: Tensor) -> tuple[int, int]:
    return (1, 0)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor over the memory of any object that speaks DLPack (a torch or JAX tensor, a NumPy array)."""
    if isinstance(ext_tensor, Tensor):
        return tensor_over(numpy(ext_tensor))
    return tensor_over(np.from_dlpack(ext_tensor))


method("__array__")(_array)
method("__dlpack__")(_dlpack)
method("__dlpack_device__")(_dlpack_device)


# ---- copy and pickle -------------------------------------------------------------------------------------------------

@method("__copy__")
def _shallow_copy(self: Tensor) -> Tensor:
    """Another tensor over the same memory, as torch's copy.copy; a leaf stays one that requires grad or not."""
    result = alias_of(self)
    result._requires_grad = self._requires_grad and self.is_leaf
    return result


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    known = memo.get(id(self))
    if known is not None:
        return known
    if not self.is_leaf:
        raise error(GradientError, "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
                                   "protocol at the moment: use "
                                   "`x.detach().clone()`")
    result = type(self).__new__(type(self))
    memo[id(self)] = result
    result._array = np.array(self._memory(), order="K")
    result._requires_grad = self._requires_grad
    if self._grad is not None:
        result._grad = _deepcopy(self._grad, memo)
    return result


def rebuild(array: np.ndarray, requires_grad: bool) -> Tensor:
    """A tensor from its pickled parts."""
    result = wrap(array)
    result._requires_grad = requires_grad
    return result


def _reduce(self: Tensor) -> tuple[Any, ...]:
    return rebuild, (np.array(self._memory()), self._requires_grad and self.is_leaf)


method("__deepcopy__")(_deepcopy)
method("__reduce__")(_reduce)
