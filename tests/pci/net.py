# SPDX-License-Identifier: GPL-2.0
"""A network interface (Virtio 1.4, 5.1) on a network where nobody is."""

from __future__ import annotations

from device.ring import Buffer

RECEIVE = 0
MAC = 1 << 5


class Net:
    """An interface with a queue for each direction."""

    device_id, class_code, queues, admin_queues = 1, 0x020000, 2, 0

    def __init__(self, features: int = 0) -> None:
        self.features = MAC | features
        self.sent = 0

    def config(self) -> bytes:
        """Its address."""
        return bytes.fromhex("525400000001")

    def reset(self) -> None:
        """Nothing to do."""

    def process(self, queue: int, buffer: Buffer) -> int | None:
        """Keeps buffers to receive into, and sends the others to nowhere."""
        if queue == RECEIVE:
            return None
        self.sent += 1
        return 0
