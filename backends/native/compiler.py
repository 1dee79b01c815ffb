"""The code generation service: kernel sources to object code.

Imports Numba: the runtime loads this module through its seam, when something is missing from the cache.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...ir.errors import CompileError
from . import codegen, frontend
from .target import LOCK


def compile_kernels(sources: Mapping[str, str]) -> bytes:
    """One object with a C function `void symbol(i64 start, i64 stop, void **buffers)` for each symbol -> source.

    Raises:
        CompileError: a source does not follow the vocabulary; the message holds the source.
    """
    return _guarded(codegen.emit_object, sources)


def compile_kernel(source: str, name: str) -> bytes:
    """One object with the kernel as the C function `name`."""
    return compile_kernels({name: source})


def kernel_assembly(source: str, name: str = "kernel") -> str:
    """A kernel's assembly, to look at."""
    return _guarded(codegen.assembly, {name: source})


def _guarded(finish: Callable[..., Any], sources: Mapping[str, str]) -> Any:
    """Lowers and finishes; whatever goes wrong inside the compiler is one error that shows the sources."""
    with LOCK:
        try:
            return finish(*frontend.lower_kernels(sources))
        except CompileError:
            raise
        except Exception as error:
            shown = "\n\n".join(sources.values())
            reason = str(error).split("\n\nFile")[0]            # Numba adds that it cannot find the source
            raise CompileError(f"cannot compile a kernel: {type(error).__name__}: {reason}\n\n{shown}") from error
