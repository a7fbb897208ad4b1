# SPDX-License-Identifier: GPL-2.0
"""The user space of guests of another architecture than the build root's: busybox, and what the tests' programs are linked with."""

from __future__ import annotations

from dataclasses import dataclass

from lab import buildroot, enter, host, paths
from lab.cache import Entry
from lab.progress import Step

MIB = 250
# Taken in the very versions that the build root has for its own architecture.
PACKAGES = ("busybox-static", "libc6-dev", "libgcc-14-dev", "libstd-rust-dev")
# Debian's name of an architecture, and those of its GNU and of its Rust target.
NAMES = {"aarch64": ("arm64", "aarch64-linux-gnu", "aarch64-unknown-linux-gnu")}


@dataclass(frozen=True)
class Userland:
    """What guests run, and how to build programs for them; paths as seen inside the build root."""

    busybox: str
    rustc_options: tuple[str, ...] = ()


def prepare(arch: str, step: Step) -> Userland:
    """The user space for machines of an architecture, as `uname -m` prints it, made if need be. Raises LabError."""
    if arch == "x86_64":
        step.done("the build root's own")
        return Userland("/bin/busybox")
    debian, gnu, target = NAMES[arch]
    versions = buildroot.entry().facts()["versions"]
    wanted = [f"{name}={versions[name]}" for name in PACKAGES]
    script = paths.STEPS / "sysroot.sh"
    entry = Entry("sysroot", f"user space for {debian}", (debian, *wanted, script.read_text()))

    def build(folder):
        host.require_space(paths.cache(), MIB, entry.title)
        command = ["sh", "/src/lab/steps/sysroot.sh", paths.inside(folder / "root"), debian, *wanted]
        step.run(enter.command(buildroot.root(), command, cwd="/"), paths.cache() / "logs" / f"{entry.name}.log",
                 "downloading and unpacking", hints=buildroot.OUTDATED)
        return {}

    root = paths.inside(entry.ensure(build) / "root")
    step.done(debian)
    link = (f"--target={gnu}", f"--sysroot={root}", "-fuse-ld=lld-19")
    return Userland(f"{root}/usr/bin/busybox", (
        "--target", target, "-L", f"{root}/usr/lib/rustlib/{target}/lib", "-C", "linker=clang-19",
        *(word for argument in link for word in ("-C", f"link-arg={argument}")),
    ))
