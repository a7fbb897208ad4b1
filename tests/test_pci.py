# SPDX-License-Identifier: GPL-2.0
"""The kernel's own virtio drivers on devices of QEMU behind PCI: by the modern and by the legacy interface, with MSI-X and without.

Each test runs with our modules; in `make test-long` also with C's, the control, and with C's rings and core below our transport.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab.guest import Guest, facts
from test_ring import MODULES, PROGRAMS, Devices, Ring, use_balloon

Factory = Callable[..., Guest]

KERNEL = list(facts().kernels)[-1]
"""`full`, or `debug` in `make test-debug`: Debian's kernel has virtio on PCI built in."""

ALL_OURS = frozenset({"virtio_pci", "virtio", "virtio_ring"})
LAYERS = [
    pytest.param(ALL_OURS, id="rust"),
    *(pytest.param(frozenset(ours), id=name, marks=pytest.mark.long) for name, ours in {"rust-pci": {"virtio_pci"}, "c": set()}.items()),
]
"""Which modules are ours."""

MATRIX = [
    pytest.param(ours, id="-".join(sorted(ours)) or "c", marks=[] if "virtio_pci" in ours and ours != ALL_OURS else pytest.mark.long)
    for size in range(len(ALL_OURS) + 1) for ours in map(frozenset, itertools.combinations(sorted(ALL_OURS), size))
]
"""Each way to choose from transport, core and rings. All else runs with all of ours every day; those with our transport and another one
of C's are here."""

LEGACY, MODERN, TRANSITIONAL = "disable-legacy=off,disable-modern=on", "disable-legacy=on", "disable-legacy=off"
FORCED = "virtio_pci.force_legacy=1"
INTERFACES = (LEGACY, f"{TRANSITIONAL},vectors=0", f"{LEGACY},vectors=0", f"{MODERN},vectors=0")
"""Of devices; with MSI-X they are tested elsewhere if they are modern."""

# Those a legacy device can have, in the order of INTERFACES.
RINGS = [Ring(event_idx=event_idx, indirect_desc=indirect) for event_idx in (True, False) for indirect in (True, False)]
BALLOON = f"virtio-balloon-pci,ioeventfd=off,{LEGACY}"
VERSION_1 = 32
DRIVER = "/sys/bus/pci/drivers/virtio-pci"


def boot(guests: Factory, ours: frozenset[str], **options: object) -> Guest:
    """A started guest."""
    settings = {
        "kernel": KERNEL, "swap_mib": 0, "memory_mib": 512, "modules": MODULES, "files": PROGRAMS, "balloon": BALLOON,
        "driver": "rust" if "virtio_pci" in ours else "c",
    }
    return guests(rust=ours, **{**settings, **options}).start()


def count_modern(guest: Guest) -> int:
    """How many virtio devices are used by their modern interface."""
    return sum(bits[VERSION_1] == "1" for bits in guest.run("cat /sys/bus/virtio/devices/*/features").out.split())


def unbind_in_use(guest: Guest, disk: str) -> None:
    """Takes the driver away from a disk under load, and gives it back."""
    slot = guest.run(f"basename $(readlink -f /sys/block/{disk}/device/..)").out.strip()
    guest.run(f"(blkcheck /dev/{disk} 8 100000 1 >/tmp/load 2>&1; echo ended >>/tmp/load) & sleep 0.5; echo {slot} >{DRIVER}/unbind; wait")
    assert guest.run("cat /tmp/load").out.endswith("ended\n"), "requests of a disk that has gone are not finished"
    guest.run(f"echo {slot} >{DRIVER}/bind; blkcheck /dev/{disk} 4 10 2")


def net(guest: Guest, number: int) -> str:
    """The network interface with a number, as it is called now."""
    return guest.run(f"basename $(dirname $(grep -l 52:54:00:00:00:{number:02x} /sys/class/net/eth*/address))").out.strip()


def unbind_net_in_use(guest: Guest, number: int) -> None:
    """The same for a network interface that is connected with the one that has the next number or the one before."""
    end, other = net(guest, number), net(guest, number ^ 1)
    slot = guest.run(f"basename $(readlink -f /sys/class/net/{end}/device/..)").out.strip()
    guest.run(f"(netcheck {end} {other} 10000000 1 >/tmp/load 2>&1; echo ended >>/tmp/load) & sleep 0.5; echo {slot} >{DRIVER}/unbind; wait")
    load = guest.run("cat /tmp/load").out
    assert load.startswith("netcheck: ") and load.endswith("ended\n"), "a program should hear that the interface has gone"
    guest.run(f"echo {slot} >{DRIVER}/bind")
    end = net(guest, number)
    guest.run(f"ip link set {end} up; netcheck {end} {other} 300 2")


