# SPDX-License-Identifier: GPL-2.0
"""A modern virtio device on PCI (Virtio 1.4, 4.1) whose capabilities and registers a test can deform.

As it is made it is honest. It writes down what the driver does wrong as `violations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from device.memory import BadAddress
from device.ring import Buffer, RingError, SplitRing

from . import config
from .config import Capability
from .vfio_user import CONFIG_REGION, Server

VERSION_1, SR_IOV, NOTIFICATION_DATA, RING_RESET, ADMIN_VQ = 1 << 32, 1 << 37, 1 << 38, 1 << 40, 1 << 41
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
NO_VECTOR = 0xFFFF
QUEUE_INTERRUPT, CONFIG_INTERRUPT = 1, 2

BAR_SIZE = 0x8000
COMMON_AT, ISR_AT, DEVICE_AT, NOTIFY_AT = 0x0000, 0x1000, 0x2000, 0x4000
COMMON_SIZE, DEVICE_SIZE, NOTIFY_SIZE = 64, 64, 0x1000
MULTIPLIER = 4
VECTORS = 4


class Field(NamedTuple):
    """A register of the common configuration structure."""

    offset: int
    size: int
    writable: bool = True


FIELDS = {
    "device_feature_select": Field(0, 4), "device_feature": Field(4, 4, False),
    "driver_feature_select": Field(8, 4), "driver_feature": Field(12, 4),
    "config_msix_vector": Field(16, 2), "num_queues": Field(18, 2, False),
    "device_status": Field(20, 1), "config_generation": Field(21, 1, False), "queue_select": Field(22, 2),
    "queue_size": Field(24, 2), "queue_msix_vector": Field(26, 2), "queue_enable": Field(28, 2), "queue_notify_off": Field(30, 2, False),
    "queue_desc": Field(32, 8), "queue_driver": Field(40, 8), "queue_device": Field(48, 8),
    "queue_notif_config_data": Field(56, 2, False), "queue_reset": Field(58, 2),
    "admin_queue_index": Field(60, 2, False), "admin_queue_num": Field(62, 2, False),
}

Lie = Callable[[int], int]
"""Makes what the driver reads of what is true."""


class Model(Protocol):
    """What the device is good for."""

    device_id: int
    class_code: int
    features: int
    queues: int
    admin_queues: int
    """How many more there are, behind the others, with `ADMIN_VQ`."""

    def config(self) -> bytes:
        """Its configuration space."""

    def reset(self) -> None:
        """The device was reset."""

    def process(self, queue: int, buffer: Buffer) -> int | None:
        """Does what a buffer asks for and returns how many bytes were written to it; None: keeps the buffer."""


@dataclass
class Queue:
    """The registers of one queue."""

    queue_size: int
    queue_msix_vector: int = NO_VECTOR
    queue_enable: int = 0
    queue_notify_off: int = 0
    queue_desc: int = 0
    queue_driver: int = 0
    queue_device: int = 0
    queue_notif_config_data: int = 0
    queue_reset: int = 0
    queue_pfn: int = 0
    """Of a legacy device."""
    ring: SplitRing | None = None


@dataclass
class Deformation:
    """What is wrong with the registers; nothing is at first."""

    lies: dict[str, Lie] = field(default_factory=dict)
    """By register: what is read instead. `isr` and `config` (every byte of the configuration space) are registers, too."""
    deaf: set[str] = field(default_factory=set)
    """Registers to which nothing can be written."""
    gone: bool = False
    """All reads give ones, as those of a device that was pulled out."""
    offers: int = 0
    """Features beside its own."""
    mute: bool = False
    """Takes no buffers."""
    multiplier: int = MULTIPLIER
    """Of the offsets of notifications; the capability must say the same."""
    on_write: Callable[[str], None] | None = None
    """Called with the name of each register that was written."""


class PciDevice:
    """The device on its bus. Take `lock` to look at several things at one moment, and to change any of them."""

    fields = FIELDS

    def __init__(
        self, model: Model, *, msix: bool, queue_size: int = 16, bar_size: int = BAR_SIZE, revision: int = config.REVISION,
        subsystem: tuple[int, int] = config.SUBSYSTEM,
    ) -> None:
        """A device with MSI-X, whose capabilities QEMU knows and keeps in their places, or one with nothing but its line, of whose
        capabilities QEMU knows nothing, so that the list can be changed later on."""
        self.model = model
        self.revision, self.subsystem = revision, subsystem
        self.vectors = VECTORS if msix else 0
        self.sizes = {0: bar_size, CONFIG_REGION: config.SIZE, **({1: 0x1000} if msix else {})}
        self.space = config.ConfigSpace(self.header())
        self.wrong = Deformation()
        self.violations: list[str] = []
        self.written: list[tuple[str, int]] = []
        """The registers that were written since `honest()`, in their order."""
        self._msix, self._queue_size = msix, queue_size
        self._server = Server(self)
        self.lock = self._server.lock
        self._clear()
        if msix:
            self.honest()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.close()

    @property
    def options(self) -> list[str]:
        """For QEMU; the guest's memory must be in a file that is shared."""
        path = f'{{"type": "unix", "path": "{self._server.path}"}}'
        return ["-device", f'{{"driver": "vfio-user-pci", "socket": {path}}}']

    def header(self) -> bytes:
        """The first 64 bytes of the configuration space."""
        return config.header(self.model.device_id + 0x1040, self.model.class_code, (0, 0) if self.vectors else (0,), self.revision, self.subsystem)

    # What a test does

    def honest(self) -> None:
        """Takes back all that is wrong."""
        with self.lock:
            self.wrong = Deformation()
            self.written.clear()
            self.violations.clear()
            self.set_list(self.capabilities())

    def capabilities(self, **changes: Capability | None) -> list[Capability]:
        """The virtio structures, some of them exchanged or, with None, left out: `common`, `isr`, `device`, `notify`."""
        found: dict[str, Capability | None] = {
            "common": Capability(config.COMMON, 0, COMMON_AT, COMMON_SIZE), "isr": Capability(config.ISR, 0, ISR_AT, 1),
            "device": Capability(config.DEVICE, 0, DEVICE_AT, DEVICE_SIZE), "notify": config.notify(0, NOTIFY_AT, NOTIFY_SIZE, self.wrong.multiplier),
        }
        return [capability for capability in (found | changes).values() if capability]

    def set_list(self, capabilities: Sequence[Capability], loop_to: int | None = None, at: Sequence[int] = ()) -> None:
        """Replaces the capabilities; the one of MSI-X stays. See `ConfigSpace.set_list()`."""
        with self.lock:
            first = [config.msix(VECTORS, 1, 0, 0x800)] if self._msix else []
            self.space.set_list([*first, *capabilities], loop_to=loop_to, at=at)

    def interrupt(self, queue: int | None = None, isr: int = QUEUE_INTERRUPT) -> None:
        """Interrupts for a queue, or, with None, for a change of the configuration; `isr` is what the register then says."""
        with self.lock:
            if self._server.msix:
                vector = self.config_msix_vector if queue is None else self.queues[queue].queue_msix_vector
                self._server.message(vector)
            else:
                self._isr |= isr if queue is not None else CONFIG_INTERRUPT
                self._server.set_line(True)

    def hold_line(self, level: bool) -> None:
        """Asserts the line whatever the registers say; afterwards it is as it should be."""
        with self.lock:
            self._held = level
            self._server.set_line(level or bool(self._isr))

    @property
    def is_bus_master(self) -> bool:
        """Whether the guest lets the device reach memory."""
        return bool(self.space.read(config.COMMAND, 1)[0] & config.BUS_MASTER)

    def ring(self, queue: int = 0) -> SplitRing | None:
        """The ring of a queue that is live."""
        return self.queues[queue].ring

    # What the server asks

    def reset(self) -> None:
        self._clear()

    def read(self, region: int, offset: int, size: int) -> bytes:
        if self.wrong.gone:
            return b"\xff" * size
        if region == CONFIG_REGION:
            return self.space.read(offset, size)
        return self._read_bar(offset, size) if region == 0 else bytes(size)

    def _read_bar(self, offset: int, size: int) -> bytes:
        if offset < COMMON_AT + COMMON_SIZE:
            return self._read_common(offset, size)
        if offset == ISR_AT:
            if self._server.msix:
                self._violation("the interrupt status was read, although MSI-X is enabled")
            return self._read_isr().to_bytes(1, "little").ljust(size, b"\0")
        if DEVICE_AT <= offset < DEVICE_AT + DEVICE_SIZE:
            return self._read_config(offset - DEVICE_AT, size)
        self._violation(f"{size} bytes read at {offset:#x}, where nothing is")
        return bytes(size)

    def _read_config(self, offset: int, size: int) -> bytes:
        data = self.model.config().ljust(DEVICE_SIZE, b"\0")[offset:][:size]
        lie = self.wrong.lies.get("config")
        return bytes(lie(byte) & 0xFF for byte in data) if lie else data

    def write(self, region: int, offset: int, data: bytes) -> None:
        if region == CONFIG_REGION:
            if self.space.write(offset, data):
                self._violation(f"{len(data)} bytes written to the capability at {offset:#x}")
        elif region == 0 and not self.wrong.gone:
            self._write_bar(offset, data)

    def _write_bar(self, offset: int, data: bytes) -> None:
        if offset < COMMON_AT + COMMON_SIZE:
            self._write_common(offset, data)
        elif NOTIFY_AT <= offset < NOTIFY_AT + NOTIFY_SIZE:
            self._notified(offset - NOTIFY_AT, data)
        else:
            self._violation(f"{len(data)} bytes written at {offset:#x}")

    # Registers

    def _clear(self) -> None:
        self.device_feature_select = self.driver_feature_select = self.queue_select = 0
        self.device_status, self.config_generation, self.config_msix_vector = 0, 0, NO_VECTOR
        self.driver_features = 0
        self.num_queues = self.admin_queue_index = self.model.queues
        self.admin_queue_num = self.model.admin_queues
        count = self.num_queues + self.admin_queue_num
        self.queues = [Queue(self._queue_size, queue_notify_off=number) for number in range(count)]
        self._isr, self._held = 0, False
        self.model.reset()
        self._server.set_line(False)

    @property
    def device_feature(self) -> int:
        """The word of the features that is selected."""
        return (self.model.features | self.wrong.offers | VERSION_1) >> 32 * min(self.device_feature_select, 8) & 0xFFFFFFFF

    @property
    def driver_feature(self) -> int:
        """The same of the driver's."""
        return self.driver_features >> 32 * min(self.driver_feature_select, 8) & 0xFFFFFFFF

    @driver_feature.setter
    def driver_feature(self, value: int) -> None:
        shift = 32 * min(self.driver_feature_select, 8)
        self.driver_features = self.driver_features & ~(0xFFFFFFFF << shift) | value << shift

    def _owner(self, name: str) -> PciDevice | Queue | None:
        """Where a register is; None for those of a queue that does not exist."""
        if not name.startswith("queue_") or name == "queue_select":
            return self
        return self.queues[self.queue_select] if self.queue_select < len(self.queues) else None

    def _find(self, offset: int, size: int) -> tuple[str, int] | None:
        """The register that an access is to, and the first bit of it; 64-bit ones are accessed by halves."""
        for name, place in self.fields.items():
            if size == min(place.size, 4) and offset - place.offset in range(0, place.size, size):
                return name, 8 * (offset - place.offset)
        self._violation(f"an access to {size} bytes at {offset} of the common configuration")
        return None

    def _read_common(self, offset: int, size: int) -> bytes:
        found = self._find(offset, size)
        if found is None:
            return bytes(size)
        name, shift = found
        value = self._seen(name, self._owner(name))
        return (value >> shift & (1 << 8 * size) - 1).to_bytes(size, "little")

    def _seen(self, name: str, owner: PciDevice | Queue | None) -> int:
        """What the driver reads."""
        value = getattr(owner, name) if owner else 0
        lie = self.wrong.lies.get(name)
        return lie(value) if lie else value

    def _write_common(self, offset: int, data: bytes) -> None:
        found = self._find(offset, len(data))
        if found is None:
            return
        name, shift = found
        value = int.from_bytes(data, "little")
        self.written.append((name, value))
        if not self.fields[name].writable:
            self._violation(f"{name} was written")
            return
        owner = self._owner(name)
        if name in self.wrong.deaf or owner is None:
            return
        if shift or self.fields[name].size == 8:
            mask = 0xFFFFFFFF << shift
            value = getattr(owner, name) & ~mask | value << shift
        match name:
            case "device_status" if value == 0:
                self._clear()
            case "queue_reset" if isinstance(owner, Queue):
                number = self.queues.index(owner)
                self.queues[number] = Queue(self._queue_size, queue_notify_off=number)
            case _:
                self._set(owner, name, value)
        if self.wrong.on_write:
            self.wrong.on_write(name)

    def _set(self, owner: PciDevice | Queue, name: str, value: int) -> None:
        match name:
            case "queue_enable" if isinstance(owner, Queue):
                self._enable(owner, value)
            case "queue_size" if value & value - 1 or not value:
                self._violation(f"a queue of {value} descriptors")
            case "queue_msix_vector" | "config_msix_vector" if value != NO_VECTOR and value >= self.vectors:
                self._violation(f"vector {value}")
        setattr(owner, name, value)

    def _enable(self, queue: Queue, value: int) -> None:
        if value != 1 or queue.queue_enable:
            self._violation(f"{value} written to queue_enable, which is {queue.queue_enable}")
            return
        try:
            queue.ring = SplitRing(self._server.memory, queue.queue_size, queue.queue_desc, queue.queue_driver, queue.queue_device, 0)
        except (RingError, BadAddress) as error:
            self._violation(f"a queue was enabled: {error}")

    def _read_isr(self) -> int:
        value, self._isr = self._isr, 0
        self._server.set_line(self._held)
        return self.wrong.lies.get("isr", lambda truth: truth)(value)

    # Queues

    def _notified(self, offset: int, data: bytes) -> None:
        value = int.from_bytes(data, "little")
        number = value & 0xFFFF
        width = 4 if self.driver_features & NOTIFICATION_DATA else 2
        if len(data) != width or number >= len(self.queues):
            self._violation(f"a notification of {len(data)} bytes, {value:#x}")
        elif not self.device_status & DRIVER_OK:
            self._violation("a notification before DRIVER_OK")
        elif offset == self._seen("queue_notify_off", self.queues[number]) * self.wrong.multiplier:
            self.look(number)
        else:
            self._violation(f"a notification of queue {number} at {offset:#x}")

    def look(self, number: int) -> None:
        """Takes what is available in a queue, and interrupts."""
        with self.lock:
            ring = self.queues[number].ring
            if ring is None or self.wrong.mute:
                return
            try:
                done = False
                while buffer := ring.pop():
                    written = self.model.process(number, buffer)
                    if written is not None:
                        ring.use((buffer.id, written, 1))
                        done = True
            except (RingError, BadAddress) as error:
                self._violation(f"queue {number}: {error}")
                return
            if done:
                self.interrupt(number)

    def use(self, number: int, buffer: Buffer, written: int) -> None:
        """Gives a buffer back that the model had kept."""
        with self.lock:
            ring = self.queues[number].ring
            if ring is not None:
                ring.use((buffer.id, written, 1))
                self.interrupt(number)

    def _violation(self, text: str) -> None:
        self.violations.append(text)
