# SPDX-License-Identifier: GPL-2.0
"""The kinds of machines that guests run on, and what depends on them: QEMU's program, its CPU, serial ports, the kernel's options."""

from __future__ import annotations

from dataclasses import dataclass, replace

# TCG runs `rep movsb` and `rep stosb` byte by byte: without the bits that recommend them the kernel copies and clears by words,
# and pages are filled and freed in half the time. Benches, which count instructions, keep the kernel that a real CPU gets.
WORDWISE = "max,la57=off,erms=off,fsrm=off,fsrs=off,fzrm=off"
COMMON_OPTIONS = (
    "loglevel=5", "no_console_suspend", "panic=0", "hibernate.pm_test_delay=1", "suspend.pm_test_delay=1", "nokaslr", "mitigations=off",
    "random.trust_cpu=on", "audit=0", "cryptomgr.notests",
)


@dataclass(frozen=True)
class Kind:
    """A kind of machine."""

    emulator: str
    """QEMU's program."""
    cpu: str
    """The CPU under TCG."""
    counted_cpu: str
    """The same for a guest whose instructions are counted."""
    tty: str
    """How the names of its serial ports begin; the first is the kernel's console, the second the agent's."""
    transports: tuple[str, ...]
    """The modules that find its virtio devices."""
    options: tuple[str, ...] = COMMON_OPTIONS
    """Options of the kernel."""
    serial_ports: tuple[str, ...] = ("-serial", "chardev:console", "-serial", "chardev:agent")
    """QEMU's arguments for two serial ports, with the character devices `console` and `agent` behind them."""
    native_hotplug: tuple[str, ...] = ()
    """QEMU's arguments that make a PCIe root port report what is plugged in."""
    power_off: str = "platform"
    """How it goes off when it has hibernated, as in /sys/power/disk."""


# Without ASPM, which the kernel `full` leaves out, the firmware keeps PCIe hotplug unless told otherwise.
_PC = Kind(
    "qemu-system-x86_64", WORDWISE, "max,la57=off", "ttyS", ("virtio_pci",),
    options=(*COMMON_OPTIONS, "tsc=reliable", "no_timer_check", "pcie_ports=native", "apparmor=0"),
    native_hotplug=("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
)

KINDS = {
    "q35": _PC,
    "pc": _PC,
    # It has one serial port of its own.
    "microvm": replace(
        _PC, transports=("virtio_mmio",),
        serial_ports=("-serial", "chardev:console", "-device", "isa-serial,iobase=0x2f8,irq=3,chardev=agent"),
    ),
    # A CPU without pointer authentication, which TCG would compute.
    "virt": Kind("qemu-system-aarch64", "neoverse-n1", "neoverse-n1", "ttyAMA", ("virtio_mmio", "virtio_pci"), power_off="shutdown"),
}

USUAL = {"x86_64": "q35", "aarch64": "virt"}
"""The machine, as `-machine` takes it, of a guest that does not say which."""

WITH_MMIO = {
    "x86_64": {"parameter": "microvm,acpi=off,rtc=off", "acpi": "microvm,acpi=on"},
    "aarch64": {"tree": "virt"},
}
"""Those that have virtio devices without PCI, by what tells the kernel of them."""


def kind(machine: str) -> Kind:
    """The kind of a machine, by its name as `-machine` takes it, with options or without."""
    return KINDS[machine.partition(",")[0]]
