# SPDX-License-Identifier: GPL-2.0
"""What the lab tells the code that runs inside the build root.

The lab writes one JSON file and names it in the environment variable LAB_FACTS. It says where the kernels, our modules and the
static test programs are, and whether guests run on KVM or TCG. All its paths are valid inside the build root.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """One guest kernel: its boot image, its release string and the folder with its modules (`.ko`, `.ko.xz`); source, build folder and
    make variables are what building a module for it takes."""

    name: str
    arch: str
    image: Path
    release: str
    modules_dir: Path
    source: Path
    build: Path
    make: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """The lab's facts: `out` maps a kernel's name to the folder with our modules for it. Its kernels are all of one architecture, that of
    `programs` and `busybox`. `debian` is the image of a root file system, if one was asked for,
    `initrd` what its kernel boots from, if it needs that, and `packages` our Debian packages, oldest first."""

    kernels: dict[str, Kernel]
    out: dict[str, Path]
    programs: Path
    busybox: Path
    accel: str
    debian: Path | None
    initrd: Path | None
    packages: tuple[Path, ...]


@cache
def facts() -> Facts:
    """Reads the file that LAB_FACTS names.

    Raises RuntimeError when the variable is not set, that is, outside the lab.
    """
    path = os.environ.get("LAB_FACTS")
    if not path:
        raise RuntimeError("LAB_FACTS is not set: start this through the lab (`make test`, `make demo`, `python3 -m lab …`)")
    raw = json.loads(Path(path).read_text())
    kernels = {
        name: Kernel(
            name, entry["arch"], Path(entry["image"]), entry["release"], Path(entry["modules_dir"]), Path(entry["source"]),
            Path(entry["build"]), tuple(entry["make"]),
        )
        for name, entry in raw["kernels"].items()
    }
    return Facts(
        kernels=kernels,
        out={name: Path(path) for name, path in raw.get("out", {}).items()},
        programs=Path(raw.get("programs", "/nonexistent")),
        busybox=Path(raw.get("busybox", "/bin/busybox")),
        accel=raw.get("accel", "tcg"),
        debian=Path(raw["debian"]) if "debian" in raw else None,
        initrd=Path(raw["initrd"]) if "initrd" in raw else None,
        packages=tuple(Path(path) for path in raw.get("packages", ())),
    )
