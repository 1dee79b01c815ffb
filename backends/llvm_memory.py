"""The buffers of a kernel in LLVM text: their addresses, loads and stores, and the scopes that say which accesses
never meet."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.loops import Buffer, Kernel, Role
from .llvm_function import FunctionText, stored_type, type_of

_DOMAIN = 1
"""The number of the metadata that all scopes belong to; 0 is `llvm_function.LIKELY`'s."""


class Memory:
    """Loads and stores of one kernel.

    Buffers are taken to be disjoint, unless one is `same_as` another: every access says which of them it is in, so that
    LLVM need not ask at run time. Arrays on the stack need no such words.
    """

    def __init__(self, f: FunctionText, kernel: Kernel) -> None:
        self._f = f
        self._addresses: dict[str, str] = {}
        self._scopes: dict[str, int] = {}
        for k, buffer in enumerate(kernel.arguments, 1):
            if not buffer.same_as:
                slot = f.let(f"getelementptr inbounds ptr, ptr %buffers, i64 {k}")
                self._addresses[buffer.name] = f.let(f"load ptr, ptr {slot}")
                self._scopes[buffer.name] = len(self._scopes)
        for buffer in kernel.buffers:
            if buffer.same_as:
                self._addresses[buffer.name] = self._addresses[buffer.same_as]
                self._scopes[buffer.name] = self._scopes[buffer.same_as]
            elif buffer.role is Role.LOCAL:
                self._addresses[buffer.name] = f.allocate(f"[{buffer.size} x {stored_type(buffer.dtype.short)}]", 64)

    def _address(self, buffer: Buffer, index: str) -> str:
        element = stored_type(buffer.dtype.short)
        return self._f.let(f"getelementptr inbounds {element}, ptr {self._addresses[buffer.name]}, i64 {index}")

    def _scope_words(self, buffer: Buffer) -> str:
        """The scopes of an access."""
        k = self._scopes.get(buffer.name)
        return "" if k is None else f", !alias.scope !{_own(k)}, !noalias !{_others(k)}"

    def load(self, buffer: Buffer, index: str, lanes: int, mask: str | None = None) -> str:
        """The element at an index, or the vector of it and those that follow, 0 where the mask is false."""
        f, short = self._f, buffer.dtype.short
        stored, address = stored_type(short, lanes), self._address(buffer, index)
        if mask is None:
            value = f.let(f"load {stored}, ptr {address}, align {buffer.dtype.itemsize}{self._scope_words(buffer)}")
        else:
            name = self._masked("load", stored, f"{stored} @{{}}(ptr, <{lanes} x i1>, {stored})")
            operands = f"{self._aligned(buffer, address)}, <{lanes} x i1> {mask}, {stored} zeroinitializer"
            value = f.let(f"call {stored} @{name}({operands}){self._scope_words(buffer)}")
        return f.let(f"trunc {stored} {value} to {type_of(short, lanes)}") if short == "bool" else value

    def store(self, buffer: Buffer, index: str, value: str, lanes: int, mask: str | None = None) -> None:
        """Writes an element, or a vector of them, where the mask is true."""
        f, short = self._f, buffer.dtype.short
        stored = stored_type(short, lanes)
        if short == "bool":
            value = f.let(f"zext {type_of(short, lanes)} {value} to {stored}")
        address = self._address(buffer, index)
        if mask is None:
            f.say(f"store {stored} {value}, ptr {address}, align {buffer.dtype.itemsize}{self._scope_words(buffer)}")
        else:
            name = self._masked("store", stored, f"void @{{}}({stored}, ptr, <{lanes} x i1>)")
            operands = f"{stored} {value}, {self._aligned(buffer, address)}, <{lanes} x i1> {mask}"
            f.say(f"call void @{name}({operands}){self._scope_words(buffer)}")

    def _masked(self, name: str, stored: str, signature: str) -> str:
        """Declares LLVM's masked load or store of a type; its name."""
        count, element = stored[1:-1].split(" x ")
        suffix = {"float": "f32", "double": "f64"}.get(element, element)
        full = f"llvm.masked.{name}.v{count}{suffix}.p0"
        self._f.declarations[full] = f"declare {signature.format(full)}"
        return full

    @staticmethod
    def _aligned(buffer: Buffer, address: str) -> str:
        return f"ptr align {buffer.dtype.itemsize} {address}"

    def metadata(self) -> Sequence[str]:
        """The definitions of the scopes."""
        numbers = sorted(set(self._scopes.values()))
        lines = [f"!{_DOMAIN} = distinct !{{!{_DOMAIN}}}"] if numbers else []
        for k in numbers:
            others = ", ".join(f"!{_scope(other)}" for other in numbers if other != k)
            lines += [
                f"!{_scope(k)} = distinct !{{!{_scope(k)}, !{_DOMAIN}}}",
                f"!{_own(k)} = !{{!{_scope(k)}}}",
                f"!{_others(k)} = !{{{others}}}",
            ]
        return lines


def _scope(k: int) -> int:
    return _DOMAIN + 1 + 3 * k


def _own(k: int) -> int:
    return _scope(k) + 1


def _others(k: int) -> int:
    return _scope(k) + 2
