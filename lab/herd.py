# SPDX-License-Identifier: GPL-2.0
"""herd7, which decides on litmus tests: a small Debian tree of a suite that has it, beside the build root, whose suite lacks it."""

from __future__ import annotations

from pathlib import Path

from lab import buildroot, host, paths
from lab.cache import Entry
from lab.progress import Step

SUITE = "forky"
PACKAGE = "herdtools7"
NEEDS_MIB = 400
HINTS = {
    "Unable to locate package|has no installation candidate|does not have a Release file|404 +Not Found":
    f"The archive lacks {PACKAGE} of Debian {SUITE}: set DEBIAN_MIRROR to a complete Debian archive",
    **buildroot.HINTS,
}


def ensure(step: Step) -> Path:
    """The root folder of the tree, made if need be. Raises LabError."""
    entry = Entry("herd", f"{PACKAGE} of {SUITE}", (SUITE, PACKAGE, *buildroot.LEAVE_OUT))

    def build(folder: Path) -> dict:
        host.require_mmdebstrap()
        host.require_space(paths.cache(), NEEDS_MIB, entry.title)
        step.run(buildroot.mmdebstrap(folder / "root", [PACKAGE], "true", SUITE), paths.cache() / "logs" / f"{entry.name}.log",
                 "installing Debian packages", counted=r"^(Unpacking|Setting up) ", unit="package steps", expected=160, hints=HINTS)
        return {}

    folder = entry.ensure(build)
    step.done()
    return folder / "root"
