# SPDX-License-Identifier: GPL-2.0
"""The balloon driver on a device that can do what QEMU's own never does: be slow, mute, forgetful, or lie.

Every test runs with a split and with a packed ring, on one kernel each; the other way round in `make test-long`. After each of them the driver is removed, every page must be back, and the
device must not have seen the driver break a rule (`device/rig.py`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest

from conftest import lent_rig
from device import DEFLATE, FORMATS, INFLATE, MUST_TELL_HOST, BalloonDevice, Behaviour, DeviceGuest, Request, Rig, honest
from device.behaviour import (
    after, id_never_issued, id_out_of_range, index_jump, mute, twice, with_absurd_length, with_spurious_interrupts, without_interrupt,
)

from lab.guest import SWAP_DEVICE
from lab.guest.logs import log_dir

pytestmark = pytest.mark.everyday("rig", {"stock": ["split"], "full": ["packed"], "debug": ["packed"]})

REQUEST = 1024
"""Pages in one request of our driver."""

IN_FLIGHT = 8
"""Requests that our driver makes before it waits for an answer."""

SIZE = IN_FLIGHT * REQUEST
"""Pages of a balloon of 32 MiB."""

USE_MEMORY = "dd if=/dev/zero of=/tmp/file bs=1M count=100 2>/dev/null && rm /tmp/file"
"""Script that fills 100 MiB of memory and frees them again."""

ANSWER_SECONDS = 5
"""How long the driver waits for an answer when it is removed."""

SLACK_SECONDS = 10
"""What a slow machine may add to any time limit."""


TRANSPORT_FEATURES = {28, 29, 32, 34, 35, 36, 38, 39, 40}
"""INDIRECT_DESC, EVENT_IDX, VERSION_1, RING_PACKED, IN_ORDER, ORDER_PLATFORM, NOTIFICATION_DATA, NOTIF_CONFIG_DATA, RING_RESET."""


@pytest.fixture(params=list(FORMATS))
def rig(request: pytest.FixtureRequest, rigs: dict[tuple[str, str], Rig], kernel: str) -> Iterator[Rig]:
    """A guest without a balloon driver, on an honest and empty device."""
    with lent_rig(request, rigs, (kernel, request.param), lambda logs: Rig(kernel, request.param, logs)) as rig:
        yield rig


# An honest device


def test_inflate_and_deflate(rig: Rig) -> None:
    device = rig.device
    rig.inflate(SIZE)
    rig.go_to(SIZE // 2)
    rig.go_to(SIZE)
    assert bool(device.features[-1] & MUST_TELL_HOST) == bool(device.offered & MUST_TELL_HOST)
    assert device.pages_moved(INFLATE) == SIZE + SIZE // 2
    assert len(device.actual_writes) <= len(device.requests) + 1, "one write of actual for each change, at most"
    device.scribble(device.pages)
    rig.unload()
    assert not device.pages and device.actual == 0, "removal deflates before it resets"
    assert (device.resets, device.interrupted) == (1, [])
    assert device.pages_moved(DEFLATE) == device.pages_moved(INFLATE)


def test_page_changes_hands_with_the_answer(rig: Rig) -> None:
    device = rig.device
    rig.load(SIZE, mute)
    taken = wait_in_flight(rig, IN_FLIGHT)
    pages = pfns(taken)
    device.set_target(0)
    device.scribble(pages)
    rig.guest.run(USE_MEMORY)
    assert not any(device.actual_writes), "actual must not count what the device has not agreed to"
    assert device.untouched(pages), "the pages are in use, but the device has not answered"
    for request in taken[:-1]:
        device.answer(request)
    rig.guest.run(USE_MEMORY)
    assert device.requests == taken, "no page may be deflated before its inflation is answered"
    device.answer(taken[-1])
    given = wait_in_flight(rig, IN_FLIGHT)
    device.set_target(SIZE)
    device.scribble(pages)
    rig.guest.run(USE_MEMORY)
    assert [request.queue for request in device.requests] == [INFLATE] * IN_FLIGHT + [DEFLATE] * IN_FLIGHT
    assert pfns(given) == pages
    assert device.untouched(pages), "the pages are in use again, but the device has not answered"


def test_device_that_remembers_another_balloon(rig: Rig) -> None:
    """The host must not go on to count pages that a kernel had which is no more, or that nobody has."""
    device = rig.device
    device.actual = 3 * REQUEST
    rig.load(0)
    rig.guest.wait_for(lambda: device.actual == 0, 10, "the device is not told that the balloon is empty")
    assert device.actual_writes == [0]
    device.actual = REQUEST
    rig.unload()
    assert device.actual == 0, "removal leaves the device with pages that the balloon does not have"


def test_several_requests_at_a_time(rig: Rig) -> None:
    """The driver goes on while the device works, and tells of progress meanwhile."""
    device = rig.device
    rig.load(2 * SIZE, mute)
    first = wait_in_flight(rig, IN_FLIGHT)
    assert [len(request.pfns) for request in first] == [REQUEST] * IN_FLIGHT
    for request in first:
        jumps = sum(b != a + 1 for a, b in zip(request.pfns, request.pfns[1:]))
        assert jumps < REQUEST // 64, "the pages of a request should be few ranges in ascending order"
    assert int(rig.state()["in_flight"]) == IN_FLIGHT * REQUEST, "pages are under way, not requests"
    device.answer(first[0])
    rig.guest.wait_for(lambda: len(device.requests) > IN_FLIGHT, 20, "the driver waits for all answers")
    rig.guest.wait_for(lambda: device.actual_writes == [REQUEST], 20, "the driver does not tell of progress")
    device.behaviour = honest
    device.answer_all()
    rig.settle(2 * SIZE)
    assert len(device.actual_writes) <= len(device.requests) // 2


def test_interrupts_with_nothing_behind_them(rig: Rig) -> None:
    rig.load(SIZE, with_spurious_interrupts)
    rig.settle(SIZE)
    for _ in range(2000):
        rig.device.interrupt(INFLATE)
        rig.device.interrupt(DEFLATE)
        rig.device.notify_config()
    rig.go_to(0)
    assert rig.log() == []


def test_lost_interrupts(rig: Rig) -> None:
    """The driver looks for an answer once a second without being told."""
    start = time.monotonic()
    rig.load(3 * REQUEST, without_interrupt)
    rig.settle(3 * REQUEST)
    assert time.monotonic() - start < 3 * 1.2 + SLACK_SECONDS
    assert rig.unload() < 3 * 1.2 + SLACK_SECONDS
    assert not rig.device.pages


def test_target_in_turmoil(rig: Rig) -> None:
    device = rig.device
    choose = random.Random(5)
    rig.inflate(SIZE)
    changes = 0
    end = time.monotonic() + 3
    while time.monotonic() < end:
        device.set_target(choose.randrange(2 * SIZE), notify=False)
        changes += device.notify_config()
    assert changes > 1000
    assert rig.guest.run("echo alive", timeout=20).out == "alive\n"
    rig.go_to(SIZE)
    assert len(rig.log()) <= 1


def test_target_beyond_all_memory(rig: Rig) -> None:
    device = rig.device
    rig.load(0xFFFFFFFF)
    rig.guest.wait_for(lambda: int(rig.state()["alloc_failures"]) >= 3, 60, "the driver does not back off")
    assert rig.guest.run("dd if=/dev/zero of=/tmp/file bs=1M count=8 2>/dev/null && wc -c </tmp/file && rm /tmp/file").out == f"{8 << 20}\n"
    held = len(device.pages)
    assert rig.mem_total * 0.5 < held * 4 < rig.mem_total
    assert len(rig.log()) == 1, "one line about the shortage"
    rig.go_to(SIZE)


# A mute device


@pytest.mark.parametrize(("queue", "how"), [(INFLATE, "rmmod"), (DEFLATE, "unbind")])
def test_mute_device_does_not_block_removal(rig: Rig, queue: int, how: str) -> None:
    device = rig.device
    if queue == INFLATE:
        rig.load(SIZE, after(3, mute))
    else:
        rig.inflate(SIZE)
        device.behaviour = after(3, mute)
        device.set_target(0)
    rig.wait_outstanding(queue)
    start = time.monotonic()
    if how == "rmmod":
        rig.unload()
    else:
        rig.guest.run("cd /sys/bus/virtio/drivers/virtio_balloon && echo virtio* >unbind")
    assert time.monotonic() - start < ANSWER_SECONDS + SLACK_SECONDS
    assert rig.guest.meminfo()["MemTotal"] == rig.mem_total
    assert device.resets == 1 and len(rig.log()) == 1
    device.forget()


def test_mute_device_does_not_delay_sleep(rig: Rig) -> None:
    rig.load(SIZE, after(3, mute))
    rig.wait_outstanding(INFLATE)
    hibernate_without_swap(rig)
    frozen = rig.log("Freezing remaining freezable tasks completed")
    assert frozen and float(frozen[-1].partition("elapsed ")[2].split()[0]) < ANSWER_SECONDS
    assert int(rig.state()["freeze_ns"]) < 1_000_000_000


def test_storm_does_not_shorten_patience(rig: Rig) -> None:
    """A driver that is being removed waits for an answer by the clock, however often it is woken."""
    device = rig.device
    rig.load(SIZE, after(3, mute))
    rig.wait_outstanding(INFLATE)
    rig.guest.run("rmmod virtio_balloon >/dev/null 2>&1 &")
    end = time.monotonic() + ANSWER_SECONDS / 2
    while time.monotonic() < end:
        device.interrupt(INFLATE)
    device.behaviour = honest
    device.answer_all()
    rig.guest.wait_for(lambda: not device.live, 20, "the driver is still there")
    assert device.interrupted == [] and not device.pages
    assert rig.log() == []
    rig.guest.wait_for(lambda: "virtio_balloon" not in rig.guest.read("/proc/modules"), 20, "rmmod does not end")


def test_compaction_does_not_wait_for_a_mute_device(rig: Rig) -> None:
    device = rig.device
    compact = "echo 1 >/proc/sys/vm/compact_memory"
    # Compaction moves pages upwards: there must be free memory above some of the balloon's.
    size = SIZE // 4
    rig.load()
    for step in range(4):
        rig.guest.run(f"dd if=/dev/zero of=/tmp/file{step} bs=1M count=20 2>/dev/null")
        rig.go_to((step + 1) * size // 4)
    rig.guest.run("rm /tmp/file*")

    device.behaviour = mute
    device.clear_record()
    before = set(device.pages)
    start = time.monotonic()
    rig.guest.run(compact)
    assert time.monotonic() - start < ANSWER_SECONDS + SLACK_SECONDS
    assert [(request.queue, len(request.pfns)) for request in device.requests] == [(INFLATE, 1)]
    device.behaviour = honest
    device.answer_all()
    rig.guest.wait_for(lambda: len(device.requests) > 1, 20, "the page that nobody waits for any more is not given back")
    rig.settle(size)
    assert device.pages == before

    rig.guest.run(compact)
    rig.settle(size)
    assert device.pages != before and int(rig.state()["migrated_total"]) > 0


# Sleep


@pytest.mark.parametrize(("queue", "how"), [(INFLATE, "no swap"), (DEFLATE, "pm_test")])
def test_request_in_flight_over_failed_hibernation(rig: Rig, queue: int, how: str) -> None:
    device = rig.device
    target = in_flight(rig, queue)
    asked = list(device.outstanding)
    device.clear_record()
    if how == "no swap":
        hibernate_without_swap(rig)
    else:
        # The PM core stops half-way and calls `.restore`, in a kernel that no image was loaded into.
        rig.guest.run("echo devices >/sys/power/pm_test")
        assert rig.guest.hibernate().status == 0
        rig.guest.run("echo none >/sys/power/pm_test")
    assert device.interrupted == asked
    again = wait_in_flight(rig, len(asked))
    assert {frozenset(request.pfns) for request in again} == {frozenset(request.pfns) for request in asked}, "the requests are sent again"
    assert len(device.requests) == len(asked)
    device.behaviour = honest
    device.answer_all()
    rig.settle(target)
    rig.unload()
    assert not device.pages


@pytest.mark.parametrize("queue", [INFLATE, DEFLATE], ids=["inflate", "deflate"])
def test_request_in_flight_over_hibernation(rig: Rig, queue: int) -> None:
    device = rig.device
    in_flight(rig, queue)
    sleep_and_resume(rig, device.forget)
    assert device.requests == [], "nothing is said to a device that knows nothing"
    rig.settle(0)
    rig.go_to(SIZE)


def test_resume_on_the_device_that_was_left(rig: Rig) -> None:
    device = rig.device
    rig.inflate(SIZE)
    pages = set(device.pages)
    sleep_and_resume(rig, lambda: None)
    rig.settle(SIZE)
    assert device.requests == [] and device.pages == pages
    assert len(rig.log("held")) == 1
    rig.go_to(SIZE // 2)


def test_resume_on_a_fresh_device(rig: Rig) -> None:
    device = rig.device
    target = SIZE // 2

    def replace() -> None:
        device.forget()
        device.num_pages = target

    rig.inflate(SIZE)
    sleep_and_resume(rig, replace)
    rig.settle(target)
    assert device.pages_moved(DEFLATE) == 0 and device.pages_moved(INFLATE) == target
    assert len(rig.log("returned")) == 1


def test_resume_on_a_device_in_another_state(rig: Rig) -> None:
    """`actual` is neither ours nor that of a fresh device: every page goes through the deflate queue."""
    device = rig.device

    def replace() -> None:
        device.actual = 2 * SIZE if device.packed else SIZE // 2
        device.num_pages = REQUEST

    rig.inflate(SIZE)
    pages = set(device.pages)
    sleep_and_resume(rig, replace)
    rig.settle(REQUEST)
    deflated = [pfn for request in device.requests if request.queue == DEFLATE for pfn in request.pfns]
    assert len(deflated) == SIZE and set(deflated) == pages
    assert [request.queue for request in device.requests][-1] == INFLATE
    assert len(rig.log()) == 1


def test_resume_after_a_device_broke_before_it_was_told(rig: Rig) -> None:
    """The old device has agreed to pages and still reads 0, like a new one: `actual` does not tell them apart."""
    device = rig.device

    def replace() -> None:
        device.forget()
        device.num_pages = SIZE

    rig.load(SIZE, mute)
    asked = wait_in_flight(rig, IN_FLIGHT)
    with device.lock:
        for request in asked[:3]:
            device.answer(request, interrupt=False)
        id_out_of_range(device, asked[3])
    rig.guest.wait_for(lambda: rig.state()["broken"] == "1", 20, "the lie goes unnoticed")
    assert not any(device.actual_writes), "the driver was to break before it says how large the balloon is"
    sleep_and_resume(rig, replace)
    rig.settle(SIZE)
    queues = [request.queue for request in device.requests]
    assert queues == sorted(queues, reverse=True), "first everything is deflated"
    assert pfns([request for request in device.requests if request.queue == DEFLATE]) == pfns(asked)
    # The new device has none of them.
    assert all(text.endswith("not in the balloon") for text in device.violations)
    device.violations.clear()


def pfns(requests: list[Request]) -> set[int]:
    """The page numbers in some requests."""
    return {pfn for request in requests for pfn in request.pfns}


def wait_in_flight(rig: Rig, count: int) -> list[Request]:
    """Waits until so many requests wait for their answers, and returns them."""
    device = rig.device
    rig.guest.wait_for(lambda: len(device.outstanding) == count, 20, lambda: f"{len(device.outstanding)} requests wait, not {count}")
    return list(device.outstanding)


def in_flight(rig: Rig, queue: int) -> int:
    """Leaves requests of this queue unanswered, after some that were answered; returns the target of the balloon."""
    if queue == INFLATE:
        rig.load(SIZE, after(3, mute))
    else:
        rig.inflate(2 * SIZE)
        rig.device.behaviour = after(3, mute)
        rig.device.set_target(SIZE)
    wait_in_flight(rig, IN_FLIGHT - 3)
    return SIZE


def hibernate_without_swap(rig: Rig) -> None:
    """Hibernates as far as the image, which has nowhere to go."""
    rig.guest.run("swapoff -a")
    assert rig.guest.hibernate().status != 0
    rig.guest.run(f"swapon {SWAP_DEVICE}")


def sleep_and_resume(rig: Rig, meanwhile: Callable[[], None]) -> None:
    """Hibernates, does something to the device, which is honest from then on, and resumes in a new QEMU process."""
    assert rig.guest.hibernate() is None
    rig.guest.wait_for(lambda: not rig.device.live, 10, "QEMU is still there")
    rig.device.behaviour = honest
    rig.device.clear_record()
    meanwhile()
    assert rig.guest.resume().status == 0


# A lying device


@pytest.mark.parametrize("queue", [INFLATE, DEFLATE], ids=["inflate", "deflate"])
@pytest.mark.parametrize("lie", [id_out_of_range, id_never_issued, twice, index_jump])
def test_lie_breaks_the_queue(rig: Rig, lie: Behaviour, queue: int) -> None:
    device = rig.device
    if queue == INFLATE:
        rig.load(SIZE, after(2, lie))
    else:
        rig.inflate(SIZE)
        device.behaviour = after(2, lie)
        device.set_target(0)
    rig.guest.wait_for(lambda: rig.state()["broken"] == "1", 20, "the lie goes unnoticed")
    time.sleep(0.5)  # The device may not have read all that was available by then.
    seen = len(device.requests)
    device.set_target(3 * REQUEST)
    time.sleep(0.5)
    assert len(device.requests) == seen, "a broken queue is not used"
    ours = [line for line in rig.log() if "virtqueue is broken" in line]
    assert len(ours) == 1 and len(rig.log()) == 2, "one line of the driver and one of the ring below it"
    assert rig.unload() < SLACK_SECONDS
    device.forget()


def test_reset_mends_a_broken_queue(rig: Rig) -> None:
    device = rig.device
    rig.load(SIZE, after(3, id_out_of_range))
    rig.guest.wait_for(lambda: rig.state()["broken"] == "1", 20, "the lie goes unnoticed")
    device.behaviour = honest
    hibernate_without_swap(rig)
    rig.settle(SIZE)
    # Requests whose answers were in the queue when it broke are sent again: the driver never saw them.
    again = [text for text in device.violations if "in the balloon already" in text]
    assert len(again) <= IN_FLIGHT
    device.violations[:] = [text for text in device.violations if text not in again]


def test_lies_that_do_not_matter(rig: Rig) -> None:
    """A used length for a buffer that only the driver writes, and an `actual` that reads back as something else."""
    device = rig.device
    device.keeps_actual = False
    rig.load(SIZE, with_absurd_length)
    rig.guest.wait_for(lambda: device.actual_writes[-1:] == [SIZE], 20, "no inflation")
    rig.check_books(SIZE)
    device.set_target(REQUEST)
    rig.guest.wait_for(lambda: device.actual_writes[-1:] == [REQUEST], 20, "no deflation")
    rig.check_books(REQUEST)
    assert rig.log() == []


@pytest.mark.c_differs("waits for ever for an answer from a broken queue")
def test_removal_after_a_lie(kernel: str, driver: str) -> None:
    with BalloonDevice() as device, own_guest("removal_after_a_lie", device, kernel=kernel, driver=driver) as guest:
        device.behaviour = after(2, id_out_of_range)
        device.set_target(SIZE)
        guest.run("modprobe virtio_balloon")
        guest.wait_for(lambda: len(device.outstanding) > 0, 20, "no inflation")
        script = "(rmmod virtio_balloon; echo gone >/tmp/gone) & for i in $(seq 32); do [ -e /tmp/gone ] && break; usleep 250000; done; cat /tmp/gone"
        assert guest.run(script, check=False).out == "gone\n"


# Features


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_all_features_offered(kernel: str, packed: bool) -> None:
    """The driver takes only what it knows; the transport and the ring below it take theirs."""
    unusable = {
        26: "belongs to vhost, QEMU keeps it",
        30: "belongs to vhost-user",
        33: "ACCESS_PLATFORM: QEMU insists on it, and the balloon must decline",
        34: "RING_PACKED: chosen by the parameter",
        41: "ADMIN_VQ: QEMU has no such queue, and the PCI transport looks for it",
    }
    features = ((1 << 64) - 1) & ~sum(1 << bit for bit in unusable)
    with BalloonDevice(packed=packed, features=features) as device:
        with own_guest("all_features_offered", device, kernel=kernel) as guest:
            device.set_target(SIZE)
            guest.run("modprobe virtio_balloon")
            guest.wait_for(lambda: device.actual == SIZE, 20, "no inflation")
            accepted = {bit for bit in range(64) if device.features[-1] >> bit & 1}
            assert {bit for bit in accepted if bit < 24 or bit >= 50} == {0, 1, 2, 3, 5}, "nothing fills free pages here, so not bit 4"
            assert accepted - {0, 1, 2, 3, 5} <= TRANSPORT_FEATURES
            guest.run("rmmod virtio_balloon")
            assert not device.pages and device.violations == []


def own_guest(test: str, device: BalloonDevice, **options: object) -> DeviceGuest:
    """A guest for one test only; a context manager."""
    return DeviceGuest("guest", device, logs=log_dir(f"test_balloon_device-{test}", "guest"), swap_mib=0, **options)
