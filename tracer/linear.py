"""Products of matrices and vectors; all are cases of the op dot_general."""
from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, ShapeError
from ..ir.ops import OPS
from .arithmetic import add, is_literal, mul, sub
from .axes import axis
from .dispatch import EMIT, apply
from .dtypes import torch_name
from .inplace import in_place
from .location import error
from .promotion import Operand, common_shape, is_recorded, named, result_type
from .reductions import sum as sum_of
from .shape import permute, reshape
from .state import STATE
from .tape import tensor_requires_grad
from .tensor import Tensor, method, wrap

_F32, _F64 = np.dtype("float32"), np.dtype("float64")
Axes = tuple[int, ...]
_MATRIX: dict[str, Axes] = {"lhs_batch": (), "rhs_batch": (), "lhs_contract": (1,), "rhs_contract": (0,)}
_VECTOR_LEFT: dict[str, Axes] = {"lhs_batch": (), "rhs_batch": (), "lhs_contract": (0,), "rhs_contract": (0,)}
_BATCH: dict[str, Axes] = {"lhs_batch": (0,), "rhs_batch": (0,), "lhs_contract": (2,), "rhs_contract": (1,)}


def dot_general(x: Tensor, y: Tensor, attrs: Mapping[str, Axes]) -> Tensor:
    """The IR's product, evaluated at once where nothing is recorded."""
    if is_recorded((x, y)):
        return apply(OPS.dot_general, (x, y), attrs)
    return wrap(OPS.dot_general.evaluate(x._memory(), y._memory(), **attrs))


def _check(name: str, x: Tensor, y: Tensor, ranks: tuple[int, int], inner: tuple[int, int]) -> None:
    """Ranks, dtypes and the sizes of the contracted axes."""
    for t, rank, which in ((x, ranks[0], "first"), (y, ranks[1], "second")):
        if not isinstance(t, Tensor):
            raise error(DTypeError, f"{name}: the {which} operand must be a tensor, not {type(t).__name__}")
        if t.ndim != rank:
            what = ("a scalar", "a vector", "a matrix", "a batch of matrices")[rank]
            raise error(ShapeError, f"{name}: the {which} operand must be {what}, got shape {list(t.shape)}")
    _check_types(name, x, y)
    if x.shape[inner[0]] != y.shape[inner[1]]:
        raise error(ShapeError, f"{name}: mat1 and mat2 shapes cannot be multiplied ({_by(x)} and {_by(y)}): the "
                                f"inner sizes {x.shape[inner[0]]} and "
                                f"{y.shape[inner[1]]} must be equal; transpose or reshape one operand")


def _check_types(name: str, x: Tensor, y: Tensor) -> None:
    if x.dtype is not y.dtype:
        raise error(DTypeError, f"{name}: the operands must have the same dtype, but got {torch_name(x.dtype)} and "
                                f"{torch_name(y.dtype)}: convert "
                                "one with `.to(...)`")


def _by(x: Tensor) -> str:
    return "x".join(map(str, x.shape))


# ---- the classical products ------------------------------------------------------------------------------------------

@method()
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    _check("mm", input, mat2, (2, 2), (1, 0))
    return dot_general(input, mat2, _MATRIX)


@method()
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices."""
    _check("bmm", input, mat2, (3, 3), (2, 1))
    if input.shape[0] != mat2.shape[0]:
        raise error(ShapeError, f"bmm: the batches have different sizes, {list(input.shape)} and {list(mat2.shape)}")
    return named(dot_general(input, mat2, _BATCH), "BmmBackward0")


@method()
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    _check("mv", input, vec, (2, 1), (1, 0))
    return named(dot_general(input, vec, _MATRIX), "MvBackward0")


@method()
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of two vectors' elements."""
    if input.ndim != 1 or tensor.ndim != 1:
        raise error(ShapeError, f"dot: 1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors: use "
                                "matmul")
    _check_types("dot", input, tensor)
    if input.shape[0] != tensor.shape[0]:
        raise error(ShapeError, f"dot: inconsistent tensor size, expected tensor {list(input.shape)} and src "
                                f"{list(tensor.shape)} to have the same "
                                f"number of elements, but got {input.shape[0]} and {tensor.shape[0]} elements "
                                "respectively")
    return named(dot_general(input, tensor, _VECTOR_LEFT), "DotBackward0")


@method()
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """As `dot`."""
    return dot(input, other)


@method("outer", "ger")
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The matrix of all products of two vectors' elements."""
    if input.ndim != 1 or vec2.ndim != 1:
        raise error(ShapeError, f"outer: Expected 1-D arguments, but got {input.ndim}-D and {vec2.ndim}-D")
    return mul(reshape(input, -1, 1), vec2)


