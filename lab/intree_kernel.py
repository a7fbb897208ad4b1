# SPDX-License-Identifier: GPL-2.0
"""Kernels with virtio built in, made inside a kernel tree: `rust` from our sources, `c`, its control, from C's, and `rust-debug`,
which is `rust` with all that finds errors. Trees and objects stay in the cache; what is made of the checkout's present sources is in
`build/intree-kernel`."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import buildroot, cache, enter, host, intree, kernels, paths, series
from lab.cache import Entry
from lab.kernels import Kernel
from lab.progress import Step, Steps

OUT = paths.BUILD / "intree-kernel"
SCRIPT = "intree-kernel.sh"
COMMON = ("full.config", "rust.config")
CHOICE = "CONFIG_VIRTIO_RUST"


@dataclass(frozen=True)
class Variant:
    """One of these kernels, and what to expect of its build."""

    fragments: tuple[str, ...]
    """Configuration fragments over tinyconfig; a later one overrides those before it."""
    toolchain: str
    """A variable of the kernel's Makefile."""
    mib: int
    """Room it takes on the disk."""
    objects: int
    """How many objects a cold build was seen to make."""
    ours: bool = True
    """Virtio is made from Rust."""

    def fragment(self) -> str:
        """All that is configured."""
        choice = () if self.ours else (f"# {CHOICE} is not set",)
        return merged(*((paths.CONFIG / name).read_text() for name in self.fragments), *choice)


VARIANTS = {
    "rust": Variant(COMMON, "CC=gcc-14", 5000, 2300),
    "c": Variant(COMMON, "CC=gcc-14", 5000, 2300, ours=False),
    "rust-debug": Variant((*COMMON, "debug.config"), "LLVM=-19", 7000, 2500),
}


def prepare(name: str, steps: Steps) -> Kernel:
    """The kernel, made if need be in `kernels.STEPS` steps, with the checkout's present sources in it. Raises LabError."""
    variant = VARIANTS[name]
    source, ingredients = kernels.ingredients(steps.begin("kernel source"), SCRIPT)
    step = steps.begin(f"kernel `{name}`")
    fragment = variant.fragment()
    entry = Entry(name, f"kernel `{name}`", (*ingredients, fragment, variant.toolchain))

    def make(folder: Path) -> dict:
        host.require_space(paths.cache(), variant.mib, f"the kernel `{name}`")
        # Links: `intree` replaces what it changes, and objects go elsewhere.
        subprocess.run(["cp", "-a", "-l", source.path / "linux", folder / "linux"], check=True)
        (folder / "fragment").write_text(fragment)
        return {}

    folder = entry.ensure(make)
    out = OUT / name
    stamp = _stamp(entry, variant)
    if stamp != _built(out):
        lock = cache.Lock(f"{name}-tree")
        lock.exclusive(f"the kernel `{name}`")
        if stamp != _built(out):
            _build(step, folder, entry, variant)
            (out / "stamp").write_text(stamp)
        lock.release()
    release = (out / "release").read_text().strip()
    step.done(release)
    inner = paths.inside(out)
    tree = paths.inside(folder)
    return Kernel(name, "x86_64", release, f"{inner}/bzImage", f"{inner}/modules", f"{tree}/build", f"{tree}/linux",
                  (variant.toolchain,))


def _build(step: Step, folder: Path, entry: Entry, variant: Variant) -> None:
    """Brings the kernel tree and its objects up to date with the checkout, and copies what guests need."""
    out = OUT / entry.kind
    shutil.rmtree(out, ignore_errors=True)
    intree.install(folder / "linux")
    inside = paths.inside(folder)
    command = ["sh", f"/src/lab/steps/{SCRIPT}", f"{inside}/build", f"{inside}/linux", variant.toolchain, f"{inside}/fragment",
               paths.inside(out)]
    step.run(enter.command(buildroot.root(), command, cwd="/"), paths.cache() / "logs" / f"{entry.name}.log", "building",
             kernels.OBJECT_LINE, "objects", variant.objects)


def _stamp(entry: Entry, variant: Variant) -> str:
    """What the kernel is made of: the tree, and our files."""
    digest = hashlib.sha256(entry.name.encode())
    for name, path in (series.files() if variant.ours else {}).items():
        digest.update(f"\0{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _built(out: Path) -> str:
    stamp = out / "stamp"
    return stamp.read_text() if stamp.exists() else ""


def merged(*fragments: str) -> str:
    """One fragment of several, in which a later one overrides those before it."""
    lines = {}
    for line in "\n".join(fragments).splitlines():
        option = re.match(r"(?:# )?(CONFIG_\w+)(?:=| is not set$)", line)
        if option:
            lines[option[1]] = line
    return "\n".join(lines.values()) + "\n"
