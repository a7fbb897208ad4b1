# SPDX-License-Identifier: GPL-2.0
"""An entropy device (Virtio 1.4, 5.4) that answers as a test tells it to."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .backend import RING_PACKED, Backend
from .ring import Buffer

VERSION_1 = 1 << 32
EVERYTHING = 0xFFFF_FFF0

Answer = Callable[[memoryview], int | None]
"""Writes to a buffer and returns how many bytes the device says it wrote; None: it keeps the buffer."""


def honest(part: memoryview) -> int:
    """Fills the buffer."""
    part[:] = os.urandom(len(part))
    return len(part)


def boastful(part: memoryview) -> int:
    """Writes one cache line and says that it wrote almost 4 GiB."""
    part[:] = b"\xa5" * 64 + b"\x5a" * (len(part) - 64)
    return EVERYTHING


def stingy(part: memoryview) -> int:
    """Writes a whole buffer and owns up to 10 bytes of it."""
    part[:] = b"\xa5" * 10 + b"\x5a" * (len(part) - 10)
    return 10


def empty(part: memoryview) -> int:
    """Gives the buffer back as it is."""
    return 0


def mute(part: memoryview) -> None:
    """Does not answer."""


class EntropyDevice:
    """The device and what it saw; take `lock` to look at several things at one moment."""

    def __init__(self, answer: Answer = honest, *, packed: bool = False) -> None:
        """A device with the ring format and the answers asked for."""
        self.offered = VERSION_1 | (1 << RING_PACKED if packed else 0)
        self.answers = 0
        self.sizes: set[int] = set()
        """Sizes of the buffers, in bytes."""
        self.most = 0
        """The most buffers that it had at one time."""
        self.violations: list[str] = []
        self._answer = answer
        self._held: list[Buffer] = []
        self._backend = Backend(self, 1)
        self.lock = self._backend.lock
        self.options = [
            "-chardev", f"socket,id=entropy,path={self._backend.path}", "-device",
            "vhost-user-test-device-pci,chardev=entropy,virtio-id=4,num_vqs=1,config_size=8,vq_size=64" + (",packed=on" if packed else ""),
        ]
        """For a guest with shared memory."""
        self._backend.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._backend.close()

    def behave(self, answer: Answer) -> None:
        """Answers this way from now on, to what it has and what it gets."""
        with self.lock:
            self._answer = answer
            self._serve()

    # What the backend asks

    def read_config(self) -> bytes:
        return bytes(8)

    def write_config(self, offset: int, data: bytes) -> None:
        self.violation(f"{len(data)} bytes written to the configuration, which has none")

    def started(self, features: int) -> None:
        self._held.clear()

    def stopped(self) -> None:
        self._held.clear()

    def available(self, queue: int) -> None:
        while buffer := self._backend.pop(queue):
            if buffer.readable or len(buffer.writable) != 1:
                self.violation(f"{len(buffer.readable)} readable and {len(buffer.writable)} writable parts")
                continue
            self.sizes.add(len(buffer.writable[0]))
            self._held.append(buffer)
        self.most = max(self.most, len(self._held))
        self._serve()

    def violation(self, text: str) -> None:
        self.violations.append(text)

    def _serve(self) -> None:
        ring = self._backend.queues[0].ring
        while ring and self._held:
            length = self._answer(self._held[0].writable[0])
            if length is None:
                return
            buffer = self._held.pop(0)
            ring.use((buffer.id, length, buffer.slots))
            self.answers += 1
            self._backend.interrupt(0)
