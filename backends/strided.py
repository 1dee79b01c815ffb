"""Strided views: which elements of a contiguous base a chain of view ops reads, when strides can say it. For library
calls, which take strides and no index expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ..ir.graph import Node, Value
from ..ir.ops import OPS


@dataclass(frozen=True, slots=True)
class Strided:
    """A view of `base`, whose memory is contiguous; strides and offset count elements."""

    base: Value
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether this is the base's memory as it stands."""
        return self.offset == 0 and self.size == self.base.type.size and is_dense(self.shape, self.strides)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


def whole(value: Value) -> Strided:
    """A value that has contiguous memory of its own."""
    return Strided(value, value.type.sizes, dense_strides(value.type.sizes))


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return tuple(prod(shape[k + 1 :]) for k in range(len(shape)))


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements lie one after another in row-major order."""
    return 0 in shape or all(n == 1 or s == d for n, s, d in zip(shape, strides, dense_strides(shape), strict=True))


def view_of(node: Node, x: Strided) -> Strided | None:
    """What a view op makes of `x`; None when strides cannot say it."""
    a = node.attrs
    if node.op is OPS.barrier:
        return x
    if node.op is OPS.permute:
        return replace(x, shape=tuple(x.shape[d] for d in a["dims"]), strides=tuple(x.strides[d] for d in a["dims"]))
    if node.op is OPS.slice:
        return replace(
            x,
            shape=node.output.type.sizes,
            strides=tuple(s * step for s, step in zip(x.strides, a["steps"], strict=True)),
            offset=x.offset + sum(s * start for s, start in zip(x.strides, a["starts"], strict=True)),
        )
    if node.op is OPS.flip:
        strides = tuple(-s if k in a["dims"] else s for k, s in enumerate(x.strides))
        return replace(x, strides=strides, offset=x.offset + sum((x.shape[k] - 1) * x.strides[k] for k in a["dims"]))
    if node.op is OPS.slant:
        along = x.strides[a["dim"]]
        strides = tuple(s + a["step"] * along if k == a["window"] else s for k, s in enumerate(x.strides))
        return replace(x, shape=node.output.type.sizes, strides=strides, offset=x.offset + a["offset"] * along)
    if node.op is OPS.broadcast:
        lead = len(a["shape"]) - len(x.shape)
        strides = tuple(s if n == m else 0 for n, m, s in zip(x.shape, a["shape"][lead:], x.strides, strict=True))
        return replace(x, shape=tuple(a["shape"]), strides=(0,) * lead + strides)
    if node.op is OPS.as_strided and is_dense(x.shape, x.strides):
        return replace(x, shape=tuple(a["shape"]), strides=tuple(a["strides"]), offset=x.offset + a["offset"])
    if node.op is OPS.reshape:
        return _reshaped(x, tuple(a["shape"]))
    return None


def _reshaped(x: Strided, shape: tuple[int, ...]) -> Strided | None:
    """`x` with other axes, by runs of old and new axes of one size; None when an old run is not evenly spaced."""
    if x.size == 0:
        return replace(x, shape=shape, strides=dense_strides(shape))
    old = [k for k, n in enumerate(x.shape) if n != 1]
    strides = [0] * len(shape)
    i = j = 0
    while j < len(shape):
        if shape[j] == 1:
            j += 1
            continue
        first, last = i, j
        left, right, i, j = x.shape[old[i]], shape[j], i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * x.shape[old[i]], i + 1
            else:
                right, j = right * shape[j], j + 1
        run = merged(x, old[first:i])
        if run is None:
            return None
        for k in range(last, j):
            strides[k] = run[1] * prod(shape[k + 1 : j])
    return replace(x, shape=shape, strides=tuple(strides))


def merged(x: Strided, axes: Sequence[int]) -> tuple[int, int] | None:
    """Several axes, in order, as one: (size, stride); None when they are not evenly spaced."""
    size, stride = 1, 1
    for axis in reversed(axes):
        if x.shape[axis] == 1:
            continue
        if size != 1 and x.strides[axis] != stride * size:
            return None
        stride = stride if size != 1 else x.strides[axis]
        size *= x.shape[axis]
    return size, stride


def runs(view: Strided) -> list[tuple[int, int]]:
    """The axes as few (size, stride) as possible, axes of size one left out."""
    found: list[tuple[int, int]] = []
    for n, stride in zip(view.shape, view.strides, strict=True):
        if n == 1:
            continue
        if found and found[-1][1] == stride * n:
            found[-1] = found[-1][0] * n, stride
        else:
            found.append((n, stride))
    return found
