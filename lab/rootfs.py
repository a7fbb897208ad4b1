"""The image of a Debian system for guests: systemd, programs that make load, and a package repository in a folder."""

from __future__ import annotations

from pathlib import Path

from lab import buildroot, enter, host, paths
from lab.cache import Entry
from lab.progress import Step

# Beside Debian's minimal system. The last is only put into the repository, to be installed in the guest.
PACKAGES = ("systemd", "systemd-sysv", "udev", "dbus", "iproute2", "kmod", "procps", "fio", "stress-ng", "iperf3")
IN_REPOSITORY = "hello"
SIZE_MIB = 2000
NEEDS_MIB = 1500
SCRIPT = paths.STEPS / "rootfs.sh"
AGENT = paths.CHECKOUT / "lab" / "guest" / "agent.sh"


def ensure(step: Step) -> Path:
    """The image, made if need be. Raises LabError."""
    parts = (buildroot.SUITE, *PACKAGES, IN_REPOSITORY, str(SIZE_MIB), SCRIPT.read_text(), AGENT.read_text())
    entry = Entry("rootfs", "Debian system", parts)
    folder = entry.ensure(lambda folder: _make(step, entry, folder))
    step.done()
    return folder / "image"


def _make(step: Step, entry: Entry, folder: Path) -> dict:
    host.require_mmdebstrap()
    host.require_space(paths.cache(), NEEDS_MIB, "the Debian system")
    log = paths.cache() / "logs" / f"{entry.name}.log"
    root = folder / "root"
    hook = f"sh {SCRIPT} \"$1\" {AGENT} {IN_REPOSITORY}"
    step.run(buildroot.mmdebstrap(root, PACKAGES, hook), log, "installing Debian packages", r"^(Unpacking|Setting up) ",
             "package steps", 330, buildroot.HINTS)
    image = ["mke2fs", "-q", "-t", "ext4", "-d", paths.inside(root), paths.inside(folder / "image"), f"{SIZE_MIB}M"]
    step.run(enter.command(buildroot.root(), image, cwd="/"), log, "making the image")
    step.run([*host.namespaces(pid=False), "rm", "-rf", "--one-file-system", str(root)], log, "removing the folder")
    return {}
