# SPDX-License-Identifier: GPL-2.0
"""The optional queues of a balloon device: statistics, free page hints, reports of free pages (Virtio 1.4, 5.5.6.3, 5.5.6.5, 5.5.6.7).

A service takes the buffers of its queue, records what is in them, checks the rules, and returns them when its `answers` is set.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .ring import Buffer

if TYPE_CHECKING:
    from .balloon import BalloonDevice

STOP, DONE = 0, 1
"""Commands; ids begin with 2."""

_STATISTIC = struct.Struct("<HQ")


class Service:
    """One queue and what it is for."""

    name = ""
    feature = 0
    """The bit without which the queue does not exist."""

    def __init__(self, device: BalloonDevice) -> None:
        self.device = device
        self.answers = True
        """Whether buffers are returned at once."""
        self.outstanding: list[Buffer] = []
        """Buffers that were not returned yet."""
        self.interrupted = 0
        """Buffers that a reset kept from being returned."""

    @property
    def queue(self) -> int:
        """Number of the queue on the device."""
        return self.device.queue_names.index(self.name)

    def available(self, buffer: Buffer) -> None:
        """The driver made a buffer available."""
        self.outstanding.append(buffer)
        self.read(buffer)
        if self.answers and buffer in self.outstanding:
            self.give_back(buffer)

    def read(self, buffer: Buffer) -> None:
        """Looks at a new buffer."""

    def give_back(self, buffer: Buffer) -> None:
        """Returns a buffer to the driver."""
        with self.device.lock:
            self.outstanding.remove(buffer)
            length = sum(len(part) for part in buffer.writable)
            self.device.use(self.queue, (buffer.id, length, buffer.slots))

    def give_all_back(self) -> None:
        """Returns all buffers."""
        with self.device.lock:
            for buffer in list(self.outstanding):
                self.give_back(buffer)

    def be_honest(self) -> None:
        """Answers everything, from now on and what is outstanding."""
        self.answers = True
        self.give_all_back()

    def clear(self) -> None:
        """Forgets what was seen."""
        self.interrupted = 0

    def stopped(self) -> None:
        """The device was reset."""
        self.interrupted += len(self.outstanding)
        self.outstanding.clear()

    def violation(self, text: str) -> None:
        """The driver broke a rule."""
        self.device.violation(f"{self.name}: {text}")


class Statistics(Service):
    """Keeps the buffer, unless `answers` is set: then it asks for fresh figures all the time."""

    name = "stats"
    feature = 1

    def __init__(self, device: BalloonDevice) -> None:
        super().__init__(device)
        self.answers = False
        self.seen: list[dict[int, int]] = []
        """The statistics of each buffer: tag -> value."""

    def be_honest(self) -> None:
        self.answers = False

    def clear(self) -> None:
        super().clear()
        self.seen.clear()

    def read(self, buffer: Buffer) -> None:
        data = buffer.data()
        if len(data) % _STATISTIC.size or buffer.writable:
            self.violation(f"a buffer of {len(data)} bytes")
            return
        pairs = list(_STATISTIC.iter_unpack(data))
        stats = dict(pairs)
        if len(self.outstanding) > 1:
            self.violation(f"{len(self.outstanding)} buffers at a time")
        if len(stats) != len(pairs) or not stats:
            self.violation("a tag twice, or none at all")
        if self.seen and list(stats) != list(self.seen[-1]):
            self.violation(f"tags {list(stats)} after {list(self.seen[-1])}")
        self.seen.append(stats)

    def ask(self) -> None:
        """Asks for fresh figures."""
        self.give_all_back()


class Hints(Service):
    """Records rounds; the command is in the configuration space."""

    name = "hints"
    feature = 3

    def __init__(self, device: BalloonDevice) -> None:
        super().__init__(device)
        self.command_id = STOP
        self.rounds: list[tuple[int, list[tuple[int, int]]]] = []
        """The id of each round, and the (address, size) of its blocks."""
        self.open = False
        """The last round was not ended yet."""

    def command(self, number: int, notify: bool = True) -> None:
        """Commands something else."""
        with self.device.lock:
            self.command_id = number
        if notify:
            self.device.notify_config()

    def clear(self) -> None:
        super().clear()
        self.rounds.clear()

    def stopped(self) -> None:
        super().stopped()
        self.open = False
        self.command_id = STOP

    def read(self, buffer: Buffer) -> None:
        data = buffer.data()
        if buffer.writable:
            if data:
                self.violation("a buffer with both parts")
            if not self.open:
                self.violation("a block outside of a round")
            if self.rounds:
                self.rounds[-1][1].extend(zip(buffer.addresses, map(len, buffer.writable), strict=True))
        elif len(data) != 4:
            self.violation(f"an id of {len(data)} bytes")
        else:
            self._read_id(struct.unpack("<I", data)[0])

    def _read_id(self, number: int) -> None:
        if number == STOP:
            if not self.open:
                self.violation("STOP without a round")
            self.open = False
        else:
            if self.open:
                self.violation(f"id {number} inside of a round")
            if number == DONE or self.rounds and self.rounds[-1][0] == number:
                self.violation(f"id {number}, again or not allowed")
            self.open = True
            self.rounds.append((number, []))


class Reports(Service):
    """Records what was reported; scribbles on it before it answers."""

    name = "reports"
    feature = 5

    def __init__(self, device: BalloonDevice) -> None:
        super().__init__(device)
        self.blocks: list[tuple[int, int]] = []
        """Address and size of each reported block."""
        self.wrong_fill = 0
        """Blocks whose first page did not hold poison_val."""

    def clear(self) -> None:
        super().clear()
        self.blocks.clear()
        self.wrong_fill = 0

    def read(self, buffer: Buffer) -> None:
        if buffer.readable or not buffer.writable:
            self.violation("a report without writable parts, or with others")
        self.blocks.extend(zip(buffer.addresses, map(len, buffer.writable), strict=True))
        for part in buffer.writable:
            if self.device.poison_val is None:
                part[:64] = b"\xa5reports" * 8
            elif part[:4096] != struct.pack("<I", self.device.poison_val) * 1024:
                self.wrong_fill += 1
