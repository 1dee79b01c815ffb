"""Rewrite rules of views, pad and concatenate: compositions, identities, slices of what was joined or padded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from ..ir.graph import Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from .boxes import box_of_window
from .rewrite import Rewriter, op, rules, some, trait
from .sizes import known_sizes

x = some("x")


def _constant_view(b: Rewriter, node: Node) -> Value | None:
    """Every view of a constant with one value is one: a broadcast scalar."""
    known = b.numbers.get(node.inputs[0])
    scalar = node.inputs[0] if not node.inputs[0].shape else None
    if known is None or (scalar is not None and node.op.name == "broadcast"):
        return None
    return b.full(node.output.shape, known.item(), node.output.dtype)


def _wide(shape: Sequence[object]) -> tuple:
    return tuple(d for d in shape if d != 1)


def _broadcast_only_adds_ones(b: Rewriter, node: Node, x: Value) -> Value | None:
    same = _wide(x.shape) == _wide(node.output.shape) and x not in b.numbers
    return b.view_as(x, node.output.shape) if same else None


def _broadcast_of_ones_added(b: Rewriter, node: Node, x: Value) -> Value | None:
    """A reshape that only puts axes of size one in front is what broadcast does by itself."""
    lead = len(node.inputs[0].shape) - len(x.shape)
    if lead >= 0 and tuple(node.inputs[0].shape) == (1,) * lead + tuple(x.shape):
        return b.expand(x, node.output.shape)
    return None


def _permute_of_permute(b: Rewriter, node: Node, inner: Node, x: Value) -> Value:
    return b.permute(x, dims=tuple(inner.attrs["dims"][k] for k in node.attrs["dims"]))


def _permute_moves_nothing(b: Rewriter, node: Node, x: Value) -> Value | None:
    """When the axes that are not of size one keep their order, the elements do."""
    moved = [k for k in node.attrs["dims"] if x.shape[k] != 1]
    return b.view_as(x, node.output.shape) if moved == sorted(moved) else None


def _whole_slice(node: Node, x: Value) -> Value | None:
    return x if x.shape == node.output.shape else None


def _slice_of_slice(b: Rewriter, node: Node, inner: Node, x: Value) -> Value | None:
    if not known_sizes(node.output):
        return None
    starts, steps = [], []
    for a, s, start, step in zip(
        inner.attrs["starts"], inner.attrs["steps"], node.attrs["starts"], node.attrs["steps"], strict=True
    ):
        starts.append(a + start * s)
        steps.append(s * step)
    return _take(b, x, starts, steps, node.output.type.sizes)


def _take(b: Rewriter, x: Value, starts: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> Value:
    """The slice with these starts, steps and sizes; its stops are the smallest that fit."""
    starts = [a if n else 0 for a, n in zip(starts, shape, strict=True)]
    stops = tuple(a + (n - 1) * s + 1 if n else a for a, s, n in zip(starts, steps, shape, strict=True))
    return b.slice(x, starts=tuple(starts), stops=stops, steps=tuple(steps))


def _slice_of_broadcast(b: Rewriter, node: Node, x: Value) -> Value:
    """Axes that the broadcast made are only as long as the slice; the others are sliced before."""
    lead = len(node.output.shape) - len(x.shape)
    own = [k for k in range(lead, len(node.output.shape)) if x.shape[k - lead] != 1]
    starts, stops, steps = [0] * len(x.shape), [*x.shape], [1] * len(x.shape)
    for k in own:
        starts[k - lead], stops[k - lead], steps[k - lead] = (
            node.attrs[what][k] for what in ("starts", "stops", "steps")
        )
    return b.expand(b.slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps)), node.output.shape)


def _flip_of_flip(b: Rewriter, node: Node, inner: Node, x: Value) -> Value:
    dims = tuple(sorted(set(node.attrs["dims"]) ^ set(inner.attrs["dims"])))
    return b.flip(x, dims=dims)


def _flip_moves_nothing(node: Node, x: Value) -> Value | None:
    return x if all(x.shape[k] == 1 for k in node.attrs["dims"]) else None


def _strided_of_reshape(b: Rewriter, node: Node, x: Value) -> Value:
    return b.as_strided(x, **node.attrs)


def _strided_takes_all(b: Rewriter, node: Node, x: Value) -> Value | None:
    """A window over all elements in row-major order is a reshape."""
    if not known_sizes(node.output, x):
        return None
    shape = node.output.shape
    steps = list(accumulate([1, *reversed(shape[1:])], lambda a, n: a * n))[::-1] if shape else []
    plain = all(n == 1 or s == step for n, s, step in zip(shape, node.attrs["strides"], steps, strict=True))
    return b.view_as(x, shape) if plain and node.attrs["offset"] == 0 and node.output.type.size == x.type.size else None


def _strided_box(b: Rewriter, node: Node, x: Value) -> Value | None:
    """A window that takes regular steps along the axes is a slice, permuted and reshaped."""
    if not known_sizes(node.output, x):
        return None
    shape, attrs = node.output.shape, node.attrs
    box = box_of_window(x.type.sizes, node.output.type.sizes, attrs["strides"], attrs["offset"])
    if box is None:
        return None
    part = b.slice(x, starts=box.starts, stops=box.stops, steps=box.steps)
    return b.view_as(b.permute(part, dims=box.order), shape)


def _slice_of_concatenate(b: Rewriter, node: Node, joined: Node) -> Value | None:
    """A slice within one of the parts is a slice of that part."""
    if not known_sizes(node.output, *joined.inputs):
        return None
    dim, first, last = (
        joined.attrs["dim"],
        node.attrs["starts"][joined.attrs["dim"]],
        node.attrs["stops"][joined.attrs["dim"]],
    )
    begin = 0
    for part in joined.inputs:
        size = part.shape[dim]
        if begin <= first and last <= begin + size:
            attrs = {
                what: tuple(n - begin if k == dim else n for k, n in enumerate(node.attrs[what]))
                for what in ("starts", "stops")
            }
            return b.slice(part, **attrs, steps=node.attrs["steps"])
        begin += size
    return None


def _slice_of_pad(b: Rewriter, node: Node, padded: Node, x: Value) -> Value | None:
    """A slice that stays within what was padded reads only that; one outside reads only the padding."""
    if not known_sizes(node.output, x):
        return None
    starts = tuple(a - low for a, low in zip(node.attrs["starts"], padded.attrs["low"], strict=True))
    stops = tuple(a - low for a, low in zip(node.attrs["stops"], padded.attrs["low"], strict=True))
    if all(0 <= a and z <= n for a, z, n in zip(starts, stops, x.shape, strict=True)):
        return b.slice(x, starts=starts, stops=stops, steps=node.attrs["steps"])
    if any(z <= 0 or a >= n for a, z, n in zip(starts, stops, x.shape, strict=True)):
        return b.full(node.output.shape, padded.attrs["value"], x.dtype)
    return None


def _pad_of_pad(b: Rewriter, node: Node, inner: Node, x: Value) -> Value | None:
    if repr(node.attrs["value"]) != repr(inner.attrs["value"]):
        return None
    low, high = (tuple(map(sum, zip(node.attrs[side], inner.attrs[side], strict=True))) for side in ("low", "high"))
    return b.pad(x, low=low, high=high, value=node.attrs["value"])


def _join_of_slices(b: Rewriter, node: Node) -> Value | None:
    """Neighbouring slices of one value, joined again, are one slice."""
    if not known_sizes(node.output):
        return None
    dim = node.attrs["dim"]
    parts = [p for v in node.inputs if (p := b.producer.get(v)) is not None and p.op is OPS.slice]
    if len(parts) < len(node.inputs):
        return None
    if any(p.inputs[0] is not parts[0].inputs[0] or p.attrs["steps"][dim] != 1 for p in parts):
        return None
    starts, steps = parts[0].attrs["starts"], parts[0].attrs["steps"]
    for before, after in pairwise(parts):
        if before.attrs["stops"][dim] != after.attrs["starts"][dim] or after.attrs["steps"] != steps:
            return None
        if any(a != z for k, (a, z) in enumerate(zip(starts, after.attrs["starts"], strict=True)) if k != dim):
            return None
    return _take(b, parts[0].inputs[0], starts, steps, node.output.type.sizes)


def _join_of_one(b: Rewriter, node: Node) -> Value | None:
    """Empty parts add nothing, and one part alone is the whole."""
    parts = [v for v in node.inputs if v.shape[node.attrs["dim"]] != 0] or [node.inputs[0]]
    if len(parts) == 1:
        return parts[0]
    return b.concatenate(*parts, dim=node.attrs["dim"]) if len(parts) < len(node.inputs) else None


# fmt: off
RULES = rules(
    ("constant view", trait(Trait.VIEW), _constant_view),                               # view(constant) = constant

    ("same shape", op("reshape broadcast", x),
     lambda node, x: x if x.shape == node.output.shape else None),                      # reshape(x) = x
    ("reshape of reshape", op("reshape", op("reshape", x)), lambda b, node, x: b.view_as(x, node.output.shape)),
    ("broadcast of broadcast", op("broadcast", op("broadcast", x)), lambda b, node, x: b.expand(x, node.output.shape)),
    ("broadcast adds ones", op("broadcast", x), _broadcast_only_adds_ones),             # [3] -> [1, 3] is a reshape
    ("broadcast of added ones", op("broadcast", op("reshape", x)), _broadcast_of_ones_added),
    ("permute moves nothing", op("permute", x), _permute_moves_nothing),
    ("permute of permute", op("permute", op("permute", x, name="inner")), _permute_of_permute),
    ("whole slice", op("slice", x), _whole_slice),                                      # x[0:n] = x
    ("slice of slice", op("slice", op("slice", x, name="inner")), _slice_of_slice),
    ("slice of broadcast", op("slice", op("broadcast", x)), _slice_of_broadcast),
    ("stopped gradient", op("stop_gradient", x), lambda x: x),                          # after differentiation
    ("flip moves nothing", op("flip", x), _flip_moves_nothing),
    ("flip of flip", op("flip", op("flip", x, name="inner")), _flip_of_flip),
    ("strided box", op("as_strided", x), _strided_box),                                 # a window in steps is a slice
    ("strided reshape", op("as_strided", op("reshape", x)), _strided_of_reshape),       # both read row-major order
    ("strided takes all", op("as_strided", x), _strided_takes_all),

    ("slice of concatenate", op("slice", op("concatenate", name="joined")), _slice_of_concatenate),
    ("slice of pad", op("slice", op("pad", x, name="padded")), _slice_of_pad),
    ("pad by nothing", op("pad", x), lambda node, x: x if x.shape == node.output.shape else None),
    ("pad of pad", op("pad", op("pad", x, name="inner")), _pad_of_pad),
    ("join of one", op("concatenate"), _join_of_one),
    ("join of slices", op("concatenate"), _join_of_slices),
)
# fmt: on
