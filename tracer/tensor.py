"""The Tensor record: memory and geometry, or a place in a trace, plus its autograd state. Operations live in other
files.

An eager tensor is a NumPy array over a storage. A traced tensor has no array: it is a storage whose current SSA value
the trace knows, and the path of view steps that leads from that value to the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from ..ir.errors import TraceError
from ..ir.op import Op
from ..ir.types import BY_NUMPY, DType, TensorType
from .layout import contiguous_strides
from .location import error
from .slots import EPOCH, note_read
from .state import STATE
from .storage import Storage

if TYPE_CHECKING:
    from .tape import Edge
    from .tensor_methods import Methods
    from .trace import Trace
else:
    Methods = object

Step = tuple[Op, Mapping[str, Any]]
"""One view op with its attributes."""


class Size(tuple):
    """The sizes of a tensor; a tuple that prints as torch's `Size`."""

    def numel(self) -> int:
        """The number of elements."""
        count = 1
        for n in self:
            count *= n
        return count

    def __repr__(self) -> str:
        return f"weft.Size({list(self)})"


class Tensor(Methods):
    """A multi-dimensional array with torch's semantics. Make one with `weft.tensor`, `weft.zeros` and the like."""

    # Class-level defaults keep a new tensor as cheap as one attribute.
    _array: np.ndarray | None = None
    _storage_or_none: Storage | None = None
    _requires_grad: bool = False
    """A leaf that requires grad, or a tensor with an edge."""
    _edge: Edge | None = None
    _edge_version: int = 0
    _base: Tensor | None = None
    """For a view: the tensor it is a view of, as far as gradients go (a base is never itself a view)."""
    _steps: tuple[Step, ...] = ()
    """For a view: the steps that lead from `_base` here."""
    _grad: Tensor | None = None
    _accumulator: Any = None
    _retains_grad: bool = False
    _backward_hooks: Mapping[int, Callable[[Tensor], Tensor | None]] = MappingProxyType({})
    """Called with a leaf's gradient; replaced as a whole, so that compiled programs notice."""
    _detached: bool = False
    """Made by `detach`."""
    _made_without_grad: bool = False
    """A view that was made under no_grad."""
    _frozen: bool = False
    """Memory that must not be written (a read-only NumPy array)."""
    # Traced tensors only.
    _trace: Trace | None = None
    _type: TensorType | None = None
    _strides: tuple[int, ...] = ()
    _offset: int = 0
    _path: tuple[Step, ...] = ()
    """The steps that lead from the storage's value here."""
    _cache: Any = None

    __array_priority__ = 1000

    # ---- memory and geometry ---------------------------------------------------------------------------------------

    @property
    def _storage(self) -> Storage:
        storage = self._storage_or_none
        if storage is None:
            storage = self._storage_or_none = Storage(self._array)
        return storage

    @property
    def shape(self) -> Size:
        """The sizes of the axes."""
        if self._array is not None:
            trace = STATE.trace
            return Size(self._array.shape) if trace is None else trace.shape_of(self)
        assert self._type is not None
        return Size(self._type.shape)

    @property
    def dtype(self) -> DType:
        """The element type."""
        if self._array is not None:
            return BY_NUMPY[self._array.dtype]
        assert self._type is not None
        return self._type.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape) if self._array is None else self._array.ndim

    @property
    def type_(self) -> TensorType:
        """The IR type."""
        return self._type or TensorType(tuple(self.shape), self.dtype)

    def stride(self, dim: int | None = None) -> Any:
        """The distance in elements between neighbours along each axis, or along `dim`."""
        array = self._array
        if array is None:
            strides = self._strides
        elif array.size:
            width = array.itemsize
            strides = tuple(s // width for s in array.strides)
        else:  # NumPy's are arbitrary
            strides = contiguous_strides(array.shape)
        return strides if dim is None else strides[dim]

    def storage_offset(self) -> int:
        """The position in the storage, in elements, of the first element."""
        if self._array is None:
            return self._offset
        return (self._address() - self._storage.address) // self._array.itemsize

    def data_ptr(self) -> int:
        """The address of the first element; equal for a tensor and a view that starts where it starts."""
        if STATE.trace is not None:
            raise error(TraceError, "the address of a tensor is not known while the function is traced")
        return self._address()

    def _address(self) -> int:
        return self._memory().__array_interface__["data"][0]

    def _memory(self) -> np.ndarray:
        """The NumPy array, or the error that a traced tensor has none."""
        if self._array is None:
            raise self._no_memory()
        return self._array

    def _no_memory(self) -> Exception:
        if STATE.trace is not None and STATE.trace is self._trace:
            return error(
                TraceError,
                "the values of a traced tensor are not known while the function is traced: "
                "keep the computation in tensor operations, or compute this outside the compiled function",
            )
        return error(
            TraceError,
            f"a traced tensor {self.type_} was used outside the compiled function that made it; "
            "return it from the function, or write it into a tensor that exists before the call (`out.copy_(value)`)",
        )

    # ---- autograd state (the algorithms are in tape.py and autograd.py) --------------------------------------------

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._current_edge() is None

    _current_edge: ClassVar[Callable[[Tensor], Edge | None]]
    """Where the value comes from; attached by tape.py."""

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` accumulated, None before; may be assigned."""
        if STATE.trace is not None:
            note_read(self, "grad")
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self._set_grad(value)

    def _set_grad(self, value: Tensor | None) -> None:
        if STATE.trace is not None:
            STATE.trace.note_write(self, "grad", self._grad)
        elif value is not self._grad:
            EPOCH.bump()
        self._grad = value


def wrap(array: Any) -> Tensor:
    """An eager tensor over `array` (or a NumPy scalar), which nobody else uses."""
    tensor = Tensor()
    tensor._array = array if type(array) is np.ndarray else np.asarray(array)
    return tensor


F = TypeVar("F", bound=Callable[..., Any])


def method(*names: str) -> Callable[[F], F]:
    """Makes a function whose first parameter is a tensor a method of Tensor too, under its own name or `names`."""

    def attach(function: F) -> F:
        for name in names or (function.__name__,):
            setattr(Tensor, name, function)
        return function

    return attach


def attach_property(name: str, get: Callable[[Tensor], Any], put: Callable[[Tensor, Any], None]) -> None:
    """Makes two functions a property of Tensor that may be assigned."""
    setattr(Tensor, name, property(get, put))


def tensor_property(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Makes a function of a tensor a read-only property of Tensor."""
    setattr(Tensor, function.__name__, property(function))
    return function
