# SPDX-License-Identifier: GPL-2.0
"""On the kernel `debug`: that its detectors see Rust code, and what they say of the balloon driver. Run by `make test-debug`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from balloon_books import Books, inflate, settle, total_kib
from lab.guest import Guest, facts

Factory = Callable[..., Guest]

DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"
INJECTORS = ("failslab", "fail_page_alloc")
MOST_ALLOCATIONS = 500
"""More than are made in any one operation that is tried here."""

BATCH = 20
"""Allocations that one script lets fail, one at a time."""

DEPTH = 14
"""Frames of the stack in which the driver must be: the rings that are made for it are in, the depths of interrupt handling out."""

IRQ_NOISE = ("cut here", r"WARNING: fs/proc/generic\.c:\d+ at remove_proc_entry")
"""The kernel warns when it removes a file of /proc/irq that it had no memory to make. Any other warning has a line of its own, too."""


def leaks(guest: Guest) -> str:
    """What kmemleak finds. It scans twice, since a pointer on its way from one place to another looks like a leak once."""
    guest.run("sleep 6; echo scan >/sys/kernel/debug/kmemleak; echo scan >/sys/kernel/debug/kmemleak", timeout=120)
    return guest.run("cat /sys/kernel/debug/kmemleak").out


def fail_inside(guest: Guest) -> None:
    """Makes the allocations eligible for failure that are made by the driver, or by others on its behalf."""
    module = facts().out[guest.kernel.name] / "virtio_balloon.ko"
    sections = subprocess.run(["size", "-A", "-d", module], check=True, capture_output=True, text=True).stdout
    size = next(int(line.split()[1]) for line in sections.splitlines() if line.startswith(".text "))
    start = int(guest.run("cat /sys/module/virtio_balloon/sections/.text").out, 16)
    for injector in INJECTORS:
        settings = {
            "require-start": start, "require-end": start + size, "ignore-gfp-wait": "N", "verbose": 0, "times": -1, "interval": 1,
            "stacktrace-depth": DEPTH,
        }
        if injector == "fail_page_alloc":
            settings |= {"min-order": 0, "ignore-gfp-highmem": "N"}
        guest.run("\n".join(f"echo {value} >/sys/kernel/debug/{injector}/{name}" for name, value in settings.items()))


def fail_each(guest: Guest, total: int, action: str, then: str) -> None:
    """Does `action` again and again, with the first allocation failing, then the second, until there are no more. `then` calls the
    function `failed` when that made the driver give up its device: MemTotal must be `total` KiB again."""
    failed: list[int] = []
    for first in range(1, MOST_ALLOCATIONS, BATCH):
        script = f"""
            failed() {{ echo failed $number $(awk '/^MemTotal/ {{ print $2 }}' /proc/meminfo); }}
            cd {DRIVER}
            for number in $(seq {first} {first + BATCH - 1}); do
                echo $number >/proc/self/fail-nth
                {action}
                status=$?
                # Only the shell itself can read what is left; a process of its own begins with 0.
                read left </proc/self/fail-nth
                echo 0 >/proc/self/fail-nth
                {then}
                [ $left = 0 ] || break
            done
            echo left $left"""
        lines = [line.split() for line in guest.run(script, timeout=120).out.splitlines()]
        for number, kib in (line[1:] for line in lines if line[:1] == ["failed"]):
            failed.append(int(number))
            assert int(kib) == total, f"allocation {number} failed, and memory is missing"
        if lines[-1] != ["left", "0"]:
            print(f"of fewer than {first + BATCH} allocations the driver could not do without {failed}")
            assert len(failed) > 2, "no allocation was made to fail"
            return
    pytest.fail(f"still making allocations after {MOST_ALLOCATIONS}")


def test_kasan_sees_rust(guests: Factory, kernel: str) -> None:
    """If this fails a use after free in our modules would go unseen, and the silence of all other tests here would mean nothing."""
    guest = guests(
        kernel=kernel, driver=None, swap_mib=0, modules=["kasan_test"], kernel_options=["kunit.filter_glob=kasan.*rust*"], allow=["."],
    ).start()
    guest.run("modprobe kasan_test", timeout=120)
    log = guest.run("dmesg").out
    assert "BUG: KASAN: slab-use-after-free in kasan_test_rust_uaf" in log, log[-3000:]


def test_kmemleak_sees_a_leak(guests: Factory, kernel: str) -> None:
    """If this fails memory that nobody knows any more would go unseen, and the silence of all other tests here would mean nothing."""
    guest = guests(kernel=kernel, driver=None, swap_mib=0, modules=["kmemleak-test"], allow=["kmemleak: .*"]).start()
    assert leaks(guest) == ""
    guest.run("modprobe kmemleak-test")
    assert leaks(guest).count("unreferenced object") > 8


def test_nothing_leaks(guests: Factory, kernel: str) -> None:
    """If this fails the driver loses a little memory each time it is bound, or each time the guest hibernates."""
    guest = guests(kernel=kernel).start()
    total = total_kib(guest)
    inflate(guest, 100, total)
    assert (result := guest.run("swapoff -a; echo disk >/sys/power/state", timeout=120, check=False)).status != 0, result
    settle(guest, 100, total)
    guest.run("swapon /dev/nvme0n1")
    assert guest.hibernate() is None
    assert (resumed := guest.resume(target_mib=30)) is not None and resumed.status == 0
    settle(guest, 30, total)
    for _ in range(3):
        guest.run(f"echo virtio0 >{DRIVER}/unbind; echo virtio0 >{DRIVER}/bind", timeout=120)
    settle(guest, 30, total)
    assert "virtio_balloon" not in leaks(guest)
    guest.run("rmmod virtio_balloon")
    assert Books.read(guest).total_kib == total
    assert leaks(guest) == ""


def test_probe_without_memory(guests: Factory, kernel: str) -> None:
    """If this fails a driver that is loaded when memory is short crashes or leaks instead of saying so."""
    guest = guests(kernel=kernel, swap_mib=0, allow=IRQ_NOISE).start()
    total = total_kib(guest)
    inflate(guest, 50, total)
    fail_inside(guest)
    guest.run(f"echo virtio0 >{DRIVER}/unbind", timeout=60)
    fail_each(guest, total, "echo virtio0 >bind", "if [ $status = 0 ]; then echo virtio0 >unbind; else failed; fi")
    guest.run(f"echo virtio0 >{DRIVER}/bind", timeout=60)
    settle(guest, 50, total)
    assert leaks(guest) == ""


def test_inflate_without_memory(guests: Factory, kernel: str) -> None:
    """If this fails a balloon that cannot get a page crashes, gives up, or loses what it had got."""
    guest = guests(kernel=kernel, swap_mib=0).start()
    total = total_kib(guest)
    inflate(guest, 0, total)
    fail_inside(guest)
    on = "\n".join(f"echo 30 >/sys/kernel/debug/{injector}/probability" for injector in INJECTORS)
    off = on.replace("30", "0")
    guest.run(on)
    guest.set_target(100)
    guest.wait_for(lambda: guest.actual() > 0, 60)
    guest.run("sleep 2")
    guest.run(off)
    settle(guest, 100, total)
    guest.run(on)
    guest.set_target(10)
    guest.run(f"sleep 2; {off}")
    settle(guest, 10, total)
    assert leaks(guest) == ""


def test_restore_without_memory(guests: Factory, kernel: str) -> None:
    """If this fails a guest that is short of memory when it wakes up crashes, or never gets the balloon's pages back."""
    guest = guests(kernel=kernel, swap_mib=0, allow=IRQ_NOISE).start()
    total = total_kib(guest)
    inflate(guest, 50, total)
    fail_inside(guest)
    # To idle, and no further than the devices: to look at the stack of each allocation makes an image take minutes. For a device
    # that is reset, as here, the driver does the same as in a hibernation.
    guest.run("echo 0 >/sys/power/pm_async; echo devices >/sys/power/pm_test; echo 0 >/sys/module/suspend/parameters/pm_test_delay")
    broken = "grep -q 'broken: 1' /sys/kernel/debug/virtio_balloon*/state"
    rebind = "echo virtio0 >unbind; failed; echo virtio0 >bind"
    fail_each(guest, total, "echo freeze >/sys/power/state", f"if {broken}; then {rebind}; fi")
    settle(guest, 50, total)
    assert leaks(guest) == ""
