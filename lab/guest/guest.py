# SPDX-License-Identifier: GPL-2.0
"""A guest: a small Linux in QEMU that tests talk to by shell scripts and QMP, and that can sleep and wake up."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from qemu.qmp import ExecuteError, QMPError

from . import initramfs, machines, trace
from .agent import Answer, Ready
from .bootimage import bootable
from .console import PANIC, Console
from .errors import GuestError, GuestTimeout, KernelFault, QemuDied, ScriptFailed
from .facts import facts
from .logs import log_dir
from .qemu import SWAP_DEVICE, Machine, Qemu
from .shell import Result, Shell

PAGE = 4096
PAGES_PER_MIB = (1 << 20) // PAGE
BALLOON = "virtio-balloon-pci,ioeventfd=off"
Driver = Literal["rust", "c"]

PATIENCE = {"kvm": 1, "tcg": 4}
"""All timeouts are seconds on a quiet machine with KVM; this is how many times as long a guest may take."""

DEBUG = ("debug", "rust-debug")
"""The kernels that look for errors in all they do."""

DEBUG_PATIENCE = 4
"""How many times as long as on others a guest may take on these."""

DEBUG_OPTIONS = ("slab_debug=F",)
"""Of their command lines: without checks the allocator keeps arrays of pointers to objects that it gave away long ago, in which kmemleak
finds what was leaked."""

DEBUG_MEMORY = 2
"""And how many times the memory: KASAN's shadow and quarantine and kmemleak's records take much, and no image may be larger than half."""

WATCHDOG_SECONDS = 10
"""The kernel's own `watchdog_thresh`: twice as long without a task switch is a soft lockup."""


