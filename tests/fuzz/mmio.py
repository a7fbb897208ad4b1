# SPDX-License-Identifier: GPL-2.0
"""The same device with the registers of virtio-mmio (Virtio 1.4, 4.2), in the memory of a PCI device of no known kind.

The driver gets its address and its interrupt from the parameter of `virtio_mmio`.
"""

from __future__ import annotations

from pci import config
from pci.config import Capability
from pci.virtio import Queue

from .device import FuzzDevice
from .models import MODELS
from .plan import Plan

IDENTITY = 0xFEED, 0x0001
"""Vendor and device of the PCI device."""

SIZE = 0x200
CONFIG_AT, NOTIFY_AT, ACKNOWLEDGE_AT = 0x100, 0x050, 0x064
MAGIC, VERSION = int.from_bytes(b"virt", "little"), 2
NO_REGION = 0xFFFFFFFF
"""Length and place of shared memory that does not exist."""

READABLE = {
    0x000: "magic", 0x004: "version", 0x008: "device_id", 0x010: "device_feature", 0x034: "queue_size", 0x044: "queue_enable", 0x060: "isr",
    0x070: "device_status", 0x0B0: "no_region", 0x0B4: "no_region", 0x0B8: "no_region", 0x0BC: "no_region", 0x0C0: "queue_reset",
    0x0FC: "config_generation",
}
WRITABLE = {
    0x014: ("device_feature_select", 0), 0x020: ("driver_feature", 0), 0x024: ("driver_feature_select", 0), 0x030: ("queue_select", 0),
    0x038: ("queue_size", 0), 0x044: ("queue_enable", 0), 0x070: ("device_status", 0), 0x080: ("queue_desc", 0), 0x084: ("queue_desc", 32),
    0x090: ("queue_driver", 0), 0x094: ("queue_driver", 32), 0x0A0: ("queue_device", 0), 0x0A4: ("queue_device", 32), 0x0C0: ("queue_reset", 0),
}
"""Names of the registers that are as those on PCI, and the first bit of what is written to them."""


class MmioDevice(FuzzDevice):
    """The device; its kind is that of the plan."""

    magic, version, no_region = MAGIC, VERSION, NO_REGION

    def __init__(self) -> None:
        super().__init__("entropy", msix=False, bar_size=0x1000)

    @property
    def device_id(self) -> int:
        """What it is."""
        return self.model.device_id

    @property
    def isr(self) -> int:
        """Why it interrupts."""
        return self._isr

    def arm(self, plan: Plan) -> None:
        """As on PCI."""
        with self.lock:
            self.model = MODELS[plan.device]()
        super().arm(plan)

    def header(self) -> bytes:
        vendor, device = IDENTITY
        start = config.header(device, self.model.class_code, (0,), self.revision, self.subsystem)
        return vendor.to_bytes(2, "little") + start[2:]

    def capabilities(self, **changes: Capability | None) -> list[Capability]:
        return []

    def _read_bar(self, offset: int, size: int) -> bytes:
        if CONFIG_AT <= offset < SIZE:
            return self._read_config(offset - CONFIG_AT, size)
        name = READABLE.get(offset)
        if name is None:
            return bytes(size)
        return (self._seen(name, self._owner(name)) & 0xFFFFFFFF).to_bytes(4, "little")[:size].ljust(size, b"\0")

    def _write_bar(self, offset: int, data: bytes) -> None:
        value = int.from_bytes(data, "little")
        if offset >= CONFIG_AT:
            self.model.write_config(offset - CONFIG_AT, data)
        elif offset == NOTIFY_AT:
            self._notified(0, data)
        elif offset == ACKNOWLEDGE_AT:
            self._isr &= ~value
            self._server.set_line(self._held or bool(self._isr))
        elif offset in WRITABLE:
            self._write_register(*WRITABLE[offset], value)

    def _write_register(self, name: str, shift: int, value: int) -> None:
        owner = self._owner(name)
        if owner is None or name in self.wrong.deaf:
            return
        if name in ("queue_desc", "queue_driver", "queue_device"):
            value = getattr(owner, name) & ~(0xFFFFFFFF << shift) | value << shift
        if name == "device_status" and value == 0:
            self._clear()
        elif name == "queue_reset" and isinstance(owner, Queue):
            self.queues[self.queue_select] = Queue(self._queue_size)
        elif name == "queue_enable" and isinstance(owner, Queue):
            self._enable(owner, value)
            owner.queue_enable = value
        else:
            setattr(owner, name, value)
