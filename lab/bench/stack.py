# SPDX-License-Identifier: GPL-2.0
"""What is measured of all together: the kernel with everything of virtio from Rust beside the same kernel from C's files, and, before
that, all that other benches measure of single modules."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lab.guest import Guest, facts
from lab.guest.guest import Driver

from . import balloon, mmio, pci, ring, rng
from .profile import CountedGuest, Function, Profile, Symbols
from .results import Row, Samples, Say

KERNELS: dict[Driver, str] = {"c": "c", "rust": "rust"}
"""The kernel of each side. Both have all of virtio built in and differ by CONFIG_VIRTIO_RUST alone."""

MODULE_BENCHES = {"balloon": balloon, "ring": ring, "rng": rng, "mmio": mmio, "pci": pci}
"""What was measured of single modules, on another kernel, each bench with targets of its own."""

PARTS = (*MODULE_BENCHES, *pci.PARTS, "pages", "boot", "size")
ROUNDS = 3
COUNTED_ROUNDS = 1
"""A boot that is counted takes minutes, whatever the clock of the guest says."""
TARGET = 1.0

MEMORY_MIB = 1024
BOOT_SECONDS = 240
LOGIN = "login: "
UNKNOWN = "?"
"""The function of addresses below the kernel: of firmware, and of the code that unpacks it."""

INFLATED, DEFLATED = balloon.INFLATED, balloon.DEFLATED
WALL, CPU, ALL, PATH = "wall", "cpu", "all", "path"
KEPT, USED, SLAB = "kept", "used", "slab"
TEXT, MEMORY, FILE = "text", "memory", "file"
MODULES = {
    "virtio": ("virtio",), "virtio_ring": ("virtio_ring",), "virtio_mmio": ("virtio_mmio",), "virtio_balloon": ("virtio_balloon",),
    "virtio_pci": ("virtio_pci", "virtio_pci_modern_dev", "virtio_pci_legacy_dev"),
}
"""Our modules, and which of C's each takes the place of."""


def measure(kernel: str, parts: Collection[str], say: Say, profile: Profile | None = None) -> list[Row]:
    """Measures modules on `kernel`, then the whole. Raises GuestError or RuntimeError when a guest does not do its part."""
    rows = []
    for name, bench in MODULE_BENCHES.items():
        if name in parts:
            found = bench.measure(kernel, bench.PARTS, lambda text, name=name: say(f"{name:<8}  {text}"), profile)
            rows += [replace(row, measure=f"{name}: {row.measure}") for row in found]
    samples: dict[Driver, Samples] = {"c": defaultdict(list), "rust": defaultdict(list)}
    for side, found in samples.items():
        def tell(text: str, side: Driver = side) -> None:
            say(f"all in {side:<4}  {text}")

        if work := [part for part in pci.PARTS if part in parts]:
            found.update(pci.Bench(KERNELS[side], f"all in {side}", (), work, tell, profile).run())
        if "pages" in parts:
            balloon.counted(side, KERNELS[side], ("pages",), found, tell, profile)
        if "size" in parts:
            _sizes(kernel, side, found)
    if "boot" in parts:
        _boots(samples, say)
    return [*rows, *(replace(row, measure=f"all: {row.measure}") for row in _rows(samples["c"], samples["rust"], parts) if row.c)]


def _rows(c: Samples, rust: Samples, parts: Collection[str]) -> list[Row]:
    def row(name: str, unit: str, key: str, target: float | None = TARGET, **options: object) -> Row:
        return Row(name, unit, c[key], rust[key], target, **options)

    return [
        *(row(name, "instructions", name) for name in pci.work(parts)),
        row("inflated page", "instructions", INFLATED, 0.35),
        row("deflated page", "instructions", DEFLATED, 0.5),
        row("boot of Debian to the login", "s", WALL, typical=min),
        row("CPU time of QEMU meanwhile", "s", CPU, None, typical=min),
        row("boot of Debian to the login, the kernel's path", "million instructions", PATH),
        row("all of the boot, with firmware and user space", "million instructions", ALL, None),
        row("memory that the kernel keeps from the start", "KiB", KEPT),
        row("memory used after the boot", "KiB", USED),
        row("of it slab", "KiB", SLAB, None),
        row("text of the kernel", "bytes", TEXT),
        row("the kernel in memory", "bytes", MEMORY),
        row("bzImage", "bytes", FILE),
        # The ring's own bench has the target for its module.
        *(row(f"text of module {module}", "bytes", module, 1.3 if module == "virtio_ring" else TARGET) for module in MODULES),
    ]


