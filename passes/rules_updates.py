"""Rewrite rules of updates: writes that cover everything, reads of what was just written, constant positions."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from ..ir.graph import Node, Value
from .boxes import box_of_window
from .rewrite import Rewriter, op, rules, some
from .sizes import known_sizes

x, u, v = some("x"), some("u"), some("v")
Run = tuple[int, int, int]
"""(start, step, count): the positions that a box takes along one axis."""


def runs_of(node: Node, shape: Sequence[int]) -> list[Run]:
    """What a slice of `shape`, or an update with one, takes along each axis."""
    return list(zip(node.attrs["starts"], node.attrs["steps"], shape, strict=True))


def disjoint(a: Run, b: Run) -> bool:
    """Whether two runs surely have no position in common."""
    (first, step, count), (other, other_step, other_count) = a, b
    if 0 in (count, other_count):
        return True
    if first + (count - 1) * step < other or other + (other_count - 1) * other_step < first:
        return True
    return (first - other) % gcd(step, other_step) != 0


def _inside(inner: Run, outer: Run) -> Run | None:
    """`inner` counted along `outer`, when all of it lies there."""
    (first, step, count), (base, stride, length) = inner, outer
    if count == 0:
        return (0, 1, 0)
    if (first - base) % stride or (step % stride and count > 1):
        return None
    start, stride = (first - base) // stride, max(step // stride, 1)
    return (start, stride, count) if 0 <= start and start + (count - 1) * stride < length else None


def slice_runs(b: Rewriter, x: Value, runs: Sequence[Run]) -> Value:
    """The slice of `x` that takes `runs`."""
    stops = tuple(start + (count - 1) * step + 1 if count else start for start, step, count in runs)
    return b.slice(x, starts=tuple(r[0] for r in runs), stops=stops, steps=tuple(r[1] for r in runs))


def _slice_of_update(b: Rewriter, node: Node, update: Node) -> Value | None:
    """Reads what was written, or what was there before, when the slice has only the one or only the other."""
    if not known_sizes(update.output):
        return None
    target, written = update.inputs
    read, wrote = runs_of(node, node.output.type.sizes), runs_of(update, written.type.sizes)
    if any(disjoint(r, w) for r, w in zip(read, wrote, strict=True)):
        return slice_runs(b, target, read)
    inner = [_inside(r, w) for r, w in zip(read, wrote, strict=True)]
    return None if None in inner else slice_runs(b, written, [r for r in inner if r is not None])


def _update_of_update(b: Rewriter, node: Node, inner: Node) -> Value | None:
    """A write over all of an earlier write undoes it."""
    if not known_sizes(node.output):
        return None
    target, written = node.inputs[1], inner.inputs[1]
    before, after = runs_of(inner, written.type.sizes), runs_of(node, target.type.sizes)
    covered = [_inside(old, new) for old, new in zip(before, after, strict=True)]
    return None if None in covered else b.slice_update(inner.inputs[0], node.inputs[1], **node.attrs)


def _update_with_own_slice(node: Node, x: Value, part: Node) -> Value | None:
    """Writing back what was read at the same place changes nothing."""
    if not known_sizes(x):
        return None
    sizes = part.output.type.sizes
    return x if runs_of(part, sizes) == runs_of(node, sizes) else None


def _update_covers_all(node: Node, x: Value, u: Value) -> Value | None:
    if u.shape == x.shape:
        return u
    return x if 0 in u.shape else None


def _update_of_permuted(b: Rewriter, node: Node, view: Node, x: Value, u: Value) -> Value:
    """Writes in the order of the memory that is written; what is read as permuted is the result."""
    dims = view.attrs["dims"]
    back = tuple(sorted(range(len(dims)), key=dims.__getitem__))
    starts, steps = (tuple(node.attrs[k][d] for d in back) for k in ("starts", "steps"))
    return b.permute(b.slice_update(x, b.permute(u, dims=back), starts=starts, steps=steps), dims=dims)


def _starts(b: Rewriter, node: Node, first: int, sizes: Sequence[int]) -> tuple[int, ...] | None:
    """The start positions from input `first` on, when they are constants within range."""
    if not known_sizes(node.inputs[0]):
        return None
    starts = tuple(int(b.numbers[v]) for v in node.inputs[first:] if v in b.numbers)
    if len(starts) < len(sizes):
        return None
    inside = all(0 <= s <= n - m for s, n, m in zip(starts, node.inputs[0].type.sizes, sizes, strict=True))
    return starts if inside else None


def _constant_slice(b: Rewriter, node: Node) -> Value | None:
    sizes = node.attrs["sizes"]
    starts = _starts(b, node, 1, sizes)
    if starts is None:
        return None
    return slice_runs(b, node.inputs[0], [(s, 1, n) for s, n in zip(starts, sizes, strict=True)])


def _constant_update(b: Rewriter, node: Node) -> Value | None:
    target, written = node.inputs[:2]
    starts = _starts(b, node, 2, written.type.sizes)
    if starts is None:
        return None
    return b.slice_update(target, written, starts=starts, steps=(1,) * len(starts))


def _same_starts(a: Sequence[Value], b: Sequence[Value]) -> bool:
    return all(p is q for p, q in zip(a, b, strict=True))


def _slice_of_dynamic_update(b: Rewriter, node: Node) -> Value | None:
    """Reading the box that was just written."""
    update = b.producer.get(node.inputs[0])
    if update is None or update.op.name != "dynamic_update" or not _same_starts(node.inputs[1:], update.inputs[2:]):
        return None
    return update.inputs[1] if update.inputs[1].shape == node.attrs["sizes"] else None


def _dynamic_update_twice(b: Rewriter, node: Node) -> Value | None:
    """A second write to the same box."""
    inner = b.producer.get(node.inputs[0])
    if inner is None or inner.op.name != "dynamic_update" or not _same_starts(node.inputs[2:], inner.inputs[2:]):
        return None
    if inner.inputs[1].shape != node.inputs[1].shape:
        return None
    return b.dynamic_update(inner.inputs[0], *node.inputs[1:])


def _window(node: Node, part: Value) -> tuple:
    return part.shape, node.attrs["strides"], node.attrs["offset"]


def _strided_of_update(node: Node, update: Node) -> Value | None:
    """Reading the window that was just written."""
    written = update.inputs[1]
    return written if _window(node, node.output) == _window(update, written) else None


def _strided_update_twice(b: Rewriter, node: Node, inner: Node) -> Value | None:
    if _window(node, node.inputs[1]) != _window(inner, inner.inputs[1]):
        return None
    return b.as_strided_update(inner.inputs[0], node.inputs[1], **node.attrs)


def _strided_box_update(b: Rewriter, node: Node, x: Value, u: Value) -> Value | None:
    """A write to a window that takes regular steps along the axes is a write to a slice."""
    if not known_sizes(x, u):
        return None
    box = box_of_window(x.type.sizes, u.type.sizes, node.attrs["strides"], node.attrs["offset"])
    if box is None:
        return None
    part = b.view_as(u, tuple(box.counts[a] for a in box.order))
    back = tuple(sorted(range(len(box.order)), key=box.order.__getitem__))
    return b.slice_update(x, b.permute(part, dims=back), starts=box.starts, steps=box.steps)


# fmt: off
RULES = rules(
    ("strided box update", op("as_strided_update", x, u), _strided_box_update),         # a window in steps is a slice
    ("update covers all", op("slice_update", x, u), _update_covers_all),                # x[:] = u
    ("update of permuted", op("slice_update", op("permute", x, name="view"), u), _update_of_permuted),
    ("slice of update", op("slice", op("slice_update", name="update")), _slice_of_update),
    ("update of update", op("slice_update", op("slice_update", name="inner"), v), _update_of_update),
    ("update with own slice", op("slice_update", x, op("slice", x, name="part")),
     _update_with_own_slice),                                                           # x[r] = x[r]

    ("slice at a constant", op("dynamic_slice"), _constant_slice),
    ("update at a constant", op("dynamic_update"), _constant_update),
    ("slice of dynamic update", op("dynamic_slice"), _slice_of_dynamic_update),
    ("dynamic update twice", op("dynamic_update"), _dynamic_update_twice),

    ("strided of update", op("as_strided", op("as_strided_update", name="update")), _strided_of_update),
    ("strided update twice", op("as_strided_update", op("as_strided_update", name="inner"), v), _strided_update_twice),
)
# fmt: on
