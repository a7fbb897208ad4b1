# SPDX-License-Identifier: GPL-2.0
"""The optional features of the balloon device against QEMU's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from balloon_books import MIB, PROGRAMS, driver_log, host_pages, inflate, total_kib, use_memory
from lab.guest import Guest

Factory = Callable[..., Guest]

DEVICE = "virtio-balloon-pci,ioeventfd=off"
TRANSPORTS = {"modern": "", "legacy": ",disable-modern=on", "packed": ",packed=on,event_idx=off"}
"""Kinds of interface, as properties of the device."""

STATS_VQ, DEFLATE_ON_OOM, FREE_PAGE_HINT, PAGE_POISON, REPORTING = range(1, 6)
"""Feature bits."""

KIB_STATS = {"stat-total-memory": "MemTotal", "stat-free-memory": "MemFree", "stat-available-memory": "MemAvailable", "stat-disk-caches": "Cached"}
PAGE_STATS = {
    "stat-swap-in": "pswpin", "stat-swap-out": "pswpout", "stat-async-scans": "pgscan_kswapd", "stat-direct-scans": "pgscan_direct",
    "stat-async-reclaims": "pgsteal_kswapd", "stat-direct-reclaims": "pgsteal_direct",
}
COUNTS = {"stat-major-faults": "pgmajfault", "stat-minor-faults": "pgfault", "stat-oom-kills": "oom_kill"}
HUGE_PAGES = {"stat-htlb-pgalloc": "htlb_buddy_alloc_success", "stat-htlb-pgfail": "htlb_buddy_alloc_fail"}
ABSENT = 2**64 - 1


def features(guest: Guest) -> set[int]:
    """The feature bits that were negotiated."""
    return {bit for bit, char in enumerate(guest.read("/sys/bus/virtio/devices/virtio0/features")) if char == "1"}


def balloon(guest: Guest, verb: str, name: str, **arguments: object) -> object:
    """Reads or sets a property of QEMU's device."""
    return guest.qmp(f"qom-{verb}", path="/machine/peripheral/balloon0", property=name, **arguments)


def poll(guest: Guest, seconds: int) -> None:
    """Makes QEMU ask for statistics that often."""
    balloon(guest, "set", "guest-stats-polling-interval", value=seconds)


def next_stats(guest: Guest, count: int = 2) -> dict[str, int]:
    """The statistics after `count` more answers."""
    stats: dict[str, int] = {}
    for _ in range(count):
        before = balloon(guest, "get", "guest-stats")["last-update"]

        def is_new() -> bool:
            nonlocal stats
            answer = balloon(guest, "get", "guest-stats")
            stats = answer["stats"]
            return answer["last-update"] > before

        guest.wait_for(is_new, 20, "the statistics do not change")
    return stats


@pytest.mark.everyday("transport", {"stock": ["modern", "legacy"], "full": ["packed"]})
@pytest.mark.parametrize("transport", list(TRANSPORTS))
def test_statistics(guests: Factory, kernel: str, driver: str, transport: str) -> None:
    """If this fails the host's view of the guest's memory is wrong, incomplete, or stands still: an autoballooner takes the wrong
    decisions."""
    guest = guests(kernel=kernel, driver=driver, memory_mib=512, swap_mib=0, balloon=DEVICE + TRANSPORTS[transport]).start()
    assert STATS_VQ in features(guest) and PAGE_POISON not in features(guest)
    assert (32 in features(guest)) == (transport != "legacy") and (34 in features(guest)) == (transport == "packed")
    total = total_kib(guest)
    guest.run("head -c 20m /dev/urandom >/tmp/file; md5sum /tmp/file")
    inflate(guest, 64, total)
    poll(guest, 1)
    stats = next_stats(guest)
    meminfo, vmstat = guest.meminfo(), guest.vmstat()
    for name, field in KIB_STATS.items():
        assert abs(stats[name] - (meminfo[field] << 10)) <= 8 << 20, name
    assert stats["stat-total-memory"] == meminfo["MemTotal"] << 10
    for name, field in PAGE_STATS.items():
        assert stats[name] <= vmstat[field] * 4096, name
    for name, field in COUNTS.items():
        assert vmstat[field] * 0.8 <= stats[name] <= vmstat[field], name
    for name, field in HUGE_PAGES.items():
        assert stats[name] == vmstat.get(field, ABSENT), name
    assert stats["stat-alloc-stalls"] == sum(value for field, value in vmstat.items() if field.startswith("allocstall"))

    # The frozen device has no buffer, the thawed one has again.
    assert guest.hibernate().status != 0
    before = next_stats(guest)["stat-minor-faults"]
    guest.run("for i in 1 2 3 4 5 6 7 8 9; do true | cat; done")
    assert next_stats(guest)["stat-minor-faults"] > before
    poll(guest, 0)
    if driver == "rust":
        assert 6 <= guest.balloon_debugfs()["statistics"] < 60
    inflate(guest, 0, total)
    guest.run("rmmod virtio_balloon && modprobe virtio_balloon")
    poll(guest, 1)
    next_stats(guest)


