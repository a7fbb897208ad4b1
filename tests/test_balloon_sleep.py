# SPDX-License-Identifier: GPL-2.0
"""A balloon over suspend and hibernation: it stays as it is, and only a kernel that was resumed on a fresh device takes its pages back."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import pytest
from balloon_books import MIB, PROGRAMS, Books, check_files, driver_log, fill, host_pages, inflate, settle, total_kib, use_all_memory
from lab.guest import Guest

Factory = Callable[..., Guest]

WHAT_C_DOES = "gives all pages back in freeze, and takes them again when it is thawed"
GIVES_BACK = pytest.mark.c_differs(WHAT_C_DOES)


def boot(guests: Factory, kernel: str, driver: str, **options: object) -> Guest:
    return guests(kernel=kernel, driver=driver, memory_mib=512, **options).start()


def held_line(pages: int, what: str) -> str:
    return f"virtio_balloon virtio0: held {pages} pages through {what}"


def assert_untouched(guest: Guest, mark: object, pages: int, what: str) -> None:
    """Asserts that the host saw no page move since `mark`, and `actual` never change."""
    traffic = guest.traffic(mark)
    assert (traffic.inflated, traffic.deflated) == (0, 0), f"{what} moved pages; {guest.logs}"
    assert {value for _, value in traffic.actual} == {pages}, f"{what} changed `actual`: {traffic.actual}; {guest.logs}"


@pytest.mark.c_differs(WHAT_C_DOES, everyday=True)
def test_failed_hibernation(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a guest that tries to hibernate and cannot (here: has no swap) takes the ballooned memory back from the host for a
    while: a host that has given it to others runs out of memory."""
    guest = boot(guests, kernel, driver, swap_mib=0)
    total = total_kib(guest)
    sizes = [150] * 9 + [40]
    for attempt, mib in enumerate(sizes):
        inflate(guest, mib, total)
        driver_log(guest)
        mark = guest.mark()
        result = guest.hibernate()
        assert result is not None and result.status != 0
        what = f"attempt {attempt}"
        settle(guest, mib, total)
        assert_untouched(guest, mark, mib * MIB, what)
        assert guest.traffic(mark).resets >= 1, "the device was never frozen: this test shows nothing"
        assert driver_log(guest) == [held_line(mib * MIB, "hibernation")], what
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


@GIVES_BACK
@pytest.mark.everyday("mode", {"stock": ["shutdown"], "full": ["platform"], "arm64": ["shutdown"]})
@pytest.mark.parametrize(("mode", "target"), [("platform", 0), ("shutdown", 40)])
def test_hibernation(guests: Factory, kernel: str, driver: str, mode: str, target: int) -> None:
    """If this fails a hibernated guest comes back with less memory than it had, or with changed data. The host may have changed its
    mind about the balloon's size in the meantime."""
    guest = boot(guests, kernel, driver, files=PROGRAMS)
    total = total_kib(guest)
    fill(guest, 40)
    inflate(guest, 150, total)
    driver_log(guest)
    mark = guest.mark()
    assert guest.hibernate(mode) is None
    assert_untouched(guest, mark, 150 * MIB, "hibernation")

    result = guest.resume(target_mib=target)
    assert result is not None and result.status == 0
    settle(guest, target, total)
    traffic = guest.traffic()
    assert (traffic.inflated, traffic.deflated) == ((150 + target) * MIB, 0), "pages of the old balloon went through the new device's queues"
    assert driver_log(guest) == [f"virtio_balloon virtio0: returned {150 * MIB} pages after resume"]
    if target == 0:
        use_all_memory(guest)
    inflate(guest, 120, total)
    check_files(guest)
    assert len(host_pages(guest)) == 120 * MIB
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


@GIVES_BACK
@pytest.mark.everyday("mode", {"stock": ["reboot"], "full": ["test_resume"]})
@pytest.mark.parametrize("mode", ["test_resume", "reboot"])
def test_resume_in_the_same_vm(guests: Factory, kernel: str, driver: str, mode: str) -> None:
    """If this fails a guest frees pages that the host still has in its balloon, because it takes the device it wakes up with for a
    fresh one: it works with memory that the host may throw away."""
    guest = boot(guests, kernel, driver)
    total = total_kib(guest)
    inflate(guest, 150, total)
    driver_log(guest)
    mark = guest.mark()
    result = guest.hibernate(mode)
    assert result is not None and result.status == 0
    settle(guest, 150, total)
    assert_untouched(guest, mark, 150 * MIB, mode)
    assert driver_log(guest)[-1:] == [held_line(150 * MIB, "resume")]
    inflate(guest, 20, total)
    assert len(host_pages(guest)) == 20 * MIB


