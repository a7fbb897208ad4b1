# SPDX-License-Identifier: GPL-2.0
"""The configuration space of a virtio device on PCI (Virtio 1.4, 4.1.4), and what can be wrong with it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

COMMON, NOTIFY, ISR, DEVICE, PCI, SHARED_MEMORY, VENDOR = 1, 2, 3, 4, 5, 8, 9
"""Types of structures."""

VENDOR_SPECIFIC, MSIX = 0x09, 0x11
"""Ids of capabilities."""

SIZE = 256
FIRST = 0x40
"""Where the list of capabilities begins."""

REVISION, SUBSYSTEM = 1, (0x1AF4, 0x1100)
"""Of a modern device, as QEMU has them."""

COMMAND, BUS_MASTER = 0x04, 1 << 2
"""The command register, and its bit that lets the device reach memory."""

_STATUS, _LIST_HEAD = 0x06, 0x34
_HAS_LIST = 1 << 4


@dataclass(frozen=True)
class Capability:
    """A virtio structure, as the driver finds it; `offset` and `length` may have 64 bits in shared memory regions."""

    type: int
    bar: int
    offset: int
    length: int
    id: int = 0
    extra: bytes = b""
    cap_len: int | None = None
    """What the capability says its own length is; None: the truth."""

    def bytes(self) -> bytes:
        """The capability without the id and the place of the next one, which are the list's."""
        low = 0xFFFFFFFF
        more = struct.pack("<II", self.offset >> 32, self.length >> 32) if self.type == SHARED_MEMORY else self.extra
        size = 16 + len(more) if self.cap_len is None else self.cap_len
        return struct.pack("<BBBBHII", size, self.type, self.bar, self.id, 0, self.offset & low, self.length & low) + more


def notify(bar: int, offset: int, length: int, multiplier: int) -> Capability:
    """The notification structure."""
    return Capability(NOTIFY, bar, offset, length, extra=struct.pack("<I", multiplier))


def msix(vectors: int, bar: int, table: int, pending: int) -> bytes:
    """An MSI-X capability, without id and next."""
    return struct.pack("<HII", vectors - 1, table | bar, pending | bar)


def header(device_id: int, class_code: int, bars: Sequence[int], revision: int, subsystem: tuple[int, int]) -> bytes:
    """The first 64 bytes. `bars` are the low bits of the base address registers, which say of which kind they are."""
    text = struct.pack("<HHHHBBBBBBBB", 0x1AF4, device_id, 0, 0, revision, 0, class_code >> 8 & 0xFF, class_code >> 16, 0, 0, 0, 0)
    text += b"".join(struct.pack("<I", bar) for bar in bars).ljust(24, b"\0")
    text += struct.pack("<IHHIB", 0, *subsystem, 0, 0).ljust(20, b"\0") + b"\0\1\0\0"  # Interrupt pin A.
    return text


class ConfigSpace:
    """256 bytes, of which the guest may write the command register and the control word of MSI-X."""

    def __init__(self, start: bytes) -> None:
        """Takes the header; there are no capabilities yet."""
        self._data = bytearray(start.ljust(SIZE, b"\0"))
        self._writable = {4, 5}

    def set_list(self, capabilities: Sequence[Capability | bytes], *, loop_to: int | None = None, at: Sequence[int] = ()) -> None:
        """Replaces all capabilities; those given as bytes are MSI-X ones.

        loop_to  the last one says that this one, by its number, comes next
        at       where the first ones are; the others are where they would be without them
        """
        self._data[FIRST:] = bytes(SIZE - FIRST)
        self._writable = {4, 5}
        places: list[int] = []
        end = FIRST
        for number, capability in enumerate(capabilities):
            body = capability if isinstance(capability, bytes) else capability.bytes()
            place = at[number] if number < len(at) else end
            places.append(place)
            text = bytes([MSIX if isinstance(capability, bytes) else VENDOR_SPECIFIC, 0]) + body
            self._data[place:place + len(text)] = text
            del self._data[SIZE:]  # What does not fit is not there.
            if number >= len(at):
                end += (len(text) + 3) // 4 * 4
            if isinstance(capability, bytes):
                self._writable |= {place + 2, place + 3}
        last = 0 if loop_to is None else places[loop_to]
        for place, following in zip(places, [*places[1:], last]):
            self._data[place + 1] = following
        self._data[_LIST_HEAD] = places[0] if places else 0
        self._data[_STATUS] = self._data[_STATUS] & ~_HAS_LIST | (_HAS_LIST if places else 0)

    @property
    def msix(self) -> bool:
        """Whether the guest has enabled MSI-X, whose capability is the first one."""
        return self._data[FIRST] == MSIX and bool(self._data[FIRST + 3] & 0x80)

    def read(self, offset: int, size: int) -> bytes:
        """What is there; zeroes beyond the end."""
        return bytes(self._data[offset:offset + size]).ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> bool:
        """Changes what the guest may change; whether it wrote to something else that is in the list of capabilities."""
        wrong = False
        for place, byte in enumerate(data, offset):
            if place in self._writable:
                self._data[place] = byte
            else:
                wrong |= place >= FIRST
        return wrong
