# SPDX-License-Identifier: GPL-2.0
"""`make intree KSRC=…`: puts our sources into a kernel tree, to be built as a part of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lab import kernels, series
from lab.errors import LabError

OURS = ("*.rs", "*.mk", "*.h", "*.rst", "Kbuild", "Kconfig", ".kunitconfig")
"""What an earlier run may have left in our folders and is not ours any more; objects stay."""


def named_tree() -> Path:
    """The kernel tree that KSRC names. Raises LabError, in one clear line, if it is none of our series."""
    named = os.environ.get("KSRC")
    if not named:
        raise LabError(f"KSRC is missing: make intree KSRC=<source tree of Linux {kernels.SERIES}>")
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        raise LabError(f"KSRC={named}: there is no such folder")
    require_kernel(lambda path: _read(folder / path), f"KSRC={named}")
    return folder


def require_kernel(tree: series.Tree, name: str) -> None:
    """Raises LabError unless the tree is a kernel of our series."""
    found = re.search(r"^VERSION = (\d+)\nPATCHLEVEL = (\d+)", (tree("Makefile") or b"").decode(errors="replace"), re.M)
    if not found or tree(series.KCONFIG) is None:
        raise LabError(f"{name} is no source tree of a kernel")
    if ".".join(found.groups()) != kernels.SERIES:
        raise LabError(f"{name} is Linux {'.'.join(found.groups())}; these sources are for {kernels.SERIES}")


def install(tree: Path) -> int:
    """Puts our sources into a kernel tree, or brings those there up to date; how many files changed. Raises LabError.

    A file that is right already is not touched, so that make has nothing to do for it.
    """
    wanted = series.state(lambda path: _read(tree / path))
    changed = 0
    try:
        for path, data in wanted.items():
            if _read(tree / path) != data:
                _write(tree / path, data)
                changed += 1
        for path in _left(tree, wanted):
            path.unlink()
            changed += 1
    except OSError as error:
        raise LabError(f"{error.filename} cannot be written: {error.strerror}") from error
    return changed


def _left(tree: Path, wanted: dict[str, bytes]) -> list[Path]:
    """Sources in our folders that an earlier version of this checkout had."""
    found = (path for folder in (series.FOLDER, series.PAGES) for pattern in OURS for path in (tree / folder).rglob(pattern))
    return [path for path in found if str(path.relative_to(tree)) not in wanted and path.name != "virtio_bindings.rs"]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(path: Path, data: bytes) -> None:
    """Replaces the file, which may be one with links from other trees."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(data)
    draft.rename(path)
