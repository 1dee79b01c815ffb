"""The words that the executor and the thread pool need beyond a kernel's: atomics, sleeping, calls by address.

Imports Numba: loaded only when something is compiled.
"""
from __future__ import annotations

from typing import Any

import llvmlite.ir as llvm
from numba.core import types

from .numba_types import BYTES, Intrinsic, Pointer, integers, short_of

I1, I8, I32, I64 = (llvm.IntType(bits) for bits in (1, 8, 32, 64))
_ORDER = "seq_cst"
_FUTEX, _WAIT_PRIVATE, _WAKE_PRIVATE = 202, 128, 129
_CLOCK_MONOTONIC = 1
_MOST_ARGUMENTS = 32


def _word(address: Any, builder: Any) -> Any:
    return builder.inttoptr(address, I64.as_pointer())


def declare(builder: Any, name: str, result: llvm.Type, arguments: list[llvm.Type]) -> Any:
    """A function of the C library."""
    module = builder.module
    if name not in module.globals:
        llvm.Function(module, llvm.FunctionType(result, arguments), name)
    return module.globals[name]


def _atomic_load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.load_atomic(_word(args[0], builder), _ORDER, 8)


def _atomic_store(context: Any, builder: Any, signature: Any, args: Any) -> None:
    builder.store_atomic(args[1], _word(args[0], builder), _ORDER, 8)


def _atomic_add(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.atomic_rmw("add", _word(args[0], builder), args[1], _ORDER)


def _atomic_exchange(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.atomic_rmw("xchg", _word(args[0], builder), args[1], _ORDER)


def _compare_exchange(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    pair = builder.cmpxchg(_word(args[0], builder), args[1], args[2], _ORDER, _ORDER)
    return builder.extract_value(pair, 0)


def _pause(context: Any, builder: Any, signature: Any, args: Any) -> None:
    """x86's `pause` where there is one; elsewhere spinning goes unannounced."""
    if builder.module.triple.startswith("x86_64"):
        builder.call(declare(builder, "llvm.x86.sse2.pause", llvm.VoidType(), []), [])


def _futex(operation: int) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = llvm.Constant(I64, 0)
        call = declare(builder, "syscall", I64, [I64] * 7)
        number, code = llvm.Constant(I64, _FUTEX), llvm.Constant(I64, operation)
        return builder.call(call, [number, args[0], code, args[1], zero, zero, zero])
    return emit


def _clock(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    with builder.goto_entry_block():
        moment = builder.alloca(llvm.ArrayType(I64, 2))
    first = builder.gep(moment, [llvm.Constant(I64, 0), llvm.Constant(I64, 0)])
    read = declare(builder, "clock_gettime", I32, [I32, I64.as_pointer()])
    builder.call(read, [llvm.Constant(I32, _CLOCK_MONOTONIC), first])
    seconds = builder.load(first)
    nanoseconds = builder.load(builder.gep(moment, [llvm.Constant(I64, 0), llvm.Constant(I64, 1)]))
    return builder.add(builder.mul(seconds, llvm.Constant(I64, 10**9)), nanoseconds)


def _call(result: llvm.Type) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shape = llvm.FunctionType(result, [I64] * (len(args) - 1))
        value = builder.call(builder.inttoptr(args[0], shape.as_pointer()), args[1:])
        return None if isinstance(result, llvm.VoidType) else value
    return emit


def _typed_call(*arguments: types.Type) -> Any:
    fits = 1 <= len(arguments) <= 1 + _MOST_ARGUMENTS and all(short_of(a) == "i64" for a in arguments)
    return (types.int64, (types.int64,) * len(arguments)) if fits else None


def _copy_memory(context: Any, builder: Any, signature: Any, args: Any) -> None:
    move = declare(builder, "llvm.memmove.p0.p0.i64", llvm.VoidType(), [BYTES, BYTES, I64, I1])
    target, source = (builder.inttoptr(a, BYTES) for a in args[:2])
    builder.call(move, [target, source, args[2], llvm.Constant(I1, 0)])


def _fill_memory(context: Any, builder: Any, signature: Any, args: Any) -> None:
    fill = declare(builder, "llvm.memset.p0.i64", llvm.VoidType(), [BYTES, I8, I64, I1])
    builder.call(fill, [builder.inttoptr(args[0], BYTES), builder.trunc(args[1], I8), args[2], llvm.Constant(I1, 0)])


def _address_of(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.ptrtoint(args[0], I64)


SYSTEM: dict[str, Intrinsic] = {intrinsic.name: intrinsic for intrinsic in (
    Intrinsic("atomic_load", integers(1, types.int64), _atomic_load),
    Intrinsic("atomic_store", integers(2, types.none), _atomic_store),
    Intrinsic("atomic_add", integers(2, types.int64), _atomic_add),
    Intrinsic("atomic_exchange", integers(2, types.int64), _atomic_exchange),
    Intrinsic("compare_exchange", integers(3, types.int64), _compare_exchange),
    Intrinsic("pause", integers(0, types.none), _pause),
    Intrinsic("futex_wait", integers(2, types.int64), _futex(_WAIT_PRIVATE)),
    Intrinsic("futex_wake", integers(2, types.int64), _futex(_WAKE_PRIVATE)),
    Intrinsic("clock", integers(0, types.int64), _clock),
    Intrinsic("call_kernel", integers(4, types.none), _call(llvm.VoidType())),
    Intrinsic("call", _typed_call, _call(I64)),
    Intrinsic("copy_memory", integers(3, types.none), _copy_memory),
    Intrinsic("fill_memory", integers(3, types.none), _fill_memory),
    Intrinsic("address_of", lambda p: (types.int64, (p,)) if isinstance(p, Pointer) else None, _address_of),
)}
"""The words for the executor and the thread pool."""
