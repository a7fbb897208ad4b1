"""How long the balloon's freeze takes."""

from __future__ import annotations

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


def freeze_usecs(guest: Guest, begin: int) -> float:
    """Time of the last freeze: the driver's own figure where it has one, else what the PM core printed behind `begin` in the log."""
    if guest.driver == "rust":
        return int(guest.balloon_debugfs()["freeze_ns"]) / 1000
    device = guest.run("basename $(readlink -f /sys/bus/virtio/devices/virtio0/..)").out.strip()
    usecs = pmtimes.total_usecs(pmtimes.callbacks(guest.console.text()[begin:], "virtio0", device), "freeze")
    assert usecs is not None, "the kernel does not print how long callbacks take"
    return usecs
