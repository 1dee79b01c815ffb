"""Rewrite rules of reductions, scans and dot_general."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.graph import Node, Value
from ..ir.op import Op, Trait
from ..ir.ops import OPS
from ..ir.types import Shape
from .rewrite import Rewriter, op, rules, some, trait

x, y = some("x"), some("y")
FOLDS = "amax amin any all sum prod"


def _reduced(b: Rewriter, op: Op, x: Value, dims: tuple[int, ...]) -> Value:
    reduced = b.emit(op, (x,), {"dims": dims})
    assert isinstance(reduced, Value)
    return reduced


def from_start(b: Rewriter, node: Node, x: Value) -> Value:
    """What folding one element `x` gives: a sum starts from +0, which turns -0 into +0."""
    return b.add(x, b.full_like(x, 0.0)) if node.op.name == "sum" and x.dtype.is_floating_point else x


def _of_no_axes(b: Rewriter, node: Node) -> Value | None:
    return None if node.attrs["dims"] else from_start(b, node, node.inputs[0])


def _of_axes_of_size_one(b: Rewriter, node: Node) -> Value | None:
    """An axis with one element has nothing to fold: it is only dropped."""
    (value,), dims = node.inputs, node.attrs["dims"]
    single = [k for k in dims if value.shape[k] == 1]
    if not single:
        return None
    kept = [k for k in range(len(value.shape)) if k not in single]
    narrow = b.view_as(value, tuple(value.shape[k] for k in kept))
    rest = tuple(kept.index(k) for k in dims if k not in single)
    return _reduced(b, node.op, narrow, rest) if rest else from_start(b, node, narrow)


def _of_reduction(b: Rewriter, node: Node, inner: Node) -> Value | None:
    """Folding in two steps is folding at once where the order does not matter: not for sums and products of floats."""
    if node.op is not inner.op or (node.op.name in ("sum", "prod") and node.output.dtype.is_floating_point):
        return None
    (value,) = inner.inputs
    left = [k for k in range(len(value.shape)) if k not in inner.attrs["dims"]]
    dims = (*inner.attrs["dims"], *(left[k] for k in node.attrs["dims"]))
    return _reduced(b, node.op, value, tuple(sorted(dims)))


def without_axes(b: Rewriter, x: Value, shape: Shape, dims: Sequence[int]) -> Value | None:
    """`x`, broadcast to `shape`, without the axes `dims`, when all of its elements along them are equal."""
    lead = len(shape) - len(x.shape)
    if any(shape[k] != 1 and k >= lead and x.shape[k - lead] == shape[k] for k in dims):
        return None
    kept = [k for k in range(len(shape)) if k not in dims]
    narrow = (
        b.view_as(x, tuple(x.shape[k - lead] if k >= lead else 1 for k in kept))
        if len(kept) != len(x.shape) or lead
        else x
    )
    return b.expand(narrow, tuple(shape[k] for k in kept))


def _extreme_of_broadcast(b: Rewriter, node: Node, x: Value) -> Value | None:
    """Equal elements fold to themselves."""
    return without_axes(b, x, node.inputs[0].shape, node.attrs["dims"])


def _scan_of_one(node: Node, x: Value) -> Value | None:
    return x if x.shape[node.attrs["dim"]] == 1 else None


def _place_of_one(b: Rewriter, node: Node, x: Value) -> Value | None:
    return b.full(node.output.shape, 0, node.output.dtype) if x.shape[node.attrs["dim"]] == 1 else None


def _free(rank: int, *used: Sequence[int]) -> list[int]:
    return [k for k in range(rank) if all(k not in axes for axes in used)]


def _permutation(node: Node) -> Sequence[int] | None:
    """For each axis of a permute's result, that of its operand; of a reshape too, when it only moves axes of one."""
    if node.op is OPS.permute:
        return node.attrs["dims"]
    old, new = node.inputs[0].shape, node.output.shape
    ones, wide = ([k for k, n in enumerate(old) if (n == 1) is single] for single in (True, False))
    if len(old) != len(new) or [old[k] for k in wide] != [n for n in new if n != 1]:
        return None
    return [(ones if n == 1 else wide).pop(0) for n in new]


def _permuted_operand(side: str) -> Callable[..., Value | None]:
    def function(b: Rewriter, node: Node, permuted: Node) -> Value | None:
        """Names the axes of the value before the permute, when its free axes keep their order."""
        dims, batch, contract = _permutation(permuted), node.attrs[f"{side}_batch"], node.attrs[f"{side}_contract"]
        if dims is None:
            return None
        free = [dims[k] for k in _free(len(dims), batch, contract)]
        if free != sorted(free):
            return None
        new = {"batch": tuple(dims[k] for k in batch), "contract": tuple(dims[k] for k in contract)}
        attrs = {**node.attrs, **{f"{side}_{what}": axes for what, axes in new.items()}}
        left, right = node.inputs
        operands = (permuted.inputs[0], right) if side == "lhs" else (left, permuted.inputs[0])
        return b.dot_general(*operands, **attrs)

    return function


def _permuted_product(b: Rewriter, node: Node, product: Node) -> Value | None:
    """The product with its free axes exchanged is the product of the exchanged operands."""
    a, (left, right) = product.attrs, product.inputs
    n = len(a["lhs_batch"])
    rows = len(left.shape) - n - len(a["lhs_contract"])
    columns = len(right.shape) - n - len(a["rhs_contract"])
    exchanged = (*range(n), *range(n + rows, n + rows + columns), *range(n, n + rows))
    if tuple(_permutation(node) or ()) != exchanged or not rows or not columns:
        return None
    return b.dot_general(
        right,
        left,
        lhs_batch=a["rhs_batch"],
        rhs_batch=a["lhs_batch"],
        lhs_contract=a["rhs_contract"],
        rhs_contract=a["lhs_contract"],
    )


# fmt: off
RULES = rules(
    ("over no axes", trait(Trait.REDUCTION), _of_no_axes),                              # sum over () of x = x
    ("over axes of one", trait(Trait.REDUCTION), _of_axes_of_size_one),                 # one element is its own sum
    ("reduction of reduction", op(FOLDS, op(FOLDS, name="inner")), _of_reduction),      # max over max = max
    ("extreme of broadcast", op("amax amin any all", op("broadcast", x)), _extreme_of_broadcast),  # max(x, x) = x
    ("scan of one", op("cumsum cumprod cummax cummin", x), _scan_of_one),
    ("place of one", op("argmax argmin", x), _place_of_one),

    ("dot of permuted left", op("dot_general", op("permute reshape", name="permuted"), y), _permuted_operand("lhs")),
    ("dot of permuted right", op("dot_general", x, op("permute reshape", name="permuted")), _permuted_operand("rhs")),
    ("permuted dot", op("permute reshape", op("dot_general", name="product")), _permuted_product),
)
# fmt: on
