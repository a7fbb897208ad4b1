# SPDX-License-Identifier: GPL-2.0
"""A device on PCI that does what a plan says: see `plan.py`."""

from __future__ import annotations

import random
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from device.memory import BadAddress, Memory
from device.ring import Buffer, PackedRing, RingError, SplitRing
from pci.config import Capability
from pci.virtio import DEVICE_AT, DEVICE_SIZE, DRIVER_OK, NEEDS_RESET, Lie, PciDevice, Queue
from pci.vfio_user import CONFIG_REGION

from .models import MODELS, SPECIFIC
from .plan import ALWAYS, Line, Plan

RING_PACKED = 1 << 34
TRANSPORT_BITS = ~0 << 28 & ~(1 << 32 | 1 << 33 | 1 << 37 | 1 << 41)
"""Of the features, those that any device may offer: not VERSION_1, which it always does, ACCESS_PLATFORM, which the balloon declines, virtual
functions and administration, which have devices of their own."""
FIRST_BASE = 1 << 15 | 1 << 31
"""Where a packed ring begins: both wrap counters are 1."""


class FuzzDevice(PciDevice):
    """The device. `arm()` has it follow a plan until `disarm()`; then it is honest."""

    def __init__(self, name: str, *, msix: bool, **options: int) -> None:
        """A device of one of the kinds in `MODELS`."""
        self._plan: Plan | None = None
        self._timers: list[threading.Timer] = []
        self._generator = random.Random(0)
        self.problem: str | None = None
        """An exception that a message of QEMU caused here: a fault of the fuzzer."""
        self._forget()
        super().__init__(MODELS[name](), msix=msix, **options)

    def arm(self, plan: Plan) -> None:
        """Follows a plan from now on."""
        with self.lock:
            self.honest()
            self._forget()
            always, maybe = SPECIFIC[plan.device]
            self.model.features = always | plan.offers & (maybe | TRANSPORT_BITS)
            self._clear()
            self._plan, self._generator = plan, random.Random(0)
            for line in plan.lines:
                self._prepare(line)
            if not self._msix and any(line[0] == "structure" for line in plan.lines):
                self.set_list(self._structures(plan))
        for timer in self._timers:
            timer.start()

    def disarm(self) -> None:
        """Is honest, and returns what it has kept."""
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()
        with self.lock:
            self.honest()
            self._plan, self._at, self._used = None, {}, {}
            self.hold_line(False)
            for number in range(len(self.queues)):
                self._return_kept(number)

    @property
    def memory(self) -> Memory:
        """The guest's memory."""
        return self._server.memory

    def _violation(self, text: str) -> None:
        """Nobody asks: a driver that is lied to may do what it likes."""

    # The plan

    def _forget(self) -> None:
        self._moment = 0
        self._at: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self._used: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
        self._config: dict[int, int] = {}
        self._completed: dict[int, int] = defaultdict(int)
        self._kept: dict[int, list[tuple[Buffer, int]]] = defaultdict(list)

    def _prepare(self, line: Line) -> None:
        match line:
            case ("lie", register, number, value):
                self._add_lie(register, number, lambda _: value)
            case ("flip", register, number, value):
                self._add_lie(register, number, lambda truth: truth ^ value)
            case ("config", offset, value):
                self._config[offset] = value
            case ("deaf", register):
                self.wrong.deaf.add(register)
            case ("used", queue, number, what, value):
                self._used[queue, number].append((what, value))
            case ("at", moment, action, value):
                self._at[moment].append((action, value))
            case ("after", milliseconds, action, value):
                timer = threading.Timer(milliseconds / 1000, self._later, (action, value))
                timer.daemon = True
                self._timers.append(timer)

    def _add_lie(self, register: str, number: int, lie: Lie) -> None:
        before = self.wrong.lies.get(register, lambda truth: truth)
        reads = 0

        def look(truth: int) -> int:
            nonlocal reads
            reads += 1
            value = before(truth)
            return lie(value) if number in (ALWAYS, reads - 1) else value

        self.wrong.lies[register] = look

    def _structures(self, plan: Plan) -> list[Capability]:
        good = {name: structure for name, structure in zip(("common", "isr", "device", "notify"), self.capabilities(), strict=True)}
        for line in plan.lines:
            if line[0] != "structure" or line[1] not in good:
                continue
            _, name, place, value = line
            if place == "missing":
                del good[name]
            else:
                good[name] = replace(good[name], **{place: value & 0xFF if place == "bar" else value})
        return list(good.values())

    def _later(self, action: str, value: int) -> None:
        with self.lock:
            if self._plan:
                self._act(action, value)

    def _act(self, action: str, value: int) -> None:
        match action:
            case "gone" | "back":
                self.wrong.gone = action == "gone"
            case "needs_reset":
                self.device_status |= NEEDS_RESET
                self.interrupt()
            case "config":
                self.config_generation = self.config_generation + 1 & 0xFF
                self.interrupt()
            case "interrupt" if self.queues:
                self.interrupt(value % len(self.queues))
            case "target" | "command" if hasattr(self.model, action):
                setattr(self.model, action, value & 0x3FF if action == "target" else value)
                self.interrupt()
            case "statistics":
                self._return_kept(2)
            case "scribble" if self.queues:
                self._scribble(self.queues[value % len(self.queues)])
            case "raise" | "lower":
                self.hold_line(action == "raise")

    def _scribble(self, queue: Queue) -> None:
        ring = queue.ring
        if isinstance(ring, PackedRing):
            at = self._generator.randrange(len(ring._ring))
            ring._ring[at] = self._generator.getrandbits(8)
        elif ring is not None:
            place = self._generator.choice((0, 1, 2 + self._generator.randrange(len(ring._used) - 2)))
            ring._used[place] = self._generator.getrandbits(16)
        self.interrupt(self.queues.index(queue))

    # What the guest does

    def read(self, region: int, offset: int, size: int) -> bytes:
        return self._guarded(region, super().read, region, offset, size) or bytes(size)

    def write(self, region: int, offset: int, data: bytes) -> None:
        self._guarded(region, super().write, region, offset, data)

    def _guarded(self, region: int, access: Callable[..., bytes | None], *arguments: object) -> bytes | None:
        try:
            answer = access(*arguments)
            if region != CONFIG_REGION and self._plan:
                self._moment += 1
                for action, value in self._at.pop(self._moment, ()):
                    self._act(action, value)
            return answer
        except Exception:
            self.problem = traceback.format_exc()
            return None

    def _read_config(self, offset: int, size: int) -> bytes:
        data = bytearray(super()._read_config(offset, size))
        for place in range(size):
            data[place] = self._config.get(offset + place, data[place])
        return bytes(data)

    def _write_bar(self, offset: int, data: bytes) -> None:
        if DEVICE_AT <= offset < DEVICE_AT + DEVICE_SIZE:
            self.model.write_config(offset - DEVICE_AT, data)
        else:
            super()._write_bar(offset, data)

    def _notified(self, offset: int, data: bytes) -> None:
        number = int.from_bytes(data, "little") & 0xFFFF
        if number < len(self.queues) and self.device_status & DRIVER_OK:
            self.look(number)

    def _enable(self, queue: Queue, value: int) -> None:
        if not value:
            queue.ring = None
            return
        kind, base = (PackedRing, FIRST_BASE) if self.driver_features & RING_PACKED else (SplitRing, 0)
        try:
            queue.ring = kind(self._server.memory, queue.queue_size, queue.queue_desc, queue.queue_driver, queue.queue_device, base)
        except (RingError, BadAddress):
            queue.ring = None  # The driver was told a size or a place that makes no sense.

    def interrupt(self, queue: int | None = None, isr: int = 1) -> None:
        if queue is None or queue < len(self.queues):
            super().interrupt(queue, isr)

    # Buffers

    def look(self, number: int) -> None:
        with self.lock:
            ring = self.queues[number].ring
            try:
                while ring is not None and (buffer := ring.pop()):
                    written = self.model.process(number, buffer)
                    if written is None:
                        self._kept[number].append((buffer, 0))
                    else:
                        self._complete(number, buffer, written)
            except (RingError, BadAddress):
                pass  # What the plan has scribbled, or the wrong size of a queue, is read here as well.

    def _complete(self, number: int, buffer: Buffer, written: int) -> None:
        count = self._completed[number]
        self._completed[number] += 1
        identity, times, quiet = buffer.id, 1, False
        for what, value in [*self._used.get((number, count), ()), *self._used.get((number, ALWAYS), ())]:
            match what:
                case "id":
                    identity = value & 0xFFFF
                case "length":
                    written = value
                case "twice":
                    times += 1
                case "never" | "late":
                    self._kept[number].append((buffer, written))
                    if what == "late":
                        self._timer(number, value)
                    return
                case "quiet":
                    quiet = True
                case "jump":
                    self.queues[number].ring.jump(value % 300)
        for _ in range(times):
            self._use(number, identity, written, buffer.slots)
        if not quiet:
            self.interrupt(number)

    def _timer(self, number: int, value: int) -> None:
        timer = threading.Timer(value % 400 / 1000, self._return_kept, (number,))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _use(self, number: int, identity: int, written: int, slots: int) -> None:
        ring = self.queues[number].ring
        if ring is not None:
            ring.use((identity, written & 0xFFFFFFFF, slots))

    def _return_kept(self, number: int) -> None:
        with self.lock:
            kept, self._kept[number] = self._kept[number], []
            if number >= len(self.queues):
                return
            for buffer, written in kept:
                self._use(number, buffer.id, written, buffer.slots)
            if kept:
                self.interrupt(number)

    def _clear(self) -> None:
        super()._clear()
        self._kept.clear()
