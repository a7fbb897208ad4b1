# SPDX-License-Identifier: GPL-2.0
"""The harness itself: guests boot, run scripts, sleep, and whatever goes wrong is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import intree_kernel, kernels
from lab.guest import PAGES_PER_MIB, Guest, GuestError, KernelFault, QemuDied, ScriptFailed
from lab.guest.console import Console
from lab.guest.guest import DEBUG
from lab.guest.logs import ROOT

Factory = Callable[..., Guest]

pytestmark = pytest.mark.everyday("kernel", {"stock": []})
"""What the lab does depends little on the kernel."""


def test_run(guests: Factory, kernel: str) -> None:
    guest = guests(kernel=kernel, driver=None, balloon=False, swap_mib=0, files={"/data/x": b"from a file\n"}).start()
    assert guest.run("echo out; echo err >&2").out == "out\nerr\n"
    assert guest.run("exit 3", check=False).status == 3
    assert guest.run("seq 20000 | tail -n 1; seq 20000").out.count("\n") == 20001
    assert guest.read("/data/x") == "from a file"
    assert guest.read("/proc/sys/kernel/osrelease") == guest.kernel.release
    assert guest.meminfo()["MemTotal"] > 900 << 10
    with pytest.raises(ScriptFailed) as failure:
        guest.run("echo why; false")
    for part in ("status 1", "echo why; false", "--- output\nwhy", "console.log", "qmp.log"):
        assert part in str(failure.value)


def test_kernel_faults_are_noticed(guests: Factory, kernel: str) -> None:
    guest = guests(kernel=kernel, driver=None, balloon=False, swap_mib=0, allow=["WARNING: known"]).start()
    guest.run("echo '<4>WARNING: known' >/dev/kmsg")
    guest.check()
    with pytest.raises(KernelFault, match="INFO: task x blocked for more than 60 seconds"):
        guest.run("echo '<3>INFO: task x blocked for more than 60 seconds' >/dev/kmsg; sleep 0.2")
    begin = time.monotonic()
    with pytest.raises(KernelFault):
        guest.run("echo c >/proc/sysrq-trigger")
    assert time.monotonic() - begin < 30, "a panic should be noticed at once"
    assert "sysrq triggered crash" in guest.console.text()
    guest.stop()


def test_hibernation_without_balloon(guests: Factory, kernel: str) -> None:
    guest = guests(kernel=kernel, driver=None, balloon=False).start()
    boot_id = guest.read("/proc/sys/kernel/random/boot_id")
    guest.run("echo kept >/tmp/file")
    assert guest.hibernate() is None
    assert not guest.running
    with pytest.raises(GuestError):
        guest.run("true")
    assert guest.resume().status == 0
    assert guest.read("/tmp/file") == "kept"
    assert guest.read("/proc/sys/kernel/random/boot_id") == boot_id
    guest.run("swapoff -a")
    failed = guest.hibernate()
    assert failed is not None and failed.status != 0
    assert guest.read("/tmp/file") == "kept"


def test_traffic(guests: Factory, kernel: str) -> None:
    guest = guests(kernel=kernel, driver="c").start()
    pages = 64 * PAGES_PER_MIB
    begin = guest.mark()
    guest.inflate(64)
    middle = guest.mark()
    guest.inflate(16)
    up, down = guest.traffic(begin, middle), guest.traffic(middle)
    assert (up.inflated, up.deflated, up.actual_min, up.actual_max, up.resets) == (pages, 0, 0, pages, 0)
    assert (down.inflated, down.deflated, down.actual_min, down.actual_max) == (0, pages * 3 // 4, pages // 4, pages)
    assert up.notifications[0] > 0 and up.notifications[1] == 0 and down.notifications[1] > 0
    assert [value for _, value in up.actual] == sorted(value for _, value in up.actual)
    assert guest.traffic().inflated == pages
    guest.run("rmmod virtio_balloon")
    last = guest.traffic(middle)
    assert last.deflated == pages and last.actual[-1][1] == 0 and last.resets == 1


def test_death_of_qemu_is_noticed(guests: Factory, kernel: str) -> None:
    guest = guests(kernel=kernel, driver=None, balloon=False, swap_mib=0).start()
    os.kill(guest.qemu.process.pid, signal.SIGTERM)
    with pytest.raises(QemuDied, match="terminating on signal 15"):
        guest.run("true")
    with pytest.raises(QemuDied, match="no-such-device"):
        guests("broken", kernel=kernel, driver=None, balloon="no-such-device").start()


def test_guests_end_with_the_test_process(kernel: str, tmp_path: Path) -> None:
    program = (
        "import time; from pathlib import Path; from lab.guest import Guest\n"
        f"g = Guest(kernel={kernel!r}, driver=None, balloon=False, swap_mib=0, logs=Path({str(tmp_path)!r})).start()\n"
        "print(g.qemu.process.pid, flush=True); time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        owner.kill()
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}/exe").exists(), "QEMU outlived the process that had started it"


def test_debug_kernels() -> None:
    """If this fails guests on a kernel with detectors have no more time or memory than others, and tests fail for that."""
    recipes = {**kernels.RECIPES, **intree_kernel.VARIANTS}
    assert {name for name, recipe in recipes.items() if "debug.config" in recipe.fragments} == set(DEBUG)


CYCLE = """WARNING: possible circular locking dependency detected
pciehp/1 is trying to acquire lock:
ffff8880 ({}){{.+.+}}-{{4:4}}, at: one+0x1/0x2
but task is already holding lock:
ffffffff (pci_rescan_remove_lock){{+.+.}}-{{4:4}}, at: two+0x1/0x2
which lock already depends on the new lock.
"""


def test_known_lock_cycle(tmp_path: Path) -> None:
    """If this fails a deadlock of ours hides behind one of pciehp's, or every unplugging on the kernel `debug` fails."""
    console = Console(tmp_path / "console.log")
    with console.path.open("a") as log:
        log.write(CYCLE.format("&ctrl->reset_lock"))
        log.flush()
        assert console.new_faults([]) == []
        ours = CYCLE.format("&balloon->lock").splitlines(keepends=True)
        log.write("".join(ours[:3]))
        log.flush()
        assert console.new_faults([]) == []
        log.write("".join(ours[3:]))
        log.flush()
        assert console.new_faults([]) == [ours[0].rstrip()]
        log.write("BUG: after it\n")
        log.flush()
        assert console.new_faults([]) == ["BUG: after it"]
