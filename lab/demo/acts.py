# SPDX-License-Identifier: GPL-2.0
"""What happens to each guest of the demo, and what is measured meanwhile."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath

from lab.guest import PAGES_PER_MIB, SWAP_DEVICE, Guest, Traffic, facts
from lab.guest.guest import Driver
from lab.guest.pmtimes import PREPARE, Callback, callbacks

MEMORY_MIB = 1024
BALLOON_MIB = 512
BALLOON_PAGES = BALLOON_MIB * PAGES_PER_MIB
FILE_MIB = 32
LEAVE_KIB = 64 << 10
"""How much of the memory that was available before the first inflation stays unused when all of it is filled after resume."""

STACKS: dict[str, set[str]] = {"balloon": set(), "all": {"virtio", "virtio_ring", "virtio_pci"}}
"""Which modules are ours in the guest with our driver, beside the driver itself."""

INFLATE, FAIL, SLEEP, RESUME, USE = "inflate", "act 1", "act 2", "resume", "act 3"

Say = Callable[[str], None]
"""Prints one line of progress."""


@dataclass
class Act:
    """One act of one guest: when it was (host's clock, seconds), what the host saw, and the balloon's PM callbacks."""

    name: str
    begin: float
    end: float = 0
    traffic: Traffic = field(default_factory=Traffic)
    callbacks: list[Callback] = field(default_factory=list)


@dataclass
class Record:
    """Everything the demo finds out about one driver. Memory in KiB, `actual` in pages of 4 KiB, time in seconds of the host's clock."""

    driver: Driver
    logs: str = ""
    modules: list[str] = field(default_factory=list)
    control: list[str] = field(default_factory=list)
    """The virtio modules that are loaded: ours, and those of the kernel."""
    acts: list[Act] = field(default_factory=list)
    actual: list[tuple[float, int]] = field(default_factory=list)
    memtotal_before: int = 0
    available_before: int = 0
    """MemAvailable before the first inflation."""
    memtotal_after_resume: int = 0
    image_pages: int = 0
    filled: int = 0
    """Memory that a program could fill and read back after resume."""
    checksum_ok: bool = False

    def act(self, name: str) -> Act:
        """The act with this name."""
        return next(act for act in self.acts if act.name == name)


def perform(driver: Driver, kernel: str, rust: set[str], say: Say) -> Record:
    """Takes one guest, in which the modules `rust` are ours, too, through all acts.

    Raises GuestError when the guest does not do its part; what it does differently from what is expected is in the record.
    """
    record = Record(driver)
    memfill = facts().programs / "memfill"
    guest = Guest(f"demo-{driver}", kernel=kernel, driver=driver, rust=rust, memory_mib=MEMORY_MIB, files={"/bin/memfill": memfill})
    record.logs = str(guest.logs)
    say("boots")
    with guest:
        guest.run(PREPARE)
        record.modules, record.control = _loaded(guest)
        checksum = guest.run(f"dd if=/dev/urandom of=/tmp/file bs=1M count={FILE_MIB} 2>/dev/null; sha256sum /tmp/file").out
        meminfo = guest.meminfo()
        record.memtotal_before, record.available_before = meminfo["MemTotal"], meminfo["MemAvailable"]
        device = PurePath(guest.run("readlink -f /sys/bus/virtio/drivers/virtio_balloon/virtio*").out.strip())
        devices = (device.name, device.parent.name)
        with _act(guest, record, INFLATE, devices):
            say(f"inflates the balloon to {BALLOON_MIB} MiB")
            guest.inflate(BALLOON_MIB)
        with _act(guest, record, FAIL, devices) as act:
            _fail_to_hibernate(guest, say)
        say(f"act 1: {act.traffic.pages:,} pages moved, lowest actual {act.traffic.actual_min / PAGES_PER_MIB:.0f} MiB")
        with _act(guest, record, SLEEP, devices):
            say("act 2: hibernates to disk and powers off")
            result = guest.hibernate()
            if result is not None:
                raise RuntimeError(f"hibernation failed: {result.out.strip()}")
        with _act(guest, record, RESUME, devices):
            say("act 2: resumes in a new QEMU process")
            guest.resume(target_mib=0)
            guest.wait_actual(0)
            record.memtotal_after_resume = guest.meminfo()["MemTotal"]
            record.image_pages = _image_pages(guest)
        with _act(guest, record, USE, devices):
            _use_memory(guest, record, checksum, say)
        record.actual = guest.traffic().actual
    return record


def _loaded(guest: Guest) -> tuple[list[str], list[str]]:
    """The virtio modules that are loaded: ours, which taint the kernel since they are built outside of it, and its own."""
    lines = [line.split() for line in guest.read("/proc/modules").splitlines() if line.startswith("virtio")]
    ours = [words[0] for words in lines if "O" in words[-1]]
    return sorted(ours), sorted(words[0] for words in lines if words[0] not in ours)


def _fail_to_hibernate(guest: Guest, say: Say) -> None:
    say("act 1: hibernates without swap, which must fail")
    guest.run("swapoff -a")
    result = guest.hibernate()
    if result is None or result.status == 0:
        raise RuntimeError("a hibernation without swap succeeded")
    guest.wait_actual(BALLOON_PAGES)  # The C driver has to take its pages again.
    guest.run(f"swapon {SWAP_DEVICE}")


def _image_pages(guest: Guest) -> int:
    """Pages that the last image holds, as the kernel that wrote it has said on the console."""
    saved = re.findall(r"aving image data(?: pages)? \((\d+) pages\)", guest.console.text())
    if not saved:
        raise RuntimeError("the kernel did not say how many pages the image has")
    return int(saved[-1])


def _use_memory(guest: Guest, record: Record, checksum: str, say: Say) -> None:
    say("act 3: checks the file, fills all memory with a pattern and reads it back")
    record.checksum_ok = guest.run("sha256sum /tmp/file").out == checksum
    # What is in the lists of free pages of a CPU does not help a program that wants the last of the memory.
    guest.run("swapoff -a; echo 1000 >/proc/sys/vm/percpu_pagelist_high_fraction")
    size = record.available_before - LEAVE_KIB
    if guest.run(f"memfill {size}", timeout=180, check=False).status == 0:
        record.filled = size
    say(f"act 3: {record.filled:,} KiB filled and checked; inflates again")
    guest.inflate(BALLOON_MIB)


@contextmanager
def _act(guest: Guest, record: Record, name: str, devices: tuple[str, str]) -> Iterator[Act]:
    """Records what the host sees, and what the guest's console says about the balloon's devices, while the body runs."""
    act = Act(name, time.time())
    mark, console = guest.mark(), len(guest.console.text())
    yield act
    act.end = time.time()
    act.traffic = guest.traffic(mark)
    act.callbacks = callbacks(guest.console.text()[console:], *devices)
    record.acts.append(act)
