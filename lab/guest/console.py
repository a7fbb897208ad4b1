# SPDX-License-Identifier: GPL-2.0
"""Reads a guest's console log and finds the lines in which the kernel says that something is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

FAULTS = re.compile(
    r"""BUG:|kernel\ BUG\ at|WARNING:\ |Oops|Kernel\ panic|general\ protection\ fault|cut\ here
    |INFO:\ task\ .*\ blocked\ for|rcu.*(stall|detected\ expedited)|soft\ lockup|hard\ LOCKUP
    |possible\ (circular|recursive|irq)\ lock|inconsistent\ lock\ state|suspicious\ RCU\ usage|trying\ to\ register\ non-static
    |bad\ unlock\ balance|sleeping\ function\ called|scheduling\ while\ atomic|DEBUG_LOCKS_WARN_ON
    |list_(add|del)\ corruption|refcount_t:|Bad\ page\ state|bad\ pte|KASAN:|UBSAN:|KFENCE:|kmemleak:.*suspected
    |page\ allocation\ failure|DMA-API:|rust_kernel:\ panicked|Attempted\ to\ kill\ init""",
    re.VERBOSE,
)

# Of Linux itself, on the kernel `debug`: pciehp takes these two locks in both orders when a device is unplugged. Lockdep says so
# once and is silent from then on.
KNOWN_CYCLE = ("(&ctrl->reset_lock)", "(pci_rescan_remove_lock)")
CYCLE_BEGINS = "possible circular locking dependency"
CYCLE_NAMED = "which lock already depends on the new lock"

PANIC = re.compile(r"Kernel panic|rust_kernel: panicked")


class Console:
    """The log of one guest, over all its QEMU processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._cycle: list[str] = []
        path.touch()

    def new_lines(self) -> list[str]:
        """The complete lines written since the last call."""
        with self.path.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.decode(errors="replace").replace("\r", "").splitlines()

    def new_faults(self, allowed: Iterable[str]) -> list[str]:
        """The lines written since the last call that report a fault and match none of the `allowed` regular expressions."""
        allow = [re.compile(pattern) for pattern in allowed]
        return [
            line for line in self._without_known_cycle(self.new_lines())
            if FAULTS.search(line) and not any(pattern.search(line) for pattern in allow)
        ]

    def _without_known_cycle(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines, those that begin a report of a lock cycle only once it has named its locks, and then unless it is the known one."""
        for line in lines:
            if self._cycle or CYCLE_BEGINS in line:
                self._cycle.append(line)
            else:
                yield line
            if CYCLE_NAMED in line:
                if not all(lock in "".join(self._cycle) for lock in KNOWN_CYCLE):
                    yield from self._cycle
                self._cycle = []

    def text(self) -> str:
        """Everything the console printed so far."""
        return self.path.read_text(errors="replace").replace("\r", "")

    def tail(self, count: int = 40) -> str:
        """The last `count` lines."""
        return "\n".join(self.text().splitlines()[-count:])
