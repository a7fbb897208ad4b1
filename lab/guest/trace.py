# SPDX-License-Identifier: GPL-2.0
"""The host's view of the balloon, from QEMU's own trace events.

QEMU writes one line per event, with the host's clock, to one file per QEMU process:

    virtio_balloon_set_config  the driver wrote `actual`
    virtio_balloon_to_target   somebody asked for another target
    virtio_queue_notify        the driver notified a queue (0 inflates, 1 deflates)
    virtio_balloon_handle_output  one page that was in a buffer of the queue notified last
    virtio_set_status          the driver wrote the device status; 0 resets the device
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

EVENTS = (
    "virtio_balloon_set_config",
    "virtio_balloon_to_target",
    "virtio_balloon_handle_output",
    "virtio_queue_notify",
    "virtio_set_status",
)

INFLATE, DEFLATE = 0, 1


@dataclass
class Traffic:
    """What the host saw between two moments. Sizes are in pages of 4 KiB, times in seconds of the host's clock."""

    inflated: int = 0
    """Pages the driver gave to the device."""
    deflated: int = 0
    """Pages the driver took back through the deflate queue."""
    notifications: Counter[int] = field(default_factory=Counter)
    """Notifications of each queue of the balloon, by queue number."""
    actual: list[tuple[float, int]] = field(default_factory=list)
    """Each value of `actual` that the driver wrote, with its time; the first entry is the value at the beginning, and each further
    QEMU process begins with 0, as its device does."""
    resets: int = 0
    """Resets of the device by the driver."""

    @property
    def pages(self) -> int:
        """Pages that went through the queues, in both directions."""
        return self.inflated + self.deflated

    @property
    def actual_min(self) -> int:
        """The smallest `actual` there was, the value at the beginning included."""
        return min(value for _, value in self.actual)

    @property
    def actual_max(self) -> int:
        """The largest `actual` there was, the value at the beginning included."""
        return max(value for _, value in self.actual)


@dataclass(frozen=True)
class Mark:
    """A moment: the QEMU process and the place in its trace file, the host's time and the value of `actual` then."""

    process: int
    offset: int
    time: float
    actual: int


_LINE = re.compile(rb"^(\S+?)Z (\w+) (.*)$", re.MULTILINE)

def read(path: Path, start: int, end: int | None, traffic: Traffic) -> None:
    """Adds the events between two byte offsets of a trace file (None: its end) to `traffic`."""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read() if end is None else file.read(end - start)
    notified: Counter[tuple[bytes, int]] = Counter()
    status: dict[bytes, bytes] = {}
    before = b"1" if start else b"0"  # A device that has been in use for a while, or that of a new QEMU process.
    balloon = device = b""
    queue = -1
    events = _LINE.findall(data[: data.rfind(b"\n") + 1])
    if start == 0 and events:
        traffic.actual.append((_seconds(events[0][0]), 0))
    for stamp, event, rest in events:
        words = rest.split()
        if event == b"virtio_balloon_handle_output":
            balloon = device
            traffic.inflated += queue == INFLATE
            traffic.deflated += queue == DEFLATE
        elif event == b"virtio_queue_notify":
            device, queue = words[1], int(words[3])
            notified[device, queue] += 1
        elif event == b"virtio_balloon_set_config":
            traffic.actual.append((_seconds(stamp), int(words[1])))
        elif event == b"virtio_set_status":
            traffic.resets += words[3] == b"0" and status.get(words[1], before) != b"0"
            status[words[1]] = words[3]
    for (device, number), count in notified.items():
        if device == balloon:
            traffic.notifications[number] += count


def _seconds(stamp: bytes) -> float:
    return datetime.fromisoformat(stamp.decode() + "+00:00").timestamp()
