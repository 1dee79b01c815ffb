"""Numba types of the kernel language: elements, pointers into buffers, vectors, ranges and the words themselves.

Imports Numba: loaded only when something is compiled.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as llvm
from numba.core import datamodel, types
from numba.core.datamodel import models
from numba.core.types.containers import Pair
from numba.core.types.misc import unliteral
from numba.core.typing import signature

from .llvm_arithmetic import TYPES
from .vocabulary import LANES

ELEMENTS: dict[str, types.Type] = {
    "bool": types.boolean, "u8": types.uint8, "u32": types.uint32, "u64": types.uint64, "i8": types.int8,
    "i16": types.int16, "i32": types.int32, "i64": types.int64, "f32": types.float32, "f64": types.float64,
}
"""dtype short name -> Numba type of a value."""

LLVM = {short: {"float": llvm.FloatType(), "double": llvm.DoubleType()}.get(text) or llvm.IntType(int(text[1:]))
        for short, text in TYPES.items()}
"""dtype short name -> llvmlite type of a value."""

BYTES = llvm.IntType(8).as_pointer()


@dataclass(frozen=True)
class Intrinsic:
    """What a word is in a kernel's namespace, and how Numba types and lowers a call of it.

    Attributes:
        name: as written in the source.
        type: (argument types) -> (result type, argument types), or None when they do not fit.
        emit: (lowering context, IR builder, signature, argument values) -> value.
    """

    name: str
    type: Callable[..., tuple[types.Type, tuple[types.Type, ...]] | None]
    emit: Callable[..., Any]


class WordType(types.Callable, types.Opaque):
    """The Numba type of one intrinsic."""

    def __init__(self, intrinsic: Intrinsic) -> None:
        self.intrinsic = intrinsic
        super().__init__(f"word {intrinsic.name}")

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        """The signature of a call, or None."""
        typed = None if kws else self.intrinsic.type(*args)
        return typed and signature(typed[0], *typed[1])

    def get_call_signatures(self) -> tuple[tuple, bool]:
        """Nothing to list in an error message."""
        return (), False

    def get_impl_key(self, sig: Any) -> WordType:
        """The type itself is the key."""
        return self


class Pointer(types.Type):
    """A pointer to elements; `scope` is the alias scope of the buffer, None for memory that may be anything's."""

    def __init__(self, short: str, scope: int | None) -> None:
        self.short, self.scope = short, scope
        super().__init__(f"pointer {short} scope {scope}")


class Vector(types.Type):
    """A vector of 16 lanes."""

    def __init__(self, short: str) -> None:
        self.short = short
        super().__init__(f"{short}x{LANES}")


class Buffers(types.Type):
    """The kernel's third argument: the table of addresses."""

    def __init__(self) -> None:
        super().__init__("buffers")


class IndexRange(types.Type):
    """What `range` gives, which is its own iterator: a pointer to (next, stop, step)."""

    def __init__(self) -> None:
        super().__init__("range")


BUFFERS, RANGE = Buffers(), IndexRange()
VECTORS = {short: Vector(short) for short in ELEMENTS}
RANGE_STATE = llvm.ArrayType(llvm.IntType(64), 3)
PAIR = Pair(types.int64, types.boolean)
"""What one step of an iteration gives: the index, and whether there was one."""

_SHORTS = {numba_type: short for short, numba_type in ELEMENTS.items()} | {v: v.name for v in VECTORS.values()}


def short_of(numba_type: types.Type) -> str:
    """The dtype (`f32`, `f32x16`) of a value's Numba type, "" when it is not a value."""
    return _SHORTS.get(unliteral(numba_type), "")


def type_of(short: str) -> types.Type:
    """The Numba type of a dtype, `f32` or `f32x16`."""
    return ELEMENTS[short] if short in ELEMENTS else VECTORS[short.removesuffix(f"x{LANES}")]


def integers(count: int, result: types.Type, first: types.Type | None = None) -> Callable[..., Any]:
    """The typing of a word of `count` i64 arguments, after one of type `first` when there is one."""
    expected = ((first,) if first else ()) + (types.int64,) * count

    def typed(*arguments: types.Type) -> Any:
        return (result, expected) if tuple(unliteral(a) for a in arguments) == expected else None

    return typed


def _model(numba_class: type, llvm_type: Callable[[Any], llvm.Type]) -> None:
    class Model(models.PrimitiveModel):
        def __init__(self, manager: Any, numba_type: Any) -> None:
            super().__init__(manager, numba_type, llvm_type(numba_type))
    datamodel.register_default(numba_class)(Model)


datamodel.register_default(WordType)(models.OpaqueModel)
_model(Pointer, lambda t: BYTES)
_model(Buffers, lambda t: BYTES)
_model(Vector, lambda t: llvm.VectorType(LLVM[t.short], LANES))
_model(IndexRange, lambda t: RANGE_STATE.as_pointer())
