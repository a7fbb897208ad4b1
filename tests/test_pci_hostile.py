# SPDX-License-Identifier: GPL-2.0
"""A device on PCI that lies: capabilities that cannot be, registers that do not change, a device that vanishes (`tests/pci`).

Each row binds the driver to a device with one thing wrong, and says what must come of it. Our module must always come to an end, say in
one line what is wrong if it does not use the device, and be able to use the device when it is good again. C is the control.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest
from lab.guest import Guest, facts
from pci import config
from pci.config import Capability
from pci.disk import Disk
from pci.net import Net
from pci.virtio import (
    BAR_SIZE, COMMON_AT, COMMON_SIZE, CONFIG_INTERRUPT, DEVICE_AT, FEATURES_OK, ISR_AT, NEEDS_RESET, NO_VECTOR, NOTIFICATION_DATA,
    NOTIFY_AT, NOTIFY_SIZE, QUEUE_INTERRUPT, RING_RESET, PciDevice,
)

Factory = Callable[..., Guest]
Deform = Callable[[PciDevice], None]

KERNEL = list(facts().kernels)[-1]
"""`full`, or `debug` in `make test-debug`: Debian's kernel has virtio on PCI built in."""

DRIVER = "/sys/bus/pci/drivers/virtio-pci"

USED, LEFT = "used", "left without driver"
INVALID, NO_DEVICE, IO_ERROR = "Invalid argument", "No such device", "Input/output error"
HANGS = "hangs, stops the kernel, or makes it warn"
"""Of C: not tried."""

CORES = {"c": set(), "rust": {"virtio_pci", "virtio", "virtio_ring"}, "rust-pci": {"virtio_pci"}}

WARNINGS: dict[str, list[str]] = {"c": [], "rust": [], "rust-pci": ["cut here", "WARNING: .*virtio_dev_remove"]}
"""C's core warns of a device that was not reset when its driver goes."""

REVISION, SUBSYSTEM = 255, (0x1234, 0x5678)
"""PCI-3, PCI-4: of one of the devices."""


@dataclass(frozen=True)
class Row:
    """One thing that is wrong."""

    name: str
    deform: Deform
    outcome: str
    """`USED`; `LEFT`: the transport has it, the driver above refused it; or the error that the transport gives."""
    line: str | None = None
    """What the log must say."""
    c: str | None = None
    """What comes of it with C, if it is something else; its log is not looked at."""
    core: str | None = None
    """The same with C's core and rings above our module."""


class Liar:
    """A device, and the slot that it is in."""

    def __init__(self, guest: Guest, device: PciDevice, slot: str) -> None:
        self.guest, self.device, self.slot = guest, device, slot

    def bind(self) -> str:
        """Binds the driver; what came of it."""
        self.guest.run("dmesg -c >/dev/null")
        result = self.guest.run(f"echo {self.slot} >{DRIVER}/bind", check=False, timeout=8)
        if result.status:
            return result.out.rpartition(": ")[2].strip()
        disk = self.disk()
        if not disk:
            return LEFT
        self.guest.run(f"dd if=/dev/{disk} of=/dev/null bs=64k count=4 2>/dev/null", timeout=20)
        return USED

    def disk(self) -> str:
        """The name of the disk, empty if there is none."""
        return self.guest.run(f"cd /sys/bus/pci/devices/{self.slot}; ls virtio*/block 2>/dev/null", check=False).out.strip()

    def unbind(self) -> None:
        """Takes the driver away, if it is there."""
        self.guest.run(f"test ! -e {DRIVER}/{self.slot} || echo {self.slot} >{DRIVER}/unbind", timeout=30)

    def log(self) -> str:
        """What the kernel said since `bind()` began."""
        return self.guest.run("dmesg").out

    def check_good(self) -> None:
        """The device tells the truth again: it is used, and no rule is broken."""
        self.device.honest()
        assert self.bind() == USED, self.log()
        self.unbind()
        assert self.device.violations == []


