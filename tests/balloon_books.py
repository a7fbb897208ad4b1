# SPDX-License-Identifier: GPL-2.0
"""What guest and host say of a balloon, and whether they agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from lab.guest import PAGES_PER_MIB, Guest, facts
from qemu.qmp import QMPError

MIB = PAGES_PER_MIB
"""Pages of 4 KiB in a MiB: balloons are counted in pages here."""

TIME = re.compile(r"^\[ *\d+\.\d+\] ")
DRIVER = re.compile(r"virtio_balloon\b")
LOADING = re.compile(r"loading out-of-tree module|module verification failed")

PROGRAMS = {"/bin/memfill": facts().programs / "memfill"}
"""What `use_memory()` needs in the guest."""

_EVENT = re.compile(rb"^\S+Z (virtio_queue_notify|virtio_balloon_handle_output) (.*)\n", re.MULTILINE)


@dataclass(frozen=True)
class Books:
    """One reading of everything that counts the balloon's pages."""

    actual: int
    """As the driver told the host, in pages."""
    vmstat: int
    """nr_balloon_pages of /proc/vmstat, exact."""
    meminfo: int
    """`Balloon:` of /proc/meminfo, in pages."""
    held: int | None
    """Our driver's own count, in pages; None for the C driver."""
    in_flight: int
    """Pages or requests under way in our driver."""
    total_kib: int
    """MemTotal, in KiB."""

    @classmethod
    def read(cls, guest: Guest) -> Self:
        """Reads all of them at once; the kernel's per-CPU counters are folded first. `actual` is -1 when there is no device."""
        lines = guest.run(
            "echo 1 >/proc/sys/vm/stat_refresh; cat /proc/vmstat; cat /proc/meminfo; cat /sys/kernel/debug/virtio_balloon*/state 2>/dev/null; true"
        ).out.splitlines()
        fields = dict(line.replace(":", " ").split()[:2] for line in lines)
        held = fields.get("held_pages")
        return cls(
            actual=_actual(guest),
            vmstat=int(fields["nr_balloon_pages"]),
            meminfo=int(fields["Balloon"]) // 4,
            held=None if held is None else int(held),
            in_flight=int(fields.get("in_flight", 0)),
            total_kib=int(fields["MemTotal"]),
        )

    def check(self, guest: Guest, pages: int, total_kib: int) -> None:
        """Asserts that all say `pages`, and that exactly these pages are missing from `total_kib`, the size of the memory without
        a balloon."""
        assert guest.driver == "c" or self.held is not None, "our driver's state is missing from debugfs"
        want = Books(pages, pages, pages, None if guest.driver == "c" else pages, 0, total_kib - 4 * pages)
        assert self == want, f"the books disagree: {self}, should be {want}; logs: {guest.logs}"


def _actual(guest: Guest) -> int:
    try:
        return guest.actual()
    except QMPError:
        return -1


def total_kib(guest: Guest) -> int:
    """MemTotal in KiB. Meant to be taken while the balloon is empty."""
    books = Books.read(guest)
    assert books.vmstat == 0, f"the balloon is not empty: {books}"
    return books.total_kib


def settle(guest: Guest, mib: float, total: int, timeout: float = 60) -> None:
    """Waits until the balloon has reached `mib` MiB, and compaction has moved all pages that it wants to, and checks the books."""
    pages = int(mib * MIB)
    guest.wait_actual(pages, timeout)
    guest.wait_for(lambda: Books.read(guest).in_flight == 0, timeout, "requests are under way without an end")
    Books.read(guest).check(guest, pages, total)


def inflate(guest: Guest, mib: float, total: int, timeout: float = 60) -> None:
    """Sets the target, waits until the balloon has reached it, and checks the books."""
    guest.set_target(mib)
    settle(guest, mib, total, timeout)


def host_pages(guest: Guest, process: int = -1) -> set[int]:
    """The pages (as guest physical addresses) that one QEMU process, by default the last one, has in its balloon.

    Asserts that the driver gave no page that the host had already, and took back none that it had not.
    """
    trace = sorted(guest.logs.glob("trace.*.log"), key=lambda path: int(path.suffixes[0][1:]))[process]
    pages: set[int] = set()
    queue = -1
    for event, rest in _EVENT.findall(trace.read_bytes()):
        words = rest.split()
        if event == b"virtio_queue_notify":
            queue = int(words[3])
            continue
        page = int(words[-1], 16)
        if queue == 0:
            assert page not in pages, f"page {page:#x} was inflated twice; {trace}"
            pages.add(page)
        elif queue == 1:
            assert page in pages, f"page {page:#x} was deflated although the host did not have it; {trace}"
            pages.remove(page)
    return pages


def driver_log(guest: Guest) -> list[str]:
    """What the balloon driver printed since the last call, without times; forgets the kernel's log."""
    lines = [TIME.sub("", line) for line in guest.run("dmesg -c").out.splitlines()]
    return [line for line in lines if DRIVER.match(line) and not LOADING.search(line)]


def fill(guest: Guest, mib: int) -> None:
    """Puts files of 4 MiB with random contents, `mib` MiB together, into a tmpfs, for `check_files()`."""
    guest.run(
        f"set -e; mkdir /tmp/files; head -c 1m /dev/urandom >/tmp/block; cat /tmp/block /tmp/block /tmp/block /tmp/block >/tmp/files/1; "
        f"md5sum </tmp/files/1 >/tmp/sum; for i in $(seq 2 {mib // 4}); do cp /tmp/files/1 /tmp/files/$i; done"
    )


def check_files(guest: Guest) -> None:
    """Asserts that the files still hold what `fill()` wrote."""
    assert guest.run("for file in /tmp/files/*; do md5sum <$file; done | sort -u | diff - /tmp/sum", check=False).out == "", "data was changed"


def remove_files(guest: Guest) -> None:
    """Removes what `fill()` wrote."""
    guest.run("rm -r /tmp/files /tmp/block /tmp/sum")


def use_memory(guest: Guest, kib: int) -> None:
    """Runs a program that fills `kib` KiB of memory and checks what it wrote. The guest must have the program, see `PROGRAMS`."""
    guest.run(f"memfill {kib}", timeout=180)


def use_all_memory(guest: Guest) -> None:
    """As above, with all that is available but 24 MiB."""
    use_memory(guest, guest.meminfo()["MemAvailable"] - (24 << 10))