def test_statistics_after_resume(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a guest that was hibernated gives its new host no statistics."""
    guest = guests(kernel=kernel, driver=driver, memory_mib=512).start()
    poll(guest, 1)
    next_stats(guest)
    assert guest.hibernate() is None
    guest.resume()
    poll(guest, 1)
    stats = next_stats(guest)
    assert stats["stat-total-memory"] == guest.meminfo()["MemTotal"] << 10


POISON = {
    "kept": ("page_poison=1", "page-poison=on", True),
    "zero": ("init_on_free=1", "page-poison=on", True),
    "declined": ("page_poison=1", "page-poison=off", False),
}
"""Kernel option, property of the device, whether the driver may use the feature."""


@pytest.mark.everyday("poison", {"stock": ["zero"], "full": ["kept", "declined"]})
@pytest.mark.parametrize("poison", list(POISON))
def test_page_poison(guests: Factory, kernel: str, driver: str, poison: str) -> None:
    """If this fails the kernel finds that pages from the balloon do not hold its poison (`page allocation corruption`), or a host
    takes poisoned pages for empty ones."""
    option, device, accepted = POISON[poison]
    guest = guests(
        kernel=kernel, driver=driver, memory_mib=384, swap_mib=0, kernel_options=[option], balloon=f"{DEVICE},{device},free-page-reporting=on",
    ).start()
    assert (PAGE_POISON in features(guest)) == accepted
    if not accepted:
        assert REPORTING not in features(guest), "the host would change what the kernel has written to free pages"
    total = total_kib(guest)
    for _ in range(2):
        inflate(guest, 120, total)
        inflate(guest, 0, total)
        assert guest.hibernate().status != 0
        guest.run("head -c 100m /dev/zero >/tmp/file; rm /tmp/file")
    assert not [line for line in guest.run("dmesg").out.splitlines() if "pagealloc" in line]


def test_wakeup(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a guest goes to sleep in the middle of what the host asks for, although its user has forbidden that; or it
    can never go to sleep again."""
    guest = guests(kernel=kernel, driver=driver, memory_mib=512, swap_mib=0).start()
    total = total_kib(guest)
    power = "/sys/bus/virtio/devices/virtio0/power"
    guest.run(f"echo enabled >{power}/wakeup")
    before = int(guest.read(f"{power}/wakeup_active_count"))
    inflate(guest, 100, total)
    inflate(guest, 0, total)
    assert int(guest.read(f"{power}/wakeup_active_count")) > before
    guest.wait_for(lambda: guest.read(f"{power}/wakeup_active") == "0", 20, "the device keeps the system awake")
    poll(guest, 1)
    before = int(guest.read(f"{power}/wakeup_active_count"))
    next_stats(guest)
    assert int(guest.read(f"{power}/wakeup_active_count")) > before
    poll(guest, 0)
    assert driver_log(guest) == []


@pytest.mark.c_differs("takes the memory away again as soon as it has given it up, and the program waits for ever")
def test_deflate_on_oom(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a program that needs memory is killed, or the guest hangs at full load, although the balloon could make way: the
    host keeps asking for the pages all the time."""
    device = f"{DEVICE},deflate-on-oom=on"
    guest = guests(kernel=kernel, driver=driver, memory_mib=512, swap_mib=0, balloon=device, files=PROGRAMS).start()
    assert DEFLATE_ON_OOM in features(guest)
    total = total_kib(guest)
    wanted = (guest.meminfo()["MemAvailable"] >> 10) - 60
    guest.inflate(wanted)
    assert total_kib_unchanged(guest) == total, "the pages in the balloon still count as the guest's"
    # A program that is about to hibernate the system has opened this; tasks are not frozen yet.
    guest.run("mkfifo /tmp/close; (exec 3</dev/snapshot; read line </tmp/close) >/dev/null 2>&1 & sleep 1")
    use_memory(guest, 200 << 10)
    guest.run("echo >/tmp/close")
    use_memory(guest, 200 << 10)
    assert guest.run("echo alive", timeout=20).out == "alive\n"
    assert guest.vmstat()["oom_kill"] == 0
    state = guest.balloon_debugfs()
    print(f"{state['shortages']} shortages, {guest.actual() // MIB} of {wanted} MiB left")
    assert state["shortages"] > 0

    # The balloon comes back, but not at once, and not over a sleep transition that fails.
    assert guest.hibernate().status != 0
    guest.wait_actual(wanted * MIB, 60)
    assert len(host_pages(guest)) == wanted * MIB
    before = guest.balloon_debugfs()["shortages"]
    for _ in range(3):
        guest.run("memfill 150000 >/dev/null", timeout=120)
    assert guest.vmstat()["oom_kill"] == 0
    assert guest.balloon_debugfs()["shortages"] - before < 60
    guest.inflate(0)
    assert host_pages(guest) == set()


@pytest.mark.everyday("transport", {"stock": [], "full": ["modern"]})
@pytest.mark.parametrize("transport", list(TRANSPORTS))
def test_free_page_hint(guests: Factory, kernel: str, driver: str, transport: str) -> None:
    """If this fails a migration sends memory that the guest does not use, or the guest is left without that memory when it is over."""
    device = f"{DEVICE}{TRANSPORTS[transport]},free-page-hint=on,iothread=thread0"
    guest = guests(
        kernel=kernel, driver=driver, memory_mib=384, swap_mib=0, balloon=device, files=PROGRAMS, qemu_options=["-object", "iothread,id=thread0"],
    ).start()
    assert FREE_PAGE_HINT in features(guest)
    total = total_kib(guest)
    inflate(guest, 20, total)
    for number in (1, 2):
        # So that there is something to send, had the driver not said that it is free.
        use_memory(guest, 230 << 10)
        before = guest.balloon_debugfs()["hinted_blocks"] if driver == "rust" else 0
        free = guest.meminfo()["MemFree"] >> 10
        guest.qmp("migrate", uri="exec:cat >/dev/null")
        guest.wait_for(lambda: guest.qmp("query-migrate")["status"] == "completed", 60, "the migration does not end")
        assert guest.qmp("query-migrate")["ram"]["transferred"] >> 20 < 150
        guest.qmp("cont")
        if driver == "rust":
            guest.wait_for(lambda: guest.balloon_debugfs()["hint_blocks_kept"] == 0, 20, "blocks are kept although the migration is over")
            assert guest.balloon_debugfs()["hint_rounds"] >= number
            assert (guest.balloon_debugfs()["hinted_blocks"] - before) * 4 > free / 2
    use_memory(guest, 230 << 10)
    inflate(guest, 0, total)


def total_kib_unchanged(guest: Guest) -> int:
    """MemTotal, with pages in the balloon."""
    return guest.meminfo()["MemTotal"]


def memory_of_host(guest: Guest, field: str = "VmRSS") -> int:
    """Memory that QEMU occupies, in MiB; `VmHWM`: has occupied at most."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{guest.qemu.process.pid}/status").read_text().splitlines())
    return int(fields[field].split()[0]) >> 10