@method()
def inner(input: Tensor, other: Tensor) -> Tensor:
    """The products summed over the last axes."""
    if input.ndim == 0 or other.ndim == 0:
        return mul(input, other)
    _check_types("inner", input, other)
    if input.shape[-1] != other.shape[-1]:
        raise error(ShapeError, "inner() the last dimension must match on both input tensors but got shapes "
                                f"{list(input.shape)} and "
                                f"{list(other.shape)}")
    return dot_general(input, other, {"lhs_batch": (), "rhs_batch": (), "lhs_contract": (input.ndim - 1,),
                                      "rhs_contract": (other.ndim - 1,)})


@method()
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product by the ranks: dot, matrix-vector, vector-matrix, matrix-matrix, or batches of these that
    broadcast."""
    for t in (input, other):
        if not isinstance(t, Tensor):
            raise error(DTypeError, f"matmul: both operands must be tensors, got {type(t).__name__}")
    plain = _plain_product(input, other)
    if plain is not None:
        return plain
    ranks = input.ndim, other.ndim
    if 0 in ranks:
        raise error(ShapeError, f"matmul: both arguments to matmul need to be at least 1D, but they are {ranks[0]}D "
                                f"and {ranks[1]}D")
    if ranks == (2, 2):
        _check("matmul", input, other, (2, 2), (1, 0))
        return dot_general(input, other, _MATRIX)
    if ranks == (1, 1):
        return dot(input, other)
    if ranks == (2, 1):
        return mv(input, other)
    if ranks == (1, 2):
        _check("matmul", input, other, (1, 2), (0, 0))
        return named(dot_general(input, other, _VECTOR_LEFT), "SqueezeBackward4")
    return _batched(input, other)


def _plain_product(x: Tensor, y: Tensor) -> Tensor | None:
    """The short way for two plain matrices of one floating dtype; None when the long way must be taken."""
    a, b = x._array, y._array
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.dtype is not b.dtype or STATE.trace is not None:
        return None
    if STATE.grad_enabled and (x._requires_grad or y._requires_grad or (x._base is not None and tensor_requires_grad(x))
                               or (y._base is not None and tensor_requires_grad(y))):
        return None
    if a.shape[1] != b.shape[0] or not (a.dtype is _F32 or a.dtype is _F64):
        return None
    return wrap(OPS.dot_general.evaluate(a, b, **_MATRIX))


def _batched(x: Tensor, y: Tensor) -> Tensor:
    """matmul with an operand of three axes or more."""
    _check_types("matmul", x, y)
    rows, columns = x.ndim > 1, y.ndim > 1
    inner_x, inner_y = x.shape[-1], y.shape[-2 if columns else -1]
    if inner_x != inner_y:
        raise error(ShapeError, f"matmul: shapes {list(x.shape)} and {list(y.shape)} cannot be multiplied: the inner "
                                f"sizes {inner_x} and {inner_y} "
                                "must be equal; transpose or reshape one operand")
    batch_x, batch_y = tuple(x.shape[:-2]), tuple(y.shape[:-2])
    if not batch_y:  # one matrix for all: the batch axes are rows
        result = dot_general(x, y, {"lhs_batch": (), "rhs_batch": (), "lhs_contract": (x.ndim - 1,),
                                    "rhs_contract": (y.ndim - 2 if columns else 0,)})
        return named(result, "UnsafeViewBackward0")
    batch = common_shape("matmul", [batch_x, batch_y])
    n = len(batch)
    x = EMIT.expand(x, batch + tuple(x.shape[-2:])) if rows else EMIT.expand(x, batch + tuple(x.shape))
    y = EMIT.expand(y, batch + tuple(y.shape[-2:]))
    axes = tuple(range(n))
    result = dot_general(x, y, {"lhs_batch": axes, "rhs_batch": axes, "lhs_contract": (n + 1 if rows else n,),
                                "rhs_contract": (n,)})
    return named(result, "UnsafeViewBackward0")


# ---- with an addend --------------------------------------------------------------------------------------------------

def _scaled_sum(name: str, input: Tensor, product: Tensor, beta: Operand, alpha: Operand) -> Tensor:
    """beta * input + alpha * product."""
    if not is_literal(alpha, 1):
        product = mul(product, alpha)
    if is_literal(beta, 0):  # as in torch, NaN in an input that does not count is ignored
        return named(product, f"{name}Backward0")
    _check_types(name.lower(), input, product)
    if tuple(product.shape) != common_shape(name.lower(), [tuple(input.shape), tuple(product.shape)]):
        raise error(ShapeError, f"{name.lower()}: The expanded size of the input {list(input.shape)} must match the "
                                f"product's shape {list(product.shape)}")
    return named(add(input if is_literal(beta, 1) else mul(input, beta), product), f"{name}Backward0")


@method()
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    _check("addmm", mat1, mat2, (2, 2), (1, 0))
    return _scaled_sum("Addmm", input, dot_general(mat1, mat2, _MATRIX), beta, alpha)


@method()
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    return _scaled_sum("Addmv", input, mv(mat, vec), beta, alpha)


@method()
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """beta * input + alpha * the sum of the batch's products."""
    return _scaled_sum("Addbmm", input, sum_of(bmm(batch1, batch2), 0), beta, alpha)


