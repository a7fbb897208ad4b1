# SPDX-License-Identifier: GPL-2.0
"""The kernel's own virtio drivers on devices behind virtio-mmio: modern and legacy, of the module's parameter, of ACPI or of a device tree,
and that parameter.

Each test runs with our modules, devices are used with our transport on rings and core of either kind, and in `make test-long` with every
mixture of ours and C's below the drivers, C's alone being the control.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.guest import WITH_MMIO, Guest, facts
from test_ring import KERNEL, MODULES, PROGRAMS, Devices, Ring, use_balloon

Factory = Callable[..., Guest]

MACHINES = WITH_MMIO[facts().kernels[KERNEL].arch]
"""QEMU's machine, by what tells the kernel of its devices."""

UNCALIBRATED = ["tsc_early_khz=2000000"] if facts().accel == "tcg" else []
"""With ACPI `microvm` has no clock of a known frequency under TCG; Linux needs one to find out how fast its timers run, or waits for ever."""

BELOW = ("virtio_mmio", "virtio_ring", "virtio")
"""The modules below the drivers: transport, rings, core."""

MIXTURES = [frozenset(ours) for count in range(len(BELOW), -1, -1) for ours in itertools.combinations(BELOW, count)]
"""Which of them are ours."""

EVERYDAY = {
    (frozenset({"virtio_mmio"}), "parameter", False),
    (frozenset({"virtio_mmio", "virtio_ring"}), "parameter", True),
    (frozenset({"virtio_mmio", "virtio"}), "acpi", False),
}
"""Mixtures that are not left to `make test-long`, with `how` and `legacy`."""


def mixture_id(ours: frozenset[str]) -> str:
    """What a mixture is called in the names of tests."""
    return "-".join(name for name in BELOW if name in ours) or "c"


LAYERS = [pytest.param(ours, id=mixture_id(ours), marks=() if len(ours) == len(BELOW) else pytest.mark.long) for ours in MIXTURES]

WAYS = [
    pytest.param(
        ours, how, legacy, id=f"{mixture_id(ours)}-{how}-{'legacy' if legacy else 'modern'}",
        marks=() if (ours, how, legacy) in EVERYDAY or (len(ours) == len(BELOW) and not (how == "acpi" and legacy)) else pytest.mark.long,
    )
    for ours in MIXTURES for how in MACHINES for legacy in (False, True)
]
"""Mixtures, who tells the kernel of the devices, and which ones they are."""

PLACES = {"parameter": "/virtio-mmio-cmdline/", "acpi": "/LNRO0005:", "tree": ".virtio_mmio/"}
"""What the path of a device in sysfs shows of that."""

MODERN = [Ring(), Ring(packed=True), Ring(event_idx=False, iommu_platform=True), Ring(packed=True, indirect_desc=False)]
LEGACY = [Ring(event_idx=event_idx, indirect_desc=indirect) for event_idx, indirect in itertools.product((True, False), repeat=2)]


def boot(guests: Factory, ours: frozenset[str], how: str, legacy: bool, **options: object) -> Guest:
    """A started guest with MMIO devices only."""
    extra = options.pop("qemu_options", [])
    settings = {
        "kernel": KERNEL, "machine": MACHINES[how], "swap_mib": 0, "memory_mib": 512, "modules": MODULES, "files": PROGRAMS, "balloon": "virtio-balloon-device",
        "kernel_options": UNCALIBRATED if how == "acpi" else [],
        "qemu_options": ["-global", f"virtio-mmio.force-legacy={'on' if legacy else 'off'}", *extra],
    }
    return guests(rust=ours, **{**settings, **options}).start()


@pytest.mark.parametrize(("ours", "how", "legacy"), WAYS)
def test_devices(guests: Factory, ours: frozenset[str], how: str, legacy: bool, tmp_path: Path) -> None:
    """If this fails a disk, network interface, serial port, random number generator or balloon does not work, or not after its driver came back."""
    rings = LEGACY if legacy else MODERN
    devices = Devices(tmp_path, "device")
    devices.disks(rings[:2])
    devices.nets(rings[2:])
    devices.serials(rings[:2])
    devices.rngs(rings[3:])
    guest = boot(guests, ours, how, legacy, qemu_options=devices.options)
    places = guest.run("for device in /sys/bus/virtio/devices/*; do readlink -f $device; done").out.splitlines()
    assert len(places) == 8 and all(PLACES[how] in place for place in places), places
    devices.check(guest)
    use_balloon(guest)
    guest.run("modprobe -r virtio_blk virtio_net virtio_balloon; rmmod virtio_mmio; modprobe virtio_mmio; modprobe virtio_blk")
    assert guest.run("ls /sys/block").out.split() == ["vda", "vdb"]


