# SPDX-License-Identifier: GPL-2.0
"""`make deb` and `make test-deb`: the Debian package with the balloon's module, and a Debian system to try it on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

from lab import buildroot, enter, host, kernels, modules, paths, rootfs
from lab.cache import Entry
from lab.errors import LabError
from lab.progress import Step, Steps

TOOLS = ("debhelper", "dh-dkms", "lintian", "fakeroot", "binutils", "make")
FLAVOURS = ("amd64", "cloud-amd64")
"""The kernels of Debian's for which the package has modules, of the newest release in the archive."""
OUT = paths.BUILD / "deb"
LOG = paths.BUILD / "logs" / "deb.log"
NEEDS_MIB = 600
STEPS = 3 + len(FLAVOURS) * (kernels.STEPS + 1)
NEXT = "+test"
"""What the version of the package ends with to which `make test-deb` upgrades."""


def build(steps: Steps, more: tuple[str, ...] = ()) -> list[Path]:
    """Makes the package, and one for each ending of the version in `more`; returns the files. Raises LabError."""
    buildroot.ensure(steps.begin("build root"))
    made = []
    for release in _releases():
        kernel = kernels.stock(steps, release)
        folder = modules.out_folder(kernel)
        modules.build(steps.begin(f"modules for `{release}`"), kernel, folder)
        made.append(f"{release}:{kernels.package(release).version}:{paths.inside(folder / 'virtio_balloon.ko')}")
    root = _tools(steps.begin("packaging tools"))
    step = steps.begin("package")
    files = []
    for version in (_version(), *(_version() + ending for ending in more)):
        script = ["sh", "/src/lab/steps/deb.sh", paths.inside(OUT), version, _maintainer(), *made]
        step.run(enter.command(root, script, cwd="/tmp", env={"SOURCE_DATE_EPOCH": _date()}), LOG, f"building {version}")
        files.append(OUT / f"virtio-rust-dkms_{version}_amd64.deb")
    step.done()
    return files


def for_guests(steps: Steps) -> Path:
    """Makes the packages and the system that `make test-deb` tries them on; returns the file that tells the harness."""
    packages = build(steps, (NEXT,))
    facts = json.loads(modules.for_guests(steps, ["stock"]).read_text())
    system = rootfs.ensure_with_kernel(steps.begin("Debian system with DKMS"))
    facts["debian"], facts["initrd"] = paths.inside(system / "image"), paths.inside(system / "initrd")
    facts["packages"] = [paths.inside(package) for package in packages]
    path = paths.BUILD / "facts-deb.json"
    path.write_text(json.dumps(facts, indent=1) + "\n")
    return path


def _releases() -> list[str]:
    newest = kernels.package(kernels.wanted_release()).release
    base = re.sub(r"-(cloud-)?amd64$", "", newest)
    return [f"{base}-{flavour}" for flavour in FLAVOURS]


def _version() -> str:
    return (paths.CHECKOUT / "VERSION").read_text().strip()


def _maintainer() -> str:
    """Who makes the package, as Debian's tools are told, else as git is."""
    name = os.environ.get("DEBFULLNAME") or _git("user.name")
    address = os.environ.get("DEBEMAIL") or _git("user.email")
    if not name or not address:
        raise LabError("a package names who made it: set DEBFULLNAME and DEBEMAIL, or user.name and user.email of git")
    return f"{name} <{address}>"


def _git(setting: str) -> str:
    try:
        found = subprocess.run(["git", "config", setting], cwd=paths.CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def _date() -> str:
    """The time of the last commit, so that the same sources give the same package."""
    try:
        found = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=paths.CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
    except OSError:
        return str(int(time.time()))
    return found.stdout.strip() or str(int(time.time()))


def _tools(step: Step) -> Path:
    """A Debian tree with what makes packages, beside the build root, whose kernels it is none of."""
    entry = Entry("debroot", "packaging tools", (buildroot.SUITE, *TOOLS, buildroot.PINS, buildroot.FINISH))

    def make(folder: Path) -> dict:
        host.require_mmdebstrap()
        host.require_space(paths.cache(), NEEDS_MIB, "the packaging tools")
        step.run(buildroot.mmdebstrap(folder / "root", TOOLS, buildroot.FINISH), paths.cache() / "logs" / f"{entry.name}.log",
                 "installing Debian packages", r"^(Unpacking|Setting up) ", "package steps", 300, buildroot.HINTS)
        return {}

    folder = entry.ensure(make)
    step.done()
    return folder / "root"
