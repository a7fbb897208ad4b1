# SPDX-License-Identifier: GPL-2.0
"""The API for drivers against a driver in safe code that tries to do harm: `tests/modules/virtio_harm.rs`.

It has two devices, and works with the queues of both from interrupts and four threads at once, while they are bound, unbound and reset.
Memory that is free is filled with a pattern, which is looked at when it is given out: whoever writes there is seen. On the kernel
`debug`, in `make test-debug`, KASAN and lockdep look as well.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from lab.guest import Guest
from test_core import CORES
from test_mmio import MACHINES

Factory = Callable[..., Guest]

ROUNDS = 12
SOURCE = ["-object", "rng-random,filename=/dev/urandom,id=entropy"]
LATE = (
    f"add {-errno.ENODEV}, send {-errno.ENODEV}, notify {-errno.ENODEV}, poll {-errno.ENODEV}, mask {-errno.ENODEV}, used 0, size 0, broken true"
)
EARLY = f"before it is live: add 0, send {-errno.EAGAIN}, notify {-errno.EAGAIN}"
WITHOUT = f"reset without queues: {-errno.ENODEV}"


def boot(guests: Factory, kernel: str, core: str, bus: str) -> Guest:
    """A guest with two entropy devices behind PCI or MMIO, and the driver not loaded yet."""
    options = {"driver": None, "balloon": False, "swap_mib": 0, "memory_mib": 512 if kernel == "debug" else 256, "modules": ["virtio_harm", "virtio_rng"]}
    poison = [] if kernel == "debug" else ["slab_debug=FZP"]
    if bus == "pci":
        devices = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        devices += [
            part for number in (0, 1) for part in (
                "-device", f"pcie-root-port,id=port{number},chassis={number + 1},slot={number + 1}",
                "-device", f"virtio-rng-pci,disable-legacy=on,bus=port{number},rng=entropy",
            )
        ]
        ours = CORES[core] | ({"virtio_pci"} if core == "rust" else set())
    else:
        devices = [part for _ in (0, 1) for part in ("-device", "virtio-rng-device,rng=entropy")]
        devices = ["-global", "virtio-mmio.force-legacy=off", *devices]
        options["machine"] = next(iter(MACHINES.values()))
        ours = CORES[core] | ({"virtio_mmio"} if core == "rust" else set())
    return guests(kernel=kernel, rust=ours, qemu_options=[*SOURCE, *devices], kernel_options=poison, **options).start()


def said(guest: Guest) -> set[str]:
    """What the driver has said since it was asked last."""
    lines = {line.removeprefix("virtio_harm: > ") for line in guest.said("virtio_harm") if "virtio_harm: > " in line}
    guest.run("dmesg -c >/dev/null")
    return lines


def interrupts(guest: Guest) -> list[str]:
    """The interrupts of queues."""
    return [line for line in guest.run("cat /proc/interrupts").out.splitlines() if "harm" in line]


@pytest.mark.everyday("kernel", {"stock": []})
@pytest.mark.parametrize("bus", ["pci", "mmio"])
@pytest.mark.parametrize("core", list(CORES))
def test_harm(guests: Factory, kernel: str, core: str, bus: str) -> None:
    """If this fails safe code breaks memory safety: a queue, a buffer or the driver's data is used when it is gone, or belongs to another device."""
    guest = boot(guests, kernel, core, bus)
    guest.run("dmesg -c >/dev/null; modprobe virtio_harm", timeout=60)
    # The devices go and come, one more often than the other, while threads and interrupts use the queues of both, and of those that are gone.
    rebind = "cd /sys/bus/virtio/drivers/virtio_harm; for i in $(seq {}); do echo {} >unbind; usleep {}; echo {} >bind; usleep 30000; done"
    guest.run(
        f"({rebind.format(ROUNDS, 'virtio0', 20000, 'virtio0')}) & ({rebind.format(ROUNDS // 2, 'virtio1', 90000, 'virtio1')}); wait", timeout=240,
    )
    if bus == "pci":
        # A reset by the bus makes the queues anew under the threads.
        guest.run("for device in /sys/bus/virtio/devices/*; do d=$(readlink -f $device/..); echo flr >$d/reset_method; for i in 1 2 3 4; do echo 1 >$d/reset; usleep 30000; done; done", timeout=120)
    guest.run("rmmod virtio_harm", timeout=60)
    lines = said(guest)
    assert {line for line in lines if not line.startswith(("left: ", "after", "at the end"))} == {WITHOUT, EARLY, "reset: 0, 0"}
    assert {line for line in lines if line.startswith("at the end")} == {f"at the end: {LATE}"}
    assert {line for line in lines if line.startswith("after")} == {f"after a reset: {LATE}"}
    assert {line for line in lines if line.startswith("left")} <= {"left: 0", f"left: {-errno.ENODEV}"}
    assert not interrupts(guest)

    # A queue that was forgotten goes all the same, with its interrupt.
    guest.run("modprobe virtio_harm harm=1", timeout=60)
    assert interrupts(guest) or bus == "mmio"
    guest.run("rmmod virtio_harm", timeout=60)
    assert not interrupts(guest)
    assert said(guest) == {WITHOUT, EARLY}

    # A device that the driver has stopped or reset gets no queues, and does not become live.
    guest.run("modprobe virtio_harm harm=2; rmmod virtio_harm", timeout=60)
    assert said(guest) == {WITHOUT, f"queues of a device that was stopped: {-errno.EBUSY}"}
    guest.run("modprobe virtio_harm harm=3; rmmod virtio_harm", timeout=60)
    assert said(guest) == {WITHOUT, EARLY, "some are left: true", "reset: 0, 0", "left: 0", f"after a reset: {LATE}"}

    # Nobody has broken anything.
    guest.run("modprobe virtio_rng; dd if=/dev/hwrng of=/dev/null bs=4096 count=4", timeout=60)
