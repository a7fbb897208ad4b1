# SPDX-License-Identifier: GPL-2.0
"""Starts QEMU processes: the machine every guest has, and the sockets to it.

The sockets are pairs handed down to QEMU, so nothing in the file system or network can collide, and QEMU ends together with the
thread that started it, however that ends.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .agent import Agent
from .machines import Kind, kind
from .monitor import Monitor
from .trace import EVENTS

BALLOON_ID = "balloon0"
SWAP_DEVICE = "/dev/nvme0n1"
ROOT_PORT = "port0"


@dataclass(frozen=True)
class Machine:
    """What a QEMU process is made of; sizes in MiB."""

    name: str
    """As `-machine` takes it, with its options."""
    accel: str
    icount: bool
    memory_mib: int
    cpus: int
    kernel: Path
    initrd: Path | None
    append: str
    swap_disk: Path | None
    swap: str
    """The swap disk's device, as `-device` takes it, without drive and serial."""
    root_disk: Path | None
    """A root file system, on a virtio disk behind the swap disk."""
    balloon: str | None
    """The balloon's device, as `-device` takes it, without id and bus."""
    root_port: bool
    """Put the balloon behind a PCIe root port with native hotplug."""
    shared_memory: bool
    """Make the memory a file that QEMU passes on to processes that are devices."""
    extra: Sequence[str]

    @property
    def kind(self) -> Kind:
        """The kind of machine it is."""
        return kind(self.name)

    def arguments(self) -> list[str]:
        """QEMU's arguments, without sockets and logs."""
        accel = "tcg,thread=single" if self.icount else {"tcg": "tcg,thread=multi"}.get(self.accel, self.accel)
        cpu = self.kind.counted_cpu if self.icount else {"kvm": "host"}.get(self.accel, self.kind.cpu)
        arguments = [
            "-no-user-config", "-nodefaults", "-display", "none", "-machine", self.name, "-accel", accel, "-cpu", cpu,
            "-m", f"{self.memory_mib}M", "-smp", str(self.cpus),
            "-kernel", str(self.kernel), *(["-initrd", str(self.initrd)] if self.initrd else []), "-append", self.append,
        ]
        if self.icount:
            arguments += ["-icount", "shift=0,sleep=on"]
        if self.shared_memory:
            arguments += ["-object", f"memory-backend-memfd,id=ram,size={self.memory_mib}M,share=on", "-machine", "memory-backend=ram"]
        if self.swap_disk:
            arguments += [
                "-drive", f"if=none,id=swap,file={self.swap_disk},format=raw,cache=unsafe", "-device", f"{self.swap},drive=swap,serial=swap",
            ]
        if self.root_disk:
            arguments += [
                "-drive", f"if=none,id=root,file={self.root_disk},format=raw,cache=unsafe",
                "-device", "virtio-blk-pci,disable-legacy=on,drive=root,serial=root",
            ]
        if self.root_port:
            arguments += [*self.kind.native_hotplug, "-device", f"pcie-root-port,id={ROOT_PORT},chassis=1,slot=1"]
        if self.balloon:
            bus = f",bus={ROOT_PORT}" if self.root_port else ""
            arguments += ["-device", f"{self.balloon},id={BALLOON_ID}{bus}"]
        return arguments + list(self.extra)


class Qemu:
    """One running QEMU process with its two connections."""

    def __init__(self, machine: Machine, logs: Path, number: int) -> None:
        """Starts QEMU. `number` counts the guest's QEMU processes and tells their logs apart.

        Raises OSError when QEMU cannot be started, ChildProcessError when it ends at once.
        """
        self.trace = logs / f"trace.{number}.log"
        self.trace.touch()
        self._errors = logs / f"qemu.{number}.log"
        pairs = {name: socket.socketpair() for name in ("agent", "qmp")}
        arguments = [machine.kind.emulator, *machine.arguments(), "-run-with", "exit-with-parent=on"]
        arguments += ["-chardev", f"file,id=console,path={logs / 'console.log'},append=on"]
        for name, (_, theirs) in pairs.items():
            arguments += ["-chardev", f"socket,id={name},fd={theirs.fileno()}"]
        arguments += [*machine.kind.serial_ports, "-object", "monitor-qmp,id=monitor,chardev=qmp"]
        arguments += ["-msg", "timestamp=on", "-D", str(self.trace)]
        for event in EVENTS:
            arguments += ["-trace", f"enable={event}"]
        with self._errors.open("w") as errors:
            print(*arguments, file=errors, flush=True)
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                pass_fds=[theirs.fileno() for _, theirs in pairs.values()],
            )
        for _, theirs in pairs.values():
            theirs.close()
        self.agent = Agent(pairs["agent"][0])
        try:
            self.monitor = Monitor(pairs["qmp"][0], logs / "qmp.log", f"qemu{number}")
        except BaseException as error:
            self.process.kill()
            self.process.wait()
            raise ChildProcessError(f"QEMU did not start: {self.errors()}") from error

    def errors(self) -> str:
        """What QEMU printed, without the first line, which is its command line."""
        return self._errors.read_text(errors="replace").partition("\n")[2].strip()

    def show_blocked_tasks(self) -> None:
        """Asks the guest's kernel, by keyboard, to print its blocked tasks and CPU states to the console. Needs a PS/2 keyboard driver."""
        for key in ("w", "l"):
            self.monitor.execute("send-key", keys=[{"type": "qcode", "data": name} for name in ("alt", "sysrq", key)])
        time.sleep(1)

    def close(self) -> None:
        """Ends the process, if it still runs, and the connections."""
        self.process.kill()
        self.process.wait()
        self.monitor.close()
        self.agent.close()
