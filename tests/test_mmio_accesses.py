# SPDX-License-Identifier: GPL-2.0
"""The accesses to a device's registers, in the order in which QEMU sees them: virtio-mmio, modern and legacy, with our modules and with C's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from lab.guest import Guest, facts
from test_mmio import BELOW, boot, mixture_id
from test_mmio_hostile import (
    CONFIG, DEVICE_ID, INTERRUPT_ACK, INTERRUPT_STATUS, MAGIC, QUEUE_PFN, QUEUE_READY, QUEUE_SIZE, QUEUE_SIZE_MAX, VERSION,
)
from test_ring import KERNEL, Devices, Ring

Factory = Callable[..., Guest]

GUEST_PAGE_SIZE, QUEUE_SEL, QUEUE_ALIGN, QUEUE_DESC, SHM_SEL, GENERATION = 0x028, 0x030, 0x03c, 0x080, 0x0ac, 0x0fc
MODERN_ONLY = {QUEUE_READY, *range(QUEUE_DESC, CONFIG, 4)}
LEGACY_ONLY = {GUEST_PAGE_SIZE, QUEUE_ALIGN, QUEUE_PFN}

EVENTS = ["-trace", "enable=virtio_mmio_read", "-trace", "enable=virtio_mmio_write_offset"]
EVENT = re.compile(r" virtio_mmio_(read|write) offset 0x([0-9a-f]+)(?: value 0x([0-9a-f]+))?$", re.MULTILINE)

EMPTY = "512@0xfeb00000:5"
"""The first place for a device on QEMU's machine `microvm`, which fills them from the other end."""

LAYERS = [pytest.param(frozenset(ours), id=mixture_id(frozenset(ours)), marks=() if ours else pytest.mark.long) for ours in (BELOW, ())]


class Access(NamedTuple):
    """A read, or a write of `value`."""

    how: str
    offset: int
    value: int


def accesses(guest: Guest) -> list[Access]:
    """All so far. They do not say to which device: there must be one at a time."""
    text = (guest.logs / "trace.0.log").read_text()
    return [Access(how, int(offset, 16), int(value or "0", 16)) for how, offset, value in EVENT.findall(text)]


@pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])
@pytest.mark.parametrize("ours", LAYERS)
def test_accesses(guests: Factory, ours: frozenset[str], legacy: bool, tmp_path: Path) -> None:
    """If this fails a device that keeps to the specification more strictly than QEMU does would not work."""
    devices = Devices(tmp_path, "device")
    devices.disks([Ring()])
    guest = boot(guests, ours, "parameter", legacy, balloon=False, driver=None, qemu_options=[*devices.options, *EVENTS])
    devices.check(guest)
    guest.run("rmmod virtio_blk virtio_mmio")
    seen = accesses(guest)
    begins_with_what_it_is(seen)
    touches_its_own_registers(seen, legacy)
    acknowledges_what_it_has_read(seen)
    if legacy:
        makes_legacy_queues(seen)
    else:
        changes_only_queues_that_are_not_ready(seen)
    leaves_an_empty_place_alone(guest)


def begins_with_what_it_is(seen: list[Access]) -> None:
    """MMIO-20: the device is known before anything else is done with it."""
    assert seen[:3] == [Access("read", offset, 0) for offset in (MAGIC, VERSION, DEVICE_ID)]


def touches_its_own_registers(seen: list[Access], legacy: bool) -> None:
    """MMIO-L6: no register of the other version is touched."""
    touched = {access.offset for access in seen}
    assert not touched & (MODERN_ONLY if legacy else LEGACY_ONLY)
    assert touched >= ({*LEGACY_ONLY} if legacy else {QUEUE_READY, QUEUE_DESC, GENERATION})
    assert SHM_SEL not in touched, "no driver here asks for shared memory"


def acknowledges_what_it_has_read(seen: list[Access]) -> None:
    """MMIO-16: each acknowledgement belongs to a reading of the causes, and each cause is acknowledged."""
    reads = [place for place, access in enumerate(seen) if access.offset == INTERRUPT_STATUS]
    acknowledged = [place for place, access in enumerate(seen) if access.offset == INTERRUPT_ACK]
    assert acknowledged == [place + 1 for place in reads] != []
    assert {seen[place].value for place in acknowledged} == {1}


def changes_only_queues_that_are_not_ready(seen: list[Access]) -> None:
    """MMIO-12: size and addresses of a queue are written while QueueReady is 0."""
    ready, changes = 0, 0
    for how, offset, value in seen:
        if how == "write" and offset == QUEUE_READY:
            ready = value
        elif how == "write" and (offset == QUEUE_SIZE or QUEUE_DESC <= offset < SHM_SEL):
            assert not ready, hex(offset)
            changes += 1
    assert changes == 7 and not ready


def makes_legacy_queues(seen: list[Access]) -> None:
    """MMIO-L4: the largest size is read while the queue has no place, and the place is written last."""
    of_queues = [(how, offset) for how, offset, _ in seen if offset in {QUEUE_SEL, QUEUE_SIZE_MAX, QUEUE_SIZE, *LEGACY_ONLY}]
    assert of_queues[:7] == [
        ("write", GUEST_PAGE_SIZE), ("write", QUEUE_SEL), ("read", QUEUE_PFN), ("read", QUEUE_SIZE_MAX), ("write", QUEUE_SIZE),
        ("write", QUEUE_ALIGN), ("write", QUEUE_PFN),
    ]
    places = [value for how, offset, value in seen if (how, offset) == ("write", QUEUE_PFN)]
    assert len(places) == 2 and places[0] and not places[1]


def leaves_an_empty_place_alone(guest: Guest) -> None:
    """MMIO-21: when there is no device nothing but that is read."""
    before = len(accesses(guest))
    guest.run(f"insmod $(find /lib/modules -name virtio_mmio.ko) device={EMPTY}; rmmod virtio_mmio")
    assert accesses(guest)[before:] == [Access("read", offset, 0) for offset in (MAGIC, VERSION, DEVICE_ID)]
