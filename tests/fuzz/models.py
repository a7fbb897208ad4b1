# SPDX-License-Identifier: GPL-2.0
"""What the fuzzer's devices are good for, as far as a driver can tell: a balloon, an entropy source, a network interface."""

from __future__ import annotations

import struct

from device.balloon import FREE_PAGE_HINT, REPORTING, STATS_VQ
from device.ring import Buffer
from pci.net import Net as Interface

TARGET = 256
"""Pages that the balloon's device wants at first."""


class Balloon:
    """A memory balloon that takes all pages at once."""

    device_id, class_code, admin_queues = 5, 0xFF0000, 0

    def __init__(self) -> None:
        self.features = 0
        self.reset()

    @property
    def queues(self) -> int:
        """Those of its features leave no gaps."""
        return 2 + sum(bool(self.features & bit) for bit in (STATS_VQ, FREE_PAGE_HINT, REPORTING))

    def config(self) -> bytes:
        """Target, actual size, command for hints, poison value."""
        return struct.pack("<IIII", self.target, self.actual, self.command, self.poison)

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote `actual` or the poison value."""
        value = int.from_bytes(data, "little")
        if offset == 4:
            self.actual = value
        elif offset == 12:
            self.poison = value

    def reset(self) -> None:
        """The size stays with the pages, of which this device knows nothing."""
        self.target, self.actual, self.command, self.poison = TARGET, 0, 0, 0

    def process(self, queue: int, buffer: Buffer) -> int | None:
        """Answers at once, but keeps the buffer for statistics until it wants some."""
        if queue == 2 and self.features & STATS_VQ:
            return None
        return sum(len(part) for part in buffer.writable)


class Entropy:
    """A source of entropy that is none."""

    device_id, class_code, queues, admin_queues = 4, 0xFF0000, 1, 0

    def __init__(self) -> None:
        self.features = 0

    def config(self) -> bytes:
        """There is none."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """Of no use."""

    def reset(self) -> None:
        """Nothing to do."""

    def process(self, queue: int, buffer: Buffer) -> int:
        """Fills the buffer."""
        for part in buffer.writable:
            part[:] = b"\x5a" * len(part)
        return sum(len(part) for part in buffer.writable)


class Net(Interface):
    """A network interface whose features the fuzzer chooses."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Of no use."""


MODELS = {"balloon": Balloon, "entropy": Entropy, "net": Net}
SPECIFIC = {"balloon": (0, 0x3F), "entropy": (0, 0), "net": (1 << 5, 0)}
"""The features of its own that each has always, and those that it has if the plan says so."""
