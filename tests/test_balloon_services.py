# SPDX-License-Identifier: GPL-2.0
"""Statistics, free page hints, reports of free pages and poisoning on a device of our own, honest, mute or hostile.

The kernel poisons free pages in the guest with the packed ring, and reports them ten times a second in both.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import lent_rig
from device import (
    FREE_PAGE_HINT, INFLATE, MUST_TELL_HOST, PAGE_POISON, REPORTING, STATS_VQ, BalloonDevice, DeviceGuest, Rig,
)

from lab.guest import SWAP_DEVICE, facts
from lab.guest.logs import log_dir

ALL = STATS_VQ | FREE_PAGE_HINT | PAGE_POISON | REPORTING
FORMATS = {"split": ALL | MUST_TELL_HOST, "packed": ALL}
OPTIONS = {"split": [], "packed": ["page_poison=1"]}
POISON = 0xAAAAAAAA

KERNEL = list(facts().kernels)[-1]
"""The one for the tests that need only one: `full`, or `debug`."""

SIZE = 8192
"""Pages of a balloon of 32 MiB."""

BLOCK = 4 << 20
"""Bytes in a block of hinted pages."""

pytestmark = pytest.mark.everyday("rig", {"stock": ["split"], "full": ["packed"], "debug": ["split"]})

USE_MEMORY = "dd if=/dev/zero of=/tmp/file bs=1M count=200 2>/dev/null && rm /tmp/file"
"""Script that fills 200 MiB of memory and frees them again."""


@pytest.fixture(params=list(FORMATS))
def rig(request: pytest.FixtureRequest, rigs: dict[tuple[str, str], Rig], kernel: str) -> Iterator[Rig]:
    """A guest without a balloon driver, on an honest and empty device with all optional queues."""

    def make(logs: Path) -> Rig:
        options = ["page_reporting.page_reporting_delay_ms=100", *OPTIONS[request.param]]
        return Rig(kernel, request.param, logs, features=FORMATS[request.param], kernel_options=options)

    with lent_rig(request, rigs, (kernel, request.param), make) as rig:
        yield rig


def hibernate_without_swap(rig: Rig) -> None:
    """Hibernates as far as the image, which has nowhere to go."""
    rig.guest.run("swapoff -a")
    assert rig.guest.hibernate().status != 0
    rig.guest.run(f"swapon {SWAP_DEVICE}")


def test_statistics(rig: Rig) -> None:
    stats = rig.device.stats
    rig.load()
    rig.guest.wait_for(lambda: len(stats.seen) == 1, 20, "no first buffer")
    assert stats.seen[0][5] == rig.mem_total << 10
    for count in range(2, 5):
        stats.ask()
        rig.guest.wait_for(lambda: len(stats.seen) == count, 20, "no answer")
        assert len(stats.outstanding) == 1
    assert set(stats.seen[0]) >= {*range(8), *range(10, 16)}
    rig.go_to(SIZE)
    stats.ask()
    rig.guest.wait_for(lambda: stats.seen[-1][5] == rig.mem_total - SIZE * 4 << 10, 20, "the total is not what it is now")

    hibernate_without_swap(rig)
    count = len(stats.seen)
    rig.guest.wait_for(lambda: len(stats.outstanding) == 1, 20, "the device has no buffer after the thaw")
    stats.ask()
    rig.guest.wait_for(lambda: len(stats.seen) > count, 20, "no answer after the thaw")


def test_statistics_flood(rig: Rig) -> None:
    """A device that asks all the time gets ten answers a second, and the guest has time for other things."""
    stats = rig.device.stats
    rig.load()
    stats.answers = True
    start = time.monotonic()
    stats.give_all_back()
    busy = rig.guest.run("sleep 3; grep -h . /proc/[0-9]*/stat | grep vballoon-info | cut -d' ' -f15").out.split()
    assert 5 < len(stats.seen) <= 10 * (time.monotonic() - start) + 2
    assert int(busy[0]) < 60, "clock ticks of 10 ms in three seconds"
    rig.go_to(SIZE)


def kept(rig: Rig) -> int:
    """Blocks that the driver keeps."""
    return int(rig.state()["hint_blocks_kept"])


def round_over(rig: Rig, number: int) -> list[tuple[int, int]]:
    """Waits until the round with this id is over and returns its blocks."""
    hints = rig.device.hints
    rig.guest.wait_for(lambda: bool(hints.rounds) and hints.rounds[-1][0] == number and not hints.open, 30, f"round {number} is not over")
    return hints.rounds[-1][1]


def test_hints(rig: Rig) -> None:
    """A round offers most of the free memory, each block once; what came back is kept until the device or the kernel wants otherwise."""
    hints = rig.device.hints
    rig.load()
    free = rig.guest.meminfo()["MemFree"] << 10
    hints.command(5)
    blocks = round_over(rig, 5)
    assert free * 0.5 < len(blocks) * BLOCK < free
    assert all(size == BLOCK and address % BLOCK == 0 for address, size in blocks)
    assert len(dict(blocks)) == len(blocks)
    rig.guest.wait_for(lambda: kept(rig) == len(blocks), 20, "not all blocks are kept")
    assert rig.guest.meminfo()["MemFree"] > 16 << 10, "the guest needs some free memory all the time"
    hints.command(0)
    hints.command(6)
    assert len(round_over(rig, 6)) <= 2, "the others were offered already"

    rig.guest.run(USE_MEMORY)
    assert kept(rig) < len(blocks), "the kernel should have got some back"
    rig.go_to(SIZE)
    hints.command(1)
    rig.guest.wait_for(lambda: kept(rig) == 0, 20, "blocks are kept although the device is done")

    hints.command(7)
    round_over(rig, 7)
    assert kept(rig) > 10
    hibernate_without_swap(rig)
    assert kept(rig) == 0
    hints.rounds.clear()
    hints.command(7)
    assert len(round_over(rig, 7)) > 10, "the id of a round before the reset is as good as any"
    rig.unload()


def test_hints_churn(rig: Rig) -> None:
    """Ids that come and go all the time, or are repeated: each round is well-formed, and no block is lost."""
    hints = rig.device.hints
    rig.load(SIZE)
    choose = random.Random(3)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        hints.command(choose.choice([0, 1, 2, 3, 4, choose.randrange(2, 2**32)]))
        time.sleep(0.003)
    assert rig.guest.run("echo alive", timeout=20).out == "alive\n"
    hints.command(1)
    rig.guest.wait_for(lambda: not hints.open and kept(rig) == 0, 20, "the driver does not end the round")
    assert len(hints.rounds) > 1
    rig.settle(SIZE)


def test_hints_to_a_mute_device(rig: Rig) -> None:
    hints = rig.device.hints
    rig.load(SIZE)
    hints.answers = False
    hints.command(9)
    rig.guest.wait_for(lambda: len(hints.outstanding) > 8, 20, "no hints")
    rig.guest.run(USE_MEMORY)
    assert len(hints.outstanding) <= 17, "blocks and an id"
    hints.command(1)
    rig.settle(SIZE)
    hibernate_without_swap(rig)
    assert hints.interrupted > 8
    hints.command(10)
    rig.guest.wait_for(lambda: len(hints.outstanding) > 8, 20, "no hints")
    assert rig.unload() < 20


def test_reports(rig: Rig) -> None:
    """The device scribbles on what is reported: unless the kernel has poisoned it, that must not matter."""
    device = rig.device
    rig.load(SIZE)
    rig.guest.run(USE_MEMORY)
    rig.guest.wait_for(lambda: len(device.reports.blocks) > 50, 30, "no reports")
    assert all(size >= 2 << 20 for _, size in device.reports.blocks)
    assert device.poison_val == (POISON if device.packed else None)
    hibernate_without_swap(rig)
    count = len(device.reports.blocks)
    rig.guest.run(USE_MEMORY)
    rig.guest.wait_for(lambda: len(device.reports.blocks) > count + 10, 30, "no reports after the thaw")
    rig.go_to(0)
    assert device.reports.wrong_fill == 0


def test_reports_to_a_mute_device(rig: Rig) -> None:
    """It cannot keep a system from going to sleep, nor the driver from being removed, and its pages stay unused."""
    device = rig.device
    rig.load(SIZE)
    device.reports.answers = False
    rig.guest.run(USE_MEMORY)
    rig.guest.wait_for(lambda: bool(device.reports.outstanding), 30, "no reports")
    mark = b"nobody may use this"
    parts = [part for buffer in device.reports.outstanding for part in buffer.writable]
    if not device.packed:
        for part in parts:
            part[:len(mark)] = mark
        rig.guest.run("dd if=/dev/zero of=/tmp/file bs=1M count=100 2>/dev/null && rm /tmp/file")
        assert all(part[:len(mark)] == mark for part in parts), "pages are in use although the device has not answered"
        for part in parts:
            part[:len(mark)] = bytes(len(mark))
    hibernate_without_swap(rig)
    assert len(rig.log("does not answer a report")) == 1
    device.reports.be_honest()
    rig.settle(SIZE)
    device.reports.answers = False
    rig.guest.run(USE_MEMORY)
    rig.guest.wait_for(lambda: bool(device.reports.outstanding), 30, "no reports after the thaw")
    assert rig.unload() < 20


def test_hibernation(rig: Rig) -> None:
    """On the new machine everything is set up again: the device checks poison_val when it goes live."""
    device = rig.device
    rig.inflate(SIZE)
    device.hints.command(3)
    round_over(rig, 3)
    assert rig.guest.hibernate() is None
    rig.guest.wait_for(lambda: not device.live, 10, "QEMU is still there")
    device.forget()
    device.clear_record()
    assert rig.guest.resume().status == 0
    rig.settle(0)
    assert kept(rig) == 0
    count = len(device.stats.seen)
    device.stats.ask()
    rig.guest.wait_for(lambda: len(device.stats.seen) > count, 20, "no statistics")
    device.hints.command(3)
    assert len(round_over(rig, 3)) > 10
    device.hints.command(1)
    rig.guest.run(USE_MEMORY)
    rig.guest.wait_for(lambda: bool(device.reports.blocks), 30, "no reports")
    rig.go_to(SIZE)
    assert device.pages_moved(INFLATE) == SIZE


def test_queue_numbers() -> None:
    """Queues of features that the device does not have leave no gaps: here hints are queue 2 and reports queue 3."""
    with BalloonDevice(features=FREE_PAGE_HINT | REPORTING) as device:
        logs = log_dir("test_balloon_services-queue_numbers", "guest")
        options = ["page_reporting.page_reporting_delay_ms=100"]
        with DeviceGuest("guest", device, kernel=KERNEL, logs=logs, swap_mib=0, kernel_options=options) as guest:
            guest.run("modprobe virtio_balloon")
            device.set_target(SIZE)
            guest.wait_for(lambda: device.actual == SIZE, 20, "no inflation")
            device.hints.command(2)
            guest.wait_for(lambda: bool(device.hints.rounds) and not device.hints.open, 30, "no round")
            device.hints.command(1)
            guest.wait_for(lambda: bool(device.reports.blocks), 30, "no reports")
            guest.run("rmmod virtio_balloon")
            assert not device.pages and device.violations == []


def test_reports_to_two_devices() -> None:
    """The kernel has room for one reporter: the driver declines the feature for the other device, and has it when the first is gone."""
    with BalloonDevice(features=REPORTING) as one, BalloonDevice(features=REPORTING) as other:
        logs = log_dir("test_balloon_services-two_devices", "guest")
        options = ["page_reporting.page_reporting_delay_ms=100"]
        with DeviceGuest("guest", one, other, kernel=KERNEL, logs=logs, swap_mib=0, kernel_options=options) as guest:
            guest.run("modprobe virtio_balloon")
            for device in (one, other):
                device.set_target(SIZE)
            guest.wait_for(lambda: one.actual == other.actual == SIZE, 20, "no inflation")
            assert not one.pages & other.pages
            guest.wait_for(lambda: bool(one.reports.blocks), 30, "no reports")
            assert [bool(device.features[-1] & REPORTING) for device in (one, other)] == [True, False]
            driver = "/sys/bus/virtio/drivers/virtio_balloon"
            guest.run(f"echo virtio0 >{driver}/unbind; echo virtio1 >{driver}/unbind; echo virtio1 >{driver}/bind")
            assert other.features[-1] & REPORTING
            other.set_target(SIZE)
            guest.wait_for(lambda: other.actual == SIZE and bool(other.reports.blocks), 30, "no reports")
            guest.run(f"echo virtio0 >{driver}/bind")
            assert not one.features[-1] & REPORTING
            one.set_target(SIZE)
            guest.wait_for(lambda: one.actual == SIZE, 20, "no inflation")
            guest.run("rmmod virtio_balloon")
            assert not one.pages and not other.pages and one.violations == other.violations == []
