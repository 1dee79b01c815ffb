"""The words of the low-level language (`lowlevel.py`) as plain Python on this process's memory: for tests, and for
Python's side.

Addresses are integers. None of it is atomic here: run plainly, the language is for one thread.
"""

from __future__ import annotations

import ctypes
from typing import Any

_KEPT: list[Any] = []


def load(address: int, index: int) -> int:
    """The 8-byte word `index` from `address`."""
    return ctypes.c_int64.from_address(address + 8 * index).value


def store(address: int, index: int, value: int) -> None:
    """Sets the 8-byte word `index` from `address`."""
    ctypes.c_int64.from_address(address + 8 * index).value = value


def load8(address: int) -> int:
    """The byte at `address`."""
    return ctypes.c_uint8.from_address(address).value


def load16(address: int) -> int:
    """The 2-byte word at `address`."""
    return ctypes.c_uint16.from_address(address).value


def load32(address: int) -> int:
    """The 4-byte word at `address`."""
    return ctypes.c_uint32.from_address(address).value


def store8(address: int, value: int) -> None:
    """Sets the byte at `address`."""
    ctypes.c_uint8.from_address(address).value = value


def store16(address: int, value: int) -> None:
    """Sets the 2-byte word at `address`."""
    ctypes.c_uint16.from_address(address).value = value


def store32(address: int, value: int) -> None:
    """Sets the 4-byte word at `address`."""
    ctypes.c_uint32.from_address(address).value = value


def atomic_load(address: int, index: int) -> int:
    """`load`, sequentially consistent."""
    return load(address, index)


def atomic_store(address: int, index: int, value: int) -> None:
    """`store`, sequentially consistent."""
    store(address, index, value)


def atomic_add(address: int, index: int, value: int) -> int:
    """Adds to a word in one step; the old content."""
    old = load(address, index)
    store(address, index, old + value)
    return old


def exchange_if(address: int, index: int, expected: int, value: int) -> int:
    """Sets a word in one step if it holds `expected`; whether it did."""
    if load(address, index) != expected:
        return 0
    store(address, index, value)
    return 1


def call(address: int, *arguments: int) -> int:
    """Calls machine code with integer arguments; its result (whatever a void function leaves)."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(arguments))(address)(*arguments)


def pause() -> None:
    """Tells the processor that this is a waiting loop."""


def local(words: int) -> int:
    """The address of `words` words on the stack (here: kept for ever)."""
    memory = (ctypes.c_int64 * words)()
    _KEPT.append(memory)
    return ctypes.addressof(memory)
