"""LLVM text to object code for the host: one optimisation pipeline, then the gates of rare paths, then emission."""
from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm

from ...ir.errors import CompileError
from . import gates
from .llvm_arithmetic import Gate
from .target import machine

ALLOWED = frozenset(
    "memset memcpy memmove sin cos tan fmod fmodf fma fmaf floor floorf ceil ceilf trunc truncf roundeven roundevenf "
    "sqrt sqrtf _GLOBAL_OFFSET_TABLE_".split())
"""Symbols that generated code may leave to the process: the C library's memory functions, exact mathematics, and the
sines of huge arguments."""


def _pipeline() -> tuple[Any, Any]:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_interleaving = False       # costs code and compile time; the core overlaps iterations by itself
    builder = llvm.create_pass_builder(machine(), options)
    return builder.getModulePassManager(), builder


def _open_gates(module: Any, used: Sequence[Gate], builder: Any) -> None:
    """Replaces the calls of gates by a test and a branch."""
    keeper = module.get_global_variable("llvm.compiler.used")
    keeper.name, keeper.linkage = "gates", "internal"
    module.link_in(_parse(gates.definitions(used)))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


def _parse(text: str) -> Any:
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine().triple, str(machine().target_data)
    return module


def optimize(text: str, used: Sequence[Gate] = ()) -> Any:
    """Parses and optimises a module; the module."""
    module = _parse(text + gates.declarations(used))
    passes, builder = _pipeline()
    passes.run(module, builder)
    if used:
        _open_gates(module, used, builder)
    return module


def emit_object(text: str, used: Sequence[Gate] = ()) -> bytes:
    """Object code of a module, checked to need nothing but allowed symbols."""
    data = machine().emit_object(optimize(text, used))
    missing = undefined_symbols(data) - ALLOWED
    if missing:
        raise CompileError(f"generated code refers to {', '.join(sorted(missing))}")
    return data


def assembly(text: str, used: Sequence[Gate] = ()) -> str:
    """The assembly of a module, for people and tests."""
    return machine().emit_assembly(optimize(text, used))


def undefined_symbols(data: bytes) -> set[str]:
    """The symbols that an ELF object leaves to its loader; other formats tell nothing."""
    if data[:4] != b"\x7fELF":
        return set()
    table_at, = struct.unpack_from("<Q", data, 0x28)
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table_at + k * entry_size) for k in range(count)]
    found = set()
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != 2:                                                   # SHT_SYMTAB
            continue
        strings = sections[link][4]
        for at in range(offset + 24, offset + size, 24):                # the first symbol is a null one
            name, _, _, section = struct.unpack_from("<IBBH", data, at)
            if section == 0:
                end = data.index(b"\0", strings + name)
                found.add(data[strings + name:end].decode())
    return found