@pytest.mark.parametrize("mode", ["devices", pytest.param("test_resume", marks=pytest.mark.long)])
@pytest.mark.parametrize("legacy", [pytest.param(False, id="modern"), pytest.param(True, id="legacy", marks=pytest.mark.long)])
@pytest.mark.parametrize("ours", LAYERS)
def test_sleep(guests: Factory, ours: frozenset[str], legacy: bool, mode: str, tmp_path: Path) -> None:
    """If this fails a guest on such a machine cannot hibernate, or its devices do not work afterwards. `devices` only tries them."""
    disk = tmp_path / "swap"
    with disk.open("wb") as file:
        file.truncate(600 << 20)
    options = ["-drive", f"if=none,id=swap,file={disk},format=raw,cache=unsafe", "-device", "virtio-blk-device,drive=swap"]
    guest = boot(guests, ours, next(iter(MACHINES)), legacy, qemu_options=options)
    guest.run("modprobe virtio_blk; mkswap /dev/vda; swapon /dev/vda; echo /dev/vda >/sys/power/resume; head -c 8m /dev/urandom >/tmp/file")
    before = guest.run("sha256sum /tmp/file").out
    guest.inflate(64)
    if mode == "devices":
        guest.run("echo devices >/sys/power/pm_test")
    result = guest.hibernate("test_resume" if mode == "test_resume" else "shutdown")
    assert result is not None and result.status == 0, result
    assert guest.run("sha256sum /tmp/file").out == before
    guest.inflate(0)
    assert guest.run("swapoff /dev/vda; dd if=/dev/vda of=/dev/null bs=1M count=16 2>&1; dmesg").out.count("I/O error") == 0


DEVICES = ("0x200@0xfe200000:5", "1K@0xfe201000:6:10", "512@4263518208:7", "010000@0xfe210000:5:-1")
"""Values of the parameter, with sizes and addresses in all notations; nothing is at the addresses."""

MISTAKES = {
    "": "the size is not a number", "0x200": "there is no @<base> behind the size", "0@0xfe200000:5": "the size is 0",
    "0x200@x:5": "the base address is not a number", "2@0xffffffffffffffff:5": "the device ends beyond the last address",
    "0x200@0xfe200000": "there is no :<irq> behind the base address", "0x200@0xfe200000:": "the interrupt is not a decimal number",
    "0x200@0xfe200000:0": "the interrupt is 0", "0x200@0xfe200000:5:x": "the id is not a decimal number",
    "0x200@0xfe200000:5x": "something is behind the last number",
}


def module_files() -> dict[str, Path]:
    """Our module and C's, to be in one guest."""
    kernel = facts().kernels[KERNEL]
    (theirs,) = kernel.modules_dir.rglob("virtio_mmio.ko")
    return {"/rust.ko": facts().out[KERNEL] / "virtio_mmio.ko", "/c.ko": theirs}


def test_parameter(guests: Factory) -> None:
    """If this fails `device=` makes other devices than C's module would, shows them otherwise in sysfs, or does not say what is wrong with a value."""
    guest = guests(
        kernel=KERNEL, driver=None, balloon=False, swap_mib=0, memory_mib=256, modules=["virtio"], rust={"virtio", "virtio_ring"}, files=module_files(),
    ).start()
    guest.run("modprobe virtio")
    seen = {}
    for module in ("c", "rust"):
        guest.run(f"dmesg -c >/dev/null; insmod /{module}.ko " + " ".join(f"device={value}" for value in DEVICES))
        seen[module] = [
            guest.run("od -c /sys/module/virtio_mmio/parameters/device; ls -l /sys/module/virtio_mmio/parameters").out,
            guest.run("ls /sys/devices/virtio-mmio-cmdline /sys/bus/platform/drivers/virtio-mmio; grep virtio /proc/iomem", check=False).out,
            guest.run("dmesg | grep virtio").out.replace("virtio-mmio: R", "virtio_mmio: R"),
        ]
        guest.run("rmmod virtio_mmio; test ! -e /sys/devices/virtio-mmio-cmdline")
    assert seen["rust"] == seen["c"]
    assert seen["c"][2].count("Wrong magic value") == len(DEVICES)
    for value, mistake in MISTAKES.items():
        guest.run(f"dmesg -c >/dev/null; ! insmod /rust.ko device={DEVICES[0]} device={value} 2>/dev/null")
        # insmod tries it in two ways.
        lines = {line for line in guest.said("virtio_mmio: ") if "Registering" not in line and "invalid for parameter" not in line}
        assert lines == {f"virtio_mmio: device={value}: {mistake}"}, value
        guest.run("test ! -e /sys/devices/virtio-mmio-cmdline")
    aliases = {name: sorted(re.findall(rb"alias=([^\0]+)", path.read_bytes())) for name, path in module_files().items()}
    assert aliases["/rust.ko"] == aliases["/c.ko"] != []
