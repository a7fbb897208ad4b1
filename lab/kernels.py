# SPDX-License-Identifier: GPL-2.0
"""The lab's kernels: `stock`, Debian's own binary; `full`, built from the archive's source with a small config; `debug`, that one
with everything the kernel has to find errors; and `arm64`, a smaller one for another architecture."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Optional

from lab import buildroot, cache, enter, host, paths
from lab.cache import Entry
from lab.errors import LabError
from lab.progress import Step, Steps

SERIES = "7.3"
STEPS = 2
SOURCE_MIB = 1000
STOCK_MIB = 1200
STOCK_IMAGE = "bzImage"
# What a cold build was seen to print, for the progress line.
STOCK_OBJECTS = 200
OBJECT_LINE = r"^  (CC|AS|LD|AR|RUSTC|HOSTCC|HOSTRUSTC|BINDGEN)( |\[)"
# Tools whose version decides what a kernel build gives.
COMPILERS = ("gcc-14", "clang-19", "lld-19", "rustc", "rust-src", "bindgen", "pahole")


@dataclass(frozen=True)
class Recipe:
    """How the lab builds a kernel, and what to expect of the build."""

    fragments: tuple[str, ...]
    """Configuration fragments over tinyconfig; a later one overrides those before it."""
    make: tuple[str, ...]
    """Variables of the kernel's Makefile, for its modules as well."""
    image: str
    """The file to boot, below the build folder."""
    mib: int
    """Room it takes on the disk."""
    objects: int
    """How many objects a cold build was seen to make."""
    arch: str = "x86_64"
    """The machine as `uname -m` prints it."""


# GCC builds a kernel in half of clang's time; that KASAN instruments Rust needs one LLVM for both languages, and clang builds for
# every architecture.
RECIPES = {
    "full": Recipe(("full.config",), ("CC=gcc-14",), "arch/x86/boot/bzImage", 1200, 1980),
    "debug": Recipe(("full.config", "debug.config"), ("LLVM=-19",), "arch/x86/boot/bzImage", 2500, 2200),
    "arm64": Recipe(("arm64.config",), ("ARCH=arm64", "LLVM=-19"), "arch/arm64/boot/Image", 500, 1380, "aarch64"),
}


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot and to build modules for; paths as seen inside the build root."""

    name: str
    arch: str
    release: str
    image: str
    modules_dir: str
    build: str
    source: str
    make: tuple[str, ...]

    def facts(self) -> dict:
        """The kernel as the harness in the build root wants it described."""
        return {"arch": self.arch, "release": self.release, "image": self.image, "modules_dir": self.modules_dir, "build": self.build,
                "source": self.source, "make": list(self.make)}


@dataclass(frozen=True)
class Package:
    """A kernel of the archive: its release (`uname -r`) and the version of the packages it consists of."""

    release: str
    version: str


def wanted_release() -> Optional[str]:
    """The kernel release asked for with RELEASE=, None for the newest."""
    return os.environ.get("RELEASE") or None


def prepare(name: str, steps: Steps) -> Kernel:
    """The kernel `stock` or one of RECIPES, made if need be in STEPS steps. Raises LabError."""
    return stock(steps, wanted_release()) if name == "stock" else _built(name, RECIPES[name], steps)


def ingredients(step: Step, script: str) -> tuple[Entry, tuple[str, ...]]:
    """The kernel source, and what else decides on what a script of lab/steps makes of it. Raises LabError."""
    source = _source(step)
    return source, (source.name, _script(script), *_tools())


def package(release: Optional[str]) -> Package:
    """The archive's packages for a release, or for its newest kernel. Raises LabError."""
    return _with_fresh_lists(_find, release)


