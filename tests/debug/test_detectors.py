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
MOST_ALLOCATIONS = 60
"""More than the driver makes in any one operation that is tried here."""


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
        }
        if injector == "fail_page_alloc":
            settings |= {"min-order": 0, "ignore-gfp-highmem": "N"}
        guest.run("\n".join(f"echo {value} >/sys/kernel/debug/{injector}/{name}" for name, value in settings.items()))


def test_kasan_sees_rust(guests: Factory, kernel: str) -> None:
    """If this fails a use after free in our modules would go unseen, and the silence of all other tests here would mean nothing."""
    guest = guests(
        kernel=kernel, driver=None, swap_mib=0, modules=["kasan_test"], kernel_options=["kunit.filter_glob=kasan.*rust*"], allow=["."],
    ).start()
    guest.run("modprobe kasan_test", timeout=120)
    log = guest.run("dmesg").out
    assert "BUG: KASAN: slab-use-after-free in kasan_test_rust_uaf" in log, log[-3000:]


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


@pytest.mark.parametrize("inflated", [0, 50])
def test_probe_without_memory(guests: Factory, kernel: str, inflated: int) -> None:
    """If this fails a driver that is loaded when memory is short crashes or leaks instead of saying so."""
    guest = guests(kernel=kernel, swap_mib=0).start()
    total = total_kib(guest)
    inflate(guest, inflated, total)
    fail_inside(guest)
    guest.run(f"echo virtio0 >{DRIVER}/unbind", timeout=60)
    failed = []
    for number in range(1, MOST_ALLOCATIONS + 1):
        script = f"echo {number} >/proc/self/fail-nth; echo virtio0 >{DRIVER}/bind; s=$?; cat /proc/self/fail-nth; echo $s"
        left, status = map(int, guest.run(script, timeout=120).out.split()[-2:])
        if left:
            break
        if status:
            failed.append(number)
            assert Books.read(guest).total_kib == total, f"allocation {number} failed, and memory is missing"
        else:
            guest.run(f"echo virtio0 >{DRIVER}/unbind", timeout=60)
    else:
        pytest.fail(f"still making allocations after {MOST_ALLOCATIONS}")
    assert failed, "no allocation of probe was made to fail"
    settle(guest, inflated, total)
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
    guest = guests(kernel=kernel).start()
    total = total_kib(guest)
    inflate(guest, 50, total)
    fail_inside(guest)
    guest.run("echo 0 >/sys/power/pm_async; echo devices >/sys/power/pm_test; echo platform >/sys/power/disk")
    failed = []
    for number in range(1, MOST_ALLOCATIONS + 1):
        script = f"echo {number} >/proc/self/fail-nth; echo disk >/sys/power/state; cat /proc/self/fail-nth"
        left = int(guest.run(script, timeout=120).out.split()[-1])
        if left:
            break
        if "broken: 1" in guest.run("cat /sys/kernel/debug/virtio_balloon*/state").out:
            failed.append(number)
            guest.run(f"echo virtio0 >{DRIVER}/unbind", timeout=60)
            assert Books.read(guest).total_kib == total, f"allocation {number} failed, and memory is missing"
            guest.run(f"echo virtio0 >{DRIVER}/bind", timeout=60)
        settle(guest, 50, total)
    else:
        pytest.fail(f"still making allocations after {MOST_ALLOCATIONS}")
    assert failed, "no allocation of restore was made to fail"
    assert leaks(guest) == ""
