# SPDX-License-Identifier: GPL-2.0
"""A memory balloon device (Virtio 1.4, 5.5) that does what a test tells it and checks what the driver does.

    with BalloonDevice(packed=True) as device:
        with guest_on(device) as guest:
            device.set_target(4096)
            device.behaviour = mute

What it saw is in its attributes; take `device.lock` to look at several of them at one moment.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from .backend import RING_PACKED, Backend
from .memory import PAGE
from .ring import Buffer
from .services import Hints, Reports, Service, Statistics

INFLATE, DEFLATE = 0, 1
QUEUES = ("inflate", "deflate")
MUST_TELL_HOST = 1 << 0
STATS_VQ = 1 << 1
DEFLATE_ON_OOM = 1 << 2
FREE_PAGE_HINT = 1 << 3
PAGE_POISON = 1 << 4
REPORTING = 1 << 5
VERSION_1 = 1 << 32
CONFIG_SIZE = 16
ACTUAL_OFFSET, POISON_OFFSET = 4, 12
SCRIBBLE = b"\xa5balloon" * (PAGE // 8)


@dataclass(eq=False)
class Request:
    """One buffer of page numbers that the driver made available."""

    queue: int
    buffer: Buffer
    pfns: list[int]
    time: float = field(default_factory=time.monotonic)
    """When the device saw it, in seconds of the host's monotonic clock."""


Behaviour = Callable[["BalloonDevice", Request], None]
"""What the device does with a request; called with the lock held."""


def honest(device: BalloonDevice, request: Request) -> None:
    """Answers at once."""
    device.answer(request)