@dataclass(frozen=True)
class Liars:
    """A guest with a disk that has MSI-X, a network interface of the same kind, and a disk without MSI-X whose list of capabilities can
    be changed."""

    ours: str
    guest: Guest
    msix: Liar
    net: Liar
    line: Liar


@pytest.fixture(params=["rust", *(pytest.param(core, marks=pytest.mark.long) for core in ("rust-pci", "c"))])
def liars(request: pytest.FixtureRequest, guests: Factory) -> Iterator[Liars]:
    """Boots the guest; no driver is bound."""
    with PciDevice(Disk(1), msix=True) as disk, PciDevice(Net(RING_RESET), msix=True, queue_size=64) as net, PciDevice(
        Disk(1), msix=False, revision=REVISION, subsystem=SUBSYSTEM,
    ) as line:
        devices = (disk, net, line)
        guest = guests(
            kernel=KERNEL, rust=CORES[request.param], driver=None, balloon=False, swap_mib=0, memory_mib=256, modules=["virtio_blk", "virtio_net", "virtio_probe"],
            files={"/bin/ethring": facts().programs / "ethring"}, shared_memory=True, allow=WARNINGS[request.param],
            qemu_options=[option for device in devices for option in device.options],
        ).start()
        slots = [path.split("/")[-2] for path in guest.run("grep -lE '0x104[12]' /sys/bus/pci/devices/*/device").out.split()]
        made = [Liar(guest, device, slot) for device, slot in zip(devices, slots, strict=True)]
        guest.run("modprobe -a virtio_blk virtio_net")
        for liar in made:
            liar.unbind()
            liar.device.honest()
        yield Liars(request.param, guest, *made)


def check(liars: Liars, liar: Liar, rows: list[Row]) -> None:
    """Tries all rows."""
    problems = []
    for row in rows:
        theirs = {"c": row.c, "rust-pci": row.core}.get(liars.ours)
        if theirs == HANGS:
            continue
        liar.device.honest()
        with liar.device.lock:
            liar.device.reset()
            row.deform(liar.device)
        began = time.monotonic()
        outcome = liar.bind()
        log = liar.log()
        liar.unbind()
        seconds = time.monotonic() - began
        print(f"{row.name}: {outcome}, {seconds:.1f} s; {log.strip()}")
        if outcome != (theirs or row.outcome):
            problems.append(f"{row.name}: {outcome} instead of {theirs or row.outcome}: {log}")
        if liars.ours != "c" and not theirs and row.line and not re.search(row.line, log):
            problems.append(f"{row.name}: no /{row.line}/ in the log: {log}")
        if row.outcome == USED and liar.device.violations:
            problems.append(f"{row.name}: {liar.device.violations}")
    liar.check_good()
    assert not problems, "\n".join(problems)


# Capabilities


def listed(**changes: Capability | None) -> Deform:
    """Exchanges structures."""
    return lambda device: device.set_list(device.capabilities(**changes))


def common(offset: int = COMMON_AT, length: int = COMMON_SIZE, bar: int = 0) -> Capability:
    """The common configuration, elsewhere."""
    return Capability(config.COMMON, bar, offset, length)


def before(*capabilities: Capability) -> Deform:
    """Puts others before the good ones."""
    return lambda device: device.set_list([*capabilities, *device.capabilities()])


def notifying(multiplier: int, offset: int = 0) -> Deform:
    """Another multiplier for notifications, and another offset of the queue."""

    def deform(device: PciDevice) -> None:
        device.wrong.multiplier = multiplier
        device.wrong.lies["queue_notify_off"] = lambda _: offset
        device.set_list(device.capabilities())

    return deform


RESERVED = [Capability(kind, 0, 0, 16) for kind in (0, 6, 7, 10, 255)]
STRUCTURES = (config.COMMON, config.NOTIFY, config.ISR, config.DEVICE)
TAIL = config.SIZE - 8
"""A capability here has a type and a BAR, but no offset."""

