# SPDX-License-Identifier: GPL-2.0
"""Memory that pretends to be virtio-mmio devices and lies: registers with impossible values, that do not change, or that are not there.

The registers are the memory of a PCI device `ivshmem`, in a file that the test writes; its address is given to `virtio_mmio.device=`. A second
one is read-only: what the driver writes to it is lost. Their addresses can be exchanged under the driver, which makes a good device a bad one.
"""

from __future__ import annotations

import mmap
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.guest import Guest
from test_ring import KERNEL

Factory = Callable[..., Guest]

SIZE = 1 << 20
RNG, NET = 4, 1
ASKING = 0x3ffe
"""What `tests/modules/virtio_probe.rs` drives."""


MAGIC, VERSION, DEVICE_ID, FEATURES = 0x000, 0x004, 0x008, 0x010
QUEUE_SIZE_MAX, QUEUE_SIZE, QUEUE_PFN, QUEUE_READY, QUEUE_NOTIFY = 0x034, 0x038, 0x040, 0x044, 0x050
INTERRUPT_STATUS, INTERRUPT_ACK, STATUS, CONFIG = 0x060, 0x064, 0x070, 0x100
SHM_SEL, SHM_LEN, SHM_BASE, QUEUE_RESET = 0x0ac, 0x0b0, 0x0b8, 0x0c0
NOTIFICATION_DATA, RING_RESET = 1 << 6, 1 << 8
"""In the second word of the features, as VERSION_1."""

FEATURES_OK, FAILED = 8, 128

PATIENCE = 0.9
"""How many seconds the driver waits at least for a device that does not do what it was told."""

GOOD = {MAGIC: int.from_bytes(b"virt", "little"), VERSION: 2, DEVICE_ID: RNG, FEATURES: 1, QUEUE_SIZE_MAX: 8}
"""A random number generator that never answers. Both words of its features are the same: bit 0 is VERSION_1 in the second."""


class Registers:
    """The memory of one device, in a file that QEMU has mapped, too."""

    def __init__(self, path: Path) -> None:
        """Makes the file."""
        with path.open("wb") as file:
            file.truncate(SIZE)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SIZE)

    def __getitem__(self, offset: int) -> int:
        return struct.unpack_from("<I", self._memory, offset)[0]

    def __setitem__(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self._memory, offset, value)

    def fill(self, values: dict[int, int]) -> None:
        """Sets the registers of a good device, but for `values`; all others are 0."""
        self._memory[:] = bytes(SIZE)
        for offset, value in {**GOOD, **values}.items():
            self[offset] = value