def _boots(samples: dict[Driver, Samples], say: Say) -> None:
    """Boots the Debian system, both kernels in turns: by the clock, then by the count of instructions."""
    for number in range(ROUNDS):
        for side, found in samples.items():
            say(f"all in {side:<4}  boots Debian, {number + 1} of {ROUNDS}")
            with _debian(side) as guest:
                found[WALL].append(_age(guest))
                found[CPU].append(balloon.cpu_seconds(guest))
                guest.run("systemctl is-system-running --wait", timeout=BOOT_SECONDS, check=False)
                memory(guest.meminfo(), found)
    for number in range(COUNTED_ROUNDS):
        for side, found in samples.items():
            say(f"all in {side:<4}  boots Debian, counted, {number + 1} of {COUNTED_ROUNDS}")
            counter = CountedGuest()
            with _debian(side, counter) as guest:
                spent = counter.snapshot()
                functions = Symbols(guest).functions(spent)
                del functions[Function(UNKNOWN, "")]
                found[PATH].append(ring.path(functions) / 1e6)
                found[ALL].append(spent.total / 1e6)


@contextmanager
def _debian(side: Driver, counter: CountedGuest | None = None) -> Iterator[Guest]:
    """A Debian system on virtio devices at the moment of its login."""
    devices = [
        "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,disable-legacy=on,netdev=net",
        "-object", "rng-builtin,id=random", "-device", "virtio-rng-pci,disable-legacy=on,rng=random",
    ]
    guest = Guest(
        f"bench-boot-{side}", kernel=KERNELS[side], driver=None, swap_mib=0, memory_mib=MEMORY_MIB, balloon="virtio-balloon-pci,disable-legacy=on",
        root=facts().debian, icount=counter is not None, qemu_options=[*devices, *(counter.options if counter else [])],
    )
    try:
        guest.start(timeout=BOOT_SECONDS)
        guest.wait_for(lambda: LOGIN in guest.console.text(), BOOT_SECONDS, "there is no login on the console")
        yield guest
        guest.finish()
    finally:
        guest.stop()


def _age(guest: Guest) -> float:
    """Seconds since the guest's QEMU was started."""
    fields = Path(f"/proc/{guest.qemu.process.pid}/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def memory(meminfo: dict[str, int], found: Samples) -> None:
    """Adds what /proc/meminfo says after a boot."""
    found[KEPT].append((MEMORY_MIB << 10) - meminfo["MemTotal"])
    found[USED].append(meminfo["MemTotal"] - meminfo["MemAvailable"])
    found[SLAB].append(meminfo["Slab"])


def _sizes(kernel: str, side: Driver, found: Samples) -> None:
    image = facts().kernels[KERNELS[side]].image
    found[FILE].append(image.stat().st_size)
    system_map(image.with_name("System.map").read_text(), found)
    for module, files in MODULES.items():
        found[module].append(ring.text(kernel, side, *(files if side == "c" else [module])))


def system_map(text: str, found: Samples) -> None:
    """Adds what a System.map says of its kernel's size."""
    address = {name: int(value, 16) for value, name in re.findall(r"^([0-9a-f]+) \w (_text|_stext|_etext|_end)$", text, re.MULTILINE)}
    found[TEXT].append(address["_etext"] - address["_stext"])
    found[MEMORY].append(address["_end"] - address["_text"])