@pytest.mark.parametrize(("machine", "forced"), [
    pytest.param("pc", True, id="pc-forced"), pytest.param("pc", False, id="pc", marks=pytest.mark.long),
    pytest.param("q35", True, id="q35-forced", marks=pytest.mark.long), pytest.param("q35", False, id="q35", marks=pytest.mark.long),
])
@pytest.mark.parametrize("ours", LAYERS)
def test_devices(guests: Factory, ours: frozenset[str], machine: str, forced: bool, tmp_path: Path) -> None:
    """If this fails a disk, network interface, serial port, random number generator or balloon does not work by the legacy interface or
    with INTx, or the interface that is used is another one than C's; or a disk or a network does not survive that its driver goes and
    comes."""
    devices = Devices(tmp_path, "pci", INTERFACES)
    devices.disks(RINGS)
    devices.nets(RINGS)
    devices.serials(RINGS[:2])
    devices.rngs(RINGS[:2])
    guest = boot(
        guests, ours, machine=machine, kernel_options=[FORCED] if forced else [], qemu_options=devices.options, allow=[r"I/O error", r"Buffer I/O"],
    )
    assert guest.read("/sys/module/virtio_pci/parameters/force_legacy") == ("Y" if forced else "N")
    devices.check(guest)
    use_balloon(guest)
    # Of each kind the fourth device is modern, the second one transitional.
    assert count_modern(guest) == (2 if forced else 6)
    for disk in ("vda", "vdb", "vdc"):
        unbind_in_use(guest, disk)
    for number in range(len(RINGS)):
        unbind_net_in_use(guest, number)


@pytest.mark.parametrize(("machine", "swap"), [
    pytest.param("q35", LEGACY, id="q35"),
    *(pytest.param(*row, id="-".join(row), marks=pytest.mark.long) for row in (("pc", LEGACY), ("pc", INTERFACES[1]), ("q35", INTERFACES[2]), ("q35", INTERFACES[3]))),
])
@pytest.mark.parametrize("ours", LAYERS)
def test_hibernation(guests: Factory, ours: frozenset[str], machine: str, swap: str) -> None:
    """If this fails a guest whose swap is on such a disk cannot hibernate with its balloon inflated, or loses data over it."""
    guest = boot(guests, ours, machine=machine, swap_mib=600, swap=f"virtio-blk-pci,{swap}")
    before = guest.run("head -c 8m /dev/urandom >/tmp/file; sha256sum /tmp/file").out
    guest.inflate(64)
    assert guest.hibernate("shutdown") is None
    guest.resume(target_mib=64)
    assert guest.run("sha256sum /tmp/file").out == before
    use_balloon(guest)


@pytest.mark.parametrize("ours", MATRIX)
def test_each_layer(guests: Factory, ours: frozenset[str], tmp_path: Path) -> None:
    """If this fails transport, core and rings of two kinds do not work with each other: queues that come and go, by hibernation or because
    the driver does, and are reset one by one; legacy and modern devices, split and packed rings, MSI-X and INTx."""
    devices = Devices(tmp_path, "pci", (MODERN, LEGACY, f"{MODERN},vectors=0"))
    devices.disks([Ring(packed=True), RINGS[1], RINGS[2]])
    devices.nets([Ring(), RINGS[3]])
    guest = boot(
        guests, ours, memory_mib=384, swap_mib=400, swap=f"virtio-blk-pci,{MODERN}", qemu_options=devices.options, allow=[r"I/O error", r"Buffer I/O"],
        files={**PROGRAMS, "/bin/ethring": facts().programs / "ethring"},
    )
    devices.check(guest)
    unbind_in_use(guest, "vdb")
    unbind_net_in_use(guest, 1)
    assert guest.run(f"ethring {net(guest, 0)} 128 64").out.split() == ["128", "64"]
    guest.inflate(32)
    assert guest.hibernate("shutdown") is None
    guest.resume(target_mib=32)
    devices.check(guest)
    guest.inflate(0)


@pytest.mark.long
@pytest.mark.parametrize(("machine", "times"), [("pc", 3), ("q35", 1)])
@pytest.mark.parametrize("ours", LAYERS)
def test_suspend(guests: Factory, ours: frozenset[str], machine: str, times: int, tmp_path: Path) -> None:
    """If this fails devices do not work after the machine was suspended to RAM. QEMU's `q35` wakes by itself from the second time on."""
    devices = Devices(tmp_path, "pci", INTERFACES)
    devices.disks(RINGS)
    devices.nets(RINGS)
    guest = boot(guests, ours, machine=machine, firmware=True, qemu_options=devices.options)
    for _ in range(times):
        devices.check(guest)
        guest.inflate(64)
        assert guest.suspend() is None
        guest.wake()
        use_balloon(guest)
    devices.check(guest)


