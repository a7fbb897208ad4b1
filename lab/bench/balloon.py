# SPDX-License-Identifier: GPL-2.0
"""What is measured of the balloon."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath

from lab.guest import PAGES_PER_MIB, SWAP_DEVICE, Guest, Mark, facts
from lab.guest.guest import Driver
from lab.guest.pmtimes import PREPARE, Callback, callbacks, total_usecs

from . import policy
from .profile import CountedGuest, Profile, Symbols
from .results import Row, Samples, Say

MEMORY_MIB = 2048
BALLOON_MIB = 1024
PAGES = BALLOON_MIB * PAGES_PER_MIB
ROUNDS = 3
TIMED_ROUNDS = 5
SEEDS = 2

INFLATED, DEFLATED, RETURNED = "per inflated page", "per deflated page", "per page returned after restore"
TRAFFIC, WALL, CPU, SLEEP, SLEEP_EMPTY = "traffic", "wall", "cpu", "sleep", "sleep, empty"
BLOCKS, FRAGMENTS_WALL, FRAGMENTS_CPU = "blocks", "wall, fragments", "cpu, fragments"
SWAP_WALL = "wall, swap"
FREEZE, THAW, POWEROFF, RESTORE = "freeze", "thaw", "poweroff", "restore"

FRAGMENT_MIB, FRAGMENT_KEEP = 1740, 30
"""The memory is fragmented by a file of this size of which this percentage stays, in runs of a few pages."""

TRACED = ("virtio_balloon_get_config", "virtio_notify")
"""Trace events beside those every guest has: the driver reads the configuration, the device interrupts."""

PARTS = ("pages", "sleep", "clock", "fragments", "swap")
"""Parts of the bench that can be run alone."""


def measure(kernel: str, parts: Collection[str], say: Say, profile: Profile | None = None) -> list[Row]:
    """Measures both drivers. Raises GuestError or RuntimeError when a guest does not do its part."""
    samples: dict[Driver, Samples] = {"c": defaultdict(list), "rust": defaultdict(list)}
    if {"pages", "sleep"} & set(parts):
        for driver, found in samples.items():
            counted(driver, kernel, parts, found, lambda text: say(f"{driver:<4}  {text}"), profile)
    if {"clock", "fragments"} & set(parts):
        _timed(kernel, parts, samples, say)
    if "swap" in parts:
        policy.measure(kernel, samples, SWAP_WALL, say)
    return [row for row in _rows(samples["c"], samples["rust"]) if row.c]


def _rows(c: Samples, rust: Samples) -> list[Row]:
    def row(name: str, unit: str, key: str, target: float | None = None, **options: object) -> Row:
        return Row(name, unit, c[key], rust[key], target, **options)

    def more(samples: Samples) -> list[float]:
        return [max(full - empty, 0) for full, empty in zip(samples[SLEEP], samples[SLEEP_EMPTY])]

    return [
        row("instructions per inflated page", "1", INFLATED, 0.35),
        row("instructions per deflated page", "1", DEFLATED, 0.5),
        Row("instructions per page returned after restore (C: in freeze)", "1", c[RETURNED], rust[RETURNED], 0.5),
        row("notifications and config accesses per GiB inflated", "1", TRAFFIC, 0.1),
        row("wall time, inflate 1 GiB of 2 GiB", "s", WALL, 0.8, typical=min),
        row("CPU time of QEMU meanwhile", "s", CPU, typical=min),
        row("free 2 MiB blocks after inflating and deflating half of a fragmented 2 GiB", "1", BLOCKS, 1.5, more_is_better=True),
        row("wall time, inflate half of a fragmented 2 GiB", "s", FRAGMENTS_WALL, typical=min),
        row("CPU time of QEMU meanwhile, fragmented", "s", FRAGMENTS_CPU, typical=min),
        row(f"wall time, inflate {policy.TARGET_MIB} of {policy.MEMORY_MIB} MiB with {policy.HOG_MIB} MiB to swap out", "s", SWAP_WALL, 1.5),
        Row("freeze + thaw + poweroff for 1 GiB in the balloon", "us of 1000 instructions", more(c), more(rust), 0.001),
        row("the whole freeze + thaw + poweroff with 1 GiB", "us of 1000 instructions", SLEEP),
        row("the whole freeze + thaw + poweroff, empty balloon", "us of 1000 instructions", SLEEP_EMPTY),
    ]


def counted(driver: Driver, kernel: str, parts: Collection[str], samples: Samples, say: Say, profile: Profile | None) -> None:
    """Everything that is counted in instructions or messages: the guest's clock runs by its instructions."""
    counter = CountedGuest()
    options = [*counter.options]
    for event in TRACED:
        options += ["-trace", f"enable={event}"]
    guest = Guest(f"bench-{driver}", kernel=kernel, driver=driver, memory_mib=MEMORY_MIB, icount=True,
                  kernel_options=["hibernate=nocompress"], qemu_options=options)
    say("boots, for counting")
    with guest:
        if "pages" in parts:
            _pages(guest, kernel, driver, counter, samples, say, profile)
        if "sleep" in parts:
            _sleep(guest, driver, samples, say)


