# SPDX-License-Identifier: GPL-2.0
"""How long the balloon's freeze takes, and how long its threads take to be frozen."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from balloon_books import MIB
from lab.guest import Guest, pmtimes

SIZES_MIB = (0, 256, 512, 1024)


@pytest.mark.c_differs("gives all pages back in freeze: some 830 instructions for each of them")
def test_freeze_time(guests: Callable[..., Guest], kernel: str, driver: str) -> None:
    """If this fails hibernation takes the longer the larger the balloon is.

    One instruction of this guest takes one nanosecond of its clock, so the times do not depend on the machine the test runs on; they
    repeat within 1 %.
    """
    options = ["init_on_alloc=0"]  # Debian's kernel clears pages when they are allocated: most of this test's time, and none of freeze's.
    guest = guests(kernel=kernel, driver=driver, memory_mib=2048, swap_mib=0, icount=True, kernel_options=options).start(timeout=240)
    guest.run(pmtimes.PREPARE)
    times: dict[int, float] = {}
    for mib in SIZES_MIB:
        guest.inflate(mib, timeout=120)
        begin = len(guest.console.text())
        result = guest.hibernate(timeout=240)
        assert result is not None and result.status != 0
        guest.wait_actual(mib * MIB, timeout=120)
        times[mib] = freeze_usecs(guest, begin)
    print(times)
    assert max(times.values()) <= 1.2 * min(times.values()), f"microseconds in freeze by size: {times}"


WHEN_IT_MOVES = """
count() {{ sed -n 's/^balloon_{way} //p' /proc/vmstat; }}
before=$(count)
(until [ "$(count)" -gt "$before" ]; do :; done; echo freeze >/sys/power/state) >/dev/null 2>&1 &
"""
"""Begins to suspend when the balloon has begun to deflate or to inflate."""


def test_freezing(guests: Callable[..., Guest], kernel: str) -> None:
    """If this fails a system does not go to sleep, or only after 20 s, while the balloon of an eager device is on its way.

    The guest's clock runs by its instructions, as above, and the device answers before the notification returns: the thread never has
    to wait. C is not the measure here: it makes one small request at a time.
    """
    guest = guests(kernel=kernel, memory_mib=2048, swap_mib=0, icount=True, kernel_options=["init_on_alloc=0"]).start(timeout=240)
    guest.run("echo freezer >/sys/power/pm_test; echo 0 >/sys/module/suspend/parameters/pm_test_delay")
    times: list[float] = []
    for target in (1800, 0, 1800, 0):
        before = guest.console.text().count("suspend exit")
        guest.run(WHEN_IT_MOVES.format(way="inflate" if target else "deflate"))
        guest.set_target(target)
        guest.wait_for(lambda: guest.console.text().count("suspend exit") > before, 60, "the guest does not suspend")
        text = guest.console.text()
        times.append(float(re.findall(r"Freezing remaining freezable tasks completed \(elapsed ([\d.]+) seconds", text)[-1]))
        assert times[-1] <= 0.020, f"seconds that the kernel's threads took to be frozen: {times}"
        assert guest.traffic().actual[-1][1] != target * MIB, "the balloon was there before: this test shows nothing"
        guest.wait_actual(target * MIB, timeout=120)
    print(times)


def freeze_usecs(guest: Guest, begin: int) -> float:
    """Time of the last freeze: the driver's own figure where it has one, else what the PM core printed behind `begin` in the log."""
    if guest.driver == "rust":
        return int(guest.balloon_debugfs()["freeze_ns"]) / 1000
    device = guest.run("basename $(readlink -f /sys/bus/virtio/devices/virtio0/..)").out.strip()
    usecs = pmtimes.total_usecs(pmtimes.callbacks(guest.console.text()[begin:], "virtio0", device), "freeze")
    assert usecs is not None, "the kernel does not print how long callbacks take"
    return usecs
