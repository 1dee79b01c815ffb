"""Reductions: sums, products, extremes, means, variances, norms, and questions about all elements."""
from __future__ import annotations

import math
from builtins import any as builtin_any
from builtins import max as builtin_max
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..ir.errors import DTypeError, IndexRangeError, ShapeError
from ..ir.op import Op
from ..ir.ops import OPS
from ..ir.sizes import SymbolicSize
from ..ir.types import DType, bool_, int64, uint8
from .arithmetic import add, div, mul, sub
from .axes import axes, axis, count, sizes
from .comparison import eq, isnan, maximum, minimum, ne, select_by, truth
from .dispatch import EMIT, apply
from .dtypes import as_dtype, torch_name
from .inplace import in_place
from .location import error
from .pointwise import exp, log, sqrt
from .promotion import Operand, floating_type, is_recorded, named, wants_grad
from .state import STATE
from .tensor import Tensor, method, wrap

Dims = int | Sequence[int] | None


class MaxResult(NamedTuple):
    """What reductions along an axis return: the values and where they were."""

    values: Tensor
    indices: Tensor


class MinMaxResult(NamedTuple):
    """The result of `aminmax`."""

    min: Tensor
    max: Tensor


# ---- the common way --------------------------------------------------------------------------------------------------

def reduce(op: Op, x: Tensor, dims: tuple[int, ...], keepdim: bool = False, name: str = "") -> Tensor:
    """`op` over the axes `dims`, which stay with size 1 when `keepdim`."""
    if not is_recorded((x,)):
        result = wrap(op.evaluate(x._memory(), dims=dims))
        if not result._memory().flags.c_contiguous:
            result._array = np.ascontiguousarray(result._array)
        if keepdim:
            result._array = result._memory().reshape([1 if k in dims else n for k, n in enumerate(x.shape)])
        return result
    result = apply(op, (x,), {"dims": dims})
    if keepdim:
        result = EMIT.view_as(result, tuple(1 if k in dims else n for k, n in enumerate(x.shape)))
    return named(result, name) if name else result


def _wide(x: Tensor, dtype: DType | None) -> Tensor:
    """The operand of a sum: integers and bools are added in int64."""
    if dtype is not None:
        return EMIT.cast(x, as_dtype(dtype))
    return x if x.dtype.is_floating_point else EMIT.cast(x, int64)


def _nonempty(name: str, x: Tensor, dims: tuple[int, ...], dim: Dims) -> None:
    for d in dims:
        if x.shape[d] == 0:
            if dim is None:
                raise error(IndexRangeError, f"{name}(): Expected reduction dim to be specified for input.numel() == "
                                             "0. Specify the reduction dim "
                                             "with the 'dim' argument.")
            raise error(IndexRangeError, f"{name}(): Expected reduction dim {d} to have non-zero size.")


def _all_if_empty(dim: Dims) -> Dims:
    return None if isinstance(dim, Sequence) and not dim else dim


# ---- sums and products -----------------------------------------------------------------------------------------------

@method()
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum of all elements, or over the axes `dim`; integers and bools are added in int64."""
    dims = axes(_all_if_empty(dim), input.ndim)
    return reduce(OPS.sum, _wide(input, dtype), dims, keepdim, "SumBackward0" if dim is None else "SumBackward1")


@method()
def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over those axes that broadcasting from `size` to this tensor's shape would have made."""
    wanted, shape = sizes(size), tuple(input.shape)
    lead = len(shape) - len(wanted)
    if lead < 0 or builtin_any(n not in (1, m) for n, m in zip(wanted, shape[lead:], strict=True)):
        raise error(ShapeError, f"size {list(wanted)} is not expandable to size {list(shape)}.")
    return EMIT.sum_to(input, wanted)


@method()
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The product of all elements, or along one axis."""
    dims = axes(dim, input.ndim)
    return reduce(OPS.prod, _wide(input, dtype), dims, keepdim, "ProdBackward0" if dim is None else "ProdBackward1")


@method()
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum with NaN taken as 0."""
    return named(sum(_without_nan(input), dim, keepdim, dtype=dtype), "NansumBackward0")


