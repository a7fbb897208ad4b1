# SPDX-License-Identifier: GPL-2.0
"""The device's side of a virtqueue, split (Virtio 1.4, 2.7) and packed (2.8).

Both classes have the same methods. They write what they are told to: whether a completion is honest is up to the caller.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from .memory import Memory

# Descriptor flags.
NEXT, WRITE, INDIRECT = 1, 2, 4
# Packed ring: the two flags that say who owns a descriptor, compared with the wrap counter.
AVAIL, USED = 1 << 7, 1 << 15

_SPLIT_DESC = struct.Struct("<QIHH")  # addr, len, flags, next
_PACKED_DESC = struct.Struct("<QIHH")  # addr, len, id, flags
DESC_SIZE = 16


class RingError(Exception):
    """The driver broke a rule of the ring."""


@dataclass
class Buffer:
    """A buffer that the driver made available."""

    id: int
    slots: int
    """Descriptors it takes in the ring; an indirect table is one."""
    readable: list[memoryview] = field(default_factory=list)
    writable: list[memoryview] = field(default_factory=list)
    addresses: list[int] = field(default_factory=list)
    """Where the writable parts are in the guest's memory."""

    def data(self) -> bytes:
        """What the driver wrote for the device to read."""
        return b"".join(self.readable)

    def add(self, memory: Memory, address: int, length: int, flags: int) -> None:
        """Appends the part that a descriptor points to. Raises RingError, BadAddress."""
        if length == 0:
            raise RingError("a descriptor with length 0")
        part = memory.guest(address, length)
        if flags & WRITE:
            self.writable.append(part)
            self.addresses.append(address)
        elif self.writable:
            raise RingError("a device-readable descriptor behind a device-writable one")
        else:
            self.readable.append(part)


class SplitRing:
    """A split virtqueue."""

    def __init__(self, memory: Memory, size: int, desc: int, driver: int, device: int, base: int) -> None:
        """Takes the addresses, in QEMU, of descriptor table, available ring and used ring, and the index to begin with.

        Raises BadAddress.
        """
        if desc % 16 or driver % 2 or device % 4:
            raise RingError("a misaligned ring")
        self.size = size
        self._memory = memory
        self._desc = memory.qemu(desc, DESC_SIZE * size)
        self._avail = memory.qemu(driver, 6 + 2 * size).cast("H")  # flags, idx, ring, used_event
        used = memory.qemu(device, 6 + 8 * size)
        self._used = used.cast("H")  # flags, idx, …, avail_event
        self._elements = used[4:4 + 8 * size].cast("I")  # id, len of each
        self._last_avail = base
        self._used_idx = base

    def pop(self) -> Buffer | None:
        """Takes the next available buffer, if there is one. Raises RingError, BadAddress."""
        pending = (self._avail[1] - self._last_avail) & 0xFFFF
        if pending == 0:
            return None
        if pending > self.size:
            raise RingError(f"available idx is {pending} ahead")
        head = self._avail[2 + self._last_avail % self.size]
        self._last_avail = (self._last_avail + 1) & 0xFFFF
        self._used[2 + 4 * self.size] = self._last_avail  # avail_event: notify about every buffer.
        return self._walk(head)

    def use(self, *elements: tuple[int, int, int]) -> None:
        """Writes used elements (id, length, slots) and then the index that exposes all of them."""
        for number, length, _ in elements:
            slot = self._used_idx % self.size
            self._elements[2 * slot], self._elements[2 * slot + 1] = number, length
            self._used_idx = (self._used_idx + 1) & 0xFFFF
        self._used[1] = self._used_idx

    def jump(self, count: int) -> None:
        """Exposes `count` used elements without writing them."""
        self._used_idx = (self._used_idx + count) & 0xFFFF
        self._used[1] = self._used_idx

    def base(self) -> int:
        """Where to go on, as GET_VRING_BASE wants it."""
        return self._last_avail

    def _walk(self, head: int) -> Buffer:
        buffer = Buffer(head, 0)
        table, limit, index = self._desc, self.size, head
        for _ in range(limit):
            if index * DESC_SIZE >= len(table):
                raise RingError(f"descriptor {index} of {len(table) // DESC_SIZE}")
            address, length, flags, following = _SPLIT_DESC.unpack_from(table, index * DESC_SIZE)
            buffer.slots += table is self._desc
            if flags & INDIRECT:
                if table is not self._desc or flags & NEXT or length % DESC_SIZE:
                    raise RingError("an indirect descriptor that is nested, chained or of an odd length")
                table, index = self._memory.guest(address, length), 0
                continue
            buffer.add(self._memory, address, length, flags)
            if not flags & NEXT:
                return buffer
            index = following
        raise RingError("a chain longer than the ring")


