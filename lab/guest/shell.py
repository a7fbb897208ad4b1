# SPDX-License-Identifier: GPL-2.0
"""What a guest's shell can tell: files of /proc and /sys as Python values."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

TIME = re.compile(r"^\[ *\d+\.\d+\] ")


@dataclass(frozen=True)
class Result:
    """What a script in the guest printed, stdout and stderr together, and its exit status."""

    out: str
    status: int


class Shell(ABC):
    """Something that runs shell scripts in a guest, and what can be read with them."""

    @abstractmethod
    def run(self, script: str, timeout: float = 60, check: bool = True) -> Result:
        """Runs a shell script in the guest and returns what it printed."""

    def read(self, path: str) -> str:
        """The contents of a file in the guest, without white space around it."""
        return self.run(f"cat {path}").out.strip()

    def write(self, path: str, value: object) -> Result:
        """Writes a line to a file in the guest; does not raise when the write fails."""
        return self.run(f"echo '{value}' >{path}", check=False)

    def dmesg(self) -> list[str]:
        """The kernel's log."""
        return self.run("dmesg").out.splitlines()

    def said(self, who: str = "virtio") -> list[str]:
        """What the kernel's log has of modules and drivers whose names begin so; other lines come at any time, whatever is done."""
        lines = (TIME.sub("", line) for line in self.dmesg())
        return [line for line in lines if line.startswith(who) and "loading out-of-tree" not in line]

    def meminfo(self) -> dict[str, int]:
        """/proc/meminfo; sizes in KiB."""
        lines = self.run("cat /proc/meminfo").out.splitlines()
        return {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}

    def vmstat(self) -> dict[str, int]:
        """/proc/vmstat."""
        return {name: int(value) for name, value in (line.split() for line in self.run("cat /proc/vmstat").out.splitlines())}

    def balloon_debugfs(self) -> dict[str, int | str]:
        """The Rust driver's state from debugfs; numbers as int."""
        lines = self.run("cat /sys/kernel/debug/virtio_balloon*/state").out.splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        return {key.strip(): int(value) if value.strip().lstrip("-").isdigit() else value.strip() for key, value in pairs}
