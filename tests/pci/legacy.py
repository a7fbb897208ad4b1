# SPDX-License-Identifier: GPL-2.0
"""A legacy virtio device on PCI (Virtio 1.4, 4.1.4.10): all its registers are I/O ports of BAR 0, its queues ranges of pages."""

from __future__ import annotations

from device.memory import BadAddress
from device.ring import RingError, SplitRing

from . import config
from .config import Capability
from .virtio import NO_VECTOR, Field, Model, PciDevice, Queue

PAGE = 4096
BAR_SIZE = 64
NOTIFY_AT, ISR_AT, VECTORS_AT, CONFIG_AT = 16, 19, 20, 24
"""The configuration is where the vectors are while MSI-X is not enabled."""

IO_BAR, MEMORY_BAR = 1, 0


class LegacyDevice(PciDevice):
    """The device on its bus; QEMU knows of its MSI-X, if it has that."""

    fields = {
        "device_feature": Field(0, 4, False), "driver_feature": Field(4, 4), "queue_pfn": Field(8, 4), "queue_size": Field(12, 2, False),
        "queue_select": Field(14, 2), "device_status": Field(18, 1), "config_msix_vector": Field(20, 2), "queue_msix_vector": Field(22, 2),
    }

    def __init__(self, model: Model, *, msix: bool, queue_size: int = 16, bar_size: int = BAR_SIZE, revision: int = 0) -> None:
        """A device whose BAR and revision may be wrong."""
        super().__init__(model, msix=msix, queue_size=queue_size, bar_size=bar_size, revision=revision, subsystem=(0x1AF4, model.device_id))

    def header(self) -> bytes:
        """That of the transitional PCI id, with the type of the device as subsystem."""
        bars = (IO_BAR, MEMORY_BAR) if self.vectors else (IO_BAR,)
        return config.header(self.model.device_id + 0xFFF, self.model.class_code, bars, self.revision, self.subsystem)

    def capabilities(self, **changes: Capability | None) -> list[Capability]:
        """None: a legacy device has no virtio structures."""
        return []

    @property
    def device_feature(self) -> int:
        return (self.model.features | self.wrong.offers) & 0xFFFFFFFF

    @property
    def _config_at(self) -> int:
        return CONFIG_AT if self.space.msix else VECTORS_AT

    def _read_bar(self, offset: int, size: int) -> bytes:
        if offset == ISR_AT and size == 1:  # Also with MSI-X: C makes sure of its writes so.
            return bytes([self._read_isr()])
        if offset >= self._config_at:
            return self._read_config(offset - self._config_at, size)
        return self._read_common(offset, size)

    def _write_bar(self, offset: int, data: bytes) -> None:
        if offset == NOTIFY_AT:
            self._notified(offset, data)
        elif offset >= self._config_at:
            self._violation(f"{len(data)} bytes written to the configuration")
        else:
            self._write_common(offset, data)

    def _notified(self, offset: int, data: bytes) -> None:
        number = int.from_bytes(data, "little")
        if len(data) != 2 or number >= len(self.queues):
            self._violation(f"a notification of {len(data)} bytes, {number:#x}")
        else:
            self.look(number)  # Some drivers do not wait for DRIVER_OK.

    def _set(self, owner: PciDevice | Queue, name: str, value: int) -> None:
        match name:
            case "queue_pfn" if isinstance(owner, Queue):
                owner.ring = self._ring_at(owner, value * PAGE) if value else None
                owner.queue_pfn = value
            case "queue_msix_vector" | "config_msix_vector" if value != NO_VECTOR and value >= self.vectors:
                self._violation(f"vector {value}")
            case _:
                setattr(owner, name, value)

    def _ring_at(self, queue: Queue, address: int) -> SplitRing | None:
        """The queue that begins at this address; its used ring begins with a page."""
        driver = address + 16 * queue.queue_size
        device = (driver + 6 + 2 * queue.queue_size + PAGE - 1) // PAGE * PAGE
        if queue.queue_pfn:
            self._violation("a queue was placed that has a place already")
        try:
            return SplitRing(self._server.memory, queue.queue_size, address, driver, device, 0)
        except (RingError, BadAddress) as error:
            self._violation(f"a queue was placed: {error}")
            return None
