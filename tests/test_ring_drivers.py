"""More of the kernel's own drivers on our rings, and one more judge of them: the kernel's own device side, `vringh`, behind `vdpa_sim`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest
from device.vsock import VsockDevice
from lab.guest import Guest, facts
from test_ring import ALL, BITS, PROGRAMS, RINGS, Ring, boot

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
