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

    def _access(self, buffer: Buffer) -> str:
        """The alignment of an access, and its scopes."""
        k = self._scopes.get(buffer.name)
        scopes = "" if k is None else f", !alias.scope !{_own(k)}, !noalias !{_others(k)}"
        return f"align {buffer.dtype.itemsize}{scopes}"

    def load(self, buffer: Buffer, index: str, lanes: int) -> str:
        """The element at an index, or the vector of it and those that follow."""
        f, short = self._f, buffer.dtype.short
        stored = stored_type(short, lanes)
        value = f.let(f"load {stored}, ptr {self._address(buffer, index)}, {self._access(buffer)}")
        return f.let(f"trunc {stored} {value} to {type_of(short, lanes)}") if short == "bool" else value

    def store(self, buffer: Buffer, index: str, value: str, lanes: int) -> None:
        """Writes an element, or a vector of them."""
        f, short = self._f, buffer.dtype.short
        stored = stored_type(short, lanes)
        if short == "bool":
            value = f.let(f"zext {type_of(short, lanes)} {value} to {stored}")
        f.say(f"store {stored} {value}, ptr {self._address(buffer, index)}, {self._access(buffer)}")

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