PORTS: tuple[dict[str, Any], ...] = (
    {"disable-legacy": "off", "disable-modern": True}, {"disable-legacy": "off", "disable-modern": True, "vectors": 0},
    {"disable-legacy": "off", "vectors": 0}, {"disable-legacy": "on"},
)
"""A root port for each of these disks."""


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.long)])
@pytest.mark.parametrize("ours", LAYERS)
def test_hotplug(guests: Factory, ours: frozenset[str], rounds: int, tmp_path: Path) -> None:
    """If this fails disks that are plugged in do not work, or something of them is left when they are pulled out. Four in each round."""
    options = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
    for number, _ in enumerate(PORTS):
        path = tmp_path / f"disk{number}"
        path.write_bytes(bytes(4 << 20))
        options += ["-device", f"pcie-root-port,id=slot{number},chassis={number + 1},slot={number + 1}"]
        options += ["-blockdev", f"driver=raw,node-name=drive{number},file.driver=file,file.filename={path},cache.direct=off,cache.no-flush=on"]
    guest = boot(guests, ours, balloon=False, driver=None, qemu_options=options)
    guest.run("modprobe virtio_blk")
    disks = [f"vd{letter}" for letter in "abcd"[:len(PORTS)]]
    seen = set()
    for count in range(rounds):
        for number, interface in enumerate(PORTS):
            guest.qmp("device_add", driver="virtio-blk-pci", id=f"disk{number}", bus=f"slot{number}", drive=f"drive{number}", **interface)
        guest.wait_for(lambda: guest.run("ls /sys/block").out.count("vd") == len(PORTS), 30, "the disks do not come")
        guest.run("; ".join(f"blkcheck /dev/{disk} 4 2 {count}" for disk in disks))
        assert count_modern(guest) == 2
        # QEMU takes the devices out of slots that are switched off; its button would take 5 s more.
        guest.run("for slot in /sys/bus/pci/slots/*/power; do echo 0 >$slot & done; wait")
        # Each is two devices of QEMU's.
        guest.wait_for(lambda: len(guest.qemu.monitor.events("DEVICE_DELETED")) == 2 * len(PORTS) * (count + 1), 30, "the disks do not go")
        seen.add(guest.run("cat /proc/ioports /proc/iomem /proc/interrupts | grep -c virtio; ls /sys/bus/virtio/devices /sys/block", check=False).out)
    assert seen == {"0\n/sys/block:\n\n/sys/bus/virtio/devices:\n"}




def module_files() -> dict[str, Path]:
    """Our module and C's, to be in one guest."""
    kernel = facts().kernels[KERNEL]
    (theirs,) = kernel.modules_dir.rglob("virtio_pci.ko")
    return {"/rust.ko": facts().out[KERNEL] / "virtio_pci.ko", "/c.ko": theirs}


def test_same_as_c(guests: Factory, tmp_path: Path) -> None:
    """If this fails interrupts, ports, memory or devices have other names than with C's module, or the parameter is another one: what
    looks for them does not find them. Vectors are shared out in C's order if there are too few."""
    options = ["-object", "rng-random,id=random,filename=/dev/urandom"]
    for number, (interface, vectors) in enumerate((interface, vectors) for interface in (LEGACY, TRANSITIONAL) for vectors in (3, 2, 1, 0)):
        path = tmp_path / f"disk{number}"
        path.write_bytes(bytes(1 << 20))
        options += ["-drive", f"if=none,id=drive{number},file={path},format=raw"]
        options += ["-device", f"virtio-blk-pci,{interface},vectors={vectors},num-queues=2,drive=drive{number}"]
    for interface in (LEGACY, TRANSITIONAL, MODERN):
        options += ["-device", f"virtio-net-pci,{interface}", "-device", f"virtio-rng-pci,{interface},rng=random"]
    # C's module is in three parts.
    modules = [*MODULES, "virtio_pci_modern_dev", "virtio_pci_legacy_dev"]
    guest = boot(guests, frozenset(), machine="pc", cpus=2, modules=modules, files=module_files(), qemu_options=options)
    guest.run(f"modprobe -a {' '.join(modules)}; rmmod virtio_pci")
    seen = {}
    for parameter in ("", "force_legacy=1"):
        for module in ("c", "rust"):
            guest.run(f"insmod /{module}.ko {parameter}")
            seen[module] = [
                guest.run("cd /sys/module/virtio_pci/parameters; stat -c '%n %A %U %s' *; cat *").out,
                guest.run("grep virtio /proc/ioports /proc/iomem").out,
                sorted(re.findall(r"^ *\w+:(?: +\d+)+ +(.*virtio.*)$", guest.read("/proc/interrupts"), re.MULTILINE)),
                guest.run("cd /sys/bus/virtio/devices; for device in *; do echo $device $(readlink $device); cat $device/features $device/vendor; done").out,
            ]
            guest.run("rmmod virtio_pci")
        assert seen["rust"] == seen["c"], parameter
        interrupts = seen["c"][2]
        assert sum(name.endswith("-virtqueues") for name in interrupts) >= 2 and sum(name.endswith("-req.1") for name in interrupts) == 2
    information = {name: sorted(re.findall(rb"((?:alias|parm(?:type)?|(?<!src)version|description)=[^\0]+)", path.read_bytes())) for name, path in module_files().items()}
    assert information["/rust.ko"] == information["/c.ko"] != []
