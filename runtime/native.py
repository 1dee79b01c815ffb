"""The runtime's own machine code: compiled once from the low-level language, cached as an object, loaded once a
process.

Also the process table: the addresses and facts of this process that native code needs.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..backends.native.locks import ForkSafeLock
from ..ir import routines
from ..ir.errors import WeftError
from . import (
    blas_native,
    builtins,
    call_layout,
    call_native,
    entry_native,
    executor_native,
    layout,
    lowlevel,
    objects_native,
    seam,
    threads_native,
)
from .blas import load_blas
from .cache import code_cache

_CORE = (entry_native, executor_native, threads_native, objects_native)
"""The modules of what every program needs, compiled at the first one."""
_ROUTINES = (blas_native,)
"""The modules of the routines that some programs call, compiled when one does."""
_CALLS = (call_native, objects_native)
"""The modules of short ways into programs, compiled when a program is called again."""
_EXPORTED = {"enter", "run", "proceed", "copy_bytes", "work", "wake", "run_parallel"}
_EXPORTED |= {"gemm", "gemv", "copy_view", "fill_zero", "short_call"}

UNDER_WAY = threading.Event()
"""Set when there is nothing left to do for Python but to wait for the executor's code."""

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
"""The number of the system call futex(2) on Linux."""


@functools.cache
def _code(modules: tuple[ModuleType, ...]) -> Any:
    """The code of modules in the low-level language. It depends on their text and what they import; and, besides, on
    the compiler."""
    imported = (layout, call_layout, lowlevel, routines)
    texts = [Path(str(m.__file__)).read_text(encoding="utf-8") for m in (*modules, *imported)]
    return code_cache().module(platform.machine() + "".join(texts), functools.partial(_build, modules))


def _build(modules: Sequence[ModuleType]) -> bytes:
    functions = [f for m in modules for f in vars(m).values() if inspect.isfunction(f) and f.__module__ == m.__name__]
    exported = [f for f in functions if f.__name__ in _EXPORTED]
    codegen, text = seam.codegen(), lowlevel.translate(exported, [f for f in functions if f not in exported])
    UNDER_WAY.set()
    return codegen.emit_runtime(text)


class Native:
    """Entry points of the loaded code, and the process table."""

    def __init__(self) -> None:
        self.table = process_table()
        self.table[layout.RUN] = self.address("run")
        self.proceed = self._entry("proceed", ctypes.c_int64)
        self.work = self._entry("work", ctypes.c_int64, ctypes.c_int64)
        self.run_parallel = self._entry("run_parallel", *[ctypes.c_int64] * 6)
        self.wake = self._entry("wake", ctypes.c_int64, ctypes.c_int64)

    def address(self, name: str) -> int:
        """The address of an exported function; the first product loads BLAS."""
        if name in ("gemm", "gemv") and not self.table[layout.BLAS]:
            load_blas(self.table)
        group = next(g for g in (_CORE, _ROUTINES, _CALLS) if any(hasattr(module, name) for module in g))
        return _code(group).address(name)

    def _entry(self, name: str, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(self.address(name))


def native() -> Native:
    """The one instance of this process."""
    with _LOCK:
        return _only()


_LOCK = ForkSafeLock()
_only = functools.cache(Native)


def process_table() -> np.ndarray:
    """The table that every frame points to."""
    if os.name != "posix":
        raise WeftError("compiled programs need a POSIX system (Linux or macOS); eager mode works everywhere")
    library = ctypes.CDLL(None)
    table = np.zeros(layout.PROCESS_WORDS, np.int64)
    table[layout.CLOCK] = _address(library, "clock_gettime")
    table[layout.CLOCK_ID] = time.CLOCK_MONOTONIC
    table[layout.MEMCPY] = _address(library, "memcpy")
    table[layout.YIELD] = _address(library, "sched_yield")
    table[layout.FUTEX] = _FUTEX.get(platform.machine(), 0) if sys.platform == "linux" else 0
    table[layout.WAIT] = _address(library, "syscall" if table[layout.FUTEX] else "usleep")
    table[layout.FLOAT_TYPE], table[layout.INT_TYPE] = id(float), id(int)
    table[layout.ARRAY_TYPE], table[layout.TUPLE_TYPE] = id(np.ndarray), id(tuple)
    table[layout.INT_LAYOUT] = layout.INT_TAGGED_SIZE if sys.version_info >= (3, 12) else layout.INT_SIGNED_SIZE
    builtins.fill_in(table)
    _check_layout(np.zeros(3), 1)
    _check_layout(np.zeros((4, 2))[::2], 0)
    return table


def _check_layout(probe: np.ndarray, contiguous: int) -> None:
    """Whether arrays have their data and their flags where native code reads them."""
    data, flags = (ctypes.c_int64.from_address(id(probe) + offset).value for offset in (16, 64))
    if data != probe.ctypes.data or flags & 1 != contiguous:
        raise WeftError("weft does not know how this Python lays out arrays (a debug or free-threaded build?)")


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
