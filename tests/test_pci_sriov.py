# SPDX-License-Identifier: GPL-2.0
"""Virtual functions of a virtio device on PCI, with QEMU's own: they come, work, and go with the physical function.

QEMU has no administration queue: `test_pci_admin.py` has that.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lab.guest import Guest, facts

Factory = Callable[..., Guest]

KERNEL = list(facts().kernels)[-1]
"""`full`, or `debug` in `make test-debug`: Debian's kernel has virtio on PCI built in."""

CORES = {"c": set(), "rust": {"virtio_pci", "virtio", "virtio_ring"}, "rust-pci": {"virtio_pci"}}

FUNCTIONS = 3
"""How many virtual functions there can be."""

DRIVER = "/sys/bus/pci/drivers/virtio-pci"
SR_IOV = 37


UNLOCKED = ["cut here", r"WARNING: drivers/pci/remove\.c:\d+ at pci_stop_and_remove_bus_device\+"] if KERNEL == "debug" else []
"""What a kernel with lockdep says when a driver with virtual functions is unbound: `pci_disable_sriov()` wants a lock then that a driver
cannot take, since it is held already when the device is unplugged. C's driver has the same."""


def port(number: int) -> list[str]:
    """A root port with a network interface that can have virtual functions; all their ends are on one network."""
    options = ["-device", f"pcie-root-port,id=port{number},chassis={10 + number},slot={10 + number}"]
    for function in range(FUNCTIONS, -1, -1):  # The physical one, 0, is the last.
        name = f"net{number}{function}"
        role = f"sriov-pf=pf{number}" if function else f"id=pf{number}"
        options += ["-netdev", f"hubport,id={name},hubid={number}"]
        options += ["-device", f"virtio-net-pci,bus=port{number},addr=0x0.{function:#x},netdev={name},{role},mac=52:54:00:00:{number:02x}:{function:02x}"]
    return options


class Physical:
    """The physical function in a guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.path = guest.run("ls -d /sys/bus/pci/devices/*/sriov_numvfs").out.strip().rpartition("/")[0]
        self.slot = self.path.rpartition("/")[2]

    def want(self, count: int) -> str:
        """Asks for virtual functions; the error, or nothing."""
        result = self.guest.run(f"echo {count} >{self.path}/sriov_numvfs", check=False, timeout=30)
        return result.out.rpartition(": ")[2].strip()

    def functions(self) -> list[str]:
        """Where the virtual functions are."""
        return self.guest.run(f"for link in {self.path}/virtfn*; do test ! -e $link || basename $(readlink -f $link); done").out.split()

    def interfaces(self) -> int:
        """How many network interfaces there are."""
        return len(self.guest.run("ls /sys/class/net | grep -v lo", check=False).out.split())


@pytest.fixture(params=["rust", pytest.param("rust-pci", marks=pytest.mark.long), pytest.param("c", marks=pytest.mark.long)])
def physical(request: pytest.FixtureRequest, guests: Factory) -> Physical:
    """A guest with such a device."""
    guest = guests(
        kernel=KERNEL, rust=CORES[request.param], driver=None, balloon=False, swap_mib=0, memory_mib=256, modules=["virtio_net", "virtio_vfio_pci"],
        files={"/bin/netcheck": facts().programs / "netcheck"}, allow=UNLOCKED,
        qemu_options=["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", *port(0)],
    ).start()
    guest.run("modprobe virtio_net")
    return Physical(guest)


def test_functions(physical: Physical) -> None:
    """If this fails virtual functions cannot be had, do not work, or outlive the driver of the physical one."""
    guest = physical.guest
    assert guest.read(f"{physical.path}/virtio*/features")[SR_IOV] == "1", "SR-IOV should be negotiated"
    come_and_go(physical)
    needs_a_live_device(physical)
    vfio(physical)
    goes_with_the_driver(physical)


def come_and_go(physical: Physical) -> None:
    """As many as are asked for, with drivers; all or none; frames pass from one to the other."""
    guest = physical.guest
    assert physical.want(FUNCTIONS + 1) == "Numerical result out of range", "no more than the device has"
    assert physical.want(2) == ""
    functions = physical.functions()
    assert len(functions) == 2
    drivers = guest.run("; ".join(f"basename $(readlink /sys/bus/pci/devices/{slot}/driver)" for slot in functions)).out.split()
    assert drivers == ["virtio-pci"] * 2
    assert physical.interfaces() == 3
    assert physical.want(1) == "Device or resource busy", "none of them can be taken away alone"
    guest.run("for number in 1 2; do ip link set eth$number up; done")
    print(guest.run("netcheck eth1 eth2 300 0").out.strip())
    assert guest.read(f"{physical.path}/sriov_numvfs") == "2"
    assert physical.want(0) == ""
    assert physical.functions() == [] and physical.interfaces() == 1
    assert physical.want(FUNCTIONS) == "" and physical.interfaces() == 1 + FUNCTIONS
    assert physical.want(0) == ""


def needs_a_live_device(physical: Physical) -> None:
    """None while no driver of virtio devices is bound to the physical function."""
    guest = physical.guest
    guest.run("rmmod virtio_net")
    assert physical.want(1) == "Device or resource busy"
    assert physical.functions() == []
    guest.run("modprobe virtio_net")
    assert physical.want(1) == ""
    guest.run("rmmod virtio_net")
    assert physical.want(0) == "Device or resource busy", "nothing is changed then, either"
    guest.run("modprobe virtio_net")
    assert physical.want(0) == ""


def vfio(physical: Physical) -> None:
    """`virtio_vfio_pci` asks what the physical function does for virtual ones and learns that it is nothing. (VFIO wants an IOMMU, which is not there.)"""
    guest = physical.guest
    guest.run("modprobe virtio_vfio_pci")
    users = guest.run("grep ^virtio_pci /proc/modules").out.split()[3]
    assert "virtio_vfio_pci" in users, "it should use functions of virtio_pci"
    assert physical.want(1) == ""
    slot = physical.functions()[0]
    guest.run(f"echo {slot} >{DRIVER}/unbind; echo virtio_vfio_pci >/sys/bus/pci/devices/{slot}/driver_override")
    assert "Invalid argument" in guest.run(f"echo {slot} >/sys/bus/pci/drivers/virtio_vfio_pci/bind", check=False).out
    assert physical.want(0) == ""
    guest.run("rmmod virtio_vfio_pci")


def goes_with_the_driver(physical: Physical) -> None:
    """When the driver of the physical function goes its virtual functions go before."""
    guest = physical.guest
    assert physical.want(2) == ""
    guest.run(f"echo {physical.slot} >{DRIVER}/unbind", timeout=30)
    assert physical.functions() == [] and physical.interfaces() == 0
    assert guest.read(f"{physical.path}/sriov_numvfs") == "0"
    guest.run(f"echo {physical.slot} >{DRIVER}/bind", timeout=30)
    assert physical.want(2) == "" and physical.interfaces() == 3
    guest.run("rmmod virtio_pci 2>/dev/null || modprobe -r virtio_net virtio_pci", timeout=30)
    assert physical.functions() == []


@pytest.mark.long
def test_pulled_out(physical: Physical) -> None:
    """If this fails a device that is pulled out with virtual functions hangs the machine."""
    assert physical.want(FUNCTIONS) == "" and physical.interfaces() == 1 + FUNCTIONS
    physical.guest.qmp("device_del", id="pf0")
    physical.guest.wait_for(lambda: physical.interfaces() == 0, 30, "the device is still there")
