# SPDX-License-Identifier: GPL-2.0
"""More of the kernel's own drivers on our rings, and one more judge of them: the kernel's own device side, `vringh`, behind `vdpa_sim`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest
from device.vsock import VsockDevice
from lab.guest import Guest, facts
from test_kunit import count_tests
from test_ring import ALL, BITS, LAYERS, PROGRAMS, RINGS, Ring, boot

Factory = Callable[..., Guest]

FORMATS = (Ring(), Ring(packed=True, iommu_platform=True))


@pytest.mark.parametrize("ring", RINGS)
def test_scsi_and_9p(guests: Factory, ring: str, tmp_path: Path) -> None:
    """If this fails disks behind virtio-scsi lose data, or shared folders do: both put several lists of either direction into a buffer."""
    options: list[str] = []
    sent = bytes(range(256)) * 4096
    for number, features in enumerate(FORMATS):
        disk, shared = tmp_path / f"disk{number}", tmp_path / f"shared{number}"
        with disk.open("wb") as file:
            file.truncate(4 << 20)
        shared.mkdir()
        (shared / "there").write_bytes(sent)
        options += ["-device", f"virtio-scsi-pci,id=scsi{number},disable-legacy=on,{features.options}"]
        options += ["-drive", f"if=none,id=drive{number},file={disk},format=raw,cache=unsafe"]
        options += ["-device", f"scsi-hd,drive=drive{number},bus=scsi{number}.0"]
        options += ["-fsdev", f"local,id=shared{number},path={shared},security_model=none"]
        options += ["-device", f"virtio-9p-pci,disable-legacy=on,fsdev=shared{number},mount_tag=shared{number},{features.options}"]
    modules = ("virtio_scsi", "sd_mod", "9pnet_virtio", "9p")
    guest = boot(guests, ring, balloon=False, driver=None, modules=modules, qemu_options=options)
    guest.run("modprobe -a " + " ".join(modules))
    guest.wait_for(lambda: "sdb" in guest.run("ls /sys/block").out, 30, "the disks do not come")
    for number, disk in enumerate("ab"):
        print(guest.run(f"blkcheck /dev/sd{disk} 4 15 {number}").out.strip())
        guest.run(f"mkdir /tmp/{number}; mount -t 9p -o trans=virtio,version=9p2000.L shared{number} /tmp/{number}")
        found = guest.run(f"sha256sum </tmp/{number}/there; head -c 1m /dev/urandom >/tmp/back; cp /tmp/back /tmp/{number}; sha256sum </tmp/back").out.split()
        assert found[0] == sha256(sent).hexdigest()
        guest.run(f"umount /tmp/{number}")
        assert found[2] == sha256((tmp_path / f"shared{number}" / "back").read_bytes()).hexdigest()


@pytest.mark.parametrize("ring", RINGS)
def test_vdpa(guests: Factory, ring: str) -> None:
    """If this fails the kernel's own implementation of the device side does not understand our rings."""
    modules = ("virtio_vdpa", "vdpa_sim_blk", "virtio_blk")
    files = {**PROGRAMS, "/bin/vdpaadd": facts().programs / "vdpaadd"}
    guest = boot(guests, ring, balloon=False, driver=None, modules=modules, files=files, memory_mib=1024)
    guest.run("modprobe -a " + " ".join(modules))
    guest.run("vdpaadd disk vdpasim_blk")
    guest.wait_for(lambda: "vda" in guest.run("ls /sys/block").out, 30, "the disk does not come")
    print(guest.run("blkcheck /dev/vda 4 6 1").out.strip())


MACHINES = {"pci": {}, "device": {"machine": "microvm,acpi=off,rtc=off"}}
"""What the machines of a transport need, by how the names of their virtio devices end."""

VSOCK = "vmw_vsock_virtio_transport"
VSOCK_BYTES = 400_000


@pytest.mark.parametrize("suffix", [pytest.param("pci", id="pci"), pytest.param("device", id="mmio")])
@pytest.mark.parametrize("ring", RINGS)
def test_vsock(guests: Factory, ring: str, suffix: str) -> None:
    """If this fails sockets to the host lose bytes, or hang, with some combination of a ring's features.

    Without `iommu_platform`, for which QEMU wants a device in another process to ask for each address.
    """
    rings = [features for features in ALL if not features.iommu_platform]
    with ExitStack() as stack:
        devices = {features: stack.enter_context(VsockDevice(features.bits, features.options, features.name, suffix)) for features in rings}
        options = ["-global", "virtio-mmio.force-legacy=false", *(option for device in devices.values() for option in device.options)]
        guest = boot(
            guests, ring, balloon=False, driver=None, modules=(VSOCK,), files={"/bin/vsockcheck": facts().programs / "vsockcheck"}, shared_memory=True,
            qemu_options=options, **MACHINES[suffix],
        )
        # A guest has one such device at a time.
        guest.run(f"echo 0 >/sys/bus/virtio/drivers_autoprobe; modprobe {VSOCK}")
        for seed in range(len(rings)):
            path = f"/sys/bus/virtio/drivers/{VSOCK}"
            guest.run(f"echo virtio{seed} >{path}/bind")
            features = guest.read(f"/sys/bus/virtio/devices/virtio{seed}/features")
            (used,) = [features_of for features_of in rings if all(features[bit] == str(features_of.bits >> bit & 1) for bit in BITS.values())]
            print(used.name, guest.run(f"vsockcheck {VSOCK_BYTES + seed} {seed}").out.strip())
            guest.run(f"echo virtio{seed} >{path}/unbind")
            assert devices[used].received == VSOCK_BYTES + seed
        assert [device.violations for device in devices.values()] == [[]] * len(rings)


DIFFERENT = {"packed_without_room_to_map", "left_in_the_queue", "stopped_queue"}
"""Where C is known to do otherwise."""


@pytest.mark.parametrize("ring", RINGS)
def test_exports(guests: Factory, ring: str) -> None:
    """If this fails rings on the caller's memory, `struct vring`, buffers mapped by the caller, or a transport's own mapping are not as in C; a
    shortage of room to map fails requests, a deleted queue writes to memory that is somebody else's, or an interrupt finds a ring that was freed."""
    guest = boot(guests, ring, balloon=False, driver=None, modules=("ring_exports_kunit",))
    guest.run("modprobe ring_exports_kunit")
    results = guest.read("/sys/kernel/debug/kunit/virtio_ring_exports/results")
    failed = {words[3] for words in (line.split() for line in results.splitlines()) if words[:2] == ["not", "ok"] and len(words) == 4}
    different = DIFFERENT if "virtio_ring" not in LAYERS[ring] else set()
    assert failed - {"virtio_ring_exports"} == different and results.count("\n    ok ") == count_tests("ring_exports_kunit") - len(different), results
