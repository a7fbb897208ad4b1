"""Another device refuses a step of a hibernation: the balloon must go on as if nothing had been tried.

The PM core then calls `.restore` although no image was ever loaded (design of the driver: the snapshot detector tells).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.guest import Guest

MIB = 512
PAGES = MIB * 256

#: step of tests/modules/pm_veto.rs -> what the log of our driver then says of the balloon, if anything
STEPS = {
    "freeze": (1, None),
    "freeze_noirq": (2, "through an abandoned hibernation"),
    "poweroff": (3, "through hibernation"),
    "poweroff_noirq": (4, "through an abandoned hibernation"),
}

FAILED_HIBERNATION = "dmesg -c > /dev/null; echo disk > /sys/power/state"


def veto_guest(guests: Callable[..., Guest], kernel: str, driver: str) -> Guest:
    guest = guests(kernel=kernel, driver=driver, modules=["pm_veto"], rust=["pm_veto"]).start()
    guest.inflate(MIB)
    return guest


@pytest.mark.c_differs("gives all pages back in freeze and takes them again")
def test_veto_moves_no_page(guests: Callable[..., Guest], kernel: str, driver: str) -> None:
    """A hibernation that another device's driver refuses, at any step, costs the host memory it does not have."""
    guest = veto_guest(guests, kernel, driver)
    for name, (step, says) in STEPS.items():
        mark = guest.mark()
        guest.run(f"modprobe pm_veto step={step}")
        refused = guest.run(FAILED_HIBERNATION, check=False, timeout=90)
        log = guest.run("dmesg; rmmod pm_veto").out
        assert refused.status != 0 or "poweroff" in name, f"{name}: the hibernation was not refused"
        assert "returns -16" in log, f"{name}: the veto was not asked"
        traffic = guest.traffic(mark)
        assert (traffic.inflated, traffic.deflated) == (0, 0), f"{name}: pages moved"
        assert guest.actual() == PAGES, name
        assert says is None or f"held {PAGES} pages {says}" in log, f"{name}: {log}"
        assert "returned" not in log, f"{name}: took an abandoned hibernation for a resume"
    guest.inflate(MIB // 2)
    assert guest.actual() == PAGES // 2, "the balloon does not follow its target any more"


@pytest.mark.c_differs("gives all pages back in freeze and takes them again")
def test_veto_after_the_balloon_was_frozen(guests: Callable[..., Guest], kernel: str, driver: str) -> None:
    """A device that is older than the balloon refuses `freeze` when the balloon has lost its queues already."""
    guest = veto_guest(guests, kernel, driver)
    before = guest.meminfo()["MemTotal"]
    guest.run(
        "modprobe pm_veto step=1; pci=$(readlink -f /sys/bus/virtio/devices/virtio0/..); echo 1 > $pci/remove; echo 1 > /sys/bus/pci/rescan"
    )
    guest.wait_actual(PAGES)
    mark = guest.mark()
    assert guest.run(FAILED_HIBERNATION, check=False, timeout=60).status != 0
    log = guest.run("dmesg").out
    assert "returns -16" in log, "the veto was not asked"
    traffic = guest.traffic(mark)
    assert (traffic.inflated, traffic.deflated) == (0, 0), "pages moved"
    assert f"held {PAGES} pages through an abandoned hibernation" in log
    assert guest.meminfo()["MemTotal"] == before
