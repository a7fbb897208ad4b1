# SPDX-License-Identifier: GPL-2.0
"""`python3 -m lab.demo [--kernel NAME] [--stack all]`: runs the demo, prints its table and leaves result.json and the drawing in build/demo/."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from lab.guest import GuestError, facts
from lab.guest.guest import Driver
from lab.guest.logs import ROOT

from . import plot
from .acts import SLEEP, STACKS, Record, perform
from .report import figures, problems, table

NAMES: dict[Driver, str] = {"rust": "Rust", "c": "C"}


def main() -> int:
    """Returns 0 when everything was as expected, 1 when not, 2 when a guest failed."""
    parser = argparse.ArgumentParser(prog="lab.demo", description=__doc__)
    parser.add_argument("--kernel", default="stock", choices=list(facts().kernels), help="the guests' kernel (default: stock)")
    parser.add_argument("--stack", default="balloon", choices=list(STACKS), help="which modules are ours (default: balloon)")
    options = parser.parse_args()
    kernel = facts().kernels[options.kernel]
    begin = time.monotonic()
    lock = threading.Lock()

    def act(driver: Driver) -> Record:
        def say(text: str) -> None:
            with lock:
                print(f"{time.monotonic() - begin:6.1f} s  {NAMES[driver]:<4}  {text}", flush=True)

        return perform(driver, kernel.name, STACKS[options.stack] if driver == "rust" else set(), say)

    print(f"Two guests with Linux {kernel.release} hibernate with an inflated balloon ({facts().accel}).", flush=True)
    try:
        with ThreadPoolExecutor(2) as pool:
            ours, control = pool.map(act, ("rust", "c"))
    except (GuestError, RuntimeError) as error:
        print(f"\n{error}\n\ndemo: FAILED, a guest did not do its part", file=sys.stderr)
        return 2
    seconds = time.monotonic() - begin
    wrong = problems(ours, control)
    folder = ROOT / "build" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "kernel": kernel.release, "stack": options.stack, "accel": facts().accel, "seconds": round(seconds, 1), "as_expected": not wrong,
        "rust": figures(ours), "c": figures(control),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    plot.draw([ours, control], folder)
    print(f"\n{table([ours, control])}\n")
    if not ours.act(SLEEP).callbacks:
        print("-: not measured; this kernel was built without CONFIG_PM_SLEEP_DEBUG and does not print how long callbacks take.")
    print("Written: build/demo/result.json, build/demo/actual.svg, build/demo/actual.png")
    print(f"Logs: {ours.logs}, {control.logs}")
    for problem in wrong:
        print(f"not as expected: {problem}")
    print(f"demo: {'FAILED' if wrong else 'passed'} in {seconds:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
