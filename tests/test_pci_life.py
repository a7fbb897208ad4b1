# SPDX-License-Identifier: GPL-2.0
"""Devices on PCI that are reset by their bus, and kernels that go, while disks, networks and balloon are used.

Each test runs with our modules; in `make test-long` also with our transport alone, and with C's, the control. What becomes of a
driver that does not hear of a reset by the bus is the same with all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from balloon_books import settle, total_kib
from lab.guest import BALLOON_ID, Guest, facts, initramfs
from test_pci import ALL_OURS, DRIVER, INTERFACES, KERNEL, LAYERS, PORTS, RINGS, boot, net
from test_ring import MODULES, PROGRAMS, Devices, Ring

Factory = Callable[..., Guest]

LOADED_ABOVE_4G = 1 << 1
"""In `xloadflags` of a kernel's setup header, at 0x236 (Documentation/arch/x86/boot.rst)."""

DRIVER_OK = 4
STATUS = re.compile(r"virtio_set_status vdev (\w+) val (\d+)$", re.MULTILINE)

BALLOON = "/sys/bus/virtio/drivers/virtio_balloon"
HELD = re.compile(r"virtio_balloon virtio0: held \d+ pages through a reset$")

RESETS = 8

BEGIN = f"""
rm -f /tmp/reset.* /tmp/enough
for disk in vda vdb vdc vdd; do
    (until test -e /tmp/enough; do blkcheck /dev/$disk 4 20 1 || break; done >/tmp/$disk 2>&1) &
done
for device in {DRIVER}/0000:*; do
    (for count in $(seq {RESETS}); do echo 1 >$device/reset && usleep 50000 && echo $count; done >/tmp/reset.${{device##*/}} 2>&1) &
done
"""
"""Uses all disks while each device is reset again and again."""


def reset_all(guest: Guest) -> None:
    """Resets all devices while the disks are used, until each was reset often enough and all requests are done."""
    devices = guest.run(f"ls -d {DRIVER}/0000:*").out.split()
    assert len(devices) > len(PORTS)
    guest.run(f"({BEGIN}) >/dev/null 2>&1 </dev/null")
    want = [str(count + 1) for count in range(RESETS)] * len(devices)
    guest.wait_for(lambda: guest.run("cat /tmp/reset.*").out.split() == want, 60, "a reset fails, or does not end")
    guest.run("touch /tmp/enough")
    guest.wait_for(lambda: guest.run("pidof blkcheck", check=False).out == "", 30, "requests are lost: a program still waits for its own")
    for disk in ("vda", "vdb", "vdc", "vdd"):
        said = guest.run(f"cat /tmp/{disk}").out.splitlines()
        assert said and all(line.endswith(" requests") for line in said), said


def in_ports(tmp_path: Path) -> list[str]:
    """QEMU's options for a disk with each of the interfaces, half of them with packed rings, and two connected networks: each in a
    root port of its own, where it can be reset by its function."""
    options = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
    for number, interface in enumerate(PORTS):
        path = tmp_path / f"disk{number}"
        path.write_bytes(bytes(4 << 20))
        properties = "".join(f",{name}={'on' if value is True else value}" for name, value in interface.items())
        # A legacy device has no packed rings.
        packed = ",packed=on" if number >= 2 else ""
        options += ["-device", f"pcie-root-port,id=slot{number},chassis={number + 10},slot={number + 10}"]
        names = f"id=disk{number},bus=slot{number},drive=drive{number},serial=disk{number}"
        options += ["-blockdev", f"driver=raw,node-name=drive{number},file.driver=file,file.filename={path},cache.no-flush=on"]
        options += ["-device", f"virtio-blk-pci,{names}{properties}{packed}"]
    for number in range(2):
        options += ["-device", f"pcie-root-port,id=port1{number},chassis={number + 20},slot={number + 20}"]
        options += ["-netdev", f"hubport,id=net{number},hubid=0"]
        options += ["-device", f"virtio-net-pci,bus=port1{number},netdev=net{number},mac=52:54:00:00:00:{number:02x},disable-legacy=on"]
    return options


def operations(guest: Guest) -> dict[str, tuple[int, int]]:
    """How many reads and writes of each disk QEMU has done."""
    found = {}
    for entry in guest.qmp("query-blockstats"):
        stats = entry["stats"]
        found[entry["qdev"].split("/")[3]] = (stats["rd_operations"], stats["wr_operations"])
    return found


