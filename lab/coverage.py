# SPDX-License-Identifier: GPL-2.0
"""Builds our modules with a counter for each of their branches, for `make fuzz`.

LLVM's SanitizerCoverage puts the counters into a section of the module, one byte for each, and where each of them counts into another.
The kernel knows nothing of it: who can read the guest's memory reads the counters. KCOV, which is the kernel's own way to use this
pass, sees only the task that asks for it: no interrupts, no threads of the kernel, and those are where most of our code runs.

LLVM also makes a constructor that tells a run-time library where the counters are. There is no such library in the kernel, and
relocations in the constructor are of a kind that the kernel does not know, so it is made to return at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PASS = (
    "-Cdebuginfo=1", "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters", "-Cllvm-args=-sanitizer-coverage-pc-table",
)
VARIABLES = ("KBUILD_MODPOST_WARN=1", f"RUSTFLAGS_MODULE={' '.join(_PASS)}")
"""Of the kernel's Makefile, on x86-64. The constructor's symbols are in no other module: without the first one modpost stops."""

CONSTRUCTOR, LIBRARY = "sancov.module_ctor", "__sanitizer_cov_"
RETURN = 0xC3

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_SYMTAB, _RELA, _WEAK = 2, 4, 2


def finish(out: Path) -> None:
    """Makes modules of a folder loadable that were built with `VARIABLES`. It can be done again."""
    for module in out.rglob("*.ko"):
        data = bytearray(module.read_bytes())
        quiet_constructor(data)
        module.write_bytes(data)


@dataclass(frozen=True)
class Section:
    """A section of an object file; `link` and `info` are numbers of other ones."""

    name: str
    type: int
    offset: int
    size: int
    link: int
    info: int


def sections(data: bytes | bytearray) -> list[Section]:
    """All sections of a 64-bit object file, in the order of their numbers."""
    _, _, _, _, _, at, _, _, _, _, size, count, names = _HEADER.unpack_from(data)
    rows = [_SECTION.unpack_from(data, at + size * number) for number in range(count)]
    strings = rows[names][4]
    return [Section(_text(data, strings + row[0]), row[1], row[4], row[5], row[6], row[7]) for row in rows]


def relocations(data: bytes | bytearray, section: Section) -> Iterator[tuple[int, int, int, int]]:
    """Of a section with relocations: where each is in the file, the place that it changes, its symbol's number, the addend."""
    for at in range(section.offset, section.offset + section.size, _RELOCATION.size):
        place, what, addend = _RELOCATION.unpack_from(data, at)
        yield at, place, what >> 32, addend


def symbol(data: bytes | bytearray, known: list[Section], number: int) -> tuple[int, int]:
    """The number of the section that a symbol is in, and where it is there."""
    table = next(section for section in known if section.type == _SYMTAB)
    _, _, _, section, value, _ = _SYMBOL.unpack_from(data, table.offset + number * _SYMBOL.size)
    return section, value


def quiet_constructor(data: bytearray) -> None:
    """Makes the constructor of the counters return at once."""
    known = sections(data)
    table = next(section for section in known if section.type == _SYMTAB)
    for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name, info, _, number, value, size = _SYMBOL.unpack_from(data, at)
        text = _text(data, known[table.link].offset + name)
        if text.startswith(LIBRARY) and number == 0:
            data[at + 4] = _WEAK << 4 | info & 15  # The kernel then does without it.
        elif text.startswith(CONSTRUCTOR) and number:
            data[known[number].offset + value] = RETURN
            for section in known:
                if section.type == _RELA and section.info == number:
                    for entry, place, _, _ in relocations(data, section):
                        if value <= place < value + size:
                            _RELOCATION.pack_into(data, entry, place, 0, 0)


def _text(data: bytes | bytearray, at: int) -> str:
    return bytes(data[at:data.index(0, at)]).decode()
