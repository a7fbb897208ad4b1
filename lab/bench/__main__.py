# SPDX-License-Identifier: GPL-2.0
"""`python3 -m lab.bench balloon|ring|rng|mmio|pci|stack [--kernel NAME] [--only PART] [--profile] [--check]`: prints a table, leaves JSON, SVG and profile in build/bench/."""

from __future__ import annotations

import argparse
import sys
import time

from lab.guest import GuestError, facts
from lab.guest.logs import ROOT

from . import balloon, mmio, pci, plot, results, ring, rng, stack
from .profile import Profile

BENCHES = {"balloon": balloon, "ring": ring, "rng": rng, "mmio": mmio, "pci": pci, "stack": stack}


def main() -> int:
    """Returns 0 when everything was measured, whatever came out, and 2 when a guest failed."""
    parser = argparse.ArgumentParser(prog="lab.bench", description=__doc__)
    parser.add_argument("bench", choices=list(BENCHES))
    parser.add_argument("--kernel", default="full", help="the guests' kernel (default: full)")
    parser.add_argument("--profile", action="store_true", help="say in which functions the instructions are")
    parser.add_argument("--only", action="append", help="measure this part only, write no JSON and SVG (may be repeated)")
    parser.add_argument("--check", action="store_true", help="only say whether the options are right; needs no kernel")
    options = parser.parse_args()
    bench = BENCHES[options.bench]
    if wrong := set(options.only or ()) - set(bench.PARTS):
        parser.error(f"{options.bench} has no part {', '.join(wrong)}, it has: {', '.join(bench.PARTS)}")
    if options.check:
        return 0
    kernel = facts().kernels[options.kernel]
    names = ", ".join((kernel.name, *(stack.KERNELS.values() if bench is stack else ())))
    profile = Profile() if options.profile else None
    begin = time.monotonic()
    print(f"Measures the {options.bench} on Linux {kernel.release} ({names}); counts under TCG, times with {facts().accel}.", flush=True)

    def say(text: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {text}", flush=True)

    try:
        rows = bench.measure(kernel.name, options.only or bench.PARTS, say, profile)
    except (GuestError, RuntimeError) as error:
        print(f"\n{error}\n\nbench: FAILED, a guest did not do its part", file=sys.stderr)
        return 2
    print(f"\n{results.table(rows)}\n")
    path = ROOT / "build" / "bench" / f"{options.bench}.json"
    written = []
    if not options.only:
        results.write(rows, path)
        plot.draw(rows, f"{options.bench}: Rust by C, Linux {kernel.release} ({names})", path.with_suffix(".svg"))
        written += [path, path.with_suffix(".svg")]
    if profile:
        written.append(path.with_name(f"{options.bench}-profile.txt"))
        written[-1].write_text(profile.text())
        print(profile.text(least=5))
    for file in written:
        print(f"written: {file.relative_to(ROOT)}")
    for line in results.missed(rows):
        print(line)
    print(f"bench: measured in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
