"""What a compiled call returns and leaves behind: recipes, described once from what the trace made, and followed at
every call.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.errors import TraceError
from ..ir.graph import Value
from ..ir.sizes import SymbolicSize
from ..ir.types import TensorType
from .autograd import detach
from .capture_values import attributes
from .dispatch import view
from .grad_mode import set_grad_enabled
from .location import error
from .scalars import RuntimeScalar
from .storage import Storage
from .tape import Edge, Record, tensor_requires_grad
from .tensor import Step, Tensor, wrap
from .trace import Trace
from .trace_inputs import Lifted, SlotLog


@dataclass(frozen=True)
class BaseOf:
    """The tensor that an argument is a view of."""

    leaf: int


Place = int | BaseOf | SlotLog | Lifted | Tensor
"""Where a call finds a tensor that exists before it: an argument leaf, its base, a slot of an argument, an input that
the trace captured (which may be another tensor by now), or always the same tensor."""


def tensor_at(place: Place, leaves: Sequence[Any]) -> Tensor:
    """The tensor at a place in a call with these argument leaves."""
    if type(place) is int:
        return leaves[place]
    if type(place) is Lifted:
        return place.tensor
    if type(place) is SlotLog:
        return place.now(leaves)
    if type(place) is BaseOf:
        leaf = leaves[place.leaf]
        return leaf if leaf._base is None else leaf._base
    return place  # type: ignore[return-value]


# ---- recipes ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class FreshOutput:
    """A tensor over memory that the call makes: result number, and the geometry in it (None: all of it)."""

    result: int
    geometry: tuple[tuple[int, ...], tuple[int, ...], int] | None
    requires_grad: bool
    record_output: int | None
    """Its position among the outputs of the call's record, when a gradient can flow through it."""


@dataclass(eq=False)
class ViewOutput:
    """A view of a tensor that the call makes; as in eager mode, its gradient follows its base."""

    base: FreshOutput | ViewOutput
    result: int
    geometry: tuple[tuple[int, ...], tuple[int, ...], int]
    steps: tuple[Step, ...]
    is_leaf: bool
    """Whether it requires grad by itself."""


@dataclass(frozen=True)
class OutsideStep:
    """How the function derived a tensor from one over outside memory."""

    step: Step | None
    """A view step, None for `detach`."""
    grad_enabled: bool
    geometry: tuple[tuple[int, ...], tuple[int, ...], int]
    """Shape and strides, and how many elements after the start of the other tensor it begins."""
    number: int | None = None
    """The output of the call's record that holds what was written into a detached tensor, None where no gradient
    flows to it.
    """


@dataclass(eq=False)
class OutsideOutput:
    """A tensor that exists outside, or what the function derived from one."""

    place: Place
    steps: tuple[OutsideStep, ...]
    is_leaf: bool


@dataclass(eq=False)
class NumberOutput:
    """A Python number that the program computes."""

    result: int


@dataclass(eq=False)
class ConstantOutput:
    """Any other Python value: the same at every call."""

    value: Any


@dataclass(eq=False)
class ArgumentOutput:
    """A Python object that was an argument."""

    leaf: int


Output = FreshOutput | ViewOutput | OutsideOutput | NumberOutput | ConstantOutput | ArgumentOutput


# ---- from the trace --------------------------------------------------------------------------------------------------


@dataclass
class Harvest:
    """Collects the graph's results while outputs are described."""

    trace: Trace
    leaves: Sequence[Any]
    """The argument leaves of the traced call."""
    place_of: Callable[[Tensor], Place]
    results: list[Value] = field(default_factory=list)
    differentiable: list[tuple[Edge, TensorType]] = field(default_factory=list)
    """Per output of the call's record: the edge in the trace, and the type."""
    _by_storage: dict[Storage, int] = field(default_factory=dict)
    _known: dict[int, tuple[Any, Output]] = field(default_factory=dict)

    def describe(self, leaf: Any) -> Output:
        """The recipe for one returned or stored value; the same one for the same tensor."""
        known = self._known.get(id(leaf))
        if known is not None:
            return known[1]
        output = self._describe(leaf)
        self._known[id(leaf)] = leaf, output
        return output

    def add(self, value: Value) -> int:
        """Makes a value a result; its number."""
        self.results.append(value)
        return len(self.results) - 1

    def differentiate(self, edge: Edge, type_: TensorType) -> int:
        """Makes a value an output of the call's record; its number."""
        self.differentiable.append((edge, type_))
        return len(self.differentiable) - 1

    def _describe(self, leaf: Any) -> Output:
        if isinstance(leaf, Tensor):
            return self._traced(leaf) if leaf._array is None else self._outside(leaf)
        if type(leaf) is RuntimeScalar:
            return NumberOutput(self.add(self.trace.read(leaf.tensor)))
        refuse_hidden(leaf)
        number = next((k for k, given in enumerate(self.leaves) if given is leaf), None)
        if number is not None and not isinstance(leaf, (bool, str, bytes, type(None))):
            return ArgumentOutput(number)
        return ConstantOutput(int(leaf) if isinstance(leaf, SymbolicSize) else leaf)

    def _traced(self, leaf: Tensor) -> FreshOutput | ViewOutput:
        state, path = self.trace.locate(leaf)
        if any("positions" in attrs for _, attrs in path):
            return self._copied(leaf)
        assert state.lifted is None
        base = None if leaf._base is None else self.describe(leaf._base)
        storage = leaf._storage
        if storage not in self._by_storage:
            self._by_storage[storage] = self.add(self.trace.resolve(state.value))
        result, geometry = self._by_storage[storage], (tuple(leaf.shape), leaf.stride(), leaf._offset)
        requires_grad, edge = tensor_requires_grad(leaf), leaf._current_edge()
        if isinstance(base, (FreshOutput, ViewOutput)):
            return ViewOutput(base, result, geometry, leaf._steps, requires_grad and edge is None)
        number = None if edge is None else self.differentiate(edge, leaf.type_)
        return FreshOutput(result, geometry if path else None, requires_grad, number)

    def _copied(self, leaf: Tensor) -> FreshOutput:
        """A part that begins at a traced position: its place in memory is not known here, so a call gives a copy."""
        edge = leaf._current_edge()
        number = None if edge is None else self.differentiate(edge, leaf.type_)
        return FreshOutput(self.add(self.trace.read(leaf)), None, tensor_requires_grad(leaf), number)

    def _outside(self, leaf: Tensor) -> OutsideOutput:
        steps: list[OutsideStep] = []
        tensor, derived = leaf, self.trace.derived.get(id(leaf))
        while derived is not None:
            begin = tensor.storage_offset() - derived.parent.storage_offset()
            geometry = (tuple(tensor.shape), tensor.stride(), begin)
            edge = tensor._current_edge() if derived.step is None else None
            number = None if edge is None else self.differentiate(edge, tensor.type_)
            steps.insert(0, OutsideStep(derived.step, derived.grad_enabled, geometry, number))
            tensor, derived = derived.parent, self.trace.derived.get(id(derived.parent))
        place = self.place_of(tensor)
        if isinstance(place, Tensor):
            self.trace.locate(tensor)  # an input, so that another tensor may take its place later
            place = self.place_of(tensor)
        is_leaf = bool(steps) and tensor_requires_grad(leaf) and leaf._current_edge() is None
        return OutsideOutput(place, tuple(steps), is_leaf)


