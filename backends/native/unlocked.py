"""The two calls of LLVM that take long, without the lock by which llvmlite lets one thread at a time into LLVM.

LLVM itself asks for no more than that threads share no context and no machine: every module has a context of its own
(`codegen.py`), every thread a machine (`target.py`). Two threads compile the kernels of a large program in 0.55 of the
time of one, to the same bytes.
"""
from __future__ import annotations

import ctypes
from typing import Any

from llvmlite.binding import ffi

_LIBRARY = ctypes.CDLL(ffi.lib._name, handle=ffi.lib._handle)


def _function(name: str) -> Any:
    function, locked = getattr(_LIBRARY, name), getattr(ffi.lib, name)
    function.argtypes, function.restype = locked.argtypes, locked.restype
    return function


_RUN, _EMIT = _function("LLVMPY_RunNewModulePassManager"), _function("LLVMPY_TargetMachineEmitToMemory")


def run(passes: Any, module: Any, builder: Any) -> None:
    """Runs a pass manager over a module."""
    _RUN(passes, module, builder)


def emit(machine: Any, module: Any, as_object: bool) -> bytes:
    """Object code, or the text of the assembly, of a module."""
    with ffi.OutputString() as message:
        buffer = _EMIT(machine, module, int(as_object), message)
        if not buffer:
            raise RuntimeError(str(message))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)
