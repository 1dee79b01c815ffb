"""Object code into memory: `load_object(bytes) -> CodeHandle`. About a millisecond, and Numba is not needed."""
from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm

from ...ir.errors import CompileError
from .target import LOCK, new_machine


class CodeHandle:
    """Machine code in memory. The addresses stay valid until `free()`, or until the handle itself is garbage."""

    def __init__(self, engine: Any) -> None:
        self._engine: Any = engine

    def address(self, symbol: str) -> int:
        """Where an exported function starts."""
        if self._engine is None:
            raise CompileError(f"{symbol}: the code has been freed")
        address = self._engine.get_function_address(symbol)
        if not address:
            raise CompileError(f"the object code has no function {symbol}")
        return address

    def free(self) -> None:
        """Gives the memory back; no thread may be inside the code, and none may enter it again."""
        if self._engine is not None:
            with LOCK:
                self._engine.close()
            self._engine = None


def load_objects(objects: Sequence[bytes]) -> CodeHandle:
    """Loads several objects, whose symbols must differ, into one handle."""
    with LOCK:
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_machine())
        for data in objects:
            engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        engine.finalize_object()
    return CodeHandle(engine)


def load_object(data: bytes) -> CodeHandle:
    """Loads one object."""
    return load_objects([data])


def call_kernel(address: int, start: int, stop: int, arrays: Sequence[Any]) -> int:
    """Calls a kernel from Python over contiguous NumPy arrays, which it writes in place; the status word.

    For tests and for a look at one kernel: programs are run by the native executor.
    """
    header = (ctypes.c_int64 * 8)()
    table = (ctypes.c_void_p * (1 + len(arrays)))(ctypes.addressof(header), *(a.ctypes.data for a in arrays))
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(address)
    function(start, stop, ctypes.addressof(table))
    return header[0]