class Liars:
    """A guest with two devices, one of which does not take what is written, and what `virtio_mmio` makes of them."""

    def __init__(self, guests: Factory, core: str, folder: Path) -> None:
        """Boots the guest, with our core or C's, which warns of a device that was not reset when its driver goes."""
        self.core = core
        self.registers, self.fixed = Registers(folder / "registers"), Registers(folder / "fixed")
        options = []
        for name, more in (("registers", ""), ("fixed", ",readonly=on,rom=on")):
            options += ["-object", f"memory-backend-file,id={name},size={SIZE},mem-path={folder / name},share=on{more}"]
            options += ["-device", f"ivshmem-plain,memdev={name}"]
        self.guest = guests(
            kernel=KERNEL, rust={"virtio_mmio", *(("virtio", "virtio_ring") if core == "rust" else ())}, driver=None, balloon=False, swap_mib=0,
            memory_mib=512, modules=["virtio_mmio", "virtio_rng", "virtio_net", "virtio_probe"], allow=[] if core == "rust" else ["cut here", "WARNING: .*virtio_dev_remove"],
            qemu_options=[*options, "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,vectors=0,rng=random"],
        ).start()
        self.guest.run("modprobe -a virtio_rng virtio_net virtio_probe")
        found = self.guest.run("grep -l 0x1110 /sys/bus/pci/devices/*/device").out.split()
        self._slots = [Path(path).parent for path in found]
        for slot in self._slots:
            self.guest.run(f"echo 1 >{slot}/enable")
        self._bars = [int(self.guest.run(f"sed -n 3p {slot}/resource").out.split()[0], 16) for slot in self._slots]
        self._irq = int(self.guest.run("cat $(dirname $(grep -l 0x1005 /sys/bus/pci/devices/*/device))/irq").out)

    def load(self, fixed: bool = False, size: int = 0x200) -> bool:
        """Loads the module with the device, or with the read-only one; returns whether a driver took it."""
        self.guest.run("dmesg -c >/dev/null")
        self.guest.run(f"modprobe virtio_mmio device={size:#x}@{self._bars[fixed]:#x}:{self._irq}", timeout=30)
        return self.guest.run("test -e /sys/devices/virtio-mmio-cmdline/virtio-mmio.0/virtio*/driver", check=False).status == 0

    def unload(self) -> None:
        """Takes the device away."""
        self.guest.run("rmmod virtio_mmio", timeout=30)

    def log(self) -> str:
        """What the kernel said since the module was loaded, without what it says of every device."""
        return "\n".join(line for line in self.guest.said() if "Registering device" not in line)

    @contextmanager
    def turned_fixed(self) -> Iterator[None]:
        """Puts the read-only device where the other one is; afterwards they are where they were."""
        self._place([1, 0])
        yield
        self._place([0, 1])

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Makes the devices' memory unreachable, so that it can have another address."""
        for slot in self._slots:
            self.guest.run(f"printf '\\0' | dd of={slot}/config bs=1 seek=4 conv=notrunc 2>/dev/null")
        yield
        for slot in self._slots:
            self.guest.run(f"printf '\\3' | dd of={slot}/config bs=1 seek=4 conv=notrunc 2>/dev/null")

    def _place(self, order: list[int]) -> None:
        """Gives the devices the addresses of those numbered in `order`, by their base address registers 2 and 3."""
        with self._moving():
            for slot, number in zip(self._slots, order, strict=True):
                data = "".join(f"\\{byte:03o}" for byte in struct.pack("<Q", self._bars[number] | 0xc))
                self.guest.run(f"printf '{data}' | dd of={slot}/config bs=1 seek=24 conv=notrunc 2>/dev/null")


@pytest.mark.parametrize("core", ["rust", pytest.param("c", marks=pytest.mark.long)])
def test_liars(guests: Factory, core: str, tmp_path: Path) -> None:
    """If this fails a bad device hangs the module, crashes the kernel, or is used, or the log does not say why it is not."""
    liars = Liars(guests, core, tmp_path)
    values_that_cannot_be(liars)
    good_devices(liars)
    registers_that_do_not_change(liars)
    devices_that_turn_bad(liars)
    interrupts_of_others(liars)
    configuration_beyond_the_memory(liars)
    notifications(liars)
    single_queues_reset(liars)
    shared_memory(liars)


def values_that_cannot_be(liars: Liars) -> None:
    """Each wrong value is named in the log, and the device not used."""
    cases: list[tuple[dict[int, int], str | None]] = [
        ({MAGIC: 0}, r"Wrong magic value 0x00000000!"),
        ({MAGIC: 0xffffffff}, r"Wrong magic value 0xffffffff!"),
        ({VERSION: 0}, r"Version 0 not supported!"),
        ({VERSION: 4}, r"Version 4 not supported!"),
        ({DEVICE_ID: 0}, None),
        ({FEATURES: 2}, r"must provide VIRTIO_F_VERSION_1"),
        ({QUEUE_SIZE_MAX: 0}, r"there is no queue 0"),
        ({QUEUE_SIZE_MAX: 3}, r"length 3"),
        ({QUEUE_SIZE_MAX: 0x8001}, r"queue 0 cannot have 32769 descriptors"),
        ({QUEUE_SIZE_MAX: 0xffffffff}, r"queue 0 cannot have 4294967295 descriptors"),
        ({QUEUE_READY: 1}, r"queue 0 is in use already"),
        ({VERSION: 1, QUEUE_PFN: 7}, r"queue 0 is in use already"),
    ]
    for values, line in cases:
        liars.registers.fill(values)
        assert not liars.load(), values
        log = liars.log()
        assert not log if line is None else re.search(line, log), (values, log)
        liars.unload()


