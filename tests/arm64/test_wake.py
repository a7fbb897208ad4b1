# SPDX-License-Identifier: GPL-2.0
"""Devices that wake the machine. Only a device tree says which ones do, so that this needs a machine that has one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lab.guest import WITH_MMIO, Guest, facts
from lab.guest.machines import kind
from test_ring import KERNEL

MACHINE = WITH_MMIO[facts().kernels[KERNEL].arch]["tree"]

BALLOON, DISK = 5, 9
"""Places on the bus: of a balloon, which wakes the machine, and of a disk, which does not."""

ASLEEP = "PM: suspend-to-idle"
AWAKE = "PM: suspend exit"


def address(place: int) -> str:
    """Where the registers of a device are, as in the device tree and in sysfs."""
    return f"{0x0A00_0000 + place * 0x200:x}"


def device_tree(folder: Path) -> Path:
    """The machine's own device tree, but that it calls the balloon a `wakeup-source`."""
    tree = folder / "tree.dtb"
    machine = ["-machine", f"{MACHINE},dumpdtb={tree}", "-cpu", kind(MACHINE).cpu]
    # The second serial port is there only if it is asked for.
    subprocess.run([kind(MACHINE).emulator, "-nodefaults", "-display", "none", *machine, "-serial", "null", "-serial", "null"], check=True)
    subprocess.run(["fdtput", tree, f"/virtio_mmio@{address(BALLOON)}", "wakeup-source"], check=True)
    return tree


def interrupt(guest: Guest, place: int) -> str:
    """The number of a device's interrupt, which has the device's name."""
    path = f"/sys/bus/platform/devices/{address(place)}.virtio_mmio"
    return guest.run(f"grep -w $(basename {path}/virtio*) /proc/interrupts").out.split(":")[0].strip()


def test_wakeup_source(guests: Callable[..., Guest], tmp_path: Path) -> None:
    """If this fails a `wakeup-source` of the device tree does not wake the machine when it interrupts, or another device does."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    guest = guests(
        kernel=KERNEL, machine=MACHINE, driver=None, swap_mib=0, memory_mib=256, modules=["virtio_mmio", "virtio_probe"], rust={"virtio_mmio"},
        balloon=f"virtio-balloon-device,bus=virtio-mmio-bus.{BALLOON}",
        qemu_options=[
            "-dtb", str(device_tree(tmp_path)), "-global", "virtio-mmio.force-legacy=off",
            "-blockdev", f"driver=raw,node-name=disk,file.driver=file,file.filename={disk}",
            "-device", f"virtio-blk-device,drive=disk,bus=virtio-mmio-bus.{DISK}",
        ],
    ).start()
    guest.run("modprobe virtio_probe")
    source, other = interrupt(guest, BALLOON), interrupt(guest, DISK)
    guest.run("dmesg -n 8; echo 1 >/sys/power/pm_debug_messages; (sleep 1; echo freeze >/sys/power/state) >/dev/null 2>&1 &")
    guest.wait_for(lambda: ASLEEP in guest.console.text(), timeout=10, what="it did not fall asleep")

    guest.qmp("block_resize", node_name="disk", size=2 << 20)
    time.sleep(3)
    assert AWAKE not in guest.console.text(), "a device that is no wakeup-source woke it"
    guest.set_target(16)
    guest.wait_for(lambda: AWAKE in guest.console.text(), timeout=10, what="it does not wake up")
    woke = guest.run("cat /sys/power/pm_wakeup_irq").out.strip()
    assert (woke, source != other) == (source, True), f"woken by {woke}, the source is {source}"