@method()
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2), for batches of matrices."""
    return _scaled_sum("Baddbmm", input, bmm(batch1, batch2), beta, alpha)


@method()
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2)."""
    return _scaled_sum("Addr", input, outer(vec1, vec2), beta, alpha)


# ---- general contractions --------------------------------------------------------------------------------------------

def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The products summed over axes: the last of `a` with the first of `b` (a number), or the two lists of axes
    given."""
    if isinstance(dims, int):
        left, right = tuple(range(a.ndim - dims, a.ndim)), tuple(range(dims))
    else:
        left, right = (tuple(axis(d, x.ndim) for d in ([part] if isinstance(part, int) else part)) for part,
                       x in zip(dims, (a, b), strict=True))
    _check_types("tensordot", a, b)
    if [a.shape[d] for d in left] != [b.shape[d] for d in right]:
        raise error(ShapeError, f"tensordot: contracted dimensions need to match, but axes {left} of {list(a.shape)} "
                                f"and {right} of {list(b.shape)} "
                                "have different sizes")
    return dot_general(a, b, {"lhs_batch": (), "rhs_batch": (), "lhs_contract": left, "rhs_contract": right})


@method()
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: every element of `input` times all of `other`."""
    rank = max(input.ndim, other.ndim)
    a, b = ((1,) * (rank - x.ndim) + tuple(x.shape) for x in (input, other))
    left = reshape(input, *[m for n in a for m in (n, 1)]) if rank else input
    right = reshape(other, *[m for n in b for m in (1, n)]) if rank else other
    return reshape(mul(left, right), *[n * m for n, m in zip(a, b, strict=True)]) if rank else mul(left, right)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices, from the left."""
    result = matrices[0]
    for m in matrices[1:]:
        result = mm(result, m)
    return result


@method()
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along an axis of size 3 (by default the first such axis)."""
    shape = common_shape("cross", [tuple(input.shape), tuple(other.shape)])
    candidates = [k for k, n in enumerate(shape) if n == 3]
    if dim is None and not candidates:
        raise error(ShapeError, f"cross: no dimension of size 3 in input, shapes {list(input.shape)} and "
                                f"{list(other.shape)}")
    d = candidates[0] if dim is None else axis(dim, len(shape))
    if shape[d] != 3:
        raise error(ShapeError, f"cross: inputs dimension {d} must have length 3. Got {shape[d]}")
    (a0, a1, a2), (b0, b1, b2) = (x.expand(*shape).unbind(d) for x in (input, other))
    parts = [sub(mul(a1, b2), mul(a2, b1)), sub(mul(a2, b0), mul(a0, b2)), sub(mul(a0, b1), mul(a1, b0))]
    lifted = [EMIT.view_as(p, (*shape[:d], 1, *shape[d + 1:])) for p in parts]
    return named(apply(OPS.concatenate, lifted, {"dim": d}), "LinalgCrossBackward0")


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between all rows of two (batches of) matrices."""
    if x1.shape[-1] != x2.shape[-1]:
        raise error(ShapeError, f"cdist: X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: "
                                f"{x2.shape[-1]}")
    difference = sub(x1.unsqueeze(-2), x2.unsqueeze(-3))
    return named(difference.norm(p, -1), "CdistBackward0")


# ---- einsum ----------------------------------------------------------------------------------------------------------

def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein summation, `einsum("bij,bjk->bik", x, y)`; an ellipsis stands for axes that broadcast. Contracted from
    left to right."""
    tensors = list(operands[0]) if len(operands) == 1 and not isinstance(operands[0], Tensor) else list(operands)
    terms, output = _parse(equation.replace(" ", ""), tensors)
    dtype = result_type(*tensors)
    terms_and_tensors = [_without_repeats(EMIT.cast(x, dtype), term) for x, term in zip(tensors, terms, strict=True)]
    x, labels = terms_and_tensors[0]
    for k, (y, term) in enumerate(terms_and_tensors[1:], 1):
        needed = set(output).union(*(t for _, t in terms_and_tensors[k + 1:]))
        x, labels = _contract(x, labels, y, term, needed)
    x, labels = _summed(x, labels, set(output))
    missing = [c for c in output if c not in labels]
    if missing:
        raise error(ShapeError, f"einsum(): output subscript {missing[0]} does not appear in the equation for any "
                                "input operand")
    order = [labels.index(c) for c in output]
    return x if order == list(range(len(order))) else permute(x, *order)


