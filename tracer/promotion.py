"""torch's promotion and broadcasting: makes operands strict (one dtype, one shape) before an IR op sees them.

Three kinds of operands take part, strongest first: tensors with axes, tensors without, Python numbers. A weaker operand
changes the result's dtype only when it is of a higher category (bool < integer < float).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, ShapeError
from ..ir.op import Op
from ..ir.sizes import SymbolicSize
from ..ir.types import DType, Shape, bool_, float64, int8, int16, int64, uint8
from .dispatch import EMIT, apply
from .dtypes import dtype_of_numpy, get_default_dtype, wrap_integer
from .location import error
from .scalars import RuntimeScalar
from .state import STATE
from .storage import storage_of_foreign
from .tape import tensor_requires_grad
from .tensor import Tensor, wrap

Operand = Any
"""A tensor, a Python number, a NumPy number, or a traced Python number (RuntimeScalar; it passes for a float or an
int)."""

NUMBERS = (float, int, bool)
_CATEGORY = {"bool": 0, "uint": 1, "int": 1, "float": 2}


# ---- dtypes ----------------------------------------------------------------------------------------------------------

def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype that holds both, by torch's table."""
    if type1 is type2:
        return type1
    a, b = sorted((type1, type2), key=lambda t: (_CATEGORY[t.kind], t.bits))
    if _CATEGORY[a.kind] < _CATEGORY[b.kind]:
        return b
    if b.kind == "float":
        return float64
    if a.kind == b.kind == "int":
        return b
    if uint8 in (a, b):
        other = b if a is uint8 else a
        if other.kind == "int":
            return int16 if other is int8 else other
    raise error(DTypeError, f"promotion of {type1} and {type2} is not supported: convert one of them with `.to(...)`")


def category(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for floats."""
    return _CATEGORY[dtype.kind]


def can_cast(from_: DType, to: DType) -> bool:
    """Whether a result of dtype `from_` may be stored in a tensor of dtype `to` (floats never become integers, numbers
    never bools)."""
    return _CATEGORY[from_.kind] <= _CATEGORY[to.kind]


def is_number(x: Any) -> bool:
    """Whether `x` acts as a Python number: a real one, a NumPy scalar, or a traced one."""
    return isinstance(x, NUMBERS) or isinstance(x, np.generic)


def is_operand(x: Any) -> bool:
    """Whether an operator with `x` is arithmetic on tensors; else Python's own rules decide."""
    return isinstance(x, (Tensor, np.ndarray)) or is_number(x)


def operand(name: str, x: Operand) -> Operand:
    """`x` as a tensor, a plain Python number or a traced number; TypeError for anything else."""
    if isinstance(x, Tensor) or type(x) in NUMBERS or type(x) is RuntimeScalar:
        return x
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, np.ndarray):
        return tensor_over(x)
    if isinstance(x, NUMBERS):
        return x
    raise error(DTypeError, f"{name}(): an argument must be a tensor or a number, not {type(x).__name__}")


