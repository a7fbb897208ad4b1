# SPDX-License-Identifier: GPL-2.0
"""`make fuzz`: executes plans, changes those that reach something new, and says what was reached and found."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.counters import places  # noqa: E402
from fuzz.plan import DEVICES, TRANSPORTS, Plan, changed, honest  # noqa: E402
from fuzz.rig import FuzzRig, Outcome  # noqa: E402
from lab.guest import facts  # noqa: E402
from lab.guest.logs import log_dir  # noqa: E402

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
RESULTS = ROOT / "build" / "fuzz"
OUT_OF_REACH = (
    "virtio_pci/legacy", "virtio_pci/admin", "virtio_pci/exports.rs", "virtio_mmio/cmdline.rs", "virtio_balloon/oom.rs", "virtio_balloon/migrate.rs",
    "virtio_balloon/parameters.rs",
)
"""How the names of files begin that these devices have no influence on; `fuzzing.rst` says why."""
CHECK_EVERY = 50
"""Executions between two looks at whether honest devices are still used."""


class Campaign:
    """A run of the fuzzer: the plans that it knows, what they reached, what it found."""

    def __init__(self, kernel: str, seed: int) -> None:
        self._kernel = kernel
        self._pick = random.Random(seed)
        self._rig: FuzzRig | None = None
        self._guests = 0
        self.reached = 0
        self.kept: list[Plan] = []
        self.executions, self.seconds = 0, 0.0
        self.found: list[Path] = []

    def execute(self, plan: Plan) -> Outcome:
        """Executes a plan, in a new guest if the last one is of no more use, and keeps it if it reaches something new."""
        rig = self.boot()
        outcome = rig.execute(plan)
        self.executions, self.seconds = self.executions + 1, self.seconds + outcome.seconds
        if outcome.fault is None and self.executions % CHECK_EVERY == 0 and (damage := rig.check()):
            outcome = replace(outcome, fault=damage)
        if outcome.fault is not None:
            self._save(plan, outcome.fault)
            self.close()
        if outcome.reached & ~self.reached:
            self.reached |= outcome.reached
            self.kept.append(plan)
        return outcome

    def boot(self) -> FuzzRig:
        """The guest, a new one if there is none."""
        if self._rig is None:
            self._guests += 1
            self._rig = FuzzRig(self._kernel, log_dir("fuzz", str(self._guests)))
        return self._rig

    def close(self) -> None:
        """Ends the guest."""
        if self._rig:
            self._rig.close()
            self._rig = None

    def grow(self, seconds: float) -> None:
        """Executes the plans that are known, then changed ones, until the time is over."""
        self.boot()
        end = time.monotonic() + seconds
        known = [Plan.parse(path.read_text()) for path in sorted(CORPUS.glob("*.plan"))]
        self._pick.shuffle(known)
        known = [*(honest(device, transport) for device in DEVICES for transport in TRANSPORTS), *known]
        said = time.monotonic()
        while time.monotonic() < end:
            plan = known.pop(0) if known and self._pick.random() < 0.8 else changed(self._pick.choice(self.kept or known), self.kept, self._pick)
            self.execute(plan)
            if time.monotonic() > said + 20:
                said = time.monotonic()
                print(f"fuzz: {self.executions} executions, {len(self.kept)} plans, {self.reached.bit_count()} branches", flush=True)

    def _save(self, plan: Plan, fault: str) -> None:
        path = RESULTS / "found" / f"{self.executions}.plan"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"# {line}\n" for line in fault.splitlines()[:40]) + str(plan))
        self.found.append(path)
        print(f"fuzz: {path}: {fault.splitlines()[0]}", flush=True)


def report(campaign: Campaign, kernel: str) -> None:
    """Prints how many lines were reached, file by file, and leaves those that were not in `build/fuzz/not-reached`."""
    hit: dict[str, set[int]] = defaultdict(set)
    all_lines: dict[str, set[int]] = defaultdict(set)
    for number, place in enumerate(places(facts().out[kernel])):
        if place:
            all_lines[place.file].add(place.line)
            if campaign.reached >> 8 * number & 1:
                hit[place.file].add(place.line)
    rows = []
    for file, lines in sorted(all_lines.items()):
        missed = sorted(lines - hit[file])
        rows.append(f"{file}: {' '.join(map(str, missed))}")
        print(f"{file:40} {len(hit[file]):5} of {len(lines):5} lines  {100 * len(hit[file]) // len(lines):3} %")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "not-reached").write_text("\n".join(rows) + "\n")
    for what, files in (("all", list(all_lines)), ("what a device can reach", [file for file in all_lines if not file.startswith(OUT_OF_REACH)])):
        total, reached = (sum(len(table[file]) for file in files) for table in (all_lines, hit))
        print(f"of {what}: {reached} of {total} lines at which a branch begins were reached ({100 * reached / total:.0f} %)")


def main() -> int:
    """0 when nothing was found, 1 when something was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="debug")
    parser.add_argument("--duration", type=float, default=600, help="seconds")
    parser.add_argument("--input", type=Path, help="execute this plan, and nothing else")
    options = parser.parse_args()
    seed = time.time_ns() & 0xFFFFFFFF
    campaign = Campaign(options.kernel, seed)
    try:
        if options.input:
            outcome = campaign.execute(Plan.parse(options.input.read_text()))
            print(outcome.output, end="")
            print(f"fuzz: {outcome.seconds:.1f} s; {outcome.fault or 'nothing was found'}")
        else:
            print(f"fuzz: seed {seed}", flush=True)
            campaign.grow(options.duration)
    finally:
        campaign.close()
    corpus = RESULTS / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for old in corpus.glob("*.plan"):
        old.unlink()
    for number, plan in enumerate(campaign.kept):
        (corpus / f"{number:03}.plan").write_text(str(plan))
    report(campaign, options.kernel)
    rate = campaign.executions / campaign.seconds if campaign.seconds else 0
    print(f"{campaign.executions} executions, {rate:.1f} per second; {len(campaign.kept)} plans are in {corpus}; {len(campaign.found)} found something")
    return 1 if campaign.found else 0


if __name__ == "__main__":
    sys.exit(main())
