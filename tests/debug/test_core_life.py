# SPDX-License-Identifier: GPL-2.0
"""On the kernel `debug`: drivers, devices and modules that come and go on our bus, over and over. Run by `make test-debug`.

How often is said by `--rounds`: a disk is plugged and unplugged so many times, the balloon driver is bound, and all modules are loaded,
`EACH` times as often. So a release, with 1000 of these and 200 of those, is

    make test-debug TESTS=tests/debug/test_core_life.py PYTEST_ARGS="-n 0 -s --rounds 200"

which with `-s` says what each of them took.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.guest import Guest
from test_core import CORES, features
from test_detectors import leaks
from test_ring import PROGRAMS

Factory = Callable[..., Guest]

OURS = CORES["rust"]
EACH = 5
"""So many times is a driver bound, and all modules loaded, for each time a disk is plugged."""

LIES = 12
DEBUGFS = "/sys/kernel/debug/virtio/virtio0"
BIND = "echo virtio0 >/sys/bus/virtio/drivers/virtio_balloon"


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often loops go round."""
    return request.config.getoption("--rounds")


def run_rounds(guest: Guest, count: int, script: str) -> None:
    """Runs a script `count` times, in portions that end in time, and says how long that took."""
    began = time.monotonic()
    for start in range(0, count, 10):
        guest.run(f"set -e; for i in $(seq {min(10, count - start)}); do {script}; done", timeout=120)
    print(f"{count} times, {(time.monotonic() - began) / count:.2f} s each: {script}")


def deleted(guest: Guest) -> int:
    """How often QEMU said that the disk has gone; it says the same of the part behind the transport."""
    return sum("device" in event["data"] for event in guest.qemu.monitor.events("DEVICE_DELETED"))


def test_drivers_and_modules(guests: Factory, kernel: str, rounds: int) -> None:
    """If this fails a driver that is bound, or a module that is loaded, leaves something behind each time."""
    guest = guests(kernel=kernel, rust=OURS, swap_mib=0, modules=["virtio_blk"]).start()
    guest.inflate(20)
    run_rounds(guest, EACH * rounds, f"{BIND}/unbind; {BIND}/bind")
    guest.wait_actual(20 * 256)
    run_rounds(guest, EACH * rounds, "rmmod virtio_balloon virtio_pci virtio virtio_ring; modprobe virtio_pci; modprobe virtio_balloon")
    guest.wait_actual(20 * 256)
    guest.run("rmmod virtio_balloon")
    assert leaks(guest) == ""


def test_hotplug(guests: Factory, kernel: str, rounds: int, tmp_path: Path) -> None:
    """If this fails a disk that is plugged and unplugged, while it is read, leaves something behind, or crashes the guest."""
    options = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", "-device", "pcie-root-port,id=port0,chassis=1,slot=1"]
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    options += ["-blockdev", f"driver=raw,node-name=drive,file.driver=file,file.filename={disk}"]
    guest = guests(
        kernel=kernel, driver=None, balloon=False, rust=OURS, swap_mib=0, modules=["virtio_blk"], files=PROGRAMS, qemu_options=options,
        allow=["I/O error"],
    ).start()
    guest.run("modprobe virtio_blk")
    began = time.monotonic()
    for number in range(rounds):
        guest.qmp("device_add", driver="virtio-blk-pci", id="disk", bus="port0", drive="drive")
        guest.wait_for(lambda: guest.run("test -b /dev/vda", check=False).status == 0, 30, "the disk does not come")
        guest.run("(blkcheck /dev/vda 4 100000 1 >/dev/null 2>&1; echo ended >>/tmp/ended) & sleep 0.3")
        guest.qmp("device_del", id="disk")
        guest.wait_for(lambda: guest.run("test -b /dev/vda", check=False).status != 0, 60, "the disk does not go")
        guest.wait_for(lambda: guest.run("test -e /tmp/ended", check=False).status == 0, 60, "requests are not finished")
        guest.run("rm /tmp/ended")
        guest.wait_for(lambda: deleted(guest) > number, 60, "the device does not go")
    print(f"{rounds} times, {(time.monotonic() - began) / rounds:.2f} s each: plug, read, unplug")
    assert leaks(guest) == ""


def test_leak_is_seen(guests: Factory, kernel: str) -> None:
    """If this fails the other tests here would not see a leak. A device that does not finish its reset keeps its driver's buffers."""
    guest = guests(
        kernel=kernel, driver=None, balloon=False, rust=OURS, swap_mib=0, modules=["virtio_held"], allow=["kmemleak: .*"],
    ).start()
    guest.run("modprobe virtio_held; rmmod virtio_held")
    assert leaks(guest) == ""
    guest.run("modprobe virtio_held lie=1; rmmod virtio_held", timeout=60)
    assert 'comm "modprobe"' in leaks(guest), "the functions of a module that is gone have no names any more"


def test_lies(guests: Factory, kernel: str, rounds: int) -> None:
    """If this fails a device that lies makes the core use memory that is not its own, or a lock in the wrong place."""
    guest = guests(
        kernel=kernel, driver=None, balloon=False, rust=OURS, swap_mib=0, modules=["virtio_fake"],
        allow=["cut here", r"WARNING: \S*virtio_bus/exports.rs"],
    ).start()
    for lie in range(LIES):
        # One of them takes five seconds each time.
        for _ in range(1 if lie == 2 else rounds):
            guest.run(f"modprobe virtio_fake lie={lie}; rmmod virtio_fake", timeout=120)
    assert leaks(guest) == ""


def test_feature_filter(guests: Factory, kernel: str) -> None:
    """If this fails CONFIG_VIRTIO_DEBUG has no effect: its files do not exist, or what they filter is negotiated all the same."""
    guest = guests(kernel=kernel, driver=None, rust=OURS, swap_mib=0, modules=["virtio_fake"]).start()
    guest.run("rmmod virtio_pci; modprobe virtio_fake")
    assert guest.run(f"cat {DEBUGFS}/device_features").out.split() == "0 3 7 9 28 32 70 71".split()
    negotiated = guest.read("/sys/bus/virtio/devices/virtio0/features")
    assert [bit for bit, digit in enumerate(negotiated) if digit == "1"] == [0, 3, 28, 32, 70]
    driver = "echo virtio0 >/sys/bus/virtio/drivers/virtio_fake"
    # 28 belongs to the transport, so it cannot be filtered.
    guest.run(f"for bit in 3 28 70; do echo $bit >{DEBUGFS}/filter_feature_add; done; dmesg -c >/dev/null; {driver}/unbind; {driver}/bind")
    assert f"features {features(0, 28, 32)}" in guest.run("dmesg").out
    guest.run(f"rmmod virtio_fake; ! test -e {DEBUGFS}; rmmod virtio; ! test -e /sys/kernel/debug/virtio")
