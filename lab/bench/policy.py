# SPDX-License-Identifier: GPL-2.0
"""How a balloon grows beyond what is available in a guest with swap, by driver and policy."""

from __future__ import annotations

import json
import time
from pathlib import Path

from lab.guest import PAGES_PER_MIB, Guest, facts
from lab.guest.guest import Driver
from lab.guest.logs import ROOT

from . import plot
from .results import Samples, Say

MEMORY_MIB, SWAP_MIB = 768, 700
HOG_MIB = 400
"""What a program holds of the memory."""
TARGET_MIB = 600
"""What the host asks for."""
SECONDS = 20
"""How long a balloon is watched that does not get there."""

LOADS = {"once": "a program that sleeps", "always": "a program that uses its memory"}
POLICIES: dict[Driver, tuple[str, ...]] = {"c": ("",), "rust": ("available", "pressure", "swap")}
COMPARED = "pressure"
"""The policy that stands beside the C driver in the table."""
OOM = ("oom", "Out of memory", "Killed")

Curve = list[tuple[float, float]]
"""Seconds since the host asked, and MiB in the balloon."""


def measure(kernel: str, samples: dict[Driver, Samples], key: str, say: Say) -> None:
    """Adds the seconds until the target is reached with memory that nobody uses; leaves the curves in build/bench/."""
    curves: dict[str, dict[str, Curve]] = {load: {} for load in LOADS}
    for driver, policies in POLICIES.items():
        say(f"{driver:<4}  boots, with swap")
        guest = Guest(f"bench-swap-{driver}", kernel=kernel, driver=driver, memory_mib=MEMORY_MIB, swap_mib=SWAP_MIB,
                      files={"/bin/hog": facts().programs / "hog"}, allow=OOM)
        with guest:
            for load in LOADS:
                for policy in policies:
                    curve = _grow(guest, load, policy)
                    curves[load][policy or "the C driver"] = curve
                    seconds, mib = curve[-1]
                    say(f"{driver:<4}  {LOADS[load]}, {policy or 'no'} policy: {mib:.0f} MiB, after {seconds:.1f} s")
                    if load == "once" and policy in ("", COMPARED):
                        if mib < TARGET_MIB:
                            raise RuntimeError(f"the balloon did not reach {TARGET_MIB} MiB")
                        samples[driver][key].append(seconds)
    _write(curves, ROOT / "build" / "bench" / "balloon-policy.json", say)


def _grow(guest: Guest, load: str, policy: str) -> Curve:
    """One balloon from 0 as far as it gets, and back."""
    if policy:
        guest.run(f"echo {policy} >/sys/module/virtio_balloon/parameters/policy")
    guest.run(f"(hog {HOG_MIB} {load} >/tmp/hog 2>&1) >/dev/null 2>&1 & until grep -q ready /tmp/hog; do usleep 50000; done", timeout=120)
    mark = guest.mark()
    guest.set_target(TARGET_MIB)
    end = time.monotonic() + SECONDS
    while guest.actual() < TARGET_MIB * PAGES_PER_MIB and time.monotonic() < end:
        time.sleep(0.1)
    curve = [(when - mark.time, pages / PAGES_PER_MIB) for when, pages in guest.traffic(mark).actual]
    guest.inflate(0, timeout=120)
    guest.run("killall hog; rm /tmp/hog; true", timeout=120)
    return curve


def _write(curves: dict[str, dict[str, Curve]], path: Path, say: Say) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({LOADS[load]: found for load, found in curves.items()}, indent=2) + "\n")
    title = f"{TARGET_MIB} MiB wanted of {MEMORY_MIB}, of which {HOG_MIB} belong to"
    plot.curves({f"{title} {LOADS[load]}": found for load, found in curves.items()}, "s", "MiB in the balloon", path.with_suffix(".svg"))
    say(f"curves: {path.relative_to(ROOT)}, {path.with_suffix('.svg').name}")