@GIVES_BACK
@pytest.mark.everyday("hybrid", {"stock": [True], "full": [False]})
@pytest.mark.parametrize("hybrid", [False, True], ids=["ram", "both"])
def test_suspend(guests: Factory, kernel: str, driver: str, hybrid: bool) -> None:
    """If this fails a guest that is suspended to RAM (or to both) gives its balloon up, or does not follow a target that the host set
    while it slept."""
    guest = boot(guests, kernel, driver, firmware=True)
    total = total_kib(guest)
    inflate(guest, 150, total)
    driver_log(guest)
    if not hybrid:
        mark = guest.mark()
        # Nothing would wake this machine from s2idle; this goes back just before the CPUs idle.
        guest.run("set -e; echo 0 >/sys/module/suspend/parameters/pm_test_delay; echo platform >/sys/power/pm_test; echo freeze >/sys/power/state")
        guest.run("echo none >/sys/power/pm_test")
        settle(guest, 150, total)
        assert_untouched(guest, mark, 150 * MIB, "s2idle")
        assert driver_log(guest) == [held_line(150 * MIB, "suspend")]

    mark = guest.mark()
    assert (guest.hibernate("suspend") if hybrid else guest.suspend("deep")) is None
    assert_untouched(guest, mark, 150 * MIB, "falling asleep")
    guest.set_target(90)
    assert guest.wake().status == 0
    settle(guest, 90, total)
    what = ["hibernation", "suspend"] if hybrid else ["suspend"]
    assert driver_log(guest) == [held_line(150 * MIB, transition) for transition in what]
    traffic = guest.traffic(mark)
    assert (traffic.inflated, traffic.deflated) == (0, 60 * MIB)
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