class BalloonDevice:
    """The device, the record of what it saw, and the commands of the test. All methods may be called from any thread.

    A page changes hands when its request is answered. A request that a reset interrupts has never happened, for this device.
    It cannot raise DEVICE_NEEDS_RESET: the device status belongs to QEMU, and vhost-user has no way to ask for that bit.
    """

    def __init__(self, *, packed: bool = False, features: int = MUST_TELL_HOST) -> None:
        """`features` are the bits offered beside VERSION_1 and RING_PACKED."""
        self.packed = packed
        self.offered = features | VERSION_1 | (1 << RING_PACKED if packed else 0)
        self.stats, self.hints, self.reports = Statistics(self), Hints(self), Reports(self)
        services: list[Service] = [self.stats, self.hints, self.reports]
        self.services = {service.name: service for service in services if features >> service.feature & 1}
        self.queue_names = [*QUEUES, *self.services]
        """The queues by number: those that do not exist leave no gaps."""
        self.poison_val: int | None = None
        """What the driver wrote, since the last reset."""
        self.behaviour: Behaviour = honest
        self.num_pages = 0
        self.actual = 0
        self.keeps_actual = True
        """Whether `actual` reads back as the driver wrote it."""

        self.pages: set[int] = set()
        """The page numbers in the balloon."""
        self.requests: list[Request] = []
        """All requests, in the order in which they were seen."""
        self.outstanding: list[Request] = []
        """Those not answered yet."""
        self.interrupted: list[Request] = []
        """Those that a reset kept from being answered."""
        self.actual_writes: list[int] = []
        """The values of `actual` that the driver wrote."""
        self.features: list[int] = []
        """What the driver accepted, at each start."""
        self.resets = 0
        """Resets of a device that was live."""
        self.violations: list[str] = []
        """Rules that the driver broke."""
        self.history: list[str] = []
        """All of it as text, with the host's monotonic clock in seconds."""

        self._backend = Backend(self, len(self.queue_names))
        self.lock = self._backend.lock
        self._backend.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._backend.close()

    @property
    def socket(self) -> Path:
        """Where QEMU finds the device."""
        return self._backend.path

    @property
    def live(self) -> bool:
        """Whether there is a driver that has set DRIVER_OK."""
        return self._backend.live

    # Commands

    def set_target(self, pages: int, notify: bool = True) -> None:
        """Changes `num_pages`, with or without a configuration change notification to a live driver."""
        with self.lock:
            self.num_pages = pages
        if notify:
            self.notify_config()

    def notify_config(self) -> bool:
        """Sends a configuration change notification; returns False when there is no live driver or QEMU does not keep up."""
        return self._backend.notify_config()

    def interrupt(self, queue: int) -> None:
        """Sends a used buffer notification, whether there is a used buffer or not."""
        self._backend.interrupt(queue)

    def answer(self, request: Request, *, length: int = 0, interrupt: bool = True) -> None:
        """Does what the request asks for and returns its buffer."""
        with self.lock:
            self.complete(request)
            self.use(request.queue, (request.buffer.id, length, request.buffer.slots), interrupt=interrupt)

    def answer_all(self) -> int:
        """Answers all outstanding requests and returns how many there were."""
        with self.lock:
            count = len(self.outstanding)
            for request in list(self.outstanding):
                self.answer(request)
            return count

    def complete(self, request: Request) -> None:
        """Moves the pages of a request, without returning its buffer."""
        with self.lock:
            self.outstanding.remove(request)
            if request.queue == INFLATE:
                self.pages.update(request.pfns)
            else:
                self.pages.difference_update(request.pfns)

    def use(self, queue: int, *elements: tuple[int, int, int], interrupt: bool = True) -> None:
        """Writes used elements (id, length, ring slots), true or not, to a live queue."""
        with self.lock:
            if ring := self._backend.queues[queue].ring:
                ring.use(*elements)
                self._note(f"{self.queue_names[queue]}: used {elements}")
                if interrupt:
                    self.interrupt(queue)

    def jump(self, queue: int, count: int) -> None:
        """Exposes `count` used elements that nobody wrote."""
        with self.lock:
            if ring := self._backend.queues[queue].ring:
                ring.jump(count)
                self._note(f"{self.queue_names[queue]}: used index jumps by {count}")
                self.interrupt(queue)

    def scribble(self, pfns: Iterable[int]) -> None:
        """Fills pages with something that no kernel would."""
        with self.lock:
            for pfn in pfns:
                self._backend.page(pfn)[:] = SCRIBBLE

    def untouched(self, pfns: Iterable[int]) -> bool:
        """Whether all these pages are as `scribble()` left them."""
        with self.lock:
            return all(self._backend.page(pfn) == SCRIBBLE for pfn in pfns)

    def forget(self) -> None:
        """Empties the balloon, as a device in a new process begins; to be called while no driver is there."""
        with self.lock:
            self.pages.clear()
            self.actual = self.num_pages = 0

    def be_honest(self) -> None:
        """Answers everything, from now on and what is outstanding; keeps a buffer for statistics, as an honest device does."""
        with self.lock:
            self.behaviour = honest
            self.answer_all()
            for service in self.services.values():
                service.be_honest()

    def clear_record(self) -> None:
        """Forgets what was seen so far, but not the balloon."""
        with self.lock:
            self.resets = 0
            for record in (self.requests, self.interrupted, self.actual_writes, self.features, self.violations):
                record.clear()
            for service in self.services.values():
                service.clear()

    def pages_moved(self, queue: int) -> int:
        """Page numbers seen in requests of a queue, since the record begins."""
        with self.lock:
            return sum(len(request.pfns) for request in self.requests if request.queue == queue)

    # What the thread calls, with the lock held

    def read_config(self) -> bytes:
        """The configuration space: num_pages, actual, free_page_hint_cmd_id, poison_val."""
        return struct.pack("<IIII", self.num_pages, self.actual, self.hints.command_id, self.poison_val or 0)

    def write_config(self, offset: int, data: bytes) -> None:
        """QEMU hands over the whole space. What the driver writes is `actual`, and `poison_val` before it sets DRIVER_OK."""
        if not self.live:
            self.poison_val, = struct.unpack_from("<I", data, POISON_OFFSET - offset)
            self._note(f"poison_val := {self.poison_val:#x}")
            return
        value, = struct.unpack_from("<I", data, ACTUAL_OFFSET - offset)
        self._note(f"actual := {value}")
        self.actual_writes.append(value)
        if self.keeps_actual:
            self.actual = value

    def started(self, features: int) -> None:
        """The driver has set DRIVER_OK."""
        self._note(f"live with features {features:#x}")
        self.features.append(features)
        if features & ~self.offered:
            self.violation(f"features {features & ~self.offered:#x} were not offered")
        if bool(features & PAGE_POISON) != (self.poison_val is not None):
            self.violation(f"poison_val {self.poison_val} at DRIVER_OK")

    def stopped(self) -> None:
        """A reset: unanswered requests are gone."""
        self._note(f"reset with {len(self.outstanding)} requests outstanding, {len(self.pages)} pages in the balloon")
        self.resets += 1
        self.interrupted += self.outstanding
        self.outstanding.clear()
        self.poison_val = None
        for service in self.services.values():
            service.stopped()

    def available(self, queue: int) -> None:
        """Reads all available buffers of a queue."""
        while buffer := self._backend.pop(queue):
            if queue >= len(QUEUES):
                self._note(f"{self.queue_names[queue]}: id {buffer.id}, {buffer.data().hex()} {len(buffer.writable)} parts")
                self.services[self.queue_names[queue]].available(buffer)
                continue
            data = buffer.data()
            pfns = memoryview(data[:len(data) & ~3]).cast("I").tolist()
            request = Request(queue, buffer, pfns)
            self._note(f"{self.queue_names[queue]}: id {buffer.id}, {len(pfns)} pages from {pfns[:1]}")
            if not pfns or len(data) % 4 or buffer.writable:
                self.violation(f"a request of {len(data)} readable bytes and {len(buffer.writable)} writable parts")
            self._check(request)
            self.requests.append(request)
            self.outstanding.append(request)
            self.behaviour(self, request)

    def violation(self, text: str) -> None:
        """Records that the driver broke a rule."""
        self._note(f"VIOLATION: {text}")
        self.violations.append(text)

    def _check(self, request: Request) -> None:
        pfns = set(request.pfns)
        name = QUEUES[request.queue]
        wrong = {
            "twice in one request": len(request.pfns) - len(pfns),
            "not in the guest's memory": len(self._backend.outside(pfns)),
            "in another request that is not answered": sum(len(pfns & set(other.pfns)) for other in self.outstanding),
        }
        if request.queue == INFLATE:
            wrong["in the balloon already"] = len(pfns & self.pages)
        else:
            wrong["not in the balloon"] = len(pfns - self.pages)
        for what, count in wrong.items():
            if count:
                self.violation(f"{name}: {count} of {len(pfns)} pages {what}")

    def _note(self, text: str) -> None:
        self.history.append(f"{time.monotonic():.3f} {text}")
