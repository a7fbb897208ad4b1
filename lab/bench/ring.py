# SPDX-License-Identifier: GPL-2.0
"""What is measured of the rings, with the kernel's own drivers above them."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from lab.guest import Guest, facts
from lab.guest.guest import PAGE, Driver

from .profile import BACKGROUND, USER, CountedGuest, Function, Profile, Snapshot, Symbols
from .results import Row, Samples, Say

ROUNDS = 3
LATENCY_NS = 50_000
"""What each request takes at least, so that the guest always sleeps before the disk has answered."""

MODULES = ("virtio_blk", "virtio_net")
RING_MODULES = {"virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev", *MODULES}
ALLOCATION = re.compile(r"kmalloc|kfree|slab_alloc|slab_free|kmem_cache")
ALLOCATING = re.compile(r"^(__kmalloc\w*noprof|kmem_cache_alloc\w*noprof|alloc_pages\w*noprof)$")
PARTS = ("disks", "net", "memory")


@dataclass(frozen=True)
class Disk:
    """A disk that is nothing but a queue, and what its queue is like."""

    name: str
    options: str
    pieces: tuple[int, ...] = (1,)
    """Requests that are made: how many pages each has."""


SPLIT, PACKED, DIRECT, PACKED_DIRECT = "split", "packed", "split, no indirect", "packed, no indirect"
DMA, SMALL, LARGE = "split, iommu_platform", "split, 16", "split, 1024"
DISKS = (
    Disk(SPLIT, "", (1, 32)), Disk(PACKED, "packed=on", (1, 32)), Disk(DIRECT, "indirect_desc=off"), Disk(PACKED_DIRECT, "packed=on,indirect_desc=off"), Disk(DMA, "iommu_platform=on", (1, 32)),
    Disk(SMALL, "queue-size=16"), Disk(LARGE, "queue-size=1024"),
)
NETS = {SPLIT: "", PACKED: "packed=on"}
SMALL_FRAME, LARGE_FRAME = 64, 1400
REQUESTS = {1: (200, 2200), 32: (50, 550)}
"""Two numbers of requests: what one costs is the difference of two runs by the difference of their numbers."""

DATAGRAMS = (200, 2200)
FRAMES = {SMALL_FRAME: DATAGRAMS, LARGE_FRAME: (1000, 9000)}
"""Two numbers of datagrams, by the bytes of their frames; more where interrupts are counted, since few come."""

INTERRUPTS = "awk '/virtio[0-9]*-output/ { for (i = 2; i < NF; i++) if ($i ~ /^[0-9]+$/) sum += $i } END { print sum + 0 }' /proc/interrupts"
"""Counts the interrupts of queues that send."""

QUEUES = {SPLIT: 1 << 28, PACKED: 1 << 28 | 1 << 34, DMA: 1 << 28 | 1 << 33}
"""The features of queues whose memory is measured, by their bits."""

QUEUE_COUNTS = (100, 900)
"""Two numbers of queues, for the memory of one: what every allocator keeps in reserve is in both."""

FREE = "awk '/pages free/ { pages += $3 } / count: / { pages += $2 } END { print pages }' /proc/zoneinfo"
"""Counts the pages that are free, also those that are so for one CPU only."""


def measure(kernel: str, parts: Collection[str], say: Say, profile: Profile | None = None) -> list[Row]:
    """Measures both rings. Raises GuestError when a guest does not do its part."""
    samples: dict[Driver, Samples] = {"c": defaultdict(list), "rust": defaultdict(list)}
    for ring, found in samples.items():
        Bench(kernel, ring, parts, found, lambda text: say(f"{ring:<4}  {text}"), profile).run()
        found["text"].append(text(kernel, ring, "virtio_ring"))
    return [row for row in _rows(samples["c"], samples["rust"]) if row.c]


def _rows(c: Samples, rust: Samples) -> list[Row]:
    def row(name: str, key: str, target: float | None = None, unit: str = "instructions", **options: bool) -> Row:
        return Row(name, unit, c[key], rust[key], target, **options)

    def modules(samples: Samples, disk: str) -> list[float]:
        return [modules + allocation - less for modules, allocation, less in zip(
            samples[f"{disk}, 1: modules"], samples[f"{disk}, 1: allocation"], samples[f"{DIRECT}, 1: allocation"])]

    def growth(samples: Samples) -> list[float]:
        return [large / small for large, small in zip(samples[f"{LARGE}, 1: ring"], samples[f"{SMALL}, 1: ring"])]

    def allocations(samples: Samples) -> list[float]:
        return [round(more - less, 2) for more, less in zip(samples[f"{SPLIT}, 1: calls"], samples[f"{DIRECT}, 1: calls"])]

    return [
        *(row(f"4 KiB read, {disk}", f"{disk}, 1: path", 0.92) for disk in (SPLIT, PACKED)),
        *(Row(f"of it virtio modules and ring's allocations, {disk}", "instructions", modules(c, disk), modules(rust, disk), 0.7) for disk in (SPLIT, PACKED)),
        *(row(f"4 KiB read, {disk}", f"{disk}, 1: path", 1.0) for disk in (DIRECT, PACKED_DIRECT)),
        *(row(f"of it virtio modules, {disk}", f"{disk}, 1: modules", 1.0) for disk in (DIRECT, PACKED_DIRECT)),
        *(row(f"128 KiB in 32 pieces, {disk}", f"{disk}, 32: path", 0.97) for disk in (SPLIT, PACKED)),
        row(f"4 KiB read, {DMA}", f"{DMA}, 1: path", 0.9),
        row(f"128 KiB in 32 pieces, {DMA}", f"{DMA}, 32: path", 0.9),
        *(row(f"datagram in 64 bytes sent, {net}", f"{net}, {SMALL_FRAME}: sent", 0.98) for net in NETS),
        *(row(f"datagram in 1400 bytes sent, {net}", f"{net}, {LARGE_FRAME}: sent", 1.0) for net in NETS),
        *(row(f"interrupts for it, {net}", f"{net}, {LARGE_FRAME}: interrupts", 1.0, "1") for net in NETS),
        Row("allocations per request", "1", allocations(c), allocations(rust), 0, absolute=True),
        Row("virtio_ring at queue size 1024 against 16", "x", growth(c), growth(rust), 1.05, absolute=True),
        *(row(f"memory of a queue of 256, {queue}", f"{queue}: idle", unit="bytes") for queue in QUEUES),
        *(row(f"the same, full of requests in 3 pieces, {queue}", f"{queue}: full", 1.2, unit="bytes") for queue in QUEUES),
        row("module text", "text", 1.3, "bytes"),
    ]


class Bench:
    """One guest with one of the rings."""

    def __init__(self, kernel: str, ring: Driver, parts: Collection[str], samples: Samples, say: Say, profile: Profile | None) -> None:
        self._kernel = kernel
        self._ring = ring
        self._parts = parts
        self._samples = samples
        self._say = say
        self._profile = profile
        self._counter = CountedGuest()

    def run(self) -> None:
        """Boots the guest and measures the parts asked for."""
        self._say("boots")
        guest = Guest(
            f"bench-ring-{self._ring}", kernel=self._kernel, driver=None, balloon=False, swap_mib=0, memory_mib=512, icount=True, modules=(*MODULES, "ring_memory"),
            rust={"virtio_ring"} if self._ring == "rust" else set(), files={"/bin/ringload": facts().programs / "ringload"},
            qemu_options=[*self._counter.options, *_devices()],
        )
        with guest:
            guest.run("modprobe -a " + " ".join(MODULES))
            symbols = Symbols(guest)
            for number in range(ROUNDS):
                if "disks" in self._parts:
                    self._say(f"reads, {number + 1} of {ROUNDS}")
                    self._disks(guest, symbols, number == 0)
                if "net" in self._parts:
                    self._say(f"sends, {number + 1} of {ROUNDS}")
                    self._nets(guest, symbols, number == 0)
                if "memory" in self._parts:
                    self._say(f"queues, {number + 1} of {ROUNDS}")
                    self._memory(guest)

    def _disks(self, guest: Guest, symbols: Symbols, keep: bool) -> None:
        for number, disk in enumerate(DISKS):
            device = f"/dev/vd{chr(ord('a') + number)}"
            for pieces in disk.pieces:
                few, many = REQUESTS[pieces]
                guest.run(f"ringload read {device} {pieces} 100")
                spent, pieces_done = self._difference(guest, f"ringload read {device} {pieces}", few, many)
                self._keep(f"{disk.name}, {pieces}", spent, pieces_done, symbols, keep)

    def _nets(self, guest: Guest, symbols: Symbols, keep: bool) -> None:
        for number, net in enumerate(NETS):
            guest.run(
                f"ip link set eth{number} up; ip addr flush dev eth{number}; ip addr add 10.0.{number}.1/24 dev eth{number}; "
                f"arp -s 10.0.{number}.2 52:54:00:ff:ff:0{number}"
            )
            for size, counts in FRAMES.items():
                command = f"ringload send 10.0.{number}.2:9 {size}"
                guest.run(f"{command} 100")
                before = int(guest.run(INTERRUPTS).out)
                spent, sent = self._difference(guest, command, *counts)
                interrupts = int(guest.run(INTERRUPTS).out) - before
                name = f"{net}, {size}"
                self._samples[f"{name}: sent"].append(path(symbols.functions(spent)) / sent)
                self._samples[f"{name}: interrupts"].append(interrupts / sum(counts))
                if self._profile and keep:
                    self._profile.add(f"{self._ring}: sent, {name}", spent, sent, symbols)

    def _memory(self, guest: Guest) -> None:
        for queue, features in QUEUES.items():
            for fill, name in enumerate(("idle", "full")):
                few, many = (self._pages(guest, count, f"features={features} fill={fill}") for count in QUEUE_COUNTS)
                self._samples[f"{queue}: {name}"].append((many - few) * PAGE / (QUEUE_COUNTS[1] - QUEUE_COUNTS[0]))

    @staticmethod
    def _pages(guest: Guest, count: int, options: str) -> int:
        """How many pages so many queues take."""
        script = f"rmmod ring_memory 2>/dev/null; {FREE}; modprobe ring_memory count={count} {options}; {FREE}; rmmod ring_memory"
        before, after = guest.run(script, timeout=120).out.split()
        return int(before) - int(after)

    def _difference(self, guest: Guest, command: str, few: int, many: int) -> tuple[Snapshot, int]:
        runs = []
        for count in (few, many):
            before = self._counter.snapshot()
            guest.run(f"{command} {count}")
            runs.append(self._counter.snapshot() - before)
        return runs[1] - runs[0], many - few

    def _keep(self, name: str, spent: Snapshot, requests: int, symbols: Symbols, keep: bool) -> None:
        functions, calls = symbols.functions(spent), symbols.calls(spent)
        found = {
            "path": path(functions),
            "modules": sum(count for function, count in functions.items() if function.module in RING_MODULES),
            "ring": sum(count for function, count in functions.items() if function.module == "virtio_ring"),
            "allocation": sum(count for function, count in functions.items() if ALLOCATION.search(function.name)),
            "calls": sum(count for function, count in calls.items() if ALLOCATING.search(function.name)),
        }
        for key, count in found.items():
            self._samples[f"{name}: {key}"].append(count / requests)
        if self._profile and keep:
            self._profile.add(f"{self._ring}: read, {name}", spent, requests, symbols)


def path(functions: dict[Function, int]) -> int:
    """Instructions of the kernel without those of the scheduler, timers and the like."""
    return sum(count for function, count in functions.items() if function != USER and not BACKGROUND.search(function.name))


def _devices() -> list[str]:
    options = []
    for number, disk in enumerate(DISKS):
        options += ["-blockdev", f"driver=null-co,node-name=null{number},size={1 << 30},read-zeroes=on,latency-ns={LATENCY_NS}"]
        more = f",{disk.options}" if disk.options else ""
        options += ["-device", f"virtio-blk-pci,disable-legacy=on,ioeventfd=off,drive=null{number}{more}"]
    for number, more in enumerate(NETS.values()):
        options += ["-netdev", f"user,id=net{number},restrict=on"]
        options += ["-device", f"virtio-net-pci,disable-legacy=on,ioeventfd=off,netdev=net{number}{',' + more if more else ''}"]
    return options


def text(kernel: str, side: Driver, *modules: str) -> int:
    """Bytes of the code of modules, of C's or of ours."""
    folder = facts().out[kernel] if side == "rust" else facts().kernels[kernel].modules_dir
    files = [path for path in folder.rglob("*.ko") if path.stem in modules]
    assert len(files) == len(modules), files
    lines = subprocess.run(["size", "-A", *files], check=True, capture_output=True, text=True).stdout.splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(".text"))
