# SPDX-License-Identifier: GPL-2.0
"""A legacy device on PCI that lies: registers with impossible values, that do not change, a device that is none or vanishes.

As in `test_pci_hostile.py`, whose rows these are: our module must come to an end, say in one line what is wrong if it does not use the
device, and be able to use the device when it is good again. C is the control.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from lab.guest import Guest
from pci.disk import Disk
from pci.legacy import LegacyDevice
from pci.net import Net
from pci.virtio import NO_VECTOR
from test_pci_hostile import (
    CORES, HANGS, INVALID, KERNEL, LEFT, NO_DEVICE, USED, Liar, Liars, Row, check, deaf, device_that_vanishes, interrupts_without_cause, lying,
    noisy, one_line, reset_that_never_ends, vanishing,
)

Factory = Callable[..., Guest]

SHORT = 16
"""Bytes of a BAR that is too short."""


@dataclass(frozen=True)
class LegacyLiars(Liars):
    """A guest as `Liars` describes, but with legacy devices; and two disks that cannot be used."""

    short: Liar
    newer: Liar


@pytest.fixture(params=["rust", pytest.param("c", marks=pytest.mark.long)])
def liars(request: pytest.FixtureRequest, guests: Factory) -> Iterator[LegacyLiars]:
    """Boots the guest; no driver is bound."""
    with ExitStack() as stack:
        devices = [
            LegacyDevice(Disk(1), msix=True), LegacyDevice(Net(), msix=True), LegacyDevice(Disk(1), msix=False),
            LegacyDevice(Disk(1), msix=False, bar_size=SHORT), LegacyDevice(Disk(1), msix=False, revision=1),
        ]
        for device in devices:
            stack.enter_context(device)
        guest = guests(
            kernel=KERNEL, rust=CORES[request.param], driver=None, balloon=False, swap_mib=0, memory_mib=256, modules=["virtio_blk", "virtio_net"],
            shared_memory=True, qemu_options=[option for device in devices for option in device.options],
        ).start()
        slots = [path.split("/")[-2] for path in guest.run("grep -lE '0x100[01]' /sys/bus/pci/devices/*/device").out.split()]
        made = [Liar(guest, device, slot) for device, slot in zip(devices, slots, strict=True)]
        guest.run("modprobe -a virtio_blk virtio_net")
        for liar in made:
            liar.unbind()
            liar.device.honest()
        yield LegacyLiars(request.param, guest, *made)


IN_USE = r"queue 0 is in use"

REGISTERS = [
    Row("DEV-24: a queue of 0", lying(queue_size=0), LEFT, r"there is no queue 0"),
    Row("DEV-24: a queue of 3", lying(queue_size=3), LEFT, r"queue 0 cannot have 3 descriptors"),
    Row("DEV-24: a queue of 32769", lying(queue_size=32769), LEFT, r"queue 0 cannot have 32769 descriptors"),
    Row("DEV-24: a queue of 65535", lying(queue_size=65535), LEFT, r"queue 0 cannot have 65535 descriptors"),
    Row("DEV-25: a queue that has a place", lying(queue_pfn=1), LEFT, IN_USE),
    Row("DEV-25: a queue that is everywhere", lying(queue_pfn=0xFFFFFFFF), LEFT, IN_USE),
    Row("PCI-L6: unknown features", lying(device_feature=lambda value: value | 3 << 30), USED),
    Row("DEV-20: a configuration that ends with the BAR", lying(device_feature=lambda value: value | 1 << 13), USED, r"no configuration space", c=HANGS),
    Row("PCI-39: no vector for the configuration", deaf("config_msix_vector"), USED),
    Row("PCI-39: no vector for the queue", deaf("queue_msix_vector"), USED),
    Row("PCI-39: no vector at all", deaf("config_msix_vector", "queue_msix_vector"), USED),
    Row("DEV-16: gone with the features", vanishing("driver_feature"), LEFT, r"gone", c=HANGS),
    Row("DEV-16: gone when the queue is made", vanishing("queue_select"), LEFT, r"gone", c=HANGS),
    Row("DEV-26: interrupts all the time", noisy, USED),
]


def test_liars(liars: LegacyLiars) -> None:
    """If this fails a bad device is used, stops the machine, hangs the driver, or the log does not say why it is not used; or a good one
    is not used, or not given back what is its own."""
    check(liars, liars.msix, REGISTERS)
    for liar, outcome, line in ((liars.short, INVALID, r"legacy interface in 16 bytes"), (liars.newer, NO_DEVICE, r"revision 1 has no legacy")):
        if liars.ours != "c":  # It uses what is behind the BAR.
            assert liar.bind() == outcome
            assert re.search(line, liar.log()), liar.log()
    if liars.ours != "c":
        one_line(liars)
    interrupts_without_cause(liars)
    two_queues(liars)
    if liars.ours != "c":  # It frees the memory, and waits for ever.
        place_that_is_kept(liars)
        device_that_vanishes(liars)


def two_queues(liars: LegacyLiars) -> None:
    """PCI-L7: both queues of an interface have a place and a vector, and when the driver has gone they have none."""
    device = liars.net.device
    assert liars.net.bind() == LEFT, "it is no disk"
    assert liars.guest.run("ls /sys/class/net").out.count("eth0") == 1
    assert sorted(queue.queue_msix_vector for queue in device.queues) == [1, 2] and all(queue.queue_pfn for queue in device.queues)
    liars.net.unbind()
    assert [(queue.queue_msix_vector, queue.queue_pfn) for queue in device.queues] == [(NO_VECTOR, 0)] * 2
    assert device.violations == []


def place_that_is_kept(liars: LegacyLiars) -> None:
    """DEV-15: the device does not give a queue back when the driver goes. The memory of the queue is lost."""
    for liar in (liars.msix, liars.line):
        liar.device.honest()
        assert liar.bind() == USED
        liar.device.wrong.lies["queue_pfn"] = lambda value: value or 1
        liar.unbind()
        assert re.search(r"does not give queue 0 back", liar.log()), liar.log()
        liar.check_good()


@pytest.mark.long
@pytest.mark.parametrize("liars", ["rust"], indirect=True)  # C does not look.
def test_reset_that_never_ends(liars: LegacyLiars) -> None:
    """If this fails a device that does not come back from its reset keeps the driver for ever, or nothing is said of it."""
    reset_that_never_ends(liars)