@GIVES_BACK
def test_pm_test(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a hibernation that is given up half-way (here by the kernel's own debugging levels) moves the balloon's pages."""
    guest = boot(guests, kernel, driver, swap_mib=0)
    total = total_kib(guest)
    inflate(guest, 100, total)
    driver_log(guest)
    for level in ("core", "processors", "platform", "devices", "freezer"):
        mark = guest.mark()
        result = guest.run(f"echo {level} >/sys/power/pm_test && echo disk >/sys/power/state", timeout=120)
        assert result.status == 0
        settle(guest, 100, total)
        assert_untouched(guest, mark, 100 * MIB, level)
        said = driver_log(guest)
        assert len(said) == (level != "freezer") and all(line.startswith(held_line(100 * MIB, "")) for line in said), f"{level}: {said}"
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


@GIVES_BACK
def test_veto(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a balloon is emptied, or its pages are freed although the host has them, because some other device refuses to
    sleep: the kernel then calls `restore` although there was no image."""
    guest = boot(guests, kernel, driver, modules=["pm_veto"])
    total = total_kib(guest)
    # The balloon's device must be younger than the one that refuses, or nobody will ask the balloon.
    reregister = "echo 1 >$(readlink -f /sys/bus/virtio/devices/virtio0/..)/remove; echo 1 >/sys/bus/pci/rescan"
    guest.set_target(100)
    for step, name in enumerate(("freeze", "freeze_noirq", "poweroff", "poweroff_noirq"), 1):
        guest.run(f"set -e; modprobe pm_veto step={step}; {reregister}")
        settle(guest, 100, total)
        driver_log(guest)
        mark = guest.mark()
        result = guest.hibernate("platform")
        # A refused poweroff is no error to those who asked for the hibernation, but the guest runs on.
        assert result is not None and (result.status != 0 or "poweroff" in name), f"{name} was not refused"
        settle(guest, 100, total)
        assert_untouched(guest, mark, 100 * MIB, f"a refused {name}")
        said = driver_log(guest)
        assert said and all(line.startswith(held_line(100 * MIB, "")) for line in said), f"{name}: {said}"
        guest.run("rmmod pm_veto")
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


WAIT_FOR_BALLOON = """
modprobe virtio_balloon
tries=0
until [ "$(sed -n 's/^nr_balloon_pages //p' /proc/vmstat)" -gt {pages} ] || [ $tries -gt 300 ]; do
    echo 1 >/proc/sys/vm/stat_refresh
    usleep 50000
    tries=$((tries + 1))
done
"""
"""Loads the driver in a kernel that is about to resume, and waits until the balloon is larger than that."""


def test_boot_kernel_with_a_balloon(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a distribution whose initramfs loads the balloon driver before it resumes leaves pages with the host that the
    resumed kernel believes to own: memory that the host may throw away at any time."""
    guest = boot(guests, kernel, driver)
    total = total_kib(guest)
    fill(guest, 40)
    inflate(guest, 150, total)
    assert guest.hibernate() is None
    old = guest.traffic()
    result = guest.resume(target_mib=60, pre_resume=WAIT_FOR_BALLOON.format(pages=55 * MIB))
    assert result is not None and result.status == 0
    settle(guest, 60, total)
    traffic = guest.traffic()
    boot_kernel = traffic.deflated - old.deflated
    assert 55 * MIB < boot_kernel <= 60 * MIB, "what the boot kernel had in its balloon was not given back through the queue"
    assert traffic.inflated - old.inflated == boot_kernel + 60 * MIB
    assert len(host_pages(guest)) == 60 * MIB
    check_files(guest)
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


@pytest.mark.c_differs("deflates only when its device is frozen")
def test_image_that_cannot_be_loaded(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a guest whose image cannot be loaded stays without its balloon for ever, or was about to replace itself with an
    image while its balloon was full."""
    guest = boot(guests, kernel, driver)
    inflate(guest, 50, total_kib(guest))
    assert guest.hibernate() is None
    guest.memory_mib += 64  # An image is only good for the memory that it was made on.
    before = guest.traffic()
    assert guest.resume(target_mib=60, pre_resume=WAIT_FOR_BALLOON.format(pages=55 * MIB), fresh_ok=True) is None
    assert "Image mismatch" in guest.console.text()
    guest.wait_actual(60 * MIB)
    books = Books.read(guest)
    books.check(guest, 60 * MIB, books.total_kib + 4 * 60 * MIB)
    traffic = guest.traffic()
    assert 55 * MIB < traffic.deflated - before.deflated <= 60 * MIB, "the balloon was not empty when the image was about to be loaded"
    assert len(host_pages(guest)) == 60 * MIB

    # A program that loads an image itself announces that by opening this file, and gives up by closing it.
    total = books.total_kib + 4 * 60 * MIB
    guest.run("mkfifo /tmp/done; (exec 3>/dev/snapshot; read line </tmp/done) >/dev/null 2>&1 &")
    settle(guest, 0, total)
    guest.set_target(70)
    guest.run("echo >/tmp/done")
    settle(guest, 70, total)
    assert driver_log(guest) == []


def fail_to_hibernate(guest: Guest, target: int, delay: float) -> None:
    """Sends a guest without swap to sleep, and asks for another balloon `delay` seconds after it began, or before that."""
    began, over = 0.5, "hibernation: hibernation exit"
    before = guest.console.text().count(over)
    guest.run(f"(usleep {began * 1e6:.0f}; echo disk >/sys/power/state) >/dev/null 2>&1 &")
    time.sleep(max(0, began + delay))
    guest.set_target(target)
    # Nothing may be run in a guest that is about to be frozen.
    guest.wait_for(lambda: guest.console.text().count(over) > before, 120, "the hibernation does not end")


def test_moving_balloon(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails pages that are on their way to or from the host when the guest goes to sleep are lost, or used by both."""
    guest = guests(kernel=kernel, driver=driver, memory_mib=768, cpus=2, balloon="virtio-balloon-pci").start()
    total = total_kib(guest)
    had, delay = 0, 0.0
    moments = set()
    guest.run("swapoff -a")
    for attempt in range(30):
        target = 4 if attempt % 2 else 450
        fail_to_hibernate(guest, target, delay)
        held = [int(pages) for pages in re.findall(r"held (\d+) pages", "\n".join(driver_log(guest)))]
        settle(guest, target, total)
        assert len(host_pages(guest)) == target * MIB
        # How long it takes to freeze depends on the kernel and on the host: look for the moment.
        moment = "after" if held in ([], [had]) else "before" if held == [target * MIB] else "midst"
        print(f"{delay:.2f} s: held {held} on the way from {had} to {target * MIB}, {moment}")
        moments.add(moment)
        delay += {"after": -0.12, "before": 0.1, "midst": 0}[moment]
        had = target * MIB
        if attempt > 4 and ("midst" in moments or driver == "c"):
            break
    if driver == "rust":
        assert "midst" in moments, "the balloon never moved when it was frozen: this test shows nothing"

    guest.run("swapon /dev/nvme0n1")
    guest.set_target(250)
    assert guest.hibernate() is None
    assert guest.resume(target_mib=20) is not None
    settle(guest, 20, total)
    assert len(host_pages(guest)) == 20 * MIB
    inflate(guest, 0, total)
    assert host_pages(guest) == set()
