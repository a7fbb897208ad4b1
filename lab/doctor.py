# SPDX-License-Identifier: GPL-2.0
"""`make doctor`: what is there, what is missing, how much disk is left. Changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab import accel, buildroot, cache, host, kernels, paths
from lab.errors import LabError

# Free space that a first `make test` needs, MiB.
ALL_MIB = buildroot.NEEDS_MIB + kernels.SOURCE_MIB + kernels.STOCK_MIB + kernels.RECIPES["full"].mib + 1000


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
    made = [path for path in cache.entries() if path.name.startswith(("stock-", *(f"{name}-" for name in kernels.RECIPES)))]
    return ", ".join(f"{path.name} ({_state(path)})" for path in made) or "none built yet"


def _state(path: Path) -> str:
    if (path / cache.STAMP).exists():
        return cache.facts(path)["release"]
    lock = cache.Lock(path.name)
    abandoned = lock.try_exclusive()
    lock.release()
    return "left half-made by a killed run" if abandoned else "being built"


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
    images = [path / "bzImage" for path in cache.entries() if (path / cache.STAMP).exists() and (path / "bzImage").exists()]
    if not known and images and buildroot.entry().complete():
        known = accel.chosen(paths.inside(images[0]))
    if not known:
        return "/dev/kvm is there; whether a guest boots on it can be tried when there is a kernel (make demo)"
    return f"{known[0]} ({known[1]})"