def tensor_over(array: np.ndarray) -> Tensor:
    """A tensor that shares the memory of a NumPy array."""
    dtype_of_numpy(array.dtype)
    if not array.dtype.isnative or any(s < 0 or s % array.itemsize for s in array.strides):
        return wrap(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    result = wrap(array)
    result._storage_or_none = storage_of_foreign(array)
    result._frozen = not array.flags.writeable
    return result


def weak_dtype(x: Operand) -> DType:
    """The dtype of a number on its own."""
    if isinstance(x, bool):
        return bool_
    return int64 if isinstance(x, int) else get_default_dtype()


def result_type(*operands: Operand) -> DType:
    """The dtype of an elementwise result of these tensors and numbers."""
    ranks: list[DType | None] = [None, None, None]
    for x in operands:
        if isinstance(x, Tensor):
            rank, dtype = (0 if x.ndim else 1), x.dtype
        else:
            rank, dtype = 2, weak_dtype(operand("result_type", x))
        known = ranks[rank]
        ranks[rank] = dtype if known is None else promote_types(known, dtype)
    result: DType | None = None
    for strongest in ranks:
        if result is None:
            result = strongest
        elif strongest is not None and _CATEGORY[strongest.kind] > _CATEGORY[result.kind]:
            result = promote_types(result, strongest)
    assert result is not None
    return result


def floating_type(*operands: Operand) -> DType:
    """As `result_type`, with the default dtype in place of integers and bools."""
    dtype = result_type(*operands)
    return dtype if dtype.is_floating_point else get_default_dtype()


def number(value: float | int | bool, dtype: DType) -> float | int | bool:
    """A Python number as a value of `dtype`: integers wrap around as in C. Symbolic sizes stay what they are."""
    if isinstance(value, SymbolicSize) and (dtype.kind == "float" or dtype is int64):
        return value
    if dtype.kind == "float":
        return float(value)
    if dtype is bool_:
        return bool(value)
    return wrap_integer(int(value), dtype)


# ---- shapes ----------------------------------------------------------------------------------------------------------

def broadcast_shapes(*shapes: Shape | int) -> Shape:
    """The common shape by NumPy's rules; ShapeError when there is none."""
    return common_shape("broadcast_shapes", [(s,) if isinstance(s, int) else tuple(s) for s in shapes])


def common_shape(name: str, shapes: Sequence[Shape]) -> Shape:
    """The shape that all of `shapes` broadcast to, sizes compared from the right."""
    first = shapes[0]
    if all(s == first for s in shapes[1:]):
        return tuple(first)
    rank = max(map(len, shapes))
    sizes: list[Any] = [1] * rank
    for shape in shapes:
        for k, n in enumerate(shape, rank - len(shape)):
            if sizes[k] == 1:
                sizes[k] = n
            elif n != 1 and n != sizes[k]:
                raise _mismatch(name, shapes, k, sizes[k], n)
    return tuple(sizes)


def _mismatch(name: str, shapes: Sequence[Shape], dim: int, a: Any, b: Any) -> Exception:
    listed = " and ".join(str(list(s)) for s in shapes)
    return error(ShapeError, f"{name}: shapes {listed} do not broadcast: The size of tensor a ({a}) must match the "
                             f"size of tensor b ({b}) at non-singleton dimension {dim}. Sizes are compared from the "
                             "right and must be equal or 1: insert an axis with "
                             "unsqueeze(dim), or bring the operands to one shape with reshape or expand")


# ---- strict operands -------------------------------------------------------------------------------------------------

def as_tensor_of(x: Operand, dtype: DType) -> Tensor:
    """An operand as a tensor of `dtype`, in its own shape ([] for a number)."""
    if isinstance(x, Tensor):
        return EMIT.cast(x, dtype)
    if type(x) is RuntimeScalar:
        return EMIT.cast(x.tensor, dtype)
    return EMIT.scalar(number(x, dtype), dtype)


def strict(name: str, operands: Sequence[Operand], dtype: DType) -> list[Tensor]:
    """The operands as tensors of one dtype and one shape: conversions first, then broadcasts."""
    tensors = [as_tensor_of(x, dtype) for x in operands]
    return broadcast_all(name, tensors)


def broadcast_all(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors expanded to their common shape (values for reading only)."""
    shape = common_shape(name, [tuple(t.shape) for t in tensors])
    return [EMIT.expand(t, shape) for t in tensors]


def wants_grad(x: Operand) -> bool:
    """Whether `x` is a tensor that gradients flow to."""
    return isinstance(x, Tensor) and (x._requires_grad or x._base is not None) and tensor_requires_grad(x)


def is_recorded(operands: Sequence[Operand]) -> bool:
    """Whether an op on these operands must go through the dispatcher: a trace is on, or a gradient is wanted."""
    return STATE.trace is not None or (STATE.grad_enabled and any(map(wants_grad, operands)))


def array_of(x: Operand, dtype: DType) -> np.ndarray:
    """An eager operand as a NumPy array of `dtype`."""
    if isinstance(x, Tensor):
        array = x._array
        if array is None:
            raise x._no_memory()
        return array if array.dtype == dtype.numpy else array.astype(dtype.numpy)
    return np.array(number(x, dtype), dtype.numpy)


def elementwise(op: Op, name: str, operands: Sequence[Operand], dtype: DType | None = None) -> Tensor:
    """The elementwise `op` on operands of any kinds, computed in `dtype` (the promoted dtype when left out)."""
    operands = [operand(name, x) for x in operands]
    if dtype is None:
        dtype = result_type(*operands)
    if is_recorded(operands):
        return apply(op, strict(name, operands, dtype))
    arrays = [array_of(x, dtype) for x in operands]
    try:
        return wrap(op.evaluate(*arrays))
    except ValueError:  # NumPy could not broadcast
        common_shape(name, [a.shape for a in arrays])
        raise


def named(result: Tensor, name: str) -> Tensor:
    """Lets the operation that made `result` print as `name` in `grad_fn`: for functions made of several ops."""
    edge = result._edge
    if edge is not None:
        edge[0].name = name
    return result
