# SPDX-License-Identifier: GPL-2.0
"""Many hibernations in a row."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from balloon_books import MIB, check_files, fill, host_pages, inflate, settle, total_kib
from lab.guest import Guest

SEED = 20


def cycles(guest: Guest, count: int) -> None:
    """Hibernates and resumes in a new QEMU process `count` times, each time with another balloon and another target to wake up to."""
    pick = random.Random(SEED)
    print(f"seed {SEED}")
    total = total_kib(guest)
    fill(guest, 40)
    for number in range(count):
        before, after = (round(pick.uniform(0, 200), 2) for _ in range(2))
        inflate(guest, before, total)
        mark = guest.mark()
        assert guest.hibernate(pick.choice(["platform", "shutdown"])) is None
        if guest.driver == "rust":
            assert guest.traffic(mark).pages == 0, f"cycle {number}: hibernation moved pages"
        result = guest.resume(target_mib=after)
        assert result is not None and result.status == 0
        settle(guest, after, total)
        assert len(host_pages(guest)) == int(after * MIB), f"cycle {number}, {before} -> {after} MiB"
        check_files(guest)
    inflate(guest, 0, total)
    assert host_pages(guest) == set()


def test_three_cycles(guests: Callable[..., Guest], kernel: str, driver: str) -> None:
    """If this fails a guest that hibernates every night loses memory with every night, or its data."""
    cycles(guests(kernel=kernel, driver=driver, memory_mib=512).start(), 3)


@pytest.mark.long
def test_twenty_cycles(guests: Callable[..., Guest], kernel: str, driver: str) -> None:
    """As above, for those who have the time."""
    cycles(guests(kernel=kernel, driver=driver, memory_mib=512).start(), 20)
