"""The machine that code is generated for. Imports llvmlite."""
from __future__ import annotations

import functools
import threading
from typing import Any

import llvmlite.binding as llvm

from .cpu import MAPS_OBJECTS

_own = threading.local()


@functools.cache
def features() -> str:
    """The host's features as LLVM writes them; on x86, vectors may be as wide as the registers."""
    wide = ",-prefer-256-bit" if llvm.get_process_triple().startswith("x86_64") else ""
    return llvm.get_host_cpu_features().flatten() + wide


@functools.cache
def identity() -> str:
    """CPU, features and triple: two machines with the same identity can exchange machine code."""
    return f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} {features()}"


def new_machine() -> Any:
    """A target machine of one's own: an execution engine takes it over and frees it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    # the small code model spends no registers on addresses; MCJIT does not keep objects together as it demands
    model = {"reloc": "pic", "codemodel": "small"} if MAPS_OBJECTS else {"jit": True}
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features(), opt=3, **model)


def machine() -> Any:
    """The target machine with which this thread compiles."""
    if not hasattr(_own, "machine"):
        _own.machine = new_machine()
    return _own.machine
