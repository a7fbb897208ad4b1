# SPDX-License-Identifier: GPL-2.0
"""Virtqueues that come and go while they are used: hot-unplug, other sizes, hibernation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab.guest import Guest, facts
from test_ring import ALL, LAYERS, PROGRAMS, RINGS, Devices, Ring, boot

Factory = Callable[..., Guest]

FORMATS = [pytest.param(Ring(), id="split"), pytest.param(Ring(packed=True), id="packed")]


@pytest.mark.parametrize("ring", RINGS)
def test_unplug_under_load(guests: Factory, ring: str, tmp_path: Path) -> None:
    """If this fails a host that takes a disk away from a running guest hangs it: requests are never finished."""
    options = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
    for number, features in enumerate((Ring(), Ring(packed=True))):
        disk = tmp_path / f"disk{number}"
        with disk.open("wb") as file:
            file.truncate(16 << 20)
        options += ["-device", f"pcie-root-port,id=slot{number},chassis={number + 1},slot={number + 1}"]
        options += ["-drive", f"if=none,id=drive{number},file={disk},format=raw,cache=unsafe"]
        options += ["-device", f"virtio-blk-pci,id=disk{number},bus=slot{number},drive=drive{number},{features.options}"]
    guest = boot(guests, ring, balloon=False, driver=None, qemu_options=options, allow=[r"I/O error", r"Buffer I/O"])
    guest.run("modprobe virtio_blk; test -b /dev/vda && test -b /dev/vdb")
    guest.run("for disk in a b; do (blkcheck /dev/vd$disk 8 100000 1 >/tmp/$disk 2>&1; echo ended >>/tmp/$disk) & done; sleep 1")
    for number in range(2):
        guest.qmp("device_del", id=f"disk{number}")
    guest.wait_for(lambda: not guest.run("ls /sys/block").out.count("vd"), 60, "the disks do not go")
    guest.wait_for(lambda: guest.run("cat /tmp/a /tmp/b").out.count("ended") == 2, 60, "requests of a disk that has gone are not finished")
    assert guest.run("cat /tmp/a /tmp/b").out.count("blkcheck: ") == 2, "a program should hear of it"


@pytest.mark.parametrize("ring", RINGS)
def test_freed_in_the_queue(guests: Factory, ring: str) -> None:
    """If this fails deleting a queue writes to memory that its driver has freed, as virtio_net does with a command that its device did not answer."""
    formats = [features for features in ALL if features.iommu_platform and features.event_idx]
    options = ["-object", "rng-random,id=random,filename=/dev/urandom"]
    for features in formats:
        options += ["-device", f"virtio-rng-pci,disable-legacy=on,rng=random,{features.options}"]
    guest = boot(guests, ring, balloon=False, driver=None, modules=("ring_stale",), qemu_options=options, kernel_options=["swiotlb=8192,force"])
    slots = "/sys/kernel/debug/swiotlb/io_tlb_used"
    before = int(guest.read(slots))
    guest.run("modprobe ring_stale")
    assert [line.split("> ")[1] for line in guest.said("ring_stale")] == ["0 bytes overwritten"] * len(formats)
    if "virtio_ring" in LAYERS[ring]:
        assert int(guest.read(slots)) == before, "bounce buffers were not given back"


@pytest.mark.parametrize("ring", RINGS)
def test_resize(guests: Factory, ring: str, tmp_path: Path) -> None:
    """If this fails `ethtool -G` breaks a network interface, or loses or repeats frames: the queues are reset one by one."""
    devices = Devices(tmp_path, "pci")
    devices.nets([Ring(), Ring(packed=True)])
    files = {**PROGRAMS, "/bin/ethring": facts().programs / "ethring"}
    guest = boot(guests, ring, balloon=False, driver=None, files=files, qemu_options=devices.options)
    devices.check(guest)
    for seed, (receive, transmit) in enumerate(((128, 64), (64, 256), (256, 128), (256, 256))):
        for end in (0, 1):
            assert guest.run(f"ethring eth{end} {receive} {transmit}").out.split() == [str(receive), str(transmit)]
        print(guest.run(f"netcheck eth0 eth1 400 {seed}").out.strip())


@pytest.mark.parametrize("features", FORMATS)
@pytest.mark.parametrize("ring", RINGS)
def test_hibernation(guests: Factory, ring: str, features: Ring) -> None:
    """If this fails a guest whose swap is on a virtio disk cannot hibernate, or loses data over it."""
    guest = boot(
        guests, ring, swap_mib=600, swap=f"virtio-blk-pci,disable-legacy=on,{features.options}",
        balloon=f"virtio-balloon-pci,ioeventfd=off,disable-legacy=on,{features.options}",
    )
    features.check(guest.read("/sys/block/vda/device/features"))
    before = guest.run("head -c 16m /dev/urandom >/tmp/file; sha256sum /tmp/file").out
    assert guest.hibernate() is None
    guest.resume()
    assert guest.run("sha256sum /tmp/file").out == before
    guest.inflate(64)
    guest.inflate(0)
