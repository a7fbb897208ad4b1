"""`make doctor`: what is there, what is missing, how much disk is left. Changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from lab import accel, buildroot, cache, host, kernels, paths
from lab.errors import LabError

# Free space that a first `make test` needs, MiB.
ALL_MIB = buildroot.NEEDS_MIB + kernels.SOURCE_MIB + kernels.STOCK_MIB + kernels.FULL_MIB + 1000


def report() -> int:
    """Prints the findings; 0 if the lab can work here, 1 if something has to be done first."""
    problems = 0
    for title, look in (("python", _python), ("namespaces", _namespaces), ("mmdebstrap", _mmdebstrap),
                        ("Debian keys", _keys), ("archive", _archive), ("build root", _root), ("kernels", _kernels),
                        ("cache", _cache), ("disk", _disk), ("acceleration", _acceleration)):
        try:
            mark, text = "ok", look()
        except LabError as error:
            mark, text = "NO", str(error)
            problems += 1
        print(f"{mark}  {title + ':':<14} {text}")
    print(f"doctor: {problems} thing(s) to put right" if problems else "doctor: all is well")
    return 1 if problems else 0


def _python() -> str:
    if sys.version_info < (3, 9):
        raise LabError(f"{sys.version.split()[0]}: the lab needs Python 3.9 or newer")
    return sys.version.split()[0]


def _namespaces() -> str:
    host.require_namespaces()
    return "mount and process namespaces as root" if os.geteuid() == 0 else "user namespaces with subordinate users"


def _mmdebstrap() -> str:
    if buildroot.entry().complete():
        return "not needed, the build root is there"
    if not shutil.which("mmdebstrap") and os.geteuid() == 0 and shutil.which("apt-get"):
        return "missing, will be installed when needed"
    host.require_mmdebstrap()
    said = subprocess.run(["mmdebstrap", "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return said.strip()


def _keys() -> str:
    if buildroot.entry().complete():
        return "not needed, the build root is there"
    if not buildroot.KEYRING.exists():
        raise LabError("missing. As root: apt-get install debian-archive-keyring")
    return str(buildroot.KEYRING)


def _archive() -> str:
    mirror, security = host.archive()
    if not mirror:
        return "mmdebstrap's default; DEBIAN_MIRROR= names another"
    return f"{mirror}, {security or 'no security archive'}"


def _root() -> str:
    if not buildroot.entry().complete():
        return "not made yet"
    versions = buildroot.entry().facts()["versions"]
    shown = (*kernels.COMPILERS, "qemu-system-x86")
    return ", ".join(f"{name} {versions.get(name, 'MISSING')}" for name in shown)


def _kernels() -> str:
    made = [entry for entry in cache.entries() if entry.name.startswith(("stock-", "full-"))]
    complete = [f"{path.name} ({cache.facts(path)['release']})" for path in made if (path / cache.STAMP).exists()]
    half = [f"{path.name} (half-made)" for path in made if not (path / cache.STAMP).exists()]
    return ", ".join(complete + half) or "none built yet"


def _cache() -> str:
    sizes = [f"{path.name} {cache.size_mib(path)} MiB" for path in cache.entries()]
    return f"{paths.cache()}: {', '.join(sizes) or 'empty'}"


def _disk() -> str:
    need = 1000 if buildroot.entry().complete() else ALL_MIB
    host.require_space(paths.cache(), need, "the lab")
    host.require_space(paths.CHECKOUT, 500, "the build folder")
    folder = paths.cache()
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free >> 20} MiB left for the cache, {need} MiB needed"


def _acceleration() -> str:
    known = accel.remembered()
    if not known:
        return "/dev/kvm is there; `make test` or `make demo` will boot a guest to see whether it works"
    return f"{known[0]} ({known[1]})"