LISTS = [
    Row("PCI-7: reserved types", before(*RESERVED), USED),
    Row("PCI-8: two of each", lambda device: device.set_list([*device.capabilities(), *(Capability(kind, 0, 0x7000, 4) for kind in STRUCTURES)]), USED),
    Row("PCI-9: longer capabilities", listed(common=Capability(config.COMMON, 0, COMMON_AT, COMMON_SIZE, extra=bytes(8))), USED),
    Row("PCI-10: reserved BARs", before(Capability(config.COMMON, 6, 0, 64), Capability(config.ISR, 255, 0, 1)), USED),
    Row("PCI-12: structures as long as the BAR", listed(
        common=common(length=BAR_SIZE), isr=Capability(config.ISR, 0, ISR_AT, BAR_SIZE - ISR_AT), device=Capability(config.DEVICE, 0, DEVICE_AT, BAR_SIZE - DEVICE_AT),
    ), USED),
    Row("DEV-21: a BAR that is not there, before the good one", before(*(Capability(kind, 2, 0, 0x1000) for kind in STRUCTURES)), USED),
    Row("DEV-21: a BAR that is not there", listed(common=common(bar=2)), NO_DEVICE),
    Row("DEV-22: the list is a loop", lambda device: device.set_list(device.capabilities(), loop_to=0), USED),
    Row("DEV-22: a loop before the list is complete", lambda device: device.set_list(device.capabilities(common=None), loop_to=1), NO_DEVICE, c=HANGS),
    Row("DEV-22: a capability that is its own next", lambda device: device.set_list([common()], loop_to=0), INVALID, r"notif", c=HANGS),
    Row("DEV-22: a capability that ends with the space", lambda device: device.set_list(device.capabilities(), at=[TAIL]), INVALID, r"common"),
    Row("DEV-22: a list without notifications", listed(notify=None), INVALID, r"notif"),
    Row("DEV-22: a list without interrupt status", listed(isr=None), INVALID, r"isr|ISR|interrupt"),
    Row("a device without configuration space", listed(device=None), LEFT),
    Row("PCI-L2: no capabilities, and no legacy device", lambda device: device.set_list([]), NO_DEVICE),
]

