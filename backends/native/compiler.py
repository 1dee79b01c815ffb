"""The code generation service: a kernel's LLVM text, completed by the definitions of its words, to object code.

Loads llvmlite: the runtime loads this module through its seam, when something is missing from the cache.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...ir.errors import CompileError
from ..llvm_source import LlvmSource
from . import codegen
from .llvm_arithmetic import Gate, LlvmArithmetic, WordCall, define
from .words import definition_of


@functools.cache
def _definition(word: WordCall) -> tuple[str, dict[str, str], dict[str, Gate]]:
    """The LLVM function of a word, and the declarations and gates that it needs."""
    m = LlvmArithmetic(word.short, word.lanes)
    text = define(word.name, definition_of(word.word, word.short), word.operands, word.result, m)
    return text, m.declarations, m.gates


def complete(source: LlvmSource, symbol: str) -> tuple[str, list[Gate]]:
    """The module whose one exported function, `symbol`, is the kernel; and the gates that it uses."""
    texts, declarations, gates = [source.text.replace("@kernel(", f"@{symbol}(", 1)], {}, {}
    for word in source.words:
        text, needed, used = _definition(word)
        texts.append(text)
        declarations.update(needed)
        gates.update(used)
    lines = [line for name, line in declarations.items() if f"@{name}(" not in source.text]
    return "\n".join([*lines, *texts]), list(gates.values())


def compile_kernel(source: LlvmSource, symbol: str) -> bytes:
    """One object with the kernel as the C function `void symbol(i64 start, i64 stop, void **buffers)`.

    Raises:
        CompileError: the text is wrong; the message holds it.
    """
    return _guarded(codegen.emit_object, source, symbol)


def kernel_assembly(source: LlvmSource, symbol: str = "kernel") -> str:
    """A kernel's assembly, to read."""
    return _guarded(codegen.assembly, source, symbol)


def _guarded(finish: Callable[..., Any], source: LlvmSource, symbol: str) -> Any:
    """Completes and finishes; whatever goes wrong inside the compiler is one error that shows the text."""
    try:
        return finish(*complete(source, symbol))
    except CompileError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip()
        raise CompileError(f"cannot compile a kernel: {reason}\n\n{source.text}") from error
