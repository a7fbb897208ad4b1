# SPDX-License-Identifier: GPL-2.0
"""What a guest's kernel says on its console about sleeping: how long each device's callbacks took.

The kernel prints a line per callback when /sys/power/pm_print_times is 1:

    virtio-pci 0000:00:02.0: PM: pci_pm_freeze returned 0 after 2621 usecs

It says so in the same way for every driver, and measures without the time that printing takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RETURNED = re.compile(r"(\S+): PM: (\S+)(?: \[\w+\])? returned (-?\d+) after (\d+) usecs")
_PCI = re.compile(r"pci_pm_(\w+)$")
_WAKING = ("thaw", "restore", "resume")
PREPARE = "echo 1 >/sys/power/pm_print_times; echo 0 >/sys/power/pm_async"
"""Script that makes the kernel print the times, and call one device after the other."""


@dataclass(frozen=True)
class Callback:
    """One call: the phase as the PCI bus calls it (`freeze`, `thaw_noirq` …), what it returned, and its time in microseconds."""

    device: str
    phase: str
    status: int
    usecs: int


def callbacks(console: str, child: str, parent: str) -> list[Callback]:
    """The callbacks of a virtio device (`virtio0`) and the PCI device below it (`0000:00:02.0`), in order.

    Only the PCI bus's callbacks are named after their phase. A child's callback belongs to the phase of its parent's next one, or
    of the last one if that woke the parent up: parents wake up before their children.
    """
    found = [match.groups() for match in _RETURNED.finditer(console) if match[1] in (child, parent)]
    result: list[Callback] = []
    for index, (device, function, status, usecs) in enumerate(found):
        if device == parent:
            phase = _phase(function)
        elif result and result[-1].device == parent and result[-1].phase.startswith(_WAKING):
            phase = result[-1].phase
        else:
            phase = next((_phase(name) for other, name, *_ in found[index:] if other == parent), "?")
        result.append(Callback(device, phase, int(status), int(usecs)))
    return result


def total_usecs(calls: list[Callback], phase: str) -> int | None:
    """The time of one phase with its `_late`/`_early` and `_noirq` parts, in microseconds.

    None if nothing was measured: a kernel without CONFIG_PM_SLEEP_DEBUG, as Debian's for clouds, prints no times.
    """
    return sum(call.usecs for call in calls if call.phase.split("_")[0] == phase) if calls else None


def _phase(function: str) -> str:
    match = _PCI.match(function)
    return match[1] if match else function
