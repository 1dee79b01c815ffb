"""Object code into memory through LLVM's MCJIT, for machines that `loader.py` does not know. Imports llvmlite."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm

from ...ir.errors import CompileError
from .loader import call_kernel
from .locks import ForkSafeLock
from .target import new_machine

LOCK = ForkSafeLock()
"""Held while anything is loaded: engines share LLVM's global context."""

__all__ = ["CodeHandle", "call_kernel", "load_object", "load_objects"]


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