def _pages(guest: Guest, kernel: str, driver: Driver, counter: CountedGuest, samples: Samples, say: Say, profile: Profile | None) -> None:
    symbols = Symbols(guest) if profile else None
    for number in range(ROUNDS):
        say(f"inflates and deflates {BALLOON_MIB} MiB, {number + 1} of {ROUNDS}")
        for key, target in ((INFLATED, BALLOON_MIB), (DEFLATED, 0)):
            mark, before = guest.mark(), counter.snapshot()
            guest.inflate(target, timeout=120)
            spent = counter.snapshot() - before
            samples[key].append(spent.total / PAGES)
            if target:
                samples[TRAFFIC].append(_messages(guest, mark))
            if profile and symbols and number == ROUNDS - 1:
                profile.add(f"{driver} on {kernel}: {key}", spent, PAGES, symbols)


def _messages(guest: Guest, mark: Mark) -> int:
    """Notifications of the balloon's queues, interrupts and accesses to its configuration since a moment."""
    with (guest.logs / f"trace.{mark.process}.log").open("rb") as file:
        file.seek(mark.offset)
        text = file.read()
    return len(re.findall(rb"Z (?:virtio_queue_notify|virtio_notify|virtio_balloon_set_config|virtio_balloon_get_config) ", text))


def _sleep(guest: Guest, driver: Driver, samples: Samples, say: Say) -> None:
    guest.run(PREPARE)
    device = PurePath(guest.run("readlink -f /sys/bus/virtio/drivers/virtio_balloon/virtio*").out.strip())
    names = (device.name, device.parent.name)
    usecs: dict[tuple[int, str], float] = {}
    for mib in (0, BALLOON_MIB):
        say(f"fails to hibernate for want of swap, {mib} MiB in the balloon")
        guest.inflate(mib, timeout=120)
        guest.run("swapoff -a")
        with _calls(guest, names) as calls:
            result = guest.hibernate(timeout=240)
        if result is None or result.status == 0:
            raise RuntimeError("a hibernation without swap succeeded")
        guest.wait_actual(mib * PAGES_PER_MIB, timeout=120)
        guest.run(f"swapon {SWAP_DEVICE}")
        for phase in (FREEZE, THAW):
            usecs[mib, phase] = _usecs(calls, phase)
        say(f"hibernates with {mib} MiB in the balloon")
        with _calls(guest, names) as calls:
            result = guest.hibernate(timeout=240)
        if result is not None:
            raise RuntimeError(f"hibernation failed: {result.out.strip()}")
        usecs[mib, POWEROFF] = _usecs(calls, POWEROFF)
        with _calls(guest, names) as calls:
            guest.resume(target_mib=0, timeout=240)
        usecs[mib, RESTORE] = _usecs(calls, RESTORE)
        guest.wait_actual(0)
    for key, mib in ((SLEEP_EMPTY, 0), (SLEEP, BALLOON_MIB)):
        samples[key].append(sum(usecs[mib, phase] for phase in (FREEZE, THAW, POWEROFF)))
    samples[RETURNED].append(usecs[BALLOON_MIB, FREEZE if driver == "c" else RESTORE] * 1000 / PAGES)