def requests(guest: Guest) -> dict[str, tuple[int, int]]:
    """How many of them the guest's kernel has seen finished."""
    lines = guest.run("for disk in /sys/block/vd*; do echo $(cat $disk/serial) $(cat $disk/stat); done").out.splitlines()
    return {words[0]: (int(words[1]), int(words[5])) for words in (line.split() for line in lines)}


def more(after: dict[str, tuple[int, int]], before: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """What came between two counts."""
    return {disk: (after[disk][0] - before[disk][0], after[disk][1] - before[disk][1]) for disk in before}


@pytest.mark.parametrize("ours", LAYERS)
def test_function_level_reset(guests: Factory, ours: frozenset[str], tmp_path: Path) -> None:
    """If this fails a disk or a balloon in use does not outlive resets of its function, or requests are lost or done twice."""
    guest = boot(guests, ours, driver="rust", balloon="virtio-balloon-pci,ioeventfd=off", root_port=True, qemu_options=in_ports(tmp_path))
    guest.run(f"modprobe virtio_blk; for device in {DRIVER}/0000:*; do echo flr >$device/reset_method; done")
    total = total_kib(guest)
    before = operations(guest), requests(guest)
    for target in (160, 20):
        guest.set_target(target)
        reset_all(guest)
        settle(guest, target, total)
    done, seen = more(operations(guest), before[0]), more(requests(guest), before[1])
    print(done)
    assert done == seen and len(done) == len(PORTS)


CORES = [
    pytest.param(ALL_OURS, id="rust"),
    *(pytest.param(frozenset({ours}), id=name, marks=pytest.mark.long) for name, ours in {"c-core": "virtio_pci", "c-pci": "virtio"}.items()),
]
"""Where a reset and a driver that comes or goes meet: in our core and transport, and in either with C's other part."""

REBIND = f"""
device=$(readlink -f /sys/bus/virtio/devices/virtio0/..)
touch /tmp/go
(while test -e /tmp/go; do echo 1 >$device/reset; done) >/dev/null 2>/tmp/refused &
count=0
while test $count -lt $rounds && echo virtio0 >{BALLOON}/unbind && echo virtio0 >{BALLOON}/bind; do
    count=$((count + 1))
done
rm /tmp/go
wait
cat /tmp/refused
echo $count rounds
"""
"""Has the balloon's driver come and go while its device is reset all the time."""


@pytest.mark.parametrize("rounds", [150, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("ours", CORES)
def test_reset_while_the_driver_comes_and_goes(guests: Factory, ours: frozenset[str], rounds: int) -> None:
    """If this fails a reset by the bus finds a driver that is half there: the kernel stops, or the balloon has no driver afterwards."""
    guest = boot(guests, ours, driver="rust", balloon="virtio-balloon-pci,ioeventfd=off", root_port=True, cpus=2)
    total = total_kib(guest)
    guest.run("dmesg -c >/dev/null")
    guest.set_target(60)
    began = time.monotonic()
    said = guest.run(f"rounds={rounds}; {REBIND}", timeout=2 * rounds).out
    print(f"{time.monotonic() - began:.1f} s")
    assert said == f"{rounds} rounds\n"
    settle(guest, 60, total)
    assert [line for line in guest.dmesg() if not HELD.search(line)] == []


def throttle(guest: Guest, rate: int) -> None:
    """Has the disk with the image take so many bytes a second; 0: as many as come."""
    guest.qmp("human-monitor-command", command_line=f"block_set_io_throttle swap {rate} 0 0 0 0 0")


def test_unplug_while_an_image_is_written(guests: Factory) -> None:
    """If this fails a guest whose balloon device is taken away while it hibernates, with its threads frozen, never powers off; or it does
    not wake up on a host that has no such device."""
    guest = boot(guests, ALL_OURS, swap_mib=600, root_port=True)
    total = total_kib(guest)
    guest.set_target(100)
    settle(guest, 100, total)
    throttle(guest, 1 << 20)
    guest.begin_hibernation("shutdown")
    guest.wait_for(lambda: "Image saving progress" in guest.console.text(), 60, "no image")
    guest.qmp("device_del", id=BALLOON_ID)
    guest.wait_for(lambda: guest.qemu.monitor.events("DEVICE_DELETED") != [], 60, "the guest does not let go of the device")
    throttle(guest, 0)
    assert guest.end_hibernation(60) is None

    result = guest.resume(balloon=False)
    assert result is not None and result.status == 0
    guest.wait_for(lambda: guest.run(f"test -e {BALLOON}/virtio0", check=False).status != 0, 60, "the driver does not let go of its device")
    assert total_kib(guest) == total
    assert "vballoon" not in guest.run("cat /proc/[0-9]*/comm").out, "the thread is still there"


@pytest.mark.parametrize("ours", LAYERS)
def test_reset_unheard(guests: Factory, ours: frozenset[str], tmp_path: Path) -> None:
    """If this fails a reset by the bus of a network interface in use hangs the machine, or for good: `virtio_net` has no part in such
    resets, so that it is dead until it is bound again. With C it is, too."""
    guest = boot(guests, ours, balloon=False, driver=None, qemu_options=in_ports(tmp_path))
    guest.run("modprobe virtio_net")
    ends = " ".join(net(guest, number) for number in range(2))
    end = ends.partition(" ")[0]
    slot = guest.run(f"basename $(readlink -f /sys/class/net/{end}/device/..)").out.strip()
    guest.run(f"for end in {ends}; do ip link set $end up; done; netcheck {ends} 200 1")
    guest.run(
        f"(netcheck {ends} 10000000 2 >/tmp/load 2>&1; echo ended >>/tmp/load) & sleep 1; "
        f"echo flr >{DRIVER}/{slot}/reset_method; echo 1 >{DRIVER}/{slot}/reset; wait", timeout=90,
    )
    assert "a frame is missing" in guest.run("cat /tmp/load").out
    guest.run(f"echo {slot} >{DRIVER}/unbind; echo {slot} >{DRIVER}/bind; ip link set {end} up; netcheck {ends} 200 3")


def loadable(image: Path) -> bytes:
    """A kernel as kexec_file_load(2) takes it: one that says that it can be anywhere. The lab's are not relocatable, but they come
    compressed, and what unpacks them can be, and moves itself to where it should."""
    data = bytearray(image.read_bytes())
    data[0x236] |= LOADED_ABOVE_4G
    return bytes(data)


def load_everything(guest: Guest) -> None:
    """Starts programs that use disks and networks, and do not end."""
    guest.run(
        "for disk in vda vdb; do blkcheck /dev/$disk 4 10000000 1 >/dev/null 2>&1 & done; "
        "netcheck eth0 eth1 10000000 1 >/dev/null 2>&1 & sleep 0.5"
    )


def statuses(guest: Guest) -> set[int]:
    """What was written to the status of each of QEMU's virtio devices last."""
    return {int(status) for status in dict(STATUS.findall(guest.qemu.trace.read_text())).values()}


@pytest.mark.parametrize("machine", ["q35", pytest.param("pc", marks=pytest.mark.long)])
@pytest.mark.parametrize("ours", LAYERS)
def test_kexec(guests: Factory, ours: frozenset[str], machine: str, tmp_path: Path) -> None:
    """If this fails a kernel that was started by kexec finds devices that still write to its memory, or that do not work; or a machine
    whose devices are used cannot be switched off."""
    devices = Devices(tmp_path, "pci", INTERFACES)
    devices.disks(RINGS)
    devices.nets([*RINGS, Ring(), Ring()])
    kernel = facts().kernels[KERNEL]
    source = initramfs.ModuleSource(kernel, facts().out[KERNEL], ours | {"virtio_balloon"} if ours else ours)
    programs = {path: program.read_bytes() for path, program in PROGRAMS.items()}
    initrd = initramfs.build(source, ["virtio_pci", "virtio_balloon", *MODULES], programs)
    files = {"/bin/kexec": facts().programs / "kexec", "/lab/kernel": loadable(kernel.image), "/lab/initrd": initrd}
    guest = boot(guests, ours, machine=machine, memory_mib=768, qemu_options=devices.options, files={**programs, **files})
    devices.check(guest)
    guest.inflate(64)
    assert all(status & DRIVER_OK for status in statuses(guest))
    load_everything(guest)
    guest.restart('kexec /lab/kernel /lab/initrd "$(sed "s/lab.load=[^ ]*//; s/lab.late=[^ ]*//" /proc/cmdline)"')
    assert guest.run("grep -c ^virtio /proc/modules", check=False).out == "0\n"
    assert statuses(guest) == {0}, "a device was not reset before the other kernel began"
    guest.run("modprobe virtio_pci; modprobe virtio_balloon")
    guest.wait_actual(64 * 256)
    devices.check(guest)
    guest.inflate(0)
    load_everything(guest)
    guest.power_off()