def refuse_hidden(value: Any) -> None:
    """Refuses to return an object of unknown structure that holds traced values: they would mean nothing after the
    call.
    """
    if isinstance(value, (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)):
        raise error(
            TraceError,
            "a compiled function cannot return a generator, whose code would run outside the trace: return a list",
        )
    if any(isinstance(part, Tensor) and part._array is None or type(part) is RuntimeScalar for part in _parts(value)):
        raise error(
            TraceError,
            f"the compiled function returns a {type(value).__name__} that holds traced values: return tensors in "
            "tuples, lists, dicts or named tuples, and put them into other objects outside",
        )


def _parts(value: Any) -> Iterator[Any]:
    """What an object holds, one level deep."""
    if isinstance(value, dict):
        yield from dict.values(value)
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from value
    if type(value) is types.FunctionType:
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue
    elif not isinstance(value, (type, types.ModuleType)):
        yield from (part for _, part in attributes(value))


# ---- at each call ----------------------------------------------------------------------------------------------------


class Made:
    """The values of one call, made from recipes; one recipe gives one object."""

    __slots__ = ("arrays", "leaves", "record", "_storages", "_values")

    def __init__(self, arrays: Sequence[np.ndarray], leaves: Sequence[Any], record: Record | None) -> None:
        self.arrays, self.leaves, self.record = arrays, leaves, record
        self._storages: dict[int, Tensor] = {}
        self._values: dict[Output, Any] = {}

    def value(self, recipe: Output) -> Any:
        """The value that a recipe describes."""
        found = self._values.get(recipe, self)
        if found is self:
            found = self._values[recipe] = self._make(recipe)
        return found

    def _make(self, recipe: Output) -> Any:
        match recipe:
            case FreshOutput(result, geometry, requires_grad, number):
                tensor = self._over(result, geometry)
                tensor._requires_grad = requires_grad
                if number is not None and self.record is not None:
                    tensor._edge = (self.record, number)
                return tensor
            case ViewOutput(base, result, geometry, steps, is_leaf):
                tensor = self._over(result, geometry)
                tensor._base, tensor._steps, tensor._edge_version = self.value(base), steps, -1
                if is_leaf:
                    tensor._edge_version, tensor._requires_grad = tensor._storage.version, True
                return tensor
            case OutsideOutput(place, steps, is_leaf):
                return self._derived(tensor_at(place, self.leaves), steps, is_leaf)
            case NumberOutput(result):
                return self.arrays[result].item()
            case ArgumentOutput(leaf):
                return self.leaves[leaf]
            case ConstantOutput(value):
                return value
        raise error(TraceError, f"an output of kind {type(recipe).__name__}")

    def _over(self, result: int, geometry: tuple[tuple[int, ...], tuple[int, ...], int] | None) -> Tensor:
        """A tensor over a result's memory; those of one call that share a storage share it here too."""
        base = self._storages.get(result)
        if base is None:
            base = self._storages[result] = wrap(self.arrays[result])
        tensor = Tensor()
        tensor._storage_or_none, array = base._storage, base._memory()
        if geometry is not None:
            array = strided(base._storage, *geometry)
        tensor._array = array
        return tensor

    def _derived(self, tensor: Tensor, steps: Sequence[OutsideStep], is_leaf: bool) -> Tensor:
        for s in steps:
            with set_grad_enabled(s.grad_enabled):
                if s.step is None:
                    tensor = detach(tensor)
                    if s.number is not None and self.record is not None:
                        tensor._requires_grad, tensor._edge = True, (self.record, s.number)
                else:
                    shape, strides, begin = s.geometry
                    memory = strided(tensor._storage, shape, strides, tensor.storage_offset() + begin)
                    tensor = view(s.step[0], tensor, s.step[1], memory)
        if is_leaf:
            tensor._requires_grad = True
        return tensor


def strided(storage: Storage, shape: Sequence[int], strides: Sequence[int], offset: int) -> np.ndarray:
    """An array over part of a storage, with a geometry in elements."""
    flat = storage.flat[offset:]
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * flat.itemsize for s in strides))
