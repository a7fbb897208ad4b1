# SPDX-License-Identifier: GPL-2.0
"""The guest's memory as the device sees it: what QEMU shares, found by guest-physical addresses and by QEMU's own."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

PAGE = 4096
_REGION = struct.Struct("<QQQQ")


class BadAddress(Exception):
    """An address that is not in the guest's memory."""


@dataclass(frozen=True)
class Region:
    """A piece of guest memory: first guest-physical address, size in bytes, address in QEMU, contents."""

    guest: int
    size: int
    qemu: int
    data: memoryview


class Memory:
    """All regions of one QEMU process; empty until it has sent its table."""

    def __init__(self, table: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """Maps what a SET_MEM_TABLE message describes; the descriptors `fds`, one for each region, stay the caller's."""
        self._regions: list[Region] = []
        for number, fd in enumerate(fds):
            guest, size, qemu, offset = _REGION.unpack_from(table, 8 + number * _REGION.size)
            end = min(offset + size, os.fstat(fd).st_size)
            self._regions.append(Region(guest, size, qemu, memoryview(mmap.mmap(fd, end - offset, offset=offset))))

    def guest(self, address: int, size: int) -> memoryview:
        """The bytes at a guest-physical address. Raises BadAddress."""
        for region in self._regions:
            if region.guest <= address and address + size <= region.guest + region.size:
                return region.data[address - region.guest:address - region.guest + size]
        raise BadAddress(f"{size} bytes at guest-physical {address:#x}")

    def qemu(self, address: int, size: int) -> memoryview:
        """The bytes at one of QEMU's own addresses, as the ring addresses are given. Raises BadAddress."""
        for region in self._regions:
            if region.qemu <= address and address + size <= region.qemu + region.size:
                return region.data[address - region.qemu:address - region.qemu + size]
        raise BadAddress(f"{size} bytes at {address:#x} of QEMU")

    def outside(self, pfns: set[int]) -> set[int]:
        """Those of the page numbers that are not in the guest's memory."""
        for region in self._regions:
            first = -(-region.guest // PAGE)
            last = (region.guest + region.size) // PAGE
            pfns = {pfn for pfn in pfns if not first <= pfn < last}
        return pfns
