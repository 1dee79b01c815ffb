"""Sliding windows along axes, and sums of overlapping windows, which are the transpose. Both are views, pads and one
sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.errors import ShapeError
from ...ir.op import Op
from ...ir.ops import OPS
from ...ir.types import Axes, TensorType, float32
from ...tracer.dispatch import EMIT, apply
from ...tracer.location import error
from ...tracer.tape import shape_record
from ...tracer.tensor import Tensor


def span_of(kernel: int, dilation: int) -> int:
    """How many elements a window reaches over."""
    return (kernel - 1) * dilation + 1


def as_sizes(name: str, what: str, value: int | Sequence[int], n: int) -> tuple[int, ...]:
    """One number for each of `n` axes."""
    sizes = (int(value),) * n if isinstance(value, int) else tuple(int(v) for v in value)
    if len(sizes) == 1:
        sizes *= n
    if len(sizes) != n:
        raise error(ShapeError, f"{name}: {what} must be an int or a sequence of {n} ints, got {list(sizes)}")
    return sizes


class Windows:
    """The windows of the last axes of tensors of `shape`: these axes become the windows' numbers, and in front of them
    come as many new ones, which count the elements within a window.
    """

    def __init__(self, shape: Sequence[int], kernel: Axes, stride: Axes, dilation: Axes) -> None:
        self.shape: Axes = tuple(shape)
        """The shape of the windows: (..., elements, numbers)."""
        self._steps: list[tuple[Op, dict[str, Any], Axes]] = []
        first = len(self.shape) - len(kernel)
        for k, sizes in enumerate(zip(kernel, stride, dilation, strict=True)):
            self._slide(first + 2 * k, first + k, *sizes)

    def of(self, x: Tensor) -> Tensor:
        """The windows of `x`, for reading only."""
        for op, attrs, _ in self._steps:
            x = apply(op, (x,), attrs)
        return x

    def added(self, windows: Tensor) -> Tensor:
        """A tensor of the original shape: at each place the sum of all windows' elements there."""
        for op, attrs, shape in reversed(self._steps):
            source = TensorType(shape, windows.dtype)
            record = shape_record(op, attrs, (None,), (source,), windows.type_)
            windows = op.input_rule(0)(EMIT, record, windows)
        return windows

    def _step(self, op: Op, **attrs: Any) -> None:
        self._steps.append((op, attrs, self.shape))
        (result,) = op.output_types([TensorType(self.shape, float32)], attrs)
        self.shape = result.sizes

    def _slide(self, dim: int, at: int, kernel: int, stride: int, dilation: int) -> None:
        """Windows along the axis `dim`; their elements become the axis `at`, in front of it."""
        count = (self.shape[dim] - span_of(kernel, dilation)) // stride + 1
        if kernel == 1:
            self._take(dim, (count - 1) * stride + 1, stride)
            self._step(OPS.reshape, shape=(*self.shape[:at], 1, *self.shape[at:]))
        elif stride >= span_of(kernel, dilation):
            self._cut(dim, at, count, kernel, stride, dilation)
        else:
            self._step(OPS.reshape, shape=(*self.shape[:at], 1, *self.shape[at:]))
            self._step(OPS.broadcast, shape=(*self.shape[:at], kernel, *self.shape[at + 1 :]))
            size = (count - 1) * stride + 1
            self._step(OPS.slant, dim=dim + 1, window=at, step=dilation, offset=0, size=size)
            self._take(dim + 1, size, stride)

    def _cut(self, dim: int, at: int, count: int, kernel: int, stride: int, dilation: int) -> None:
        """Windows that do not overlap: the axis is cut into pieces, and no element is read twice."""
        length = count * stride
        if self.shape[dim] < length:
            high = tuple(length - n if k == dim else 0 for k, n in enumerate(self.shape))
            self._step(OPS.pad, low=(0,) * len(high), high=high, value=0)
        else:
            self._take(dim, length, 1)
        self._step(OPS.reshape, shape=(*self.shape[:dim], count, stride, *self.shape[dim + 1 :]))
        self._take(dim + 1, span_of(kernel, dilation), dilation)
        order = [k for k in range(len(self.shape)) if k != dim + 1]
        self._step(OPS.permute, dims=(*order[:at], dim + 1, *order[at:]))

    def _take(self, dim: int, stop: int, step: int) -> None:
        """The elements 0:stop:step along one axis."""
        if (stop, step) == (self.shape[dim], 1):
            return
        starts = (0,) * len(self.shape)
        stops = tuple(stop if k == dim else n for k, n in enumerate(self.shape))
        steps = tuple(step if k == dim else 1 for k in range(len(self.shape)))
        self._step(OPS.slice, starts=starts, stops=stops, steps=steps)
