# SPDX-License-Identifier: GPL-2.0
"""A disk (Virtio 1.4, 5.2) in memory."""

from __future__ import annotations

import struct
from enum import IntEnum

from device.ring import Buffer

SECTOR = 512
OK, UNSUPPORTED = 0, 2
FLUSH = 1 << 9


class Request(IntEnum):
    """What a buffer asks for."""

    IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8


class Disk:
    """A disk of some MiB, with one queue."""

    device_id, class_code, queues, admin_queues = 2, 0x010000, 1, 0

    def __init__(self, mib: int, features: int = 0) -> None:
        self.features = FLUSH | features
        self.data = bytearray(mib << 20)

    def config(self) -> bytes:
        """The capacity; nothing else."""
        return struct.pack("<Q", len(self.data) // SECTOR)

    def reset(self) -> None:
        """Nothing to do."""

    def process(self, queue: int, buffer: Buffer) -> int:
        """Does a request: its header is the first part, its status the last byte."""
        request, _, sector = struct.unpack_from("<IIQ", buffer.readable[0])
        parts = [*buffer.writable[:-1], buffer.writable[-1][:-1]]
        place, status, written = sector * SECTOR, OK, 0
        match request:
            case Request.IN:
                for part in parts:
                    part[:] = self.data[place:place + len(part)]
                    place, written = place + len(part), written + len(part)
            case Request.OUT:
                data = b"".join([buffer.readable[0][16:], *buffer.readable[1:]])
                self.data[place:place + len(data)] = data
            case Request.FLUSH:
                pass
            case Request.GET_ID:
                parts[0][:] = b"model".ljust(len(parts[0]), b"\0")
                written = len(parts[0])
            case _:
                status = UNSUPPORTED
        buffer.writable[-1][-1] = status
        return written + 1
