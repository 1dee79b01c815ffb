"""Object code into memory on Linux and x86-64: `load_object(bytes) -> CodeHandle`, without LLVM.

A loader of our own, because LLVM's may put code and constants further apart than the small code model reaches, and
because a warm process then does not need LLVM. Other machines use `engine_loader.py`.
"""
from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Sequence
from typing import Any

from ...ir.errors import CompileError
from .elf import Object, parse

_WRITABLE, _NO_BITS = 1, 8
_ABSOLUTE64, _RELATIVE32, _TABLE32 = (1,), (2, 4), (9, 41, 42)
_STUB_SIZE, _SLOT = 16, 6
"""A stub is `jmp *0(%rip)`, six bytes, and the address that it jumps to, which is also a slot of an offset table."""


class CodeHandle:
    """Machine code in memory. The addresses stay valid until `free()`, or until the handle itself is garbage."""

    def __init__(self, objects: Sequence[Object]) -> None:
        layout = _Layout(objects)
        self._memory: mmap.mmap | None = mmap.mmap(-1, max(layout.size, 1))
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._symbols = layout.write(self._memory, base)
        _protect(base, len(self._memory))

    def address(self, symbol: str) -> int:
        """Where an exported function starts."""
        if self._memory is None:
            raise CompileError(f"{symbol}: the code has been freed")
        if symbol not in self._symbols:
            raise CompileError(f"the object code has no function {symbol}")
        return self._symbols[symbol]

    def free(self) -> None:
        """Gives the memory back; no thread may be inside the code, and none may enter it again."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None


class _Layout:
    """Where everything goes: the sections of all objects, then the stubs, in one block, so that all is within reach."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = objects
        self.places: list[dict[int, int]] = []
        self.stubs: dict[tuple[int, int], int] = {}
        self.size = 0
        for o in objects:
            self.places.append({k: self._reserve(o, k) for k in o.loaded})
        for number, o in enumerate(objects):
            for r in o.relocations:
                if (r.kind in _TABLE32 or not o.symbols[r.symbol].section) and (number, r.symbol) not in self.stubs:
                    self.size = -(-self.size // _STUB_SIZE) * _STUB_SIZE
                    self.stubs[number, r.symbol] = self.size
                    self.size += _STUB_SIZE

    def _reserve(self, o: Object, k: int) -> int:
        section = o.sections[k]
        if section.flags & _WRITABLE or section.kind == _NO_BITS:
            raise CompileError("the object code has data that it writes to")
        place = -(-self.size // section.alignment) * section.alignment
        self.size = place + section.size
        return place

    def write(self, memory: mmap.mmap, base: int) -> dict[str, int]:
        """Fills the memory at address `base`; the addresses of all defined symbols."""
        defined: dict[str, int] = {}
        for number, o in enumerate(self.objects):
            places = self.places[number]
            for k, at in places.items():
                memory[at:at + o.sections[k].size] = o.content(o.sections[k])
            addresses = [places[s.section] + s.value if s.section in places else 0 for s in o.symbols]
            named = zip(o.symbols, addresses, strict=True)
            defined.update({symbol.name: base + at for symbol, at in named if symbol.section in places})
            self._link(memory, base, number, addresses)
        return defined

    def _link(self, memory: mmap.mmap, base: int, number: int, addresses: list[int]) -> None:
        o = self.objects[number]
        for (owner, symbol), at in self.stubs.items():
            if owner == number:
                struct.pack_into("<HIQ", memory, at, 0x25FF, 0, self._target(o, symbol, base, addresses))
        for r in o.relocations:
            at = self.places[number][r.section] + r.offset
            stub = self.stubs.get((number, r.symbol), 0)
            if r.kind in _TABLE32:
                struct.pack_into("<i", memory, at, stub + _SLOT + r.addend - at)
            elif r.kind in _RELATIVE32:
                target = addresses[r.symbol] if o.symbols[r.symbol].section else stub
                struct.pack_into("<i", memory, at, target + r.addend - at)
            elif r.kind in _ABSOLUTE64:
                struct.pack_into("<Q", memory, at, self._target(o, r.symbol, base, addresses) + r.addend)
            else:
                raise CompileError(f"the object code has a relocation of kind {r.kind}, which weft does not know")

    @staticmethod
    def _target(o: Object, symbol: int, base: int, addresses: list[int]) -> int:
        """The address of a symbol, of this object or of the process."""
        known = o.symbols[symbol]
        return base + addresses[symbol] if known.section else _resolve(known.name)


def _resolve(name: str) -> int:
    """The address of a function of this process: the C library's."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is None:
        raise CompileError(f"this process has no function {name}")
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _protect(address: int, size: int) -> None:
    """Readable and executable, no longer writable."""
    library = ctypes.CDLL(None, use_errno=True)
    length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    if library.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_EXEC):
        raise CompileError(f"memory cannot be made executable (errno {ctypes.get_errno()})")


def load_objects(objects: Sequence[bytes]) -> CodeHandle:
    """Loads several objects, whose symbols must differ, into one handle."""
    return CodeHandle([parse(data) for data in objects])


def load_object(data: bytes) -> CodeHandle:
    """Loads one object."""
    return load_objects([data])


def call_kernel(address: int, start: int, stop: int, arrays: Sequence[Any]) -> int:
    """Calls a kernel from Python over contiguous NumPy arrays, which it writes in place; the status word.

    For tests and for a look at one kernel: programs are run by the native executor.
    """
    header = (ctypes.c_int64 * 8)()
    table = (ctypes.c_void_p * (1 + len(arrays)))(ctypes.addressof(header), *(a.ctypes.data for a in arrays))
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(address)
    function(start, stop, ctypes.addressof(table))
    return header[0]