PLACES = [
    Row("PCI-13: a common configuration one byte short", listed(common=common(length=55)), INVALID, r"common"),
    Row("DEV-21: length 0", listed(common=common(length=0)), INVALID, r"common"),
    Row("DEV-21: misaligned", listed(common=common(offset=2)), INVALID, r"common"),
    Row("DEV-21: the end beyond the BAR", listed(common=common(offset=BAR_SIZE - 32)), INVALID, r"common"),
    Row("DEV-21: the beginning beyond the BAR", listed(common=common(offset=BAR_SIZE)), INVALID, r"common"),
    Row("DEV-21: offset and length overflow", listed(common=common(offset=0xFFFFFFE0)), INVALID, r"common"),
    Row("DEV-21: all ones", listed(common=common(offset=0xFFFFFFFC, length=0xFFFFFFFF)), INVALID, r"common"),
    Row("DEV-21: interrupt status beyond the BAR", listed(isr=Capability(config.ISR, 0, BAR_SIZE, 1)), INVALID, r"isr|ISR|interrupt"),
    Row("DEV-21: interrupt status of length 0", listed(isr=Capability(config.ISR, 0, ISR_AT, 0)), INVALID, r"isr|ISR|interrupt"),
    Row("DEV-21: configuration beyond the BAR", listed(device=Capability(config.DEVICE, 0, BAR_SIZE, 64)), INVALID, r"device|configuration"),
    Row("DEV-20: configuration of 4 bytes", listed(device=Capability(config.DEVICE, 0, DEVICE_AT, 4)), USED, r"configuration", c=HANGS),
    Row("DEV-21: notifications beyond the BAR", listed(notify=config.notify(0, BAR_SIZE, 0x1000, 4)), INVALID, r"notif"),
    Row("DEV-21: notifications of length 0", listed(notify=config.notify(0, NOTIFY_AT, 0, 4)), INVALID, r"notif"),
    Row("PCI-28: notifications of 1 byte", listed(notify=config.notify(0, NOTIFY_AT, 1, 4)), INVALID, r"notif"),
    Row("PCI-28: notifications at an odd place", listed(notify=config.notify(0, NOTIFY_AT + 1, 0x100, 4)), INVALID, r"notif"),
    Row("PCI-27: multiplier 0", notifying(0), USED),
    Row("PCI-27: multiplier 2", notifying(2, 7), USED),
    Row("PCI-27: multiplier 4095", notifying(4094, 1), USED),
    Row("PCI-28: the last place", notifying(2, NOTIFY_SIZE // 2 - 1), USED),
    Row("DEV-23: behind the last place", notifying(2, NOTIFY_SIZE // 2), LEFT, r"notif"),
    Row("DEV-23: half behind the last place", notifying(NOTIFY_SIZE - 1, 1), LEFT, r"notif"),
    Row("DEV-23: far beyond", notifying(0x80000000, 0xFFFF), LEFT, r"notif"),
]


def lying(**lies: int | Callable[[int], int]) -> Deform:
    """Registers that read as something else."""

    def deform(device: PciDevice) -> None:
        for name, lie in lies.items():
            device.wrong.lies[name] = lie if callable(lie) else lambda _, value=lie: value

    return deform


def deaf(*names: str) -> Deform:
    """Registers that cannot be written."""
    return lambda device: device.wrong.deaf.update(names)


def changing(name: str) -> Deform:
    """A register that has another value whenever it is read."""
    numbers = count()
    return lying(**{name: lambda _: next(numbers) & 0xFF})


def vanishing(at: str) -> Deform:
    """The device is not there any more as soon as a register was written."""

    def deform(device: PciDevice) -> None:
        def look(name: str) -> None:
            device.wrong.gone |= name == at

        device.wrong.on_write = look

    return deform


def noisy(device: PciDevice) -> None:
    """Interrupts with each register that is written."""
    device.wrong.on_write = lambda name: (device.interrupt(0, 3), device.interrupt(None)) and None


REGISTERS = [
    Row("DEV-20: no queues", lying(num_queues=0), LEFT, r"there is no queue 0"),
    Row("DEV-24: a queue of 0", lying(queue_size=0), LEFT, r"there is no queue 0"),
    Row("DEV-24: a queue of 3", lying(queue_size=3), LEFT, r"queue 0 cannot have 3 descriptors"),
    Row("DEV-24: a queue of 32769", lying(queue_size=32769), LEFT, r"queue 0 cannot have 32769 descriptors"),
    Row("DEV-24: a queue of 65535", lying(queue_size=65535), LEFT, r"queue 0 cannot have 65535 descriptors"),
    Row("DEV-25: a queue that is in use", lying(queue_enable=1), LEFT, r"queue 0 is in use"),
    Row("DEV-18: FEATURES_OK withheld", lying(device_status=lambda value: value & ~FEATURES_OK), LEFT, r"refuses features"),
    Row("no VERSION_1", lying(device_feature=0), LEFT, r"VERSION_1"),
    Row("DEV-17: asks for a reset from the beginning", lying(device_status=lambda value: value | NEEDS_RESET if value else 0), LEFT, r"reset", c=USED, core=USED),
    Row("DEV-15: status 4 after a reset", lying(device_status=lambda value: value or 4), LEFT, r"has not reset yet", c=HANGS),
    Row("DEV-15: status cannot be written", deaf("device_status"), LEFT, r"refuses features|status"),
    Row("DEV-7: a generation that never settles", changing("config_generation"), USED, r"does not stop to change its configuration", c=HANGS),
    Row("PCI-39: no vector for the configuration", lying(config_msix_vector=NO_VECTOR), USED),
    Row("PCI-39: no vector for the queue", lying(queue_msix_vector=NO_VECTOR), USED),
    Row("PCI-39: no vector at all", lying(config_msix_vector=NO_VECTOR, queue_msix_vector=NO_VECTOR), USED),
    Row("DEV-16: gone from the beginning", lambda device: setattr(device.wrong, "gone", True), NO_DEVICE, c=HANGS),
    Row("DEV-16: gone with the first word of the features", vanishing("device_feature_select"), LEFT, r"gone", c=HANGS),
    Row("DEV-16: gone when the queue is made", vanishing("queue_size"), LEFT, r"gone", c=HANGS),
    Row("DEV-26: interrupts all the time", noisy, USED),
    Row("PCI-42: notifications with data", lambda device: setattr(device.wrong, "offers", NOTIFICATION_DATA), USED),
]


PATIENCE = 0.9
"""How many seconds the driver waits at least for a device that does not do what it was told."""


def test_liars(liars: Liars) -> None:
    """If this fails a bad device is used, stops the machine, hangs the driver, or the log does not say why it is not used; or an unusual
    one is not used."""
    check(liars, liars.line, LISTS + PLACES)
    check(liars, liars.msix, REGISTERS)
    if liars.ours != "c":
        one_line(liars)
        one_line_for_fields(liars)
    interrupts_without_cause(liars)
    resets_of_a_queue(liars)
    if liars.ours != "c":  # It takes what is not in a BAR, and waits for ever.
        shared_memory(liars)
        device_that_vanishes(liars)
        reset_that_never_ends(liars)
        kept_from_memory(liars)
        slow_to_reset(liars)


def one_line(liars: Liars) -> None:
    """A queue that cannot be is told of once, not with each way to share vectors."""
    liars.msix.device.wrong.lies["queue_size"] = lambda _: 3
    assert liars.msix.bind() == LEFT
    assert liars.msix.log().count("queue 0") == 1, liars.msix.log()
    liars.msix.unbind()
    liars.msix.check_good()


def one_line_for_fields(liars: Liars) -> None:
    """A driver that wants more of the configuration than there is, field by field, is told of once for each reset."""
    liar = liars.line
    liar.device.honest()
    listed(device=Capability(config.DEVICE, 0, DEVICE_AT, 4))(liar.device)
    assert liar.bind() == USED
    assert liar.log().count("no configuration space") == 1, liar.log()
    liar.unbind()
    liar.check_good()


def interrupts_without_cause(liars: Liars) -> None:
    """DEV-26: a line that is held, whatever the status says, is a storm; when it is over the device works. Unknown causes are
    ignored, and all ones are not from a device. PCI-45: both known ones may be there at once."""
    liar = liars.line
    for status in (0, 0xFC, 0xFF, QUEUE_INTERRUPT, QUEUE_INTERRUPT | CONFIG_INTERRUPT):
        liar.device.honest()
        assert liar.bind() == USED
        reads: list[int] = []
        liar.device.wrong.lies["isr"] = lambda _, value=status: value
        liar.device.wrong.lies["config"] = lambda byte, reads=reads: reads.append(byte) or byte
        liar.device.hold_line(True)
        time.sleep(0.2)
        liar.device.hold_line(False)
        # The driver looks at its configuration if it is told that it changed.
        liar.guest.wait_for(lambda: not status & CONFIG_INTERRUPT or status == 0xFF or bool(reads), 10, "the driver is not told")
        assert not reads or status != 0xFF or liars.ours == "c", "all ones are no interrupt"
        liar.device.wrong.lies.clear()
        liar.guest.run(f"dd if=/dev/{liar.disk()} of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null", timeout=10)
        liar.unbind()
        assert liar.device.violations == [], status


def resets_of_a_queue(liars: Liars) -> None:
    """PCI-24, DEV-15: a queue is reset, has another size, is reset again. One that does not finish must not be waited for without end."""
    liar = liars.net
    liar.device.honest()
    assert liar.bind() == LEFT, "it is no disk"
    for size in (32, 64):
        assert liar.guest.run(f"ethring eth0 {size} {size}", timeout=10).out.split() == [str(size)] * 2
        assert [queue.queue_size for queue in liar.device.queues] == [size] * 2
    assert liar.device.violations == []
    if liars.ours != "c":  # It waits for ever.
        liar.device.wrong.lies["queue_reset"] = lambda _: 1
        began = time.monotonic()
        assert liar.guest.run("ethring eth0 32 32", check=False, timeout=10).status != 0
        assert time.monotonic() - began >= PATIENCE, "the device has too little time"
        assert re.search(r"reset", liar.log()), liar.log()
        liar.device.honest()
    liar.unbind()
    liar.device.honest()
    assert liar.bind() == LEFT
    assert liar.guest.run("ls /sys/class/net").out.count("eth0") == 1
    liar.unbind()


def region(id: int, offset: int, length: int, bar: int = 0, cap_len: int | None = None) -> Capability:
    """A shared memory region."""
    return Capability(config.SHARED_MEMORY, bar, offset, length, id, cap_len=cap_len)


SHARED = [
    ("none", [], ["none", "none"], None),
    ("SHM-2: two in the other order", [region(1, 0x7000, 0x800), region(0, 0x6000, 0x1000)], ["0x1000 at BAR+0x6000", "0x800 at BAR+0x7000"], None),
    ("all of the BAR", [region(0, 0, BAR_SIZE)], ["0x8000 at BAR+0x0", "none"], None),
    ("DEV-21: a good one behind a BAR that is not there", [region(0, 0, 4, bar=3), region(0, 0x6000, 4)], ["0x4 at BAR+0x6000", "none"], None),
    ("SHM-3: the end beyond the BAR", [region(0, 0x7000, 0x1001)], ["none", "none"], "more than the BAR has"),
    ("SHM-3: the upper half of the offset", [region(0, 1 << 32, 0x1000)], ["none", "none"], "more than the BAR has"),
    ("SHM-3: the upper half of the length", [region(1, 0, 0x1000 | 1 << 32)], ["none", "none"], "more than the BAR has"),
    ("SHM-3: offset and length overflow", [region(0, (1 << 64) - 1, 2)], ["none", "none"], "more than the BAR has"),
    ("DEV-21: length 0", [region(0, 0x6000, 0)], ["none", "none"], "too few bytes"),
    ("DEV-22: half a capability", [region(0, 0x6000, 0x1000, cap_len=16)], ["none", "none"], "is truncated"),
]
"""What is wrong, the regions that are in the list, what a driver gets as regions 0 and 1, and what the log says."""


def shared_memory(liars: Liars) -> None:
    """Shared memory regions, as the driver of `tests/modules/virtio_probe.rs` gets them."""
    liar, guest = liars.line, liars.guest
    guest.run("rmmod virtio_blk; modprobe virtio_probe")
    start = int(guest.run(f"head -n 1 /sys/bus/pci/devices/{liar.slot}/resource").out.split()[0], 16)
    for what, regions, found, line in SHARED:
        liar.device.honest()
        liar.device.set_list([*liar.device.capabilities(), *regions])
        guest.run(f"dmesg -c >/dev/null; echo {liar.slot} >{DRIVER}/bind")
        log = liar.log()
        liar.unbind()
        answers = {
            int(number): "none" if answer == "none" else f"{int(size):#x} at BAR+{int(address, 16) - start:#x}"
            for number, answer, size, address in re.findall(r"virtio_probe: region (\d): (none|(\d+) bytes at (0x[0-9a-f]+))", log)
        }
        assert answers == dict(enumerate(found)), f"{what}: {log}"
        assert ("virtio_pci: a shared memory capability" in log) == (line is not None) and (line or "") in log, f"{what}: {log}"
    guest.run("rmmod virtio_probe; modprobe virtio_blk")
    liar.check_good()


def seconds(do: Callable[[], None]) -> float:
    """How long something takes."""
    began = time.monotonic()
    do()
    return time.monotonic() - began


def device_that_vanishes(liars: Liars) -> None:
    """DEV-16: the device is pulled out while it is in use; the driver goes at once."""
    for liar in (liars.msix, liars.line):
        liar.device.honest()
        assert liar.bind() == USED
        usual = seconds(liar.unbind)
        assert liar.bind() == USED
        liar.device.wrong.gone = True
        assert seconds(liar.unbind) < usual + PATIENCE, "nothing should be waited for"
        assert re.search(r"gone", liar.log()), liar.log()
        liar.check_good()


def reset_that_never_ends(liars: Liars) -> None:
    """DEV-15: the device does not come back from its reset when the driver goes. The memory of its queues is lost."""
    liar = liars.msix
    liar.device.honest()
    assert liar.bind() == USED
    liar.device.wrong.lies["device_status"] = lambda value: value or 4
    began = time.monotonic()
    liar.unbind()
    assert time.monotonic() - began >= PATIENCE, "the device has too little time"
    assert re.search(r"reset", liar.log()), liar.log()
    liar.check_good()


VIRTIO_BLK = "/sys/bus/virtio/drivers/virtio_blk"


def kept_from_memory(liars: Liars) -> None:
    """DEV-15: a device that does not reset when its driver goes cannot reach memory when the driver has gone, and frees what it gave the
    device. It is not used before it has reset, nor waited for; then it works again."""
    liar, guest = liars.msix, liars.guest
    liar.device.honest()
    assert liar.bind() == USED
    name = guest.run(f"basename /sys/bus/pci/devices/{liar.slot}/virtio*").out.strip()
    assert liar.device.is_bus_master
    liar.device.wrong.lies["device_status"] = lambda value: value or 4
    guest.run(f"dmesg -c >/dev/null; echo {name} >{VIRTIO_BLK}/unbind", timeout=60)
    log = liar.log()
    assert not liar.device.is_bus_master, "the device can write to memory that was freed"
    assert "the device does not reset: it cannot reach memory until it has" in log and log.count("reset:") == 1, log
    began = time.monotonic()
    assert guest.run(f"echo {name} >{VIRTIO_BLK}/bind", check=False, timeout=60).status != 0
    assert time.monotonic() - began < PATIENCE * 5, "a device that is given up is waited for"
    assert not liar.device.is_bus_master
    liar.device.wrong.lies.clear()
    guest.run(f"echo {name} >{VIRTIO_BLK}/bind")
    assert "the device has reset after all" in liar.log() and liar.device.is_bus_master, liar.log()
    guest.run(f"dd if=/dev/{liar.disk()} of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null", timeout=20)
    liar.unbind()
    liar.check_good()


SLOW = 12
"""How many seconds a device takes that is slow to reset: longer than one is waited for whose driver goes."""


def slow_to_reset(liars: Liars) -> None:
    """A device that is not ready when it is found is bound when it is, and nothing else waits for it. Until then it can be unbound."""
    liar, guest = liars.msix, liars.guest
    end = 0.0

    def begin() -> str:
        nonlocal end
        liar.device.honest()
        with liar.device.lock:
            liar.device.reset()
        end = time.monotonic() + SLOW
        liar.device.wrong.lies["device_status"] = lambda value: value or (4 if time.monotonic() < end else 0)
        return liar.bind()

    assert begin() == LEFT and time.monotonic() < end, "the driver's bus waits for the device"
    assert liar.log().count("has not reset yet, it is registered when it has") == 1, liar.log()
    liar.unbind()
    assert time.monotonic() < end, "the device is waited for when its driver goes"
    assert begin() == LEFT
    guest.wait_for(liar.disk, SLOW + 20, "the device is not used when it is ready")
    assert time.monotonic() >= end
    assert liar.log().count("the device has reset, and is registered now") == 1, liar.log()
    guest.run(f"dd if=/dev/{liar.disk()} of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null", timeout=20)
    liar.unbind()
    assert liar.device.violations == []
    liar.check_good()