def good_devices(liars: Liars) -> None:
    """All versions are used, with any size of a queue, and left stopped, without a line in the log."""
    for values in ({}, {QUEUE_SIZE_MAX: 1}, {VERSION: 1}, {VERSION: 3}):
        liars.registers.fill(values)
        assert liars.load(), (values, liars.log())
        assert liars.registers[QUEUE_SIZE] == values.get(QUEUE_SIZE_MAX, 8)
        liars.unload()
        assert liars.registers[QUEUE_READY] == liars.registers[QUEUE_PFN] == liars.registers[STATUS] & 4 == 0
        assert not liars.log(), (values, liars.log())


def registers_that_do_not_change(liars: Liars) -> None:
    """What the driver writes is looked at again, and no wait is without end."""
    cases = [
        ({STATUS: 0}, [r"refuses features"], 0.0),
        ({STATUS: FEATURES_OK}, [r"has not reset yet, it is registered when it has"], PATIENCE),
        ({STATUS: FEATURES_OK | FAILED}, [r"the device does not reset"], 0.0),
    ]
    for values, lines, seconds in cases:
        liars.fixed.fill(values)
        began = time.monotonic()
        assert not liars.load(fixed=True), values
        assert seconds <= time.monotonic() - began, "the device has too little time"
        log = liars.log()
        assert all(re.search(line, log) for line in lines), (values, log)
        liars.unload()


LOST = "the device does not reset: what it has of memory is lost"


def devices_that_turn_bad(liars: Liars) -> None:
    """A device that does not reset loses the memory that it has; one that refuses to, or is gone, is let go at once."""
    for values, waited in ({STATUS: FEATURES_OK}, True), ({STATUS: FEATURES_OK | FAILED}, False):
        liars.registers.fill({})
        liars.fixed.fill({QUEUE_READY: 1, **values})
        assert liars.load(), liars.log()
        began = time.monotonic()
        with liars.turned_fixed():
            liars.unload()
        seconds, log = time.monotonic() - began, liars.log()
        assert log.count(LOST) == 1 and "queue 0" not in log, log
        assert (seconds >= 4 * PATIENCE) == waited, (seconds, "it should be waited for only if it may still do it")
    liars.registers.fill({})
    liars.fixed.fill(dict.fromkeys(range(0, CONFIG, 4), 0xffffffff))
    assert liars.load(), liars.log()
    with liars.turned_fixed():
        liars.unload()
    log = liars.log()
    assert re.search(r"the device is gone", log) and "queue 0" not in log and "does not reset" not in log, log


def interrupts_of_others(liars: Liars) -> None:
    """The interrupt is that of another device as well, which works whatever the bad one says; only known causes are acknowledged."""
    for status, acknowledged in ((0, 0), (0xfffffffc, 0), (0xffffffff, 0), (0xff, 3), (1, 1)):
        liars.registers.fill({INTERRUPT_STATUS: status})
        assert liars.load(), liars.log()
        liars.guest.run("echo virtio_rng.0 >/sys/class/misc/hw_random/rng_current; head -c 8192 /dev/hwrng >/dev/null", timeout=30)
        assert liars.registers[INTERRUPT_ACK] == acknowledged, hex(status)
        liars.unload()
        assert not liars.log(), (hex(status), liars.log())


