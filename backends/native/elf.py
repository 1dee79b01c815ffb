"""ELF objects for x86-64, as LLVM writes them: sections, symbols, relocations."""
from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

_SYMBOL_TABLE, _RELOCATIONS = 2, 4
_ALLOCATED = 2


class Section(NamedTuple):
    """A section header, as the file has it."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    """A symbol; section 0 means that it is undefined."""

    name: str
    section: int
    value: int


class Relocation(NamedTuple):
    """A place in section `section` that depends on where `symbol` is."""

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True)
class Object:
    """A parsed object.

    Attributes:
        data: the file.
        sections: all sections, by number.
        symbols: all symbols, by number.
        relocations: those of sections that are loaded.
    """

    data: bytes
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    @property
    def undefined(self) -> set[str]:
        """Symbols that the object leaves to its loader."""
        return {s.name for s in self.symbols if s.section == 0 and s.name} - {"_GLOBAL_OFFSET_TABLE_"}

    @property
    def loaded(self) -> list[int]:
        """The numbers of the sections that belong into memory."""
        return [k for k, s in enumerate(self.sections) if s.flags & _ALLOCATED and s.size]

    def content(self, section: Section) -> bytes:
        """The bytes of a section."""
        return self.data[section.offset:section.offset + section.size]


def is_elf(data: bytes) -> bool:
    """Whether the bytes are an ELF object for x86-64."""
    return data[:5] == b"\x7fELF\x02" and data[18:20] == b"\x3e\x00"


def parse(data: bytes) -> Object:
    """Reads an object."""
    table_at, = struct.unpack_from("<Q", data, 0x28)
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = tuple(Section(*struct.unpack_from("<IIQQQQIIQQ", data, table_at + k * entry_size)) for k in range(count))
    o = Object(data, sections, (), ())
    symbols, relocations = [], []
    for section in sections:
        if section.kind == _SYMBOL_TABLE:
            strings = sections[section.link].offset
            for name, _, _, owner, value, _ in struct.iter_unpack("<IBBHQQ", o.content(section)):
                symbols.append(Symbol(data[strings + name:data.index(b"\0", strings + name)].decode(), owner, value))
        elif section.kind == _RELOCATIONS and sections[section.info].flags & _ALLOCATED:
            for offset, info, addend in struct.iter_unpack("<QQq", o.content(section)):
                relocations.append(Relocation(section.info, offset, info & 0xFFFFFFFF, info >> 32, addend))
    return Object(data, sections, tuple(symbols), tuple(relocations))