class Guest(Shell):
    """One guest over all its QEMU processes: it has more than one when it hibernates and resumes.

    Use it as a context manager, or call `start()` and `stop()`. It must be started, and resumed, by a thread that outlives it.
    Everything it prints is kept in `logs`.
    """

    def __init__(
        self,
        name: str = "guest",
        *,
        kernel: str = "stock",
        driver: Driver | None = "rust",
        memory_mib: int = 1024,
        cpus: int = 1,
        balloon: bool | str = True,
        root_port: bool = False,
        shared_memory: bool = False,
        firmware: bool = False,
        machine: str | None = None,
        swap_mib: int = 600,
        swap: str = "nvme",
        icount: bool = False,
        root: Path | None = None,
        initrd: Path | None = None,
        modules: Iterable[str] = (),
        rust: Iterable[str] = (),
        files: Mapping[str, bytes | Path] = {},
        kernel_options: Sequence[str] = (),
        qemu_options: Sequence[str] = (),
        allow: Iterable[str] = (),
        logs: Path | None = None,
    ) -> None:
        """Describes the guest; nothing runs yet.

        kernel          name of a kernel in the lab's facts
        driver          whose virtio_balloon.ko is loaded at the end of the boot; None: no balloon driver
        balloon         False: no balloon device; a string: the device as `-device` takes it, without id and bus
        root_port       the balloon sits behind a PCIe root port with native hotplug, else on the root bus
        shared_memory   device models in other processes, over vhost-user or vfio-user, can reach the guest's memory
        firmware        start the kernel through the firmware, as real machines do; slower, but suspend to RAM needs it
        machine         QEMU's machine, as `-machine` takes it, else the usual one of the kernel's architecture; `microvm` has virtio-mmio
                        devices and no swap disk
        swap_mib        size of the swap disk; 0: none, the guest cannot hibernate
        swap            the swap disk's device: `nvme`, or `virtio-blk-pci` with its options
        icount          one guest instruction takes one nanosecond of the guest's clock (TCG, one CPU)
        root            image of a root file system with the agent to boot from a virtio disk, instead of an initramfs; the guest
                        gets a copy of it. The kernel must have all drivers built in that this needs
        initrd          or this initial file system of its own
        modules         further modules to have in the guest; load them with `modprobe`
        rust            further modules to take from our folder instead of the kernel's
        files           path in the guest -> contents, or a file of the build root
        allow           regular expressions for lines of the console that are no faults in this guest
        """
        self.name = name
        self.kernel = facts().kernels[kernel]
        self.driver = driver
        self.memory_mib = memory_mib * (DEBUG_MEMORY if kernel in DEBUG else 1)
        self.allow = list(allow)
        self.logs = logs or log_dir("adhoc", name)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.console = Console(self.logs / "console.log")
        self._cpus = cpus
        self._balloon = balloon if isinstance(balloon, str) else BALLOON if balloon else None
        self._root_port = root_port
        self._shared_memory = shared_memory
        self._firmware = firmware
        self._swap_mib = swap_mib
        self._icount = icount
        self._files = dict(files)
        self._kernel_options = list(kernel_options)
        self._qemu_options = list(qemu_options)
        ours = {"virtio_balloon"} if driver == "rust" else set()
        self._source = initramfs.ModuleSource(self.kernel, facts().out[kernel], frozenset(ours | set(rust)))
        self._machine = machine or machines.USUAL[self.kernel.arch]
        self._kind = machines.kind(self._machine)
        self._root = root
        self._initrd = initrd
        self._swap = swap
        self._swap_device = SWAP_DEVICE if swap.startswith("nvme") else "/dev/vda"
        early = [*self._kind.transports]
        if swap_mib:
            early.append("nvme" if swap.startswith("nvme") else "virtio_blk")
        self._early = [name for name in early if not initramfs.is_builtin(self.kernel, name)]
        self._late = ["virtio_balloon"] if driver else []
        self._modules = [*self._early, *self._late, *modules]
        self._dir: Path | None = None
        self._qemu: Qemu | None = None
        self._processes = 0
        self._requests = 0
        self._pending: tuple[int, str] | None = None

    # Life

    def start(self, target_mib: int | None = None, timeout: float = 120) -> Self:
        """Boots the guest and waits until it can run scripts.

        `target_mib` is the size the host wants the balloon to have from the first moment on.
        Raises GuestTimeout, KernelFault or QemuDied.
        """
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="lab-guest-"))
            if self._swap_mib:
                disk = self._dir / "swap.img"
                with disk.open("wb") as file:
                    file.truncate(self._swap_mib << 20)
                subprocess.run(["mkswap", "-q", disk], check=True)
            if self._root:
                subprocess.run(["cp", "--sparse=always", self._root, self._dir / "root.img"], check=True)
        self._launch(None, target_mib)
        self._wait(lambda message: isinstance(message, Ready), timeout, "did not boot")
        return self

    def stop(self) -> None:
        """Ends the guest at once and removes its disk. Does nothing when it is not running."""
        if self._qemu:
            self._qemu.close()
            self._qemu = None
        if self._dir:
            shutil.rmtree(self._dir)
            self._dir = None

    def finish(self) -> None:
        """Stops the guest and raises KernelFault when its kernel had complained about anything that was not raised before.

        Removes QEMU's trace files, which are large, when there is nothing to complain about. Does nothing after `stop()`.
        """
        if self._dir is None:
            return
        try:
            if self._qemu and self._qemu.process.poll() is None:
                time.sleep(0.05)  # Let the last lines reach the log.
            self.check()
        finally:
            self.stop()
        for path in self.logs.glob("trace.*.log"):
            path.unlink()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self.finish()
        else:
            self.stop()

    @property
    def running(self) -> bool:
        """Whether there is a QEMU process."""
        return self._qemu is not None and self._qemu.process.poll() is None

    def check(self) -> None:
        """Raises KernelFault when the console shows a fault that is not allowed and was not raised before."""
        faults = self.console.new_faults(self.allow)
        if faults:
            raise KernelFault(self._describe("kernel fault: " + faults[0].strip()))

    # Scripts

    def run(self, script: str, timeout: float = 60, check: bool = True) -> Result:
        """Runs a shell script in the guest and returns what it printed.

        Raises ScriptFailed when `check` is set and the status is not 0, GuestTimeout, KernelFault or QemuDied.
        """
        self._send(script)
        result = self._answer(timeout)
        if check and result.status:
            raise ScriptFailed(self._describe(f"script ended with status {result.status}", script, result.out))
        return result

    # The host's side

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Runs a QMP command; raises qemu.qmp.ExecuteError when QEMU refuses it."""
        try:
            return self.qemu.monitor.execute(command, **arguments)
        except ExecuteError:
            raise
        except (QMPError, EOFError, OSError) as error:
            raise self._died() from error

    @property
    def qemu(self) -> Qemu:
        """The present QEMU process. Raises GuestError when there is none."""
        if self._qemu is None:
            raise GuestError(self._describe("the guest is not running"))
        return self._qemu

    def set_target(self, mib: float) -> None:
        """Asks for a balloon of this size."""
        self.qmp("balloon", value=(self.memory_mib << 20) - int(mib * PAGES_PER_MIB) * PAGE)

    def actual(self) -> int:
        """The size of the balloon as the driver told the host, in pages of 4 KiB."""
        return ((self.memory_mib << 20) - self.qmp("query-balloon")["actual"]) // PAGE

    def wait_actual(self, pages: int, timeout: float = 60) -> None:
        """Waits until `actual` is `pages`. Raises GuestTimeout."""
        self.wait_for(lambda: self.actual() == pages, timeout, lambda: f"actual is {self.actual()} pages instead of {pages}")

    def inflate(self, mib: float, timeout: float = 60) -> None:
        """Sets the target and waits until the balloon has reached it."""
        self.set_target(mib)
        self.wait_actual(int(mib * PAGES_PER_MIB), timeout)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60, what: Callable[[], str] | str = "condition not met") -> None:
        """Polls `condition` until it holds. Raises GuestTimeout with `what`, KernelFault when the kernel complains meanwhile."""
        limit = timeout * self._patience()
        end = time.monotonic() + limit
        while not condition():
            self.check()
            if time.monotonic() > end:
                text = what if isinstance(what, str) else what()
                raise GuestTimeout(self._describe(f"{text} after {limit} s"))
            time.sleep(0.05)

    def mark(self) -> trace.Mark:
        """Remembers this moment for `traffic()`."""
        path = self._trace_path(self._processes - 1)
        actual = self.actual() if self.running else 0
        return trace.Mark(self._processes - 1, path.stat().st_size, time.time(), actual)

    def traffic(self, since: trace.Mark | None = None, until: trace.Mark | None = None) -> trace.Traffic:
        """What the host saw of the balloon between two moments: since the first boot, until now, when left out."""
        traffic = trace.Traffic(actual=[(since.time, since.actual)] if since else [])
        since = since or trace.Mark(0, 0, 0.0, 0)
        last = until.process if until else self._processes - 1
        for number in range(since.process, last + 1):
            start = since.offset if number == since.process else 0
            end = until.offset if until and number == last else None
            trace.read(self._trace_path(number), start, end, traffic)
        return traffic

    # Other kernels, or none

    def restart(self, script: str, timeout: float = 120) -> None:
        """Runs a script that makes another kernel begin in the same QEMU process, and waits until that one can run scripts.

        Raises ScriptFailed when the script ends instead; else as `run()`.
        """
        self._send(script)
        number = self._requests
        message = self._wait(
            lambda message: isinstance(message, Ready) or (isinstance(message, Answer) and message.number == number), timeout, "did not boot", script,
        )
        self._pending = None
        self.check()
        if isinstance(message, Answer):
            raise ScriptFailed(self._describe(f"script ended with status {message.status} instead of the kernel", script, message.output))

    def power_off(self, timeout: float = 60) -> None:
        """Switches the guest off as a shutdown does in the end, whatever runs in it. Raises as `run()`."""
        self._send("poweroff -f; sleep 1000")
        self._sleep(timeout)
        self._pending = None

    # Sleep

    def hibernate(self, mode: str | None = None, timeout: float = 120) -> Result | None:
        """Suspends to disk: writes `mode`, else how the machine goes off, to /sys/power/disk and `disk` to /sys/power/state.

        Returns None when the image is saved and the guest is off (or, mode `suspend`, asleep): go on with `resume()` (`wake()`).
        Returns the Result of the script when the guest runs on: status not 0 for a hibernation that failed; 0 in the modes
        `reboot` and `test_resume`, whose guest has resumed by itself, and with `pm_test`.
        """
        self.begin_hibernation(mode)
        return self.end_hibernation(timeout)

    def begin_hibernation(self, mode: str | None = None) -> None:
        """The first half of `hibernate()`: does not wait. Nothing but `end_hibernation()` may be asked of the guest's agent then."""
        if mode == "suspend":
            self._need_firmware()
        self._send(f"echo {mode or self._kind.power_off} >/sys/power/disk && echo disk >/sys/power/state")

    def end_hibernation(self, timeout: float = 120) -> Result | None:
        """The second half of `hibernate()`, which returns what that does."""
        return self._sleep(timeout)

    def suspend(self, mode: str = "deep", timeout: float = 60) -> Result | None:
        """Suspends to RAM (`deep`). Returns None when the guest sleeps (go on with `wake()`), else the Result of the script.

        With mode `s2idle` the caller must arrange for the wakeup; the Result comes after it.
        """
        if mode == "deep":
            self._need_firmware()
        self._send(f"echo {mode} >/sys/power/mem_sleep && echo mem >/sys/power/state")
        return self._sleep(timeout)

    def wake(self, timeout: float = 60) -> Result:
        """Wakes a guest that is suspended to RAM and returns the Result of the script that had put it to sleep.

        QEMU's firmware leaves the guest unable to power off by ACPI afterwards, so it can hibernate no more but in the modes `reboot`,
        `suspend` and `test_resume`.
        """
        self.qmp("system_wakeup")
        return self._answer(timeout)

    def resume(
        self, target_mib: float | None = None, pre_resume: str | None = None, fresh_ok: bool = False, balloon: bool = True, timeout: float = 120,
    ) -> Result | None:
        """Starts a new QEMU process on the swap disk and lets the kernel in it resume from the image.

        target_mib   the size the host wants the balloon to have from the first moment on
        pre_resume   a shell script that the booting kernel's init runs before it resumes (`modprobe virtio_balloon` …)
        fresh_ok     the guest may boot afresh, without an error; then None is returned
        balloon      False: the new QEMU process has no balloon device, whatever the guest had when it went to sleep

        Returns the Result of the script that had put the guest to sleep.
        """
        if self._pending is None:
            raise GuestError(self._describe("the guest does not sleep"))
        if not balloon:
            self._balloon = None
        self._launch(pre_resume, target_mib)
        number = self._pending[0]
        message = self._wait(
            lambda message: isinstance(message, Ready) or (isinstance(message, Answer) and message.number == number),
            timeout, "did not resume",
        )
        self._pending = None
        if isinstance(message, Ready):
            if not fresh_ok:
                raise GuestError(self._describe("the guest booted afresh instead of resuming"))
            return None
        return Result(message.output, message.status)

    # Parts

    def _patience(self) -> int:
        return PATIENCE[facts().accel] * (DEBUG_PATIENCE if self.kernel.name in DEBUG else 1)

    def _launch(self, pre_resume: str | None, target_mib: float | None) -> None:
        if self._dir is None or self.running:
            raise GuestError(self._describe("the guest runs already, or was stopped"))
        if self._qemu:
            self._qemu.close()
        initrd = self._initrd if self._root else self._make_initrd(pre_resume)
        # An emulated guest may get no CPU for half a minute on a busy machine, which is no lockup of its own; the most is 60.
        watchdog = min(60, WATCHDOG_SECONDS * self._patience())
        options = [*self._kind.options, f"console={self._kind.tty}0,115200", f"watchdog_thresh={watchdog}"]
        options += [*(DEBUG_OPTIONS if self.kernel.name in DEBUG else ()), *self._kernel_options]
        options += [f"lab.agent={self._kind.tty}1", f"lab.load={','.join(self._early)}", f"lab.late={','.join(self._late)}"]
        options += [f"lab.swap={self._swap_device}"] if self._swap_mib else []
        if self._root:
            # Disks are found in the order of their places on the bus, and that of the swap disk is before this one's.
            disk = "/dev/vdb" if self._swap_mib and self._swap_device == "/dev/vda" else "/dev/vda"
            options += [f"root={disk}", "rw", *([f"resume={self._swap_device}"] if self._swap_mib else [])]
        machine = Machine(
            name=self._machine, accel=facts().accel, icount=self._icount, memory_mib=self.memory_mib, cpus=self._cpus,
            kernel=self.kernel.image if self._firmware else bootable(self.kernel.image), initrd=initrd, append=" ".join(options), swap_disk=self._dir / "swap.img" if self._swap_mib else None,
            root_disk=self._dir / "root.img" if self._root else None,
            swap=self._swap, balloon=self._balloon, root_port=self._root_port, shared_memory=self._shared_memory, extra=self._qemu_options,
        )
        try:
            self._qemu = Qemu(machine, self.logs, self._processes)
        except ChildProcessError as error:
            raise QemuDied(self._describe(str(error))) from error
        self._processes += 1
        if target_mib is not None:
            self.set_target(target_mib)

    def _make_initrd(self, pre_resume: str | None) -> Path:
        files = {path: data if isinstance(data, bytes) else data.read_bytes() for path, data in self._files.items()}
        if pre_resume is not None:
            files["/lab/pre-resume"] = pre_resume.encode()
        assert self._dir
        initrd = self._dir / "initrd.cpio"
        initrd.write_bytes(initramfs.build(self._source, self._modules, files))
        return initrd

    def _trace_path(self, number: int) -> Path:
        return self.logs / f"trace.{number}.log"

    def _send(self, script: str) -> None:
        if self._pending:
            state = "is busy with another script" if self.running else "sleeps, resume it first"
            raise GuestError(self._describe(f"the guest {state}", self._pending[1]))
        try:
            self.qemu.agent.send(self._requests + 1, script)
        except OSError as error:
            raise self._died(script) from error
        self._requests += 1
        self._pending = (self._requests, script)

    def _answer(self, timeout: float) -> Result:
        """Waits for the answer to the script that was sent last."""
        if self._pending is None:
            raise GuestError(self._describe("no script was sent"))
        number, script = self._pending
        message = self._wait(lambda message: isinstance(message, Answer) and message.number == number, timeout, "did not answer", script)
        self._pending = None
        assert isinstance(message, Answer)
        self.check()
        return Result(message.output, message.status)

    def _sleep(self, timeout: float) -> Result | None:
        """Waits until the guest is off or asleep (None) or has answered the script that was to put it to sleep."""
        assert self._pending
        number, script = self._pending
        message = self._wait(
            lambda message: isinstance(message, Answer) and message.number == number, timeout, "did not go to sleep", script,
            suspensions=len(self.qemu.monitor.events("SUSPEND")),
        )
        if message is None:
            self.check()
            return None
        assert isinstance(message, Answer)
        self._pending = None
        self.check()
        return Result(message.output, message.status)

    def _wait(
        self, accept: Callable[[Ready | Answer], bool], timeout: float, what: str, script: str = "", suspensions: int | None = None,
    ) -> Ready | Answer | None:
        """Waits for a message from the agent. With `suspensions`, the number of times QEMU was suspended to RAM so far, the guest may
        also power off, or be suspended once more: then None."""
        limit = timeout * self._patience()
        end = time.monotonic() + limit
        while True:
            try:
                message = self.qemu.agent.receive(0.1)
            except EOFError:
                if self.qemu.process.wait(30) == 0 and suspensions is not None:
                    return None
                raise self._died(script) from None
            if message and accept(message):
                return message
            if isinstance(message, Ready):
                raise GuestError(self._describe("the guest rebooted", script))
            if suspensions is not None and len(self.qemu.monitor.events("SUSPEND")) > suspensions:
                return None
            if time.monotonic() > end:
                self._give_up(f"{what} within {limit} s", script)
            if message is None and PANIC.search(self.console.tail()):
                self.check()

    def _need_firmware(self) -> None:
        # On wakeup QEMU loads a kernel that has no firmware to its memory afresh, over the one that sleeps there.
        if not self._firmware:
            raise ValueError("a guest that is to be suspended to RAM needs firmware=True")

    def _give_up(self, problem: str, script: str) -> NoReturn:
        self.check()
        described = self._describe(problem, script)
        try:
            self.qemu.show_blocked_tasks()
        except (QMPError, EOFError, OSError):
            pass  # It could have helped; the timeout is the error to report.
        raise GuestTimeout(described)

    def _died(self, script: str = "") -> QemuDied:
        status = self.qemu.process.wait(30)
        return QemuDied(self._describe(f"QEMU ended with status {status}: {self.qemu.errors()}", script))

    def _describe(self, problem: str, script: str = "", output: str = "") -> str:
        parts = [f"guest {self.name} ({self.kernel.name}, driver {self.driver}): {problem}"]
        if script:
            parts.append("--- script\n" + script.strip())
        if output:
            parts.append("--- output\n" + output.strip())
        parts.append("--- end of the console\n" + self.console.tail())
        parts.append(f"--- logs\n{self.logs / 'console.log'}\n{self.logs / 'qmp.log'}")
        return "\n".join(parts)
