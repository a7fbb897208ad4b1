"""The lab's kernels: `stock`, Debian's own binary; `full`, built from the archive's source with a small config; and `debug`, that one
with everything the kernel has to find errors."""

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
BUILT_MIB = {"full": 1200, "debug": 2500}
# The config fragments of the kernels that the lab builds; a later one overrides those before it.
FRAGMENTS = {"full": ("full.config",), "debug": ("full.config", "debug.config")}
# GCC builds a kernel in half of clang's time; that KASAN instruments Rust needs one LLVM for both languages.
TOOLCHAINS = {"full": "CC=gcc-14", "debug": "LLVM=-19"}
# What a cold build was seen to print, for the progress line.
STOCK_OBJECTS = 200
BUILT_OBJECTS = {"full": 1980, "debug": 2200}
OBJECT_LINE = r"^  (CC|AS|LD|AR|RUSTC|HOSTCC|HOSTRUSTC|BINDGEN)( |\[)"
# Tools whose version decides what a kernel build gives.
COMPILERS = ("gcc-14", "clang-19", "lld-19", "rustc", "rust-src", "bindgen", "pahole")


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot and to build modules for; paths as seen inside the build root."""

    name: str
    release: str
    image: str
    modules_dir: str
    build: str
    source: str
    make: tuple[str, ...]

    def facts(self) -> dict:
        """The kernel as the harness in the build root wants it described."""
        return {"release": self.release, "image": self.image, "modules_dir": self.modules_dir, "build": self.build,
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
    """The kernel `stock`, `full` or `debug`, made if need be in STEPS steps. Raises LabError."""
    return _stock(steps) if name == "stock" else _built(name, steps)


def _stock(steps: Steps) -> Kernel:
    step = steps.begin("kernel source")
    package = _with_fresh_lists(_find, wanted_release())
    source = _archive_source(step, package.version)
    step = steps.begin("kernel `stock`")
    entry = Entry("stock", f"stock kernel {package.release}", (
        package.release, package.version, source.name, _script("stock.sh"), *_tools()))

    def build(folder: Path) -> dict:
        host.require_space(paths.cache(), STOCK_MIB, "the stock kernel")
        step.run(_in_root("stock.sh", paths.inside(folder), _tree(source), package.release, package.version),
                 _log(entry), "preparing for module builds", OBJECT_LINE, "objects", STOCK_OBJECTS, _archive_hints())
        return {"release": package.release, "make": (folder / "make-variables").read_text().split()}

    folder = entry.ensure(build)
    step.done(package.release)
    return _kernel("stock", folder, entry.facts(), _tree(source))


def _built(name: str, steps: Steps) -> Kernel:
    step = steps.begin("kernel source")
    source = _source(step)
    step = steps.begin(f"kernel `{name}`")
    fragments = {fragment: (paths.CONFIG / fragment).read_text() for fragment in FRAGMENTS[name]}
    toolchain = TOOLCHAINS[name]
    entry = Entry(name, f"kernel `{name}`", (source.name, *fragments.values(), _script("kernel.sh"), toolchain, *_tools()))

    def build(folder: Path) -> dict:
        host.require_space(paths.cache(), BUILT_MIB[name], f"the kernel `{name}`")
        for fragment, text in fragments.items():
            (folder / fragment).write_text(text)
        copies = [paths.inside(folder / fragment) for fragment in fragments]
        step.run(_in_root("kernel.sh", paths.inside(folder), _tree(source), toolchain, *copies),
                 _log(entry), "building", OBJECT_LINE, "objects", BUILT_OBJECTS[name])
        return {"release": (folder / "release").read_text().strip(), "make": [toolchain]}

    folder = entry.ensure(build)
    step.done(entry.facts()["release"])
    return _kernel(name, folder, entry.facts(), _tree(source))


def _kernel(name: str, folder: Path, facts: dict, source: str) -> Kernel:
    inner = paths.inside(folder)
    return Kernel(name, facts["release"], f"{inner}/bzImage", f"{inner}/modules", f"{inner}/build", source,
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
                 "downloading and unpacking", hints=_archive_hints())
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


def _archive_hints() -> dict[str, str]:
    return {"404 +Not Found": "The archive has replaced this version since the build root was made: `make update` makes a "
            "new one", **buildroot.HINTS}


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
