"""Padding: more elements, or fewer, at the ends of axes."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.errors import ShapeError
from ...tracer.dispatch import EMIT
from ...tracer.location import error
from ...tracer.promotion import named, number
from ...tracer.tensor import Tensor


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """The tensor with pad[0] elements in front of and pad[1] behind the last axis, pad[2] and pad[3] at the one before,
    and so on.

    Args:
        pad: two numbers for each axis, from the last one on; negative ones cut off.
        mode: `constant`: `value`, or 0. `reflect`: mirrored at the end element, which is not repeated. `replicate`: the
            end element. `circular`: from the other end.

    Raises:
        ShapeError: `pad` does not fit the shape.
    """
    sides = [int(p) for p in pad]
    if len(sides) % 2 or len(sides) > 2 * input.ndim:
        raise error(
            ShapeError, f"pad: two numbers for each of the last axes are needed, got {sides} for {input.ndim} axes"
        )
    axes = [(input.ndim - 1 - k, sides[2 * k], sides[2 * k + 1]) for k in range(len(sides) // 2)]
    if mode == "constant":
        return named(fitted(input, axes, 0 if value is None else value), "ConstantPadNdBackward0")
    if mode not in _ENDS:
        raise ValueError(f"pad: unknown mode {mode!r}: it is constant, reflect, replicate or circular")
    if value is not None:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    for dim, low, high in axes:
        input = _ended(input, dim, low, high, mode)
    return input


def fitted(x: Tensor, axes: Sequence[tuple[int, int, int]], value: float) -> Tensor:
    """`x` with so many elements `value` in front of and behind each of the axes (axis, in front, behind); negative: cut
    off."""
    low, high = [0] * x.ndim, [0] * x.ndim
    for dim, before, behind in axes:
        low[dim], high[dim] = before, behind
    x = _cut(x, [max(-n, 0) for n in low], [max(-n, 0) for n in high])
    low, high = [max(n, 0) for n in low], [max(n, 0) for n in high]
    if not any(low + high):
        return x
    return EMIT.pad(x, low=tuple(low), high=tuple(high), value=number(value, x.dtype))


def _cut(x: Tensor, low: Sequence[int], high: Sequence[int]) -> Tensor:
    if not any(low) and not any(high):
        return x
    stops = tuple(n - h for n, h in zip(x.shape, high, strict=True))
    if any(a > z for a, z in zip(low, stops, strict=True)):
        raise error(ShapeError, f"pad: {list(low)} and {list(high)} elements cannot be cut off a shape {list(x.shape)}")
    return EMIT.slice(x, starts=tuple(low), stops=stops, steps=(1,) * x.ndim)


def _ended(x: Tensor, dim: int, low: int, high: int, mode: str) -> Tensor:
    """One axis padded with elements of the tensor itself."""
    x = fitted(x, [(dim, min(low, 0), min(high, 0))], 0)
    low, high, n = max(low, 0), max(high, 0), x.shape[dim]
    most = {"reflect": n - 1, "circular": n}.get(mode, max(low, high) if n else 0)
    if max(low, high) > most:
        raise error(
            ShapeError,
            f"pad: {mode} padding of {(low, high)} must be at most {most} along axis {dim} of shape {list(x.shape)}",
        )
    front, back = _ENDS[mode](x, dim, low, high, n)
    parts = [part for part, size in ((front, low), (x, 1), (back, high)) if size]
    return EMIT.concatenate(*parts, dim=dim) if len(parts) > 1 else x


def _part(x: Tensor, dim: int, start: int, stop: int) -> Tensor:
    return EMIT.slice(
        x,
        starts=tuple(start if k == dim else 0 for k in range(x.ndim)),
        stops=tuple(stop if k == dim else n for k, n in enumerate(x.shape)),
        steps=(1,) * x.ndim,
    )


def _reflected(x: Tensor, dim: int, low: int, high: int, n: int) -> tuple[Tensor, Tensor]:
    front, back = _part(x, dim, 1, low + 1), _part(x, dim, n - 1 - high, n - 1)
    return EMIT.flip(front, dims=(dim,)), EMIT.flip(back, dims=(dim,))


def _repeated(x: Tensor, dim: int, low: int, high: int, n: int) -> tuple[Tensor, Tensor]:
    sizes = [tuple(m if k == dim else size for k, size in enumerate(x.shape)) for m in (low, high)]
    return EMIT.expand(_part(x, dim, 0, 1), sizes[0]), EMIT.expand(_part(x, dim, n - 1, n), sizes[1])


def _circled(x: Tensor, dim: int, low: int, high: int, n: int) -> tuple[Tensor, Tensor]:
    return _part(x, dim, n - low, n), _part(x, dim, 0, high)


_ENDS = {"reflect": _reflected, "replicate": _repeated, "circular": _circled}
"""Mode -> what stands in front of and behind an axis."""
