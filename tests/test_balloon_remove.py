# SPDX-License-Identifier: GPL-2.0
"""A balloon whose driver or device goes away: all pages come home, nothing is left behind. And one whose device is only reset."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from balloon_books import MIB, PROGRAMS, Books, driver_log, host_pages, inflate, settle, total_kib, use_memory
from lab.guest import BALLOON_ID, ROOT_PORT, Guest

Factory = Callable[..., Guest]

DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"

WAYS = {
    "rmmod": ("rmmod virtio_balloon", "modprobe virtio_balloon"),
    "unbind": (f"echo virtio0 >{DRIVER}/unbind", f"echo virtio0 >{DRIVER}/bind"),
    "pci-remove": ("echo 1 >$(readlink -f /sys/bus/virtio/devices/virtio0/..)/remove", "echo 1 >/sys/bus/pci/rescan"),
}
"""Scripts that take the driver away from the device, and that bring it back."""

STATES = ("idle", "inflated", "inflating", "deflating")


def bring_into(guest: Guest, state: str, total: int) -> float:
    """Brings the balloon into a state and returns its target in MiB."""
    before, target = {"idle": (0, 0), "inflated": (60, 60), "inflating": (0, 120), "deflating": (120, 4)}[state]
    inflate(guest, before, total)
    guest.set_target(target)
    return target


def assert_gone(guest: Guest, total: int, what: str) -> None:
    """Asserts that nothing is left of the balloon, neither in the guest nor on the host."""
    books = Books.read(guest)
    assert (books.vmstat, books.meminfo, books.total_kib) == (0, 0, total), f"{what}: {books}, MemTotal was {total}; {guest.logs}"
    assert books.actual in (0, -1), f"{what}: the host still counts {books.actual} pages"
    assert books.held is None, f"{what}: the debugfs file is still there"
    assert host_pages(guest) == set(), f"{what}: the host still has pages"
    assert "vballoon" not in guest.run("cat /proc/[0-9]*/comm").out, f"{what}: the thread is still there"


@pytest.mark.everyday("way", {"stock": ["rmmod", "pci-remove"], "full": ["rmmod", "unbind"]})
@pytest.mark.parametrize("way", WAYS)
def test_remove(guests: Factory, kernel: str, driver: str, way: str) -> None:
    """If this fails an admin who unloads the driver, or gives the device to somebody else, loses memory until the next boot, or the
    command hangs for ever."""
    guest = guests(kernel=kernel, driver=driver, memory_mib=512, swap_mib=0, files=PROGRAMS).start()
    total = total_kib(guest)
    available = guest.meminfo()["MemAvailable"]
    remove, bring_back = WAYS[way]
    for state in STATES:
        target = bring_into(guest, state, total)
        guest.run(remove, timeout=30)
        assert_gone(guest, total, f"{way}, {state}")
        guest.run(bring_back, timeout=30)
        settle(guest, target, total)

    # In quick succession, at moments that have nothing to do with what the driver is about.
    guest.set_target(60)
    for wait in random.Random(3).sample(range(0, 400_000), 10):
        guest.run(f"set -e; {remove}; {bring_back}; usleep {wait}")
    settle(guest, 60, total)
    inflate(guest, 0, total)
    guest.run(remove)
    assert_gone(guest, total, f"{way}, ten times")
    use_memory(guest, available - (24 << 10))
    assert driver_log(guest) == []


def deleted(guest: Guest) -> int:
    """How often QEMU said that the balloon is gone."""
    return sum(event["data"].get("device") == BALLOON_ID for event in guest.qemu.monitor.events("DEVICE_DELETED"))


def test_hot_unplug(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a host that takes the balloon device away from a running guest takes some of its memory with it, or the guest's
    hotplug hangs and no other device can be plugged in or out."""
    guest = guests(kernel=kernel, driver=driver, memory_mib=512, swap_mib=0, root_port=True).start()
    total = total_kib(guest)
    for number, state in enumerate(("inflating", "inflated", "idle")):
        target = bring_into(guest, state, total)
        guest.qmp("device_del", id=BALLOON_ID)
        guest.wait_for(lambda: deleted(guest) > number, 60, "the guest does not let go of the device")
        assert_gone(guest, total, f"hot-unplug, {state}")
        guest.qmp("device_add", driver="virtio-balloon-pci", id=BALLOON_ID, bus=ROOT_PORT)
        guest.wait_for(lambda: guest.run(f"test -e {DRIVER}/virtio0", check=False).status == 0, 30, "the new device has no driver")
        guest.set_target(target)
        settle(guest, target, total)
    assert driver_log(guest) == []


@pytest.mark.c_differs("does not hear of the reset, and goes on with queues that the device has forgotten")
def test_function_level_reset(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a reset of the device through its bus leaves a balloon that never changes any more, or loses what was on its way."""
    guest = guests(kernel=kernel, driver=driver, memory_mib=512, swap_mib=0, root_port=True).start()
    total = total_kib(guest)
    reset = "echo 1 >$(readlink -f /sys/bus/virtio/devices/virtio0/..)/reset"
    inflate(guest, 60, total)
    pages = host_pages(guest)
    mark = guest.mark()
    guest.run(reset)
    settle(guest, 60, total)
    assert guest.traffic(mark).pages == 0 and host_pages(guest) == pages
    inflate(guest, 20, total)
    assert driver_log(guest) == [f"virtio_balloon virtio0: held {60 * MIB} pages through a reset"]

    pick = random.Random(4)
    for target in (200, 4, 160, 0):
        guest.set_target(target)
        for _ in range(3):
            guest.run(f"usleep {pick.randrange(100_000)}; {reset}")
        settle(guest, target, total)
        assert len(host_pages(guest)) == target * MIB
