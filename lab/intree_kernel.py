"""The kernel `rust`: virtio built in, made from our sources inside a kernel tree. The tree and its objects stay in the cache;
what is made of the checkout's present sources is in `build/intree-kernel`."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from lab import buildroot, cache, enter, host, intree, kernels, paths, series
from lab.cache import Entry
from lab.kernels import Kernel
from lab.progress import Step, Steps

NAME = "rust"
OUT = paths.BUILD / "intree-kernel"
FRAGMENTS = ("full.config", "rust.config")
TOOLCHAIN = "CC=gcc-14"
SCRIPT = "intree-kernel.sh"
MIB = 5000
# What a cold build was seen to print, for the progress line.
OBJECTS = 2300


def prepare(steps: Steps) -> Kernel:
    """The kernel, made if need be in `kernels.STEPS` steps, with the checkout's present sources in it. Raises LabError."""
    source, ingredients = kernels.ingredients(steps.begin("kernel source"), SCRIPT)
    step = steps.begin(f"kernel `{NAME}`")
    fragment = merged(*((paths.CONFIG / name).read_text() for name in FRAGMENTS))
    entry = Entry(NAME, f"kernel `{NAME}`", (*ingredients, fragment, TOOLCHAIN))

    def make(folder: Path) -> dict:
        host.require_space(paths.cache(), MIB, f"the kernel `{NAME}`")
        # Links: `intree` replaces what it changes, and objects go elsewhere.
        subprocess.run(["cp", "-a", "-l", source.path / "linux", folder / "linux"], check=True)
        (folder / "fragment").write_text(fragment)
        return {}

    folder = entry.ensure(make)
    if _stamp(entry) != _built():
        lock = cache.Lock(f"{NAME}-tree")
        lock.exclusive(f"the kernel `{NAME}`")
        if _stamp(entry) != _built():
            _build(step, folder, entry)
        lock.release()
    release = (OUT / "release").read_text().strip()
    step.done(release)
    inner = paths.inside(OUT)
    tree = paths.inside(folder)
    return Kernel(NAME, "x86_64", release, f"{inner}/bzImage", f"{inner}/modules", f"{tree}/build", f"{tree}/linux",
                  (TOOLCHAIN,))


def _build(step: Step, folder: Path, entry: Entry) -> None:
    """Brings the kernel tree and its objects up to date with the checkout, and copies what guests need."""
    stamp = _stamp(entry)
    shutil.rmtree(OUT, ignore_errors=True)
    intree.install(folder / "linux")
    inside = paths.inside(folder)
    command = ["sh", f"/src/lab/steps/{SCRIPT}", f"{inside}/build", f"{inside}/linux", TOOLCHAIN, f"{inside}/fragment", paths.inside(OUT)]
    step.run(enter.command(buildroot.root(), command, cwd="/"), paths.cache() / "logs" / f"{entry.name}.log", "building",
             kernels.OBJECT_LINE, "objects", OBJECTS)
    (OUT / "stamp").write_text(stamp)


def _stamp(entry: Entry) -> str:
    """What the kernel is made of: the tree, and our files."""
    digest = hashlib.sha256(entry.name.encode())
    for name, path in series.files().items():
        digest.update(f"\0{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _built() -> str:
    stamp = OUT / "stamp"
    return stamp.read_text() if stamp.exists() else ""


def merged(*fragments: str) -> str:
    """One fragment of several, in which a later one overrides those before it."""
    lines = {}
    for line in "\n".join(fragments).splitlines():
        option = re.match(r"(?:# )?(CONFIG_\w+)(?:=| is not set$)", line)
        if option:
            lines[option[1]] = line
    return "\n".join(lines.values()) + "\n"
