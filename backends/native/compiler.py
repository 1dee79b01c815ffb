"""The code generation service: kernel sources and Python functions to object code.

Imports Numba: the runtime loads this module through its seam, when something is missing from the cache.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ...ir.errors import CompileError
from . import codegen, frontend
from .llvm_arithmetic import Gate
from .target import LOCK


def compile_kernels(sources: Mapping[str, str]) -> bytes:
    """One object with a C function `void symbol(i64 start, i64 stop, void **buffers)` for each symbol -> source.

    Raises:
        CompileError: a source does not follow the vocabulary; the message holds the source.
    """
    return _guarded(lambda: codegen.emit_object(*frontend.lower_kernels(sources)),
                    lambda: "\n\n".join(sources.values()))


def compile_kernel(source: str, name: str) -> bytes:
    """One object with the kernel as the C function `name`."""
    return compile_kernels({name: source})


def compile_functions(functions: Mapping[Callable[..., Any], str]) -> bytes:
    """One object with Python functions as C functions of their own names.

    Args:
        functions: function -> signature, such as `i64(i64, f64)`; the words of the vocabulary, the functions
            themselves and numbers of the function's module can be used by name."""
    return _guarded(lambda: codegen.emit_object(*frontend.lower_functions(functions)),
                    lambda: "\n\n".join(inspect.getsource(f) for f in functions))


def kernel_text(source: str, name: str = "kernel") -> tuple[str, list[Gate]]:
    """A kernel's LLVM text before optimisation, and its gates."""
    return _guarded(lambda: frontend.lower_kernels({name: source}), lambda: source)


def kernel_assembly(source: str, name: str = "kernel") -> str:
    """A kernel's assembly, to look at."""
    return _guarded(lambda: codegen.assembly(*frontend.lower_kernels({name: source})), lambda: source)


def _guarded(work: Callable[[], Any], source: Callable[[], str]) -> Any:
    """Runs the compiler; whatever goes wrong inside it is one error that shows the source."""
    with LOCK:
        try:
            return work()
        except CompileError:
            raise
        except Exception as error:
            raise CompileError(f"cannot compile a kernel: {type(error).__name__}: {error}\n\n{source()}") from error
