# SPDX-License-Identifier: GPL-2.0
"""Where guests leave their logs: build/logs/<run>/<test>/<guest>/ in the checkout."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_dir() -> Path:
    """The folder of this run; worker processes inherit its name by the environment."""
    name = os.environ.setdefault("LAB_RUN", f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    return ROOT / "build" / "logs" / name


def log_dir(test: str, guest: str) -> Path:
    """The folder for one guest of one test, with a number behind the name when there is one already."""
    base = run_dir() / re.sub(r"[^\w.-]+", "_", test).strip("_") / re.sub(r"[^\w.-]+", "_", guest)
    for number in range(1, 10000):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise FileExistsError(f"too many log folders {base}-*")