def _without_nan(x: Tensor) -> Tensor:
    return select_by(isnan(x), 0, x, x.dtype) if x.dtype.is_floating_point else x


@method()
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The mean of all elements, or over the axes `dim`."""
    x = input if dtype is None else EMIT.cast(input, as_dtype(dtype))
    if not x.dtype.is_floating_point:
        raise error(DTypeError, "mean(): could not infer output dtype. Input dtype must be either a floating point or "
                                "complex dtype. Got: "
                                f"{torch_name(x.dtype)}. Use `.float().mean()` or pass dtype=")
    dims = axes(_all_if_empty(dim), x.ndim)
    total = reduce(OPS.sum, x, dims, keepdim)
    return named(_over(total, count([x.shape[d] for d in dims])), "MeanBackward0" if dim is None else "MeanBackward1")


def _over(total: Tensor, n: int | float) -> Tensor:
    """total / n, where n may be 0."""
    return total / (n if isinstance(n, SymbolicSize) else float(n))


@method()
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The mean of the elements that are not NaN."""
    x = input if dtype is None else EMIT.cast(input, as_dtype(dtype))
    present = sum(eq(x, x), dim, keepdim)
    return div(nansum(x, dim, keepdim), present)


@method()
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are not zero."""
    return sum(truth(input), dim)


# ---- questions -------------------------------------------------------------------------------------------------------

def _question(op: Op, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    result = reduce(op, truth(x), axes(_all_if_empty(dim), x.ndim), keepdim)
    return EMIT.cast(result, uint8) if x.dtype is uint8 else result


@method()
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element is not zero."""
    return _question(OPS.any, input, dim, keepdim)


@method()
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether no element is zero."""
    return _question(OPS.all, input, dim, keepdim)


# ---- extremes --------------------------------------------------------------------------------------------------------

@method()
def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest element over the axes `dim` (all by default); ties share the gradient."""
    return _extreme("amax", OPS.amax, input, dim, keepdim, "AmaxBackward0")


@method()
def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The smallest element over the axes `dim` (all by default); ties share the gradient."""
    return _extreme("amin", OPS.amin, input, dim, keepdim, "AminBackward0")


def _extreme(name: str, op: Op, x: Tensor, dim: Dims, keepdim: bool, grad_name: str) -> Tensor:
    chosen = _all_if_empty(dim)
    dims = axes(chosen, x.ndim)
    _nonempty(name, x, dims, chosen)
    return reduce(op, x, dims, keepdim, grad_name)


@method()
def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; along one axis `(values, indices)`; with a second tensor, as `maximum`."""
    if isinstance(dim, Tensor):
        return maximum(input, dim)
    return _extreme_along("max", OPS.amax, OPS.argmax, input, dim, keepdim)


@method()
def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; along one axis `(values, indices)`; with a second tensor, as `minimum`."""
    if isinstance(dim, Tensor):
        return minimum(input, dim)
    return _extreme_along("min", OPS.amin, OPS.argmin, input, dim, keepdim)


def _extreme_along(name: str, extreme: Op, position: Op, x: Tensor, dim: int | None, keepdim: bool) -> Any:
    grad_name = name.title() + "Backward"
    if dim is None:
        return _extreme(name, extreme, x, None, False, grad_name + "1")
    d = axis(dim, x.ndim)
    if x.ndim == 0:
        return MaxResult(x.clone(), EMIT.full((), 0, int64))
    _nonempty(name, x, (d,), dim)
    indices = _positions(position, x, d)
    if STATE.grad_enabled and wants_grad(x):
        values = take_along(x, EMIT.view_as(indices, _with_one(x, d)), d)
        values = values if keepdim else EMIT.view_as(values, tuple(indices.shape))
    else:
        values = reduce(extreme, x, (d,), keepdim)
    return MaxResult(named(values, grad_name + "0"), EMIT.view_as(indices, tuple(values.shape)))


def _with_one(x: Tensor, d: int) -> tuple[int, ...]:
    return tuple(1 if k == d else n for k, n in enumerate(x.shape))


def _positions(op: Op, x: Tensor, d: int) -> Tensor:
    return apply(op, (x,), {"dim": d})


def take_along(x: Tensor, indices: Tensor, d: int) -> Tensor:
    """x at `indices` along axis d; the other axes of `indices` run in step with those of `x`."""
    shape = tuple(indices.shape)
    places = [indices if k == d else EMIT.iota(shape=shape, dim=k, dtype=int64) for k in range(len(shape))]
    return apply(OPS.gather, (x, *places), {"dims": tuple(range(len(shape)))})


def _argument(name: str, op: Op, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    if x.dtype is bool_:
        raise error(DTypeError, f"{name} is not implemented for bool tensors: convert it with `.to(weft.uint8)`")
    if dim is None:
        _nonempty(name, x, tuple(range(x.ndim)), None)
        flat = _positions(op, EMIT.view_as(x, (count(x.shape),)), 0)
        return EMIT.view_as(flat, (1,) * x.ndim) if keepdim else flat
    d = axis(dim, x.ndim)
    if x.ndim == 0:
        return EMIT.full((), 0, int64)
    _nonempty(name, x, (d,), dim)
    result = _positions(op, x, d)
    return EMIT.view_as(result, _with_one(x, d)) if keepdim else result


@method()
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the largest element is (the first of equal ones): in flattened order, or along an axis."""
    return _argument("argmax", OPS.argmax, input, dim, keepdim)