class PackedRing:
    """A packed virtqueue."""

    def __init__(self, memory: Memory, size: int, desc: int, driver: int, device: int, base: int) -> None:
        """Takes the addresses, in QEMU, of descriptor ring, driver and device event suppression, and the place to begin with:
        bits 0-14 the next available descriptor, bit 15 its wrap counter, bits 16-31 the same for the used ones.

        Raises BadAddress.
        """
        if desc % 16 or driver % 4 or device % 4:
            raise RingError("a misaligned ring")
        self.size = size
        self._memory = memory
        self._ring = memory.qemu(desc, DESC_SIZE * size)
        self._flags = self._ring.cast("H")[7::8]
        self._next_avail, self._avail_wrap = base & 0x7FFF, base >> 15 & 1
        self._next_used, self._used_wrap = base >> 16 & 0x7FFF, base >> 31 & 1

    def pop(self) -> Buffer | None:
        """Takes the next available buffer, if there is one. Raises RingError, BadAddress."""
        if not self._is_available(self._next_avail, self._avail_wrap):
            return None
        buffer = Buffer(0, 0)
        while True:
            address, length, buffer.id, flags = _PACKED_DESC.unpack_from(self._ring, self._next_avail * DESC_SIZE)
            self._next_avail, self._avail_wrap = self._advance(self._next_avail, self._avail_wrap, 1)
            buffer.slots += 1
            if buffer.slots > self.size:
                raise RingError("a chain longer than the ring")
            if flags & INDIRECT:
                if flags & NEXT or length % DESC_SIZE:
                    raise RingError("an indirect descriptor that is chained or of an odd length")
                self._read_table(buffer, self._memory.guest(address, length))
            else:
                buffer.add(self._memory, address, length, flags)
            if not flags & NEXT:
                return buffer

    def use(self, *elements: tuple[int, int, int]) -> None:
        """Writes used elements (id, length, slots); the driver sees them all at once, as the first one becomes valid last."""
        flags = []
        for number, length, slots in elements:
            struct.pack_into("<IH", self._ring, self._next_used * DESC_SIZE + 8, length, number)
            flags.append((self._next_used, (AVAIL | USED) * self._used_wrap))
            self._next_used, self._used_wrap = self._advance(self._next_used, self._used_wrap, slots)
        for slot, value in reversed(flags):
            self._flags[slot] = value

    def jump(self, count: int) -> None:
        """Marks the next `count` descriptors as used without writing anything else to them."""
        for _ in range(count):
            self._flags[self._next_used] = (AVAIL | USED) * self._used_wrap
            self._next_used, self._used_wrap = self._advance(self._next_used, self._used_wrap, 1)

    def base(self) -> int:
        """Where to go on, as GET_VRING_BASE wants it."""
        return self._next_avail | self._avail_wrap << 15 | self._next_used << 16 | self._used_wrap << 31

    def _is_available(self, slot: int, wrap: int) -> bool:
        flags = self._flags[slot]
        return bool(flags & AVAIL) == bool(wrap) != bool(flags & USED)

    def _advance(self, slot: int, wrap: int, count: int) -> tuple[int, int]:
        slot += count
        return (slot - self.size, wrap ^ 1) if slot >= self.size else (slot, wrap)

    def _read_table(self, buffer: Buffer, table: memoryview) -> None:
        for address, length, _, flags in _PACKED_DESC.iter_unpack(table):
            buffer.add(self._memory, address, length, flags)


Ring = SplitRing | PackedRing
RingMaker = Callable[[Memory, int, int, int, int, int], Ring]
