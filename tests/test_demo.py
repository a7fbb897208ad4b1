# SPDX-License-Identifier: GPL-2.0
"""The demo without guests: what it makes of what it has seen."""

from __future__ import annotations

import pytest
from lab.demo.acts import FAIL, INFLATE, RESUME, SLEEP, USE, Act, Record
from lab.demo.report import figures, table
from lab.guest import Traffic
from lab.guest.pmtimes import Callback, total_usecs


def record(callbacks: list[Callback]) -> Record:
    """A demo in which nothing happened but some callbacks, the same in each act."""
    traffic = Traffic(actual=[(0, 0)])
    return Record("rust", acts=[Act(name, 0, 0, traffic, callbacks) for name in (INFLATE, FAIL, SLEEP, RESUME, USE)])


@pytest.mark.parametrize(("callbacks", "shown", "nanoseconds"), [
    pytest.param([], "- / -", None, id="kernel-prints-none"),
    pytest.param([Callback("virtio0", "freeze", 0, 1500), Callback("virtio0", "restore_noirq", 0, 20)], "1.5 / 0.0", 20_000, id="printed"),
])
def test_times(callbacks: list[Callback], shown: str, nanoseconds: int | None) -> None:
    """If this fails the table shows a time that nobody measured, or hides one."""
    row = next(line for line in table([record(callbacks)]).splitlines() if "time in freeze / restore" in line)
    assert row.endswith(f"  {shown}")
    assert figures(record(callbacks))["restore_ns"] == nanoseconds
    assert total_usecs(callbacks, "restore") == (20 if callbacks else None)
