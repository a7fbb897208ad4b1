# SPDX-License-Identifier: GPL-2.0
"""Where things are, on the host and as seen inside the build root."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
BUILD = CHECKOUT / "build"
CONFIG = CHECKOUT / "lab" / "config"
STEPS = CHECKOUT / "lab" / "steps"


def cache() -> Path:
    """The cache folder: $LAB_CACHE, else below $XDG_CACHE_HOME, else below ~/.cache."""
    named = os.environ.get("LAB_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "virtio-rust"


def inside(path: Path) -> str:
    """The name that a file of the checkout or the cache has inside the build root.

    Raises ValueError for a path that is in neither.
    """
    for outer, inner in ((cache(), "/cache"), (CHECKOUT, "/src")):
        if path == outer or outer in path.parents:
            return str(Path(inner) / path.relative_to(outer))
    raise ValueError(f"{path} is neither in the checkout nor in the cache")