@method()
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the smallest element is (the first of equal ones): in flattened order, or along an axis."""
    return _argument("argmin", OPS.argmin, input, dim, keepdim)


@method()
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> MinMaxResult:
    """The smallest and the largest element, of all or along an axis."""
    low, high = amin(input, () if dim is None else dim, keepdim), amax(input, () if dim is None else dim, keepdim)
    return MinMaxResult(named(low, "AminmaxBackward0"), named(high, "AminmaxBackward0"))


# ---- variance --------------------------------------------------------------------------------------------------------

def _variance(x: Tensor, dim: Any, correction: int | float | None, unbiased: bool | None,
              keepdim: bool) -> tuple[Tensor, Tensor]:
    """(variance, mean) by two passes: the mean, then the mean square distance from it."""
    if not x.dtype.is_floating_point:
        raise error(DTypeError, "std and var only support floating point and complex dtypes, got "
                                f"{torch_name(x.dtype)}")
    if isinstance(dim, bool):  # var(unbiased)
        dim, unbiased = None, dim
    ddof = correction if correction is not None else 1 if unbiased is None or unbiased else 0
    dims = axes(_all_if_empty(dim), x.ndim)
    n = count([x.shape[d] for d in dims])
    center = _over(reduce(OPS.sum, x, dims, True), n)
    distance = sub(x, center)
    spread = reduce(OPS.sum, mul(distance, distance), dims, keepdim)
    shape = tuple(spread.shape)
    free = n - ddof
    return _over(spread, free if free > 0 else 0), EMIT.view_as(center, shape)


@method()
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: int | float | None = None) -> Tensor:
    """The variance; the divisor is n - `correction` (1 by default)."""
    return named(_variance(input, dim, correction, unbiased, keepdim)[0], "VarBackward0")


@method()
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: int | float | None = None) -> Tensor:
    """The standard deviation; the divisor is n - `correction` (1 by default)."""
    return named(sqrt(_variance(input, dim, correction, unbiased, keepdim)[0]), "StdBackward0")


def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: int | float | None = None) -> tuple[Tensor, Tensor]:
    """(variance, mean)."""
    return _variance(input, dim, correction, unbiased, keepdim)


def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: int | float | None = None) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean)."""
    variance, center = _variance(input, dim, correction, unbiased, keepdim)
    return sqrt(variance), center


# ---- norms and logarithms of sums ------------------------------------------------------------------------------------

@method()
def norm(input: Tensor, p: Any = "fro", dim: Dims = None, keepdim: bool = False, dtype: DType | None = None) -> Tensor:
    """The p-norm of the elements (2 by default), over all axes or those in `dim`."""
    x = input if dtype is None else EMIT.cast(input, as_dtype(dtype))
    if not x.dtype.is_floating_point:
        raise error(DTypeError, f"norm: the input must be floating point, got {torch_name(x.dtype)}")
    order = 2.0 if p is None or p == "fro" else p
    if isinstance(order, str):
        raise error(DTypeError, f"norm: p={p!r} is a matrix norm; give a number or 'fro'")
    return named(_norm(x, float(order), axes(_all_if_empty(dim), x.ndim), keepdim), "LinalgVectorNormBackward0")


