# SPDX-License-Identifier: GPL-2.0
"""Memory that is plugged and unplugged under a balloon."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from balloon_books import MIB, Books, check_files, fill, host_pages, settle, total_kib
from lab.guest import Guest

DIMM_MIB = 256


@pytest.mark.parametrize("driver", ["rust", pytest.param("c", marks=pytest.mark.long)])
def test_unplug(guests: Callable[..., Guest], driver: str) -> None:
    """If this fails memory with balloon pages in it cannot be unplugged, or the kernel's log is full of pages that did not move at once."""
    guest = guests(kernel="stock", driver=driver, memory_mib=512, swap_mib=0, qemu_options=["-m", "512M,slots=2,maxmem=2G"]).start()
    total = total_kib(guest)
    fill(guest, 40)
    guest.inflate(100)
    guest.run("echo online_movable >/sys/devices/system/memory/auto_online_blocks")
    guest.qmp("object-add", **{"qom-type": "memory-backend-ram", "id": "memory1", "size": DIMM_MIB << 20})
    guest.qmp("device_add", driver="pc-dimm", id="dimm1", memdev="memory1")
    guest.memory_mib += DIMM_MIB
    guest.wait_for(lambda: guest.meminfo()["MemTotal"] > total + (DIMM_MIB - 100 - 20 << 10), 60, "the memory does not come")
    all_kib = Books.read(guest).total_kib + 4 * 100 * MIB

    # The last that went in come out first: fill the plugged memory, too, and leave most of it so.
    guest.inflate(450)
    guest.inflate(250)
    settle(guest, 250, all_kib)
    assert any(page >= 4 << 30 for page in host_pages(guest)), "no page of the balloon is in the plugged memory: this test shows nothing"
    guest.qmp("device_del", id="dimm1")
    guest.wait_for(lambda: guest.qemu.monitor.events("DEVICE_DELETED") != [], 60, "the memory does not go")
    guest.memory_mib -= DIMM_MIB
    settle(guest, 250, total)
    assert not any(page >= 4 << 30 for page in host_pages(guest))
    said = [line for line in guest.run("dmesg").out.splitlines() if "migrat" in line]
    assert said == [], f"pages did not move when they were asked to: {said}"
    check_files(guest)
    guest.inflate(0)
    settle(guest, 0, total)
