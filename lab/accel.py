# SPDX-License-Identifier: GPL-2.0
"""Whether guests can run on KVM: only if one really boots on it; otherwise on QEMU's own emulator, TCG."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Optional

from lab import buildroot, enter, host, paths
from lab.errors import LabError

SECONDS = 15
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A kernel without a root file system has come all the way when it says this.
MARKER = "Unable to mount root fs"


def chosen(image: str, arch: str = "x86_64") -> tuple[str, str]:
    """`kvm` or `tcg` for guests of an architecture, and why. $ACCEL decides if set; else a guest with this boot image, once per boot
    of the host."""
    if arch != "x86_64":
        return "tcg", "another architecture"
    if asked():
        return asked(), "as ACCEL= says"
    known = remembered()
    if known:
        return known
    answer = _probe(image)
    memory = _memory()
    draft = memory.with_name(f"{memory.name}.{os.getpid()}")
    draft.write_text(json.dumps({"boot": BOOT_ID.read_text(), "answer": answer}) + "\n")
    draft.rename(memory)
    return answer


def asked() -> str:
    """The value of $ACCEL, empty if it is not set. Raises LabError if it is neither kvm nor tcg."""
    value = os.environ.get("ACCEL", "")
    if value not in ("", "kvm", "tcg"):
        raise LabError(f"ACCEL={value}: it must be kvm or tcg")
    return value


def remembered() -> Optional[tuple[str, str]]:
    """The answer of a probe since the host booted, None if there was none; without /dev/kvm no probe is needed."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "this user cannot open /dev/kvm" if os.path.exists("/dev/kvm") else "there is no /dev/kvm"
    try:
        memory = json.loads(_memory().read_text())
    except (OSError, ValueError):
        return None
    return tuple(memory["answer"]) if memory["boot"] == BOOT_ID.read_text() else None


def _memory() -> Path:
    return paths.cache() / "accel.json"


def _probe(image: str) -> tuple[str, str]:
    qemu = ["timeout", str(SECONDS), "qemu-system-x86_64", "-accel", "kvm", "-machine", "q35", "-cpu", "host", "-smp", "2",
            "-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", image,
            "-append", "console=ttyS0 panic=-1"]
    done = subprocess.run(enter.command(buildroot.root(), qemu), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, preexec_fn=host.die_with_parent, check=False)
    said = done.stdout.decode(errors="replace")
    if MARKER in said:
        return "kvm", "a probe guest booted"
    lines = [line.strip() for line in said.splitlines() if line.strip() and "terminating on signal" not in line]
    last = f"its last line: {lines[-1][:100]}" if lines else "it printed nothing"
    return "tcg", f"/dev/kvm is there, but a probe guest did not boot in {SECONDS} s, {last}"
