# SPDX-License-Identifier: GPL-2.0
"""Guest instructions by function, from the QEMU plugin `counter.rs`."""

from __future__ import annotations

import bisect
import os
import re
import socket
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lab.guest import Guest
from lab.guest.logs import ROOT

SOURCE = Path(__file__).with_name("counter.rs")
PLUGIN = ROOT / "build" / "bench" / "libcounter.so"

BACKGROUND = re.compile(
    r"""schedule|sched_|_sched|resched|try_to_wake_up|ttwu|wake_up_|enqueue_(task|entity)|dequeue_(task|entit)|pick_(next|task|eevdf)
    |put_prev|set_next|update_(curr|load_avg|rq_clock|se|cfs|min_vruntime|entity)|place_entity|context_switch|finish_task|prepare_task
    |__switch_to|switch_mm|check_preempt|wakeup_preempt|select_task_rq|cpuacct|psi_|account_|vtime|cputime|avg_vruntime|entity_|cfs_|_fair$
    |hrtimer|timer|tick|clockevents|ktime|timekeeping|tsc|jiffies|calc_(load|global)|lapic_next|apic_timer|delay_|update_wall|ntp
    |rcu|srcu|quiet_vmstat|vmstat_(update|shepherd)|refresh_cpu_vm_stats
    |do_idle|cpuidle|idle|cpu_startup|halt|menu_|poll_idle|need_update|nohz|watchdog|softlockup|perf_event_task|run_local|irq_work""",
    re.VERBOSE,
)
"""Functions of the scheduler, timers, RCU and the idle loop. They are no part of a path."""


def plugin() -> Path:
    """Builds the plugin when its source is newer. Raises subprocess.CalledProcessError."""
    if not PLUGIN.exists() or PLUGIN.stat().st_mtime < SOURCE.stat().st_mtime:
        PLUGIN.parent.mkdir(parents=True, exist_ok=True)
        draft = PLUGIN.with_name(f"{PLUGIN.name}.{os.getpid()}")
        command = ["rustc", "--edition", "2021", "-O", "--crate-type", "cdylib", "-o", draft, SOURCE]
        subprocess.run(command, check=True)
        draft.rename(PLUGIN)
    return PLUGIN


@dataclass
class Snapshot:
    """How often each block was entered so far, by its address (0: user space) and its number of instructions."""

    blocks: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __sub__(self, before: Snapshot) -> Snapshot:
        """What was executed since `before`."""
        return Snapshot(Counter({block: times - before.blocks[block] for block, times in self.blocks.items()}))

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(size * times for (_, size), times in self.blocks.items())


class CountedGuest:
    """A guest whose instructions are counted: create it, make the Guest with `options`, then take snapshots."""

    def __init__(self) -> None:
        self._socket = Path(tempfile.mkdtemp(prefix="lab-count-")) / "socket"
        self.options = ["-plugin", f"file={plugin()},socket={self._socket}"]

    def snapshot(self) -> Snapshot:
        """What was executed since QEMU's start."""
        data = b""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            while part := connection.recv(1 << 20):
                data += part
        lines = (line.split() for line in data.decode().splitlines())
        return Snapshot(Counter({(int(address, 16), int(size)): int(times) for address, size, times in lines}))


@dataclass(frozen=True, order=True)
class Function:
    """A function of the kernel; `module` is empty for what is built in."""

    name: str
    module: str


USER = Function("user space", "")


class Symbols:
    """The functions of a running guest's kernel and of the modules that are loaded now."""

    def __init__(self, guest: Guest) -> None:
        script = "awk '$2 ~ /[tTwW]/ { print $1, $3, $4 }' /proc/kallsyms | gzip -1 | base64"
        text = guest.run(script, timeout=120).out
        unpacked = subprocess.run(["sh", "-c", "base64 -d | gzip -d"], input=text.encode(), check=True, capture_output=True).stdout
        entries = [line.split() for line in unpacked.decode().splitlines()]
        found = sorted((int(words[0], 16), Function(words[1], words[2].strip("[]") if len(words) > 2 else "")) for words in entries)
        self._starts = [start for start, _ in found]
        self._begins = set(self._starts)
        self._functions = [function for _, function in found]

    def function(self, address: int) -> Function:
        """The function that an address is in."""
        index = bisect.bisect_right(self._starts, address) - 1
        return self._functions[index] if index >= 0 else Function("?", "")

    def functions(self, snapshot: Snapshot) -> Counter[Function]:
        """A snapshot's instructions by function; user space has one of its own."""
        found: Counter[Function] = Counter()
        for (address, size), times in snapshot.blocks.items():
            found[self.function(address) if address else USER] += size * times
        return found

    def calls(self, snapshot: Snapshot) -> Counter[Function]:
        """How often each function of the kernel was entered at its beginning."""
        found: Counter[Function] = Counter()
        for (address, _), times in snapshot.blocks.items():
            if address in self._begins:
                found[self.function(address)] += times
        return found


class Profile:
    """Instructions by function for several kinds of work, each per one piece of it."""

    def __init__(self) -> None:
        self._work: dict[str, Counter[Function]] = {}

    def add(self, work: str, spent: Snapshot, pieces: float, symbols: Symbols) -> None:
        """Adds the instructions of some pieces of work."""
        total = self._work.setdefault(work, Counter())
        for function, count in symbols.functions(spent).items():
            total[function] += count / pieces

    def text(self, least: float = 0.1) -> str:
        """Tables of all functions with at least so many instructions, the largest first."""
        lines = []
        for work, functions in self._work.items():
            lines += ["", f"instructions {work}: {functions.total():.1f}"]
            lines += [
                f"{count:10.2f}  {function.name}{f' [{function.module}]' if function.module else ''}"
                for function, count in functions.most_common() if count >= least
            ]
        return subprocess.run(["c++filt", "-s", "rust"], input="\n".join(lines) + "\n", text=True, check=True, capture_output=True).stdout