def stock(steps: Steps, release: Optional[str]) -> Kernel:
    """Debian's own kernel of a release, or its newest, made ready for modules in STEPS steps. Raises LabError."""
    step = steps.begin("kernel source")
    package = _with_fresh_lists(_find, release)
    source = _archive_source(step, package.version)
    step = steps.begin("kernel `stock`")
    entry = Entry("stock", f"stock kernel {package.release}", (
        package.release, package.version, source.name, _script("stock.sh"), *_tools()))

    def build(folder: Path) -> dict:
        host.require_space(paths.cache(), STOCK_MIB, "the stock kernel")
        step.run(_in_root("stock.sh", paths.inside(folder), _tree(source), package.release, package.version),
                 _log(entry), "preparing for module builds", OBJECT_LINE, "objects", STOCK_OBJECTS, buildroot.OUTDATED)
        return {"release": package.release, "make": (folder / "make-variables").read_text().split()}

    folder = entry.ensure(build)
    step.done(package.release)
    return _kernel("stock", "x86_64", folder / STOCK_IMAGE, entry.facts(), _tree(source))


def _built(name: str, recipe: Recipe, steps: Steps) -> Kernel:
    step = steps.begin("kernel source")
    source = _source(step)
    step = steps.begin(f"kernel `{name}`")
    fragments = {fragment: (paths.CONFIG / fragment).read_text() for fragment in recipe.fragments}
    entry = Entry(name, f"kernel `{name}`", (
        source.name, *fragments.values(), _script("kernel.sh"), recipe.image, *recipe.make, *_tools()))

    def build(folder: Path) -> dict:
        host.require_space(paths.cache(), recipe.mib, f"the kernel `{name}`")
        for fragment, text in fragments.items():
            (folder / fragment).write_text(text)
        copies = [paths.inside(folder / fragment) for fragment in fragments]
        step.run(_in_root("kernel.sh", paths.inside(folder), _tree(source), recipe.image, " ".join(recipe.make), *copies),
                 _log(entry), "building", OBJECT_LINE, "objects", recipe.objects)
        return {"release": (folder / "release").read_text().strip(), "make": recipe.make}

    folder = entry.ensure(build)
    step.done(entry.facts()["release"])
    return _kernel(name, recipe.arch, folder / Path(recipe.image).name, entry.facts(), _tree(source))


def _kernel(name: str, arch: str, image: Path, facts: dict, source: str) -> Kernel:
    inner = paths.inside(image.parent)
    return Kernel(name, arch, facts["release"], paths.inside(image), f"{inner}/modules", f"{inner}/build", source,
                  tuple(facts["make"]))


def _source(step: Step) -> Entry:
    tarball = os.environ.get("LINUX_SOURCE")
    if tarball:
        return _tarball_source(step, Path(tarball).expanduser())
    return _archive_source(step, _with_fresh_lists(_newest_source))


def _archive_source(step: Step, version: str) -> Entry:
    package = f"linux-source-{SERIES}"
    entry = Entry("source", f"kernel source {version}", (package, version, _script("source.sh")))

    def build(folder: Path) -> dict:
        host.require_space(paths.cache(), SOURCE_MIB, "the kernel source")
        step.run(_in_root("source.sh", paths.inside(folder / "linux"), "archive", package, version), _log(entry),
                 "downloading and unpacking", hints=buildroot.OUTDATED)
        return {"version": version}

    entry.ensure(build)
    step.done(version)
    return entry


def _tarball_source(step: Step, tarball: Path) -> Entry:
    if not tarball.is_file():
        raise LabError(f"LINUX_SOURCE={tarball}: there is no such file")
    digest = hashlib.sha256()
    with tarball.open("rb") as data:
        for block in iter(lambda: data.read(1 << 20), b""):
            digest.update(block)
    entry = Entry("source", f"kernel source {tarball.name}", (digest.hexdigest(), _script("source.sh")))

    def build(folder: Path) -> dict:
        host.require_space(paths.cache(), SOURCE_MIB + 200, "the kernel source")
        copy = folder / tarball.name
        shutil.copyfile(tarball, copy)
        step.run(_in_root("source.sh", paths.inside(folder / "linux"), "tarball", paths.inside(copy)), _log(entry),
                 "unpacking", hints={"": "LINUX_SOURCE must be a .tar[.xz|.gz|.zst] of a Linux source tree"})
        copy.unlink()
        found = re.search(r"^VERSION = (\d+)\nPATCHLEVEL = (\d+)", (folder / "linux/Makefile").read_text(), re.M)
        if not found or ".".join(found.groups()) != SERIES:
            raise LabError(f"LINUX_SOURCE={tarball} is not Linux {SERIES}")
        return {"version": tarball.name}

    entry.ensure(build)
    step.done(tarball.name)
    return entry