def configuration_beyond_the_memory(liars: Liars) -> None:
    """A field that is not there reads as 0, with a line in the log; a device with nothing but registers has its page."""
    for size, line in ((0x104, r"no configuration space at offset 4, 1 bytes"), (0x100, None)):
        liars.registers.fill({DEVICE_ID: NET, FEATURES: 1 | 1 << 5})
        liars.registers[CONFIG], liars.registers[CONFIG + 4] = 0x33221102, 0x5544
        assert not liars.load(size=size), "it has one queue, and needs two"
        log = liars.log()
        assert log.count("no configuration space") == (line is not None) and re.search(line or "", log), log
        liars.unload()


def notifications(liars: Liars) -> None:
    """The device gets the number of the queue or, if it wants that, where the driver will put its second buffer as well."""
    for features, value in ((1, 0), (1 | NOTIFICATION_DATA, 1 << 16)):
        liars.registers.fill({FEATURES: features, QUEUE_NOTIFY: 0xffffffff})
        assert liars.load(), liars.log()
        assert liars.registers[QUEUE_NOTIFY] == value
        liars.unload()


@contextmanager
def answering(registers: Registers, lets_go: bool) -> Iterator[None]:
    """Is a device that knows the register for the reset of a queue, or that only reads it as 0 and keeps the queue."""
    over = threading.Event()

    def answer() -> None:
        while not over.wait(0.0002):
            if registers[QUEUE_RESET] == 1:
                if lets_go:
                    registers[QUEUE_READY] = 0
                registers[QUEUE_RESET] = 0

    device = threading.Thread(target=answer)
    device.start()
    yield
    over.set()
    device.join()


def single_queues_reset(liars: Liars) -> None:
    """A queue is reset and used again; a device that does not reset it, or does not know how to, keeps it."""
    registers, good = liars.registers, {DEVICE_ID: ASKING, FEATURES: 1 | RING_RESET}
    registers.fill(good)
    with answering(registers, lets_go=True):
        assert liars.load(), liars.log()
    assert re.search(r"reset: 0\n.*restart: 0$", liars.log()), liars.log()
    assert (registers[QUEUE_READY], registers[QUEUE_SIZE]) == (1, 8)
    liars.unload()
    registers.fill(good)
    with answering(registers, lets_go=False):
        assert liars.load(), liars.log()
    assert re.search(r"does not reset queue 0\n.*reset: -2$", liars.log()), liars.log()
    liars.unload()
    registers.fill(good)
    began = time.monotonic()
    assert liars.load(), liars.log()
    assert time.monotonic() - began >= PATIENCE, "the device has too little time"
    assert re.search(r"does not reset queue 0\n.*reset: -5$", liars.log()), liars.log()
    liars.unload()
    registers.fill({DEVICE_ID: ASKING})
    assert liars.load(), liars.log()
    assert re.search(r"reset: -2$", liars.log()) and registers[QUEUE_RESET] == 0, "it does not offer that"
    liars.unload()


def shared_memory(liars: Liars) -> None:
    """A region is where the device says; none is beyond the last address, or of a device that has none."""
    none = "region 1: none"
    cases = [
        ({SHM_LEN: 0x3000, SHM_BASE: 0x5000, SHM_BASE + 4: 0x2}, "region 1: 12288 bytes at 0x200005000"),
        ({SHM_LEN: 0xffffffff, SHM_LEN + 4: 0xffffffff, SHM_BASE: 0xffffffff, SHM_BASE + 4: 0xffffffff}, none),
        ({SHM_LEN: 0x3000, SHM_BASE: 0xffffe000, SHM_BASE + 4: 0xffffffff}, "shared memory region 1 has 12288 bytes at 0xffffffffffffe000"),
        ({SHM_LEN: 0x3000, VERSION: 1}, none),
    ]
    for values, line in cases:
        liars.registers.fill({DEVICE_ID: ASKING, **values})
        assert liars.load(), (values, liars.log())
        assert line in liars.log() and (none in liars.log()) == (line != cases[0][1]), (values, liars.log())
        assert liars.registers[SHM_SEL] == (1 if values.get(VERSION) != 1 else 0)
        liars.unload()
