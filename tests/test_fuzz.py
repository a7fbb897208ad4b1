# SPDX-License-Identifier: GPL-2.0
"""The fuzzer without a guest: its plans, and the modules that count. `make fuzz` is the rest, a minute of it in `make test-long`."""

from __future__ import annotations

import random
import re
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from fuzz import rig
from fuzz.plan import MOST_LINES, TRANSPORTS, Plan, PlanError, changed, honest
from fuzz.run import CORPUS
from lab import paths

PAGE = paths.CHECKOUT / "Documentation" / "fuzzing.rst"


def test_corpus() -> None:
    """If this fails an input of the fuzzer cannot be read, or is not written as it is read."""
    texts = [path.read_text() for path in CORPUS.glob("*.plan")]
    assert texts
    for text in texts:
        assert str(Plan.parse(text)) == text


def test_changes() -> None:
    """If this fails the fuzzer makes inputs that it cannot read, so that what it finds cannot be replayed."""
    pick = random.Random(7)
    plans = [honest("balloon", transport) for transport in TRANSPORTS]
    for _ in range(3000):
        plan = changed(pick.choice(plans), plans, pick)
        assert Plan.parse(str(plan)) == plan
        assert len(plan.lines) <= MOST_LINES
        plans.append(plan)
    names = {line[0] for plan in plans for line in plan.lines}
    documented = set(re.findall(r"^``(\w+) [A-Z]", PAGE.read_text(), re.M))
    assert names == documented, "fuzzing.rst lists the lines of a plan"


@pytest.mark.parametrize("text", ["", "device disk msix\noffers 0\nsteps bind\n", "device net msix\noffers 0\nsteps bind\nlie queue_size 1\n"])
def test_nonsense(text: str) -> None:
    """If this fails a plan with a mistake in it is executed as something else."""
    with pytest.raises(PlanError):
        Plan.parse(text)


@pytest.mark.parametrize(("line", "ends"), [("rust_kernel: panicked at virtio_ring/state.rs", True), ("virtio_ring: queue 0 is broken", False)])
def test_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, ends: bool) -> None:
    """If this fails a guest whose kernel has complained is waited for until the plan's time is over, or one that has not is ended."""
    monkeypatch.setattr(rig, "REPORT_SECONDS", 0)
    console = tmp_path / "console"
    console.write_text("BUG: of an execution before this one\n")
    process = Mock()
    made = rig.FuzzRig.__new__(rig.FuzzRig)
    made.guest = Mock(console=Mock(path=console), qemu=Mock(process=process))
    over = threading.Event()
    watcher = threading.Thread(target=made._watch, args=(over, len(console.read_text())))
    watcher.start()
    with console.open("a") as file:
        print(line, file=file)
    watcher.join(3)
    over.set()
    watcher.join()
    assert process.kill.called == ends
