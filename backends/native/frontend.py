"""Kernel sources to LLVM text: Numba reads the Python, infers the types and lowers, in the contexts of the kernel
language.

Imports Numba: loaded only when something is compiled.
"""
from __future__ import annotations

import types as python_types
from collections.abc import Mapping
from typing import Any

import llvmlite.ir as llvm
from numba.core import bytecode, funcdesc, interpreter, targetconfig, types
from numba.core.compiler import Flags
from numba.core.lowering import Lower
from numba.core.transforms import canonicalize_cfg
from numba.core.typed_passes import type_inference_stage

from .intrinsics import NAMESPACE, OPERATORS
from .llvm_arithmetic import Gate, LlvmArithmetic, define
from .numba_contexts import LoweringContext, TypingContext
from .numba_types import BUFFERS
from .target import machine
from .vocabulary import CONSTANTS, LANES
from .words import definition_of

_ARGUMENTS = (types.int64, types.int64, BUFFERS)
"""start, stop and buffers of every kernel."""

_TYPING = TypingContext(OPERATORS)
_LOWERING = LoweringContext(_TYPING)
_FLAGS = Flags()
_FLAGS.error_model = "numpy"


class _Scopes:
    """The alias scopes of a module's buffers, as LLVM metadata."""

    def __init__(self, module: llvm.Module) -> None:
        self._module = module
        self._domain = module.add_metadata([llvm.MetaDataString(module, "buffers")])
        self._known: dict[int, tuple[Any, Any, Any]] = {}

    def metadata(self, scope: int) -> tuple[Any, Any]:
        """(the scope that an access is in, the scopes that it is not in); the latter are filled in by `close`."""
        if scope not in self._known:
            name = llvm.MetaDataString(self._module, f"scope {scope}")
            node = self._module.add_metadata([name, self._domain])
            others = self._module.add_metadata([llvm.MetaDataString(self._module, f"others {scope}")])
            self._known[scope] = node, self._module.add_metadata([node]), others
        return self._known[scope][1:]

    def close(self) -> None:
        """Completes the metadata once every access has been seen."""
        for scope, (_, _, others) in self._known.items():
            others.operands = tuple(node for other, (node, _, _) in self._known.items() if other != scope)


class Module(llvm.Module):
    """A module under construction; also what Numba calls a code library.

    Attributes:
        words: the LLVM functions of words that are called: name -> (word, dtype, operand dtypes, result dtype).
        scopes: the alias scopes.
    """

    def __init__(self) -> None:
        super().__init__("kernels")
        self.triple = machine().triple
        self.words: dict[str, tuple[str, str, tuple[str, ...], str]] = {}
        self.scopes = _Scopes(self)

    def create_ir_module(self, name: str) -> Module:
        """All functions share one module."""
        return self

    def add_ir_module(self, module: Any) -> None:
        """The text is taken later."""

    def text(self) -> tuple[str, list[Gate]]:
        """The module with the definitions of its words, and the gates that these use."""
        self.scopes.close()
        text, declarations, gates = [], {}, {}
        for name, (word, short, operands, result) in self.words.items():
            lanes = LANES if short.endswith(f"x{LANES}") else 0
            m = LlvmArithmetic(_scalar(short), lanes)
            shorts = tuple(_scalar(s) for s in operands)
            text.append(define(name, definition_of(word, _scalar(short)), shorts, _scalar(result), m))
            declarations.update(m.declarations)
            gates.update(m.gates)
        lines = [line for line in str(self).splitlines() if not line.startswith("declare") or not self._is_word(line)]
        present = "\n".join(lines)
        needed = (d for name, d in declarations.items() if f'@"{name}"' not in present)
        return "\n".join([present, *needed, *text]), list(gates.values())

    def _is_word(self, declaration: str) -> bool:
        return declaration.split('@"', 1)[1].split('"', 1)[0] in self.words


def _scalar(short: str) -> str:
    return short.removesuffix(f"x{LANES}")


def _lower(function: Any, symbol: str, module: Module) -> None:
    """Adds one kernel to the module."""
    identity = bytecode.FunctionIdentity.from_function(function)
    program = interpreter.Interpreter(identity).interpret(bytecode.ByteCode(func_id=identity))
    program.blocks, program.generator_info = canonicalize_cfg(program.blocks), None
    with targetconfig.ConfigStack().enter(_FLAGS.copy()):
        typed = type_inference_stage(_TYPING, _LOWERING, program, _ARGUMENTS, types.none)
        descriptor = funcdesc.PythonFunctionDescriptor.from_specialized_function(
            program, typed.typemap, typed.return_type, typed.calltypes, mangler=lambda name, *_, **__: symbol,
            inline=False, noalias=False, abi_tags=())
        Lower(_LOWERING, module, descriptor, program).lower()


_WORDS: dict[str, Any] = {**NAMESPACE, **CONSTANTS}


def _kernel(source: str, symbol: str) -> Any:
    """The one function of a source, with the words that it mentions as its globals."""
    defined: dict[str, Any] = {}
    exec(compile(source, f"<kernel {symbol}>", "exec"), defined)
    code = next(f for f in defined.values() if isinstance(f, python_types.FunctionType)).__code__
    return python_types.FunctionType(code, {name: _WORDS[name] for name in code.co_names if name in _WORDS}, symbol)


def lower_kernels(sources: Mapping[str, str]) -> tuple[str, list[Gate]]:
    """The LLVM text of kernels, symbol -> source, and the gates that it uses."""
    module = Module()
    for symbol, source in sources.items():
        _lower(_kernel(source, symbol), symbol, module)
    return module.text()
