"""LLVM text to object code for the host: one optimisation pipeline, then the gates of rare paths, then emission."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm

from ...ir.errors import CompileError
from . import elf, gates, unlocked
from .llvm_arithmetic import Gate
from .target import machine

ALLOWED = frozenset(
    "memset memcpy memmove sin cos tan fmod fmodf fma fmaf floor floorf ceil ceilf trunc truncf roundeven roundevenf "
    "sqrt sqrtf _GLOBAL_OFFSET_TABLE_".split())
"""Symbols that generated code may leave to the process: the C library's memory functions, exact mathematics, and the
sines of huge arguments."""


def _builder() -> Any:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = True
    options.loop_interleaving = False       # costs code and compile time; the core overlaps iterations by itself
    options.loop_unrolling = False          # but for the loops that the text has unrolled
    return llvm.create_pass_builder(machine(), options)


def _open_gates(module: Any, used: Sequence[Gate], builder: Any) -> None:
    """Replaces the calls of gates by a test and a branch."""
    keeper = module.get_global_variable("llvm.compiler.used")
    keeper.name, keeper.linkage = "gates", "internal"
    module.link_in(_parse(gates.definitions(used), module._context))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_simplify_cfg_pass()
    unlocked.run(passes, module, builder)


def _parse(text: str, context: Any = None) -> Any:
    """A module in a context of its own, unless one is given."""
    module = llvm.parse_assembly(text, llvm.create_context() if context is None else context)
    module.triple, module.data_layout = machine().triple, str(machine().target_data)
    return module


def optimize(text: str, used: Sequence[Gate] = ()) -> Any:
    """Parses and optimises a module; the module."""
    module = _parse(text + gates.declarations(used))
    builder = _builder()
    unlocked.run(builder.getModulePassManager(), module, builder)
    if used:
        _open_gates(module, used, builder)
    return module


def tidy(text: str) -> Any:
    """Parses a module and simplifies its functions one by one: for the runtime's own code, which vectorising and
    inlining make no faster, and for which they take a user's first call longer than all the rest; the module."""
    module, passes = _parse(text), llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_jump_threading_pass()
    passes.add_new_gvn_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_aggressive_dce_pass()
    unlocked.run(passes, module, _builder())
    return module


def emit_object(text: str, used: Sequence[Gate] = ()) -> bytes:
    """Object code of kernels, checked to need nothing but allowed symbols."""
    return _checked_object(optimize(text, used))


def emit_runtime(text: str) -> bytes:
    """Object code of the runtime's own functions, checked in the same way."""
    return _checked_object(tidy(text))


def _checked_object(module: Any) -> bytes:
    data = unlocked.emit(machine(), module, as_object=True)
    missing = elf.parse(data).undefined - ALLOWED if elf.is_elf(data) else set()
    if missing:
        raise CompileError(f"generated code refers to {', '.join(sorted(missing))}")
    return data


def assembly(text: str, used: Sequence[Gate] = ()) -> str:
    """The assembly of a module, for people and tests."""
    return unlocked.emit(machine(), optimize(text, used), as_object=False).decode()