def _usecs(calls: list[Callback], phase: str) -> int:
    usecs = total_usecs(calls, phase)
    if usecs is None:
        raise RuntimeError("the kernel does not print how long callbacks take: it was built without CONFIG_PM_SLEEP_DEBUG")
    return usecs


@contextmanager
def _calls(guest: Guest, names: tuple[str, str]) -> Iterator[list[Callback]]:
    """Collects the balloon's PM callbacks while the body runs."""
    found: list[Callback] = []
    begin = len(guest.console.text())
    yield found
    found += callbacks(guest.console.text()[begin:], *names)


def _timed(kernel: str, parts: Collection[str], samples: dict[Driver, Samples], say: Say) -> None:
    """What a host's clock says, the drivers in turns, and how many large blocks are left of memory that was in the balloon."""
    programs = {"/bin/fragment": facts().programs / "fragment"}
    guests = {
        driver: Guest(f"bench-wall-{driver}", kernel=kernel, driver=driver, memory_mib=MEMORY_MIB, swap_mib=0, files=programs)
        for driver in samples
    }
    with ExitStack() as stack:
        for driver, guest in guests.items():
            say(f"{driver:<4}  boots, for the clock")
            stack.enter_context(guest)
            # A line for each page would take longer than the page.
            guest.qmp("trace-event-set-state", name="virtio_balloon_handle_output", enable=False)
        if "clock" in parts:
            for number in range(TIMED_ROUNDS):
                say(f"both  inflate and deflate {BALLOON_MIB} MiB in turns, {number + 1} of {TIMED_ROUNDS}")
                for driver, guest in guests.items():
                    _time(guest, samples[driver])
        if "fragments" in parts:
            for driver, guest in guests.items():
                _fragments(guest, samples[driver], lambda text: say(f"{driver:<4}  {text}"))
                guest.stop()


def _time(guest: Guest, samples: Samples, keys: tuple[str, str] = (WALL, CPU)) -> None:
    """Inflates, the clock running, and deflates."""
    mark, begin, cpu = guest.mark(), time.time(), cpu_seconds(guest)
    guest.inflate(BALLOON_MIB)
    samples[keys[0]].append(guest.traffic(mark).actual[-1][0] - begin)
    samples[keys[1]].append(cpu_seconds(guest) - cpu)
    guest.inflate(0)


def _fragments(guest: Guest, samples: Samples, say: Say) -> None:
    guest.run("mount -o remount,size=100% /tmp")
    for seed in range(SEEDS):
        say(f"fragments the memory, {seed + 1} of {SEEDS}")
        guest.run(f"rm -f /tmp/file; fragment /tmp/file {FRAGMENT_MIB} {FRAGMENT_KEEP} {seed}", timeout=120)
        before = _free_blocks(guest)
        _time(guest, samples, (FRAGMENTS_WALL, FRAGMENTS_CPU))
        samples[BLOCKS].append(_free_blocks(guest))
        say(f"free blocks of 2 MiB: {before}, and {samples[BLOCKS][-1]:.0f} when the balloon was inflated and deflated")


def cpu_seconds(guest: Guest) -> float:
    """Time that the guest's QEMU has computed, by the host's clock of processes."""
    fields = Path(f"/proc/{guest.qemu.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_blocks(guest: Guest) -> int:
    """Free blocks of 2 MiB in all zones; larger ones count as often as they hold one."""
    blocks = 0
    for line in guest.read("/proc/buddyinfo").splitlines():
        counts = [int(word) for word in line.partition("zone")[2].split()[1:]]
        blocks += sum(count << (order - 9) for order, count in enumerate(counts) if order >= 9)
    return blocks
