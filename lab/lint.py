# SPDX-License-Identifier: GPL-2.0
"""`make lint` and `make rustfmt`: the kernel's own style checks, with the tools of the build root."""

from __future__ import annotations

from dataclasses import replace

from lab import buildroot, enter, kernels, modules, paths
from lab.kernels import Kernel
from lab.progress import Steps

LOG = paths.BUILD / "logs" / "lint.log"
STEPS = 6 + 2 * kernels.STEPS
WITHOUT = ("CONFIG_PCI_IOV", "CONFIG_VIRTIO_PCI_LEGACY", "CONFIG_VIRTIO_PCI_ADMIN_LEGACY")
"""Options that all kernels of the lab have, and others may lack."""


def check(steps: Steps) -> None:
    """Runs every check. Raises LabError at the first that complains."""
    files = sources()
    buildroot.ensure(steps.begin("build root"))
    LOG.unlink(missing_ok=True)
    _in_root(steps, "rustfmt", ["rustfmt", "--check", "--edition", "2021", *files], "`make rustfmt` puts it right")
    kernel = kernels.prepare("stock", steps)
    _checkpatch(steps, kernel, [*files, "Kbuild", "Kconfig"])
    # Debian's kernel has the rings built in, so that not all modules are made for it.
    for kernel in (kernel, kernels.prepare("full", steps)):
        _clippy(steps, kernel)
    _clippy_without(steps, kernel)


def rustfmt(steps: Steps) -> None:
    """Formats every Rust file in place. Raises LabError if rustfmt cannot."""
    buildroot.ensure(steps.begin("build root"))
    _in_root(steps, "rustfmt", ["rustfmt", "--edition", "2021", *sources()])


def sources() -> list[str]:
    """The Rust files of the project, relative to the checkout."""
    found = (path.relative_to(paths.CHECKOUT) for path in paths.CHECKOUT.rglob("*.rs") if paths.BUILD not in path.parents)
    return sorted(str(path) for path in found)


def _checkpatch(steps: Steps, kernel: Kernel, files: list[str]) -> None:
    script = f"{kernel.source}/scripts/checkpatch.pl"
    options = ["--no-tree", "--strict", "--terse", "--show-types", "--no-summary", "--quiet"]
    _in_root(steps, "checkpatch", ["perl", script, *options, "-f", *files])


def _clippy(steps: Steps, kernel: Kernel) -> None:
    step = steps.begin(f"clippy for `{kernel.name}`")
    for folder, name in ((paths.CHECKOUT, "clippy"), (modules.TEST_MODULES, "clippy-tests")):
        if folder.is_dir():
            modules.make(step, kernel, folder, paths.BUILD / f"{name}-{kernel.name}", ("CLIPPY=1", "KRUSTFLAGS=-Dwarnings"), LOG)
    step.done("no complaints")


def _clippy_without(steps: Steps, kernel: Kernel) -> None:
    """Checks the modules as for a kernel like this one without some options: what they have instead, and that it needs nothing else."""
    step = steps.begin(f"clippy for `{kernel.name}` without options")
    shadow = paths.inside(paths.BUILD / "kernel-without")
    step.run(enter.command(buildroot.root(), ["sh", "/src/lab/steps/without.sh", kernel.build, shadow, *WITHOUT]), LOG, "preparing")
    fewer = replace(kernel, name=f"{kernel.name}-without", build=shadow)
    modules.make(step, fewer, paths.CHECKOUT, paths.BUILD / f"clippy-{fewer.name}", ("CLIPPY=1", "KRUSTFLAGS=-Dwarnings"), LOG)
    step.done("no complaints")


def _in_root(steps: Steps, title: str, argv: list[str], advice: str = "") -> None:
    step = steps.begin(title)
    step.run(enter.command(buildroot.root(), argv), LOG, "running", hints={"": advice})
    step.done("no complaints")