def _find(release: Optional[str]) -> Package:
    """The archive's packages for a release, or for its newest kernel of the common flavour."""
    known, sources = _archive()
    if release is None:
        common = [package for package in known if re.fullmatch(r"[0-9.]+\+deb\d+-amd64", package.release)]
        if common:
            return max(common, key=lambda package: [int(n) for n in re.findall(r"\d+", package.release)])
        raise LabError(f"the archive has no Linux {SERIES} kernel any more; for one of your own: "
                       "make modules KDIR=<prepared kernel build>")
    for package in known:
        if package.release == release:
            if package.version not in sources:
                raise LabError(f"the archive has the kernel {release}, but not its source linux-source-{SERIES} "
                               f"{package.version}, without which no Rust module can be built for it")
            return package
    have = ", ".join(package.release for package in known) or "none"
    raise LabError(f"the archive has no kernel {release} of the series {SERIES} (it has: {have}). Upgrade to one of "
                   "these, or use a kernel build of your own: make modules KDIR=<prepared kernel build>")


def _newest_source() -> str:
    sources = _archive()[1]
    if not sources:
        raise LabError(f"the archive has no linux-source-{SERIES} any more. LINUX_SOURCE=<tarball of Linux {SERIES}> "
                       "uses another source")
    return sources[0]


@lru_cache(maxsize=None)
def _archive() -> tuple[list[Package], list[str]]:
    """The kernels and the source versions, newest first, of our series in the build root's package lists."""
    source = f"linux-source-{SERIES}"
    script = f"apt-cache madison $(apt-cache pkgnames linux-binary-{SERIES}.) {source}"
    kernels, sources = [], []
    for line in enter.output(buildroot.root(), ["sh", "-c", script]).splitlines():
        name, version, origin = (field.strip() for field in line.split("|"))
        if not origin.endswith("Packages"):
            continue
        if name == source:
            sources.append(version)
        else:
            kernels.append(Package(name[len("linux-binary-"):], version))
    return sorted(kernels, key=lambda package: package.release), sources


def _with_fresh_lists(look_up, *arguments):
    """Runs a look-up in the package lists, and once more with new lists if it finds nothing."""
    try:
        return look_up(*arguments)
    except LabError:
        if not refresh_lists():
            raise
    return look_up(*arguments)


def refresh_lists() -> bool:
    """Fetches the package lists anew; False if that fails, the old ones stay."""
    lock = cache.Lock("apt")
    lock.exclusive("the package lists")
    command = enter.command(buildroot.root(), ["apt-get", "-q", "update"], cwd="/", writable=True)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          preexec_fn=host.die_with_parent, check=False)
    lock.release()
    _archive.cache_clear()
    return done.returncode == 0


def _tools() -> list[str]:
    versions = buildroot.entry().facts()["versions"]
    return [f"{name} {versions.get(name)}" for name in COMPILERS]


def _script(name: str) -> str:
    return (paths.STEPS / name).read_text()


def _in_root(script: str, *arguments: str) -> list[str]:
    return enter.command(buildroot.root(), ["sh", f"/src/lab/steps/{script}", *arguments], cwd="/")


def _tree(source: Entry) -> str:
    return paths.inside(source.path / "linux")


def _log(entry: Entry) -> Path:
    return paths.cache() / "logs" / f"{entry.name}.log"
