# SPDX-License-Identifier: GPL-2.0
"""A balloon that follows its target: whatever the target, the memory's state and compaction do, all counts stay exact."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from balloon_books import (
    MIB, PROGRAMS, check_files, driver_log, fill, host_pages, inflate, remove_files, settle, total_kib, use_all_memory, use_memory,
)
from lab.guest import Guest

Factory = Callable[..., Guest]


def boot(guests: Factory, kernel: str, driver: str, **options: object) -> Guest:
    return guests(kernel=kernel, driver=driver, memory_mib=512, swap_mib=0, **options).start()


def test_targets(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails the host gets other memory than it was told of, or a guest loses or double-uses some of its own: its MemTotal
    drifts away or it crashes. The host may ask for any size at any time, also for less than before, for nothing, for the same."""
    guest = boot(guests, kernel, driver)
    total = total_kib(guest)
    before = 0.0
    for mib in (1, 64, 250, 250, 100.25, 3, 0, 128, 0):
        mark = guest.mark()
        inflate(guest, mib, total)
        traffic = guest.traffic(mark)
        change = int(mib * MIB) - int(before * MIB)
        assert (traffic.inflated, traffic.deflated) == (max(change, 0), max(-change, 0)), f"{before} -> {mib} MiB moved other pages"
        assert traffic.actual_min >= min(before, mib) * MIB and traffic.actual_max <= max(before, mib) * MIB
        assert len(host_pages(guest)) == int(mib * MIB)
        before = mib
    assert driver_log(guest) == [], "an undisturbed balloon should say nothing"