def _norm(x: Tensor, p: float, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    if p == 2:
        return _root_of_squares(reduce(OPS.sum, mul(x, x), dims, keepdim))
    if p == 0:
        return EMIT.cast(reduce(OPS.sum, EMIT.cast(ne(x, 0), x.dtype), dims, keepdim), x.dtype)
    size = x.abs()
    if p == math.inf:
        return reduce(OPS.amax, size, dims, keepdim)
    if p == -math.inf:
        return reduce(OPS.amin, size, dims, keepdim)
    if p == 1:
        return reduce(OPS.sum, size, dims, keepdim)
    return reduce(OPS.sum, size ** p, dims, keepdim) ** (1 / p)


def _root_of_squares(total: Tensor) -> Tensor:
    """The square root, with gradient 0 at 0 as torch's norm has."""
    if not is_recorded((total,)):
        return sqrt(total)
    zero = eq(total, 0)
    return select_by(zero, 0, sqrt(select_by(zero, 1, total, total.dtype)), total.dtype)


@method()
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other."""
    return named(norm(sub(input, other), p), "DistBackward0")


@method()
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over the axes `dim`, without overflow."""
    x = EMIT.cast(input, floating_type(input))
    dims = axes(_all_if_empty(dim), x.ndim)
    top = reduce(OPS.amax, x.detach(), dims, True)
    top = select_by(eq(top.abs(), math.inf), 0, top, top.dtype)
    total = reduce(OPS.sum, exp(sub(x, top)), dims, keepdim)
    return named(add(log(total), EMIT.view_as(top, tuple(total.shape))), "LogsumexpBackward0")


@method()
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """The parts along `dim` scaled down so that none has a p-norm above `maxnorm`."""
    d = axis(dim, input.ndim)
    size = _norm(input, float(p), tuple(k for k in range(input.ndim) if k != d), True)
    factor = select_by(size > maxnorm, div(maxnorm, add(size, 1e-7)), 1, input.dtype)
    return named(mul(input, factor), "RenormBackward0")


in_place(renorm)


def check_same_shape(name: str, x: Tensor, y: Tensor) -> None:
    """Refuses tensors of different shapes."""
    if tuple(x.shape) != tuple(y.shape):
        raise error(ShapeError, f"{name}: the shapes {list(x.shape)} and {list(y.shape)} must be equal")


# ---- statistics of several variables ---------------------------------------------------------------------------------

@method()
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
        aweights: Tensor | None = None) -> Tensor:
    """The covariance matrix of the rows (variables) over the columns (observations), with optional weights of the
    observations."""
    x = EMIT.view_as(input, (1, count(input.shape))) if input.ndim < 2 else input
    x = EMIT.cast(x, floating_type(x))
    weights: Operand = None
    for w in (fweights, aweights):
        if w is not None:
            weights = EMIT.cast(w, x.dtype) if weights is None else mul(weights, EMIT.cast(w, x.dtype))
    n = x.shape[1]
    if weights is None:
        center = mean(x, 1, keepdim=True)
        free: Operand = builtin_max(n - correction, 0)
    else:
        total = sum(weights)
        center = div(sum(mul(x, weights), 1, keepdim=True), total)
        used = total if aweights is None else div(sum(mul(weights, EMIT.cast(aweights, x.dtype))), total)
        free = sub(total, mul(used, correction)) if aweights is not None else sub(total, correction)
    distance = sub(x, center)
    left = distance if weights is None else mul(distance, weights)
    product = left @ distance.t()
    matrix = div(product, float(free) if isinstance(free, int) else free)
    return matrix.squeeze()


@method()
def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of the rows."""
    c = cov(input)
    if c.ndim == 0:
        return div(c, c)
    deviation = sqrt(c.diagonal())
    return div(div(c, deviation.unsqueeze(1)), deviation.unsqueeze(0)).clamp(-1, 1)