def check_reports(guest: Guest) -> None:
    """Asserts that the host gets the memory of a program back that has ended."""
    used = 400
    use_memory(guest, used << 10)
    peak = memory_of_host(guest, "VmHWM")
    assert peak > used
    guest.wait_for(lambda: memory_of_host(guest) < peak - used * 3 // 4, 30, lambda: f"{memory_of_host(guest)} of {peak} MiB still in use")


@pytest.mark.everyday("transport", {"stock": ["legacy"], "full": ["modern", "packed"]})
@pytest.mark.parametrize("transport", ["modern", "legacy", "packed"])
def test_free_page_reporting(guests: Factory, kernel: str, driver: str, transport: str) -> None:
    """If this fails the host keeps memory for pages that the guest does not use, or a guest loses what it has just written. Reports
    must go on after a hibernation that failed, and must not keep one from being begun."""
    device = f"{DEVICE},free-page-reporting=on{TRANSPORTS[transport]}"
    options = ["page_reporting.page_reporting_delay_ms=100"]
    guest = guests(kernel=kernel, driver=driver, memory_mib=768, swap_mib=0, balloon=device, files=PROGRAMS, kernel_options=options).start()
    assert REPORTING in features(guest)
    total = total_kib(guest)
    for _ in range(2):
        check_reports(guest)
        if driver == "rust":
            assert guest.balloon_debugfs()["reports"] > 0
        inflate(guest, 300, total)
        assert guest.hibernate().status != 0
        use_memory(guest, 100 << 10)
        inflate(guest, 0, total)
    guest.run("rmmod virtio_balloon && modprobe virtio_balloon")
    check_reports(guest)