def _parse(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
    """Labels of every operand and of the output, with capital Greek letters for the axes of ellipses."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise error(ShapeError, f"einsum(): {len(terms)} subscripts in {equation!r} for {len(tensors)} operands")
    spare = [chr(c) for c in range(0x391, 0x391 + 64)]
    widest, expanded = 0, []
    for term, x in zip(terms, tensors, strict=True):
        hidden = x.ndim - len(term.replace("...", "")) if "..." in term else 0
        widest = max(widest, hidden)
        expanded.append(term.replace("...", "".join(reversed(spare[:hidden]))))
        if len(expanded[-1]) != x.ndim or hidden < 0:
            raise error(ShapeError, f"einsum(): the number of subscripts in {term!r} does not match the {x.ndim} "
                                    "dimensions of operand "
                                    f"{len(expanded) - 1} of shape {list(x.shape)}")
    ellipsis = "".join(reversed(spare[:widest]))
    if arrow:
        return expanded, right.replace("...", ellipsis)
    every = "".join(expanded)
    return expanded, ellipsis + "".join(c for c in sorted(set(every)) if c in string.ascii_letters
                                        and every.count(c) == 1)


def _without_repeats(x: Tensor, labels: str) -> tuple[Tensor, str]:
    """Diagonals in place of labels that occur twice in one term."""
    for c in labels:
        while labels.count(c) > 1:
            a = labels.index(c)
            b = labels.index(c, a + 1)
            if x.shape[a] != x.shape[b]:
                raise error(ShapeError, f"einsum(): subscript {c} is repeated but the sizes don't match: {x.shape[a]} "
                                        f"and {x.shape[b]}")
            x = x.diagonal(0, a, b)
            labels = labels[:a] + labels[a + 1:b] + labels[b + 1:] + c
    return x, labels


def _summed(x: Tensor, labels: str, needed: set[str]) -> tuple[Tensor, str]:
    drop = tuple(k for k, c in enumerate(labels) if c not in needed)
    return (sum_of(x, drop), "".join(c for c in labels if c in needed)) if drop else (x, labels)


def _contract(x: Tensor, left: str, y: Tensor, right: str, needed: set[str]) -> tuple[Tensor, str]:
    """The product of two labelled tensors, summed over the labels that nobody needs any more."""
    x, left = _summed(x, left, needed | set(right))
    y, right = _summed(y, right, needed | set(left))
    for c in left:
        if c in right and x.shape[left.index(c)] != y.shape[right.index(c)]:
            x, y = _stretched(x, left, y, right, c)
    shared = [c for c in left if c in right]
    batch, inner = [c for c in shared if c in needed], [c for c in shared if c not in needed]
    attrs = {"lhs_batch": tuple(left.index(c) for c in batch), "rhs_batch": tuple(right.index(c) for c in batch),
             "lhs_contract": tuple(left.index(c) for c in inner), "rhs_contract": tuple(right.index(c) for c in inner)}
    free = [c for c in left if c not in shared] + [c for c in right if c not in shared]
    return dot_general(x, y, attrs), "".join(batch + free)


def _stretched(x: Tensor, left: str, y: Tensor, right: str, c: str) -> tuple[Tensor, Tensor]:
    """Axes of size 1 broadcast to the partner's size."""
    n, m = x.shape[left.index(c)], y.shape[right.index(c)]
    if n != 1 and m != 1:
        raise error(ShapeError, f"einsum(): subscript {c} has size {m} for an operand which does not broadcast with "
                                f"previously seen size {n}")
    size = max(n, m)
    return (EMIT.expand(x, tuple(size if k == left.index(c) else d for k, d in enumerate(x.shape))),
            EMIT.expand(y, tuple(size if k == right.index(c) else d for k, d in enumerate(y.shape))))


# ---- operators and in-place forms ------------------------------------------------------------------------------------

def _matmul_operator(self: Tensor, other: Any) -> Any:
    """`self @ other`."""
    if isinstance(other, Tensor):
        return matmul(self, other)
    return matmul(self, _from_numpy(other)) if isinstance(other, np.ndarray) else NotImplemented


def _from_numpy(array: np.ndarray) -> Tensor:
    return wrap(np.array(array))


method("__matmul__")(_matmul_operator)
@method("__rmatmul__")
def _reflected_matmul(self: Tensor, other: Any) -> Any:
    """`other @ self` for a NumPy array."""
    return matmul(_from_numpy(other), self) if isinstance(other, np.ndarray) else NotImplemented


for _function in (addmm, addmv, addbmm, baddbmm, addr):
    in_place(_function)