def test_modinfo(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails the module is not found for the device by udev, or refused by the kernel, or taints it for its licence."""
    guest = boot(guests, kernel, driver)
    lines = guest.run("modinfo virtio_balloon").out.splitlines()
    fields = {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
    assert fields["alias"] == "virtio:d00000005v*"
    assert fields["license"].startswith("GPL")
    assert fields["vermagic"].split()[0] == guest.kernel.release
    assert fields["description"]
    modalias = guest.read("/sys/bus/virtio/devices/virtio0/modalias")
    assert modalias.startswith("virtio:d00000005v"), "the alias must match the device's"
    assert guest.read("/sys/bus/virtio/devices/virtio0/uevent").splitlines()[0] == "DRIVER=virtio_balloon"
    assert "vballoon" in guest.run("cat /proc/[0-9]*/comm; cat /proc/*/comm").out or driver == "c", "our thread should be easy to find"


def test_target_storm(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a host that adjusts its guests often (an autoballooner) drives one into an endless loop, a flooded log or a
    wrong size."""
    guest = boot(guests, kernel, driver)
    total = total_kib(guest)
    pick = random.Random(5)
    changes, begin = 0, time.monotonic()
    while time.monotonic() - begin < 3:
        guest.set_target(pick.uniform(0, 350))
        changes += 1
    print(f"{changes / 3:.0f} targets per second")
    assert changes > 100
    assert guest.run("echo alive").out == "alive\n"
    inflate(guest, 77, total)
    assert len(host_pages(guest)) == 77 * MIB
    for mib in (300, 0) * 100:
        guest.set_target(mib)
    settle(guest, 0, total)
    assert host_pages(guest) == set()
    assert driver_log(guest) == []


def wait_until_stuck(guest: Guest) -> int:
    """Waits until `actual` has not changed for two seconds and returns it."""
    last, since = -1, time.monotonic()

    def stuck() -> bool:
        nonlocal last, since
        if (actual := guest.actual()) != last:
            last, since = actual, time.monotonic()
        return time.monotonic() - since > 2

    guest.wait_for(stuck, 60, "actual keeps changing")
    return last


def shortages(guest: Guest) -> list[str]:
    """What the driver said about it since the last call."""
    return [line for line in driver_log(guest) if "memory is short" in line or "Out of puff" in line]


@pytest.mark.c_differs("takes all memory it can get, so that the next fork may end in a panic, and says `Out of puff!` five times a second")
def test_target_out_of_reach(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a host that asks for too much kills its guest: its programs get no memory, or its log is flooded. The balloon
    must stop, leave the guest something to live on, and go on by itself when there is memory again."""
    guest = boot(guests, kernel, driver)
    total = total_kib(guest)
    guest.set_target(guest.memory_mib - 1)
    reached = wait_until_stuck(guest)
    print(f"reached {reached // MIB} MiB")
    assert reached > (total >> 10) * MIB * 3 // 4, "it should come near the limit"
    guest.run("for i in 1 2 3 4 5 6 7 8 9 10; do (echo alive) | cat >/dev/null; done; head -c 4m /dev/zero | md5sum >/dev/null")
    assert guest.meminfo()["MemAvailable"] >= 16 << 10
    guest.run("head -c 8m /dev/zero >/tmp/file; rm /tmp/file")
    settle(guest, reached / MIB, total)

    inflate(guest, 128, total)
    assert len(shortages(guest)) == 1

    fill(guest, 150)
    # What can be reached without the files only; a kernel that looks for errors needs more for itself as time goes by.
    wanted = min(int(total / 1024 - 100), reached // MIB - 64)
    guest.set_target(wanted)
    assert 200 * MIB < wait_until_stuck(guest) < wanted * MIB
    check_files(guest)
    remove_files(guest)
    settle(guest, wanted, total)
    assert len(shortages(guest)) <= 1, "the log should mention a shortage once a minute at most"
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


def test_programs_want_memory_too(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails programs that allocate while the balloon grows or shrinks are killed or find their data changed."""
    guest = boot(guests, kernel, driver, files=PROGRAMS)
    total = total_kib(guest)
    for mib in (220, 20, 240, 0):
        guest.set_target(mib)
        use_memory(guest, 150 << 10)
    settle(guest, 0, total)
    assert host_pages(guest) == set()
    use_all_memory(guest)
    assert guest.vmstat()["oom_kill"] == 0
    assert driver_log(guest) == []


def test_compaction(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails the kernel cannot put together large free areas in a ballooned guest, or, worse, host and guest disagree about
    which page the host may take: silent loss of data."""
    guest = boot(guests, kernel, driver)
    total = total_kib(guest)
    # Holes between pages that stay: the balloon fills them, and is scattered all over the memory.
    fill(guest, 160)
    guest.run("rm /tmp/files/*[02468]")
    inflate(guest, 200, total)
    mark = guest.mark()
    guest.run("touch /tmp/go; (while [ -e /tmp/go ]; do echo 1 >/proc/sys/vm/compact_memory; usleep 20000; done) >/dev/null 2>&1 &")
    for mib in (120, 220, 40, 240, 200):
        guest.set_target(mib)
        guest.wait_actual(mib * MIB)
    check_files(guest)
    remove_files(guest)  # Room for the balloon to be pushed together.
    fill(guest, 60)
    check_files(guest)
    guest.run("rm /tmp/go; for i in 1 2 3; do echo 1 >/proc/sys/vm/compact_memory; done")
    migrated = guest.run("echo 1 >/proc/sys/vm/stat_refresh; sed -n 's/^balloon_migrate //p' /proc/vmstat").out
    print(f"{int(migrated)} pages migrated")
    assert int(migrated) > 500, "compaction did not touch the balloon: this test shows nothing"
    if driver == "rust":
        assert guest.balloon_debugfs()["migrated_total"] == int(migrated)
    settle(guest, 200, total)
    if driver == "rust":
        state = guest.balloon_debugfs()
        assert state["inflated_total"] - state["deflated_total"] == 200 * MIB, "a migration counts as neither"
    traffic = guest.traffic(mark)
    assert traffic.inflated == traffic.deflated
    assert len(host_pages(guest)) == 200 * MIB
    inflate(guest, 0, total)
    assert host_pages(guest) == set()
    assert driver_log(guest) == []
