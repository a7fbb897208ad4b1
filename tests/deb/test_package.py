# SPDX-License-Identifier: GPL-2.0
"""The Debian package in a Debian system with Debian's own kernel: DKMS, the initial file system, a hibernation, and what remove leaves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from lab.guest import Guest, facts

Factory = Callable[..., Guest]

BOOT_SECONDS = 240
INSTALL_SECONDS = 300
UNKNOWN = "9.9.9-unknown"
"""The release of a kernel for which there is no module."""

OURS = "/lib/modules/{release}/updates/dkms/virtio_balloon.ko.xz"
BACK = "install virtio_balloon insmod /var/lib/dkms/virtio-rust/original_module/$(uname -r)/$(uname -m)/virtio_balloon.ko.xz"
"""The line for modprobe.d that brings the C driver back while the package is installed."""


def boot(guests: Factory) -> Guest:
    """A system whose further disks are the packages."""
    disks = [word for path in facts().packages for word in ("-drive", f"file={padded(path)},format=raw,if=virtio,readonly=on")]
    guest = guests(
        kernel="stock", driver=None, root=facts().debian, initrd=facts().initrd, memory_mib=1024, swap_mib=800, balloon="virtio-balloon-pci",
        qemu_options=disks, allow=["module verification failed"],
    )
    guest.start(timeout=BOOT_SECONDS)
    guest.run("systemctl is-system-running --wait", timeout=BOOT_SECONDS, check=False)
    for path, disk in zip(facts().packages, ("vdb", "vdc")):
        guest.run(f"head -c {path.stat().st_size} /dev/{disk} >/root/{path.name}")
    guest.run(f"swapon /dev/nvme0n1; mkdir -p /lib/modules/{UNKNOWN}/build/include; dmesg -n 7")
    return guest


def padded(path: Path) -> Path:
    """A copy whose size is one of a disk."""
    copy = Path("/tmp") / f"{path.name}.img"
    data = path.read_bytes()
    copy.write_bytes(data + bytes(-len(data) % 4096))
    return copy


def install(guest: Guest, package: Path) -> str:
    """Installs a package as a user would; returns what that printed."""
    return guest.run(f"DEBIAN_FRONTEND=noninteractive apt-get -q -y install /root/{package.name} 2>&1", timeout=INSTALL_SECONDS).out


def driver(guest: Guest) -> str:
    """The file that modprobe would load."""
    return guest.run("modinfo -n virtio_balloon").out.strip()


def load(guest: Guest) -> bool:
    """Loads the driver anew; whether it is ours, which says so in debugfs."""
    guest.run("modprobe -r virtio_balloon; modprobe virtio_balloon; sleep 1")
    return guest.run("ls /sys/kernel/debug/virtio_balloon-*/state", check=False).status == 0


def in_initrd(guest: Guest) -> list[str]:
    """The balloon's modules in the initial file system."""
    return guest.run("lsinitramfs /boot/initrd.img-$(uname -r) | grep virtio_balloon || :").out.split()


def test_source(tmp_path: Path) -> None:
    """If this fails DKMS cannot build the module where a kernel's headers carry the metadata of its crates, as on Arch and Armbian."""
    subprocess.run(["dpkg-deb", "-x", facts().packages[0], tmp_path], check=True)
    folder = next((tmp_path / "usr/src").glob("virtio-rust-*"))
    kernel = facts().kernels["stock"]

    def module(do: str, headers: Path) -> str:
        command = ["sh", folder / "dkms-module", do, "9.9.9-source", headers]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    assert module("pattern", tmp_path) == "^none$", "headers without metadata are no use"
    assert module("pattern", kernel.build) == "."
    module("make", kernel.build)
    made = subprocess.run(["modinfo", "-F", "vermagic", folder / "built/virtio_balloon.ko"], stdout=subprocess.PIPE, text=True, check=True)
    assert made.stdout.split()[0] == kernel.release


def test_package(guests: Factory) -> None:
    """If this fails the package does not install the driver, or not for good, or leaves the system without one."""
    guest = boot(guests)
    first, second = facts().packages
    release = guest.kernel.release
    theirs = driver(guest)
    assert "/kernel/drivers/virtio/" in theirs and not load(guest)
    initial = in_initrd(guest)

    said = install(guest, first)
    assert driver(guest) == OURS.format(release=release), said
    assert said.count(f"no module for Linux {UNKNOWN}; that kernel keeps its own") == 1, said
    assert guest.run("modinfo -F signer virtio_balloon").out.strip(), "the module is not signed"
    assert len(in_initrd(guest)) == len(initial) and all("/updates/" in path for path in in_initrd(guest)), in_initrd(guest)
    assert load(guest), guest.run("dmesg | tail").out

    guest.inflate(300)
    mark = guest.mark()
    assert guest.hibernate(timeout=300) is None
    assert guest.traffic(mark).pages == 0, "hibernation should move no page"
    guest.resume(target_mib=100, timeout=BOOT_SECONDS)
    guest.wait_actual(100 * 256)
    guest.inflate(0)

    # The way back to the C driver, and away from there.
    guest.run(f"echo '{BACK}' >/etc/modprobe.d/virtio-balloon.conf")
    assert not load(guest)
    guest.run("rm /etc/modprobe.d/virtio-balloon.conf")

    install(guest, second)
    status = guest.run("dkms status").out
    assert "+test" in status and status.count("virtio-rust/") == 1, status
    assert driver(guest) == OURS.format(release=release) and load(guest)

    guest.run("apt-get -q -y remove virtio-rust-dkms 2>&1", timeout=INSTALL_SECONDS)
    assert driver(guest) == theirs and not load(guest)
    assert in_initrd(guest) == initial
    install(guest, first)
    assert load(guest)
    guest.run("apt-get -q -y purge virtio-rust-dkms 2>&1", timeout=INSTALL_SECONDS)
    assert driver(guest) == theirs and not load(guest)
    assert guest.run("ls -d /usr/src/virtio-rust* /var/lib/dkms/virtio-rust*", check=False).out.count("No such file") == 2
