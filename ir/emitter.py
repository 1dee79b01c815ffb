"""The interface through which derivative rules, rewrite rules and composite functions emit ops.

A handle is an IR value (behind `Builder`) or a tensor (behind the tracer's emitter); both have `.shape` and `.dtype`.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import WeftError
from .graph import Graph
from .op import Op
from .ops import OPS
from .types import DType, Shape, int64

Handle = Any


class Emitter(ABC):
    """`b.mul(x, y)` emits the op `mul`; any declared op is a method. Operands already have equal shapes and dtypes."""

    @abstractmethod
    def emit(self, op: Op, inputs: Sequence[Handle], attrs: Mapping[str, Any]) -> Handle | tuple[Handle, ...]:
        """Emits one node; the output, or the tuple of outputs for an op with several."""

    def __getattr__(self, name: str) -> Any:
        if name not in OPS:
            raise AttributeError(f"no op is named {name}")
        op = OPS[name]

        def call(self: Emitter, *inputs: Handle, **attrs: Any) -> Any:
            return self.emit(op, inputs, attrs)

        setattr(Emitter, name, call)  # found at once from now on
        return getattr(self, name)

    def agrees(self, cotangent: Handle, node: Any, i: int) -> bool:
        """Whether a cotangent has the type of the input of a record that it is for."""
        x = node.inputs[i]
        return tuple(cotangent.shape) == tuple(x.shape) and cotangent.dtype is x.dtype

    def control(
        self, op: Op, inputs: Sequence[Handle], attrs: Mapping[str, Any], regions: Sequence[Graph]
    ) -> tuple[Handle, ...]:
        """Emits one node with regions; always the tuple of its outputs."""
        raise WeftError(f"{type(self).__name__} does not emit ops with regions ({op.name})")

    def constant_value(self, x: Handle) -> float | int | bool | None:
        """The number that the scalar `x` is already known to be; None when only a run tells."""
        return None

    def scalar(self, value: float | int | bool, dtype: DType) -> Handle:
        """A constant of shape []."""
        return self.emit(OPS.constant, (), {"value": value, "dtype": dtype})

    def full(self, shape: Shape, value: float | int | bool, dtype: DType) -> Handle:
        """A constant of any shape: a broadcast scalar, which costs nothing."""
        return self.expand(self.scalar(value, dtype), tuple(shape))

    def full_like(self, x: Handle, value: float | int | bool) -> Handle:
        """A constant with the shape and dtype of `x`."""
        return self.full(x.shape, value, x.dtype)

    def expand(self, x: Handle, shape: Shape) -> Handle:
        """`x` broadcast to `shape` by NumPy's rules; `x` itself when nothing changes."""
        return x if tuple(x.shape) == tuple(shape) else self.emit(OPS.broadcast, (x,), {"shape": tuple(shape)})

    def view_as(self, x: Handle, shape: Shape) -> Handle:
        """`x` reshaped to `shape`; `x` itself when nothing changes."""
        return x if tuple(x.shape) == tuple(shape) else self.emit(OPS.reshape, (x,), {"shape": tuple(shape)})

    def cast(self, x: Handle, dtype: DType) -> Handle:
        """`x` converted to `dtype`; `x` itself when nothing changes."""
        return x if x.dtype is dtype else self.emit(OPS.convert, (x,), {"dtype": dtype})

    def scale(self, x: Handle, factor: float | int) -> Handle:
        """`x` times a constant of its own dtype."""
        return self.emit(OPS.mul, (x, self.full_like(x, factor)), {})

    def sum_to(self, x: Handle, shape: Shape) -> Handle:
        """The transpose of `expand`: sums the axes of `x` that were broadcast from `shape`."""
        shape = tuple(shape)
        if tuple(x.shape) == shape:
            return x
        lead = len(x.shape) - len(shape)
        dims = tuple(range(lead)) + tuple(lead + i for i, d in enumerate(shape) if d == 1 and x.shape[lead + i] != 1)
        return self.view_as(self.emit(OPS.sum, (x,), {"dims": dims}) if dims else x, shape)

    def index_scalar(self, value: int) -> Handle:
        """An int64 constant of shape [], for loop bounds and dynamic positions."""
        return self.scalar(value, int64)
