# SPDX-License-Identifier: GPL-2.0
"""Images of Debian systems for guests: systemd, and either programs that make load and a package repository in a folder, or Debian's
own kernel and DKMS."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import buildroot, enter, host, paths
from lab.cache import Entry
from lab.progress import Step

# Beside Debian's minimal system. The last is only put into the repository, to be installed in the guest.
PACKAGES = ("systemd", "systemd-sysv", "udev", "dbus", "iproute2", "kmod", "procps", "fio", "stress-ng", "iperf3")
SYSTEM = PACKAGES[:7]
WITH_KERNEL = (*SYSTEM, "initramfs-tools", "dkms", "openssl", "linux-image-amd64", "linux-headers-amd64")
IN_REPOSITORY = "hello"
SIZE_MIB = 2000
NEEDS_MIB = 1500
SCRIPT = paths.STEPS / "rootfs.sh"
AGENT = paths.CHECKOUT / "lab" / "guest" / "agent.sh"


def ensure(step: Step) -> Path:
    """The image, made if need be, for kernels that have all drivers built in. Raises LabError."""
    return _ensure(step, "rootfs", "Debian system", PACKAGES) / "image"


def ensure_with_kernel(step: Step) -> Path:
    """A folder with the `image` of a system that has Debian's newest kernel and DKMS, and the `initrd` of that kernel. Raises LabError."""
    return _ensure(step, "rootfs-dkms", "Debian system with DKMS", WITH_KERNEL)


def _ensure(step: Step, kind: str, title: str, packages: tuple[str, ...]) -> Path:
    parts = (buildroot.SUITE, *packages, buildroot.PINS, IN_REPOSITORY, str(SIZE_MIB), SCRIPT.read_text(), AGENT.read_text())
    entry = Entry(kind, title, parts)
    folder = entry.ensure(lambda folder: _make(step, entry, folder, packages))
    step.done()
    return folder


def _make(step: Step, entry: Entry, folder: Path, packages: tuple[str, ...]) -> dict:
    host.require_mmdebstrap()
    host.require_space(paths.cache(), NEEDS_MIB, "the Debian system")
    log = paths.cache() / "logs" / f"{entry.name}.log"
    root = folder / "root"
    hook = f"sh {SCRIPT} \"$1\" {AGENT} {IN_REPOSITORY}"
    step.run(buildroot.mmdebstrap(root, packages, hook), log, "installing Debian packages", r"^(Unpacking|Setting up) ",
             "package steps", 330, buildroot.HINTS)
    image = ["mke2fs", "-q", "-t", "ext4", "-d", paths.inside(root), paths.inside(folder / "image"), f"{SIZE_MIB}M"]
    step.run(enter.command(buildroot.root(), image, cwd="/"), log, "making the image")
    for initrd in (root / "boot").glob("initrd.img-*"):
        shutil.copyfile(initrd, folder / "initrd")
    step.run([*host.namespaces(pid=False), "rm", "-rf", "--one-file-system", str(root)], log, "removing the folder")
    return {}
