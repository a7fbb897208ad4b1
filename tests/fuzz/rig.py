# SPDX-License-Identifier: GPL-2.0
"""A guest with devices that follow plans, and what comes of them."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.guest import Guest, GuestError, facts
from lab.guest.console import FAULTS

from .counters import Counters
from .device import FuzzDevice
from .mmio import SIZE as MMIO_SIZE
from .mmio import MmioDevice
from .plan import DEVICES, Plan, honest

DRIVERS = {"pci": "/sys/bus/pci/drivers/virtio-pci", "platform": "/sys/bus/platform/drivers/virtio-mmio"}
OURS = ("virtio_pci", "virtio", "virtio_ring", "virtio_mmio", "virtio_rng")
STEP_SECONDS = 3
"""How long one step may take on a quiet machine with KVM; on the kernel `debug` under TCG it is 16 times as long, which is more than any wait
for a device."""

REPORT_SECONDS = 3
"""How long the kernel may write at a complaint."""

USES = {
    "balloon": "sleep 0.2; cat /sys/kernel/debug/virtio_balloon*/state",
    "entropy": "timeout -s KILL 1 dd if=/dev/hwrng of=/dev/null bs=64 count=2",
    "net": "for net in $(cd /sys/class/net; ls -d eth*); do ip link set $net up; done; sleep 0.1",
}
READ = "cat {bus}/virtio*/status {bus}/virtio*/features {bus}/virtio*/modalias"
SLEEP = "echo devices >/sys/power/pm_test; echo s2idle >/sys/power/mem_sleep; echo mem >/sys/power/state; echo none >/sys/power/pm_test"


class Broken(Exception):
    """The fuzzer's own device failed."""


@dataclass(frozen=True)
class Outcome:
    """What one execution showed."""

    reached: int
    """The counters that counted, see `Counters`."""
    seconds: float
    output: str = ""
    """What the guest's steps printed, each behind the guest's uptime and its name."""
    fault: str | None = None
    """What the kernel complained about, or what did not come to an end; the guest is then of no more use."""


class FuzzRig:
    """The guest and its devices: on PCI one of each kind with MSI-X, and one that has an interrupt line only; one with the registers of virtio-mmio."""

    def __init__(self, kernel: str, logs: Path) -> None:
        """Boots."""
        self._stack = ExitStack()
        self._devices = {
            (name, transport): self._stack.enter_context(FuzzDevice(name, msix=transport == "msix"))
            for transport in ("msix", "line") for name in DEVICES
        }
        mmio = self._stack.enter_context(MmioDevice())
        options = [option for device in (*self._devices.values(), mmio) for option in device.options]
        self.guest = Guest(
            "fuzz", kernel=kernel, driver="rust", balloon=False, swap_mib=0, memory_mib=384, shared_memory=True, rust=OURS,
            modules=["virtio_mmio", "virtio_rng", "virtio_net"], qemu_options=options, logs=logs,
            kernel_options=["suspend.pm_test_delay=0"],
        )
        try:
            self.guest.start()
            self.guest.run("echo 0 >/sys/bus/pci/drivers_autoprobe; modprobe -a virtio_rng virtio_net virtio_balloon")
            self._places = {key: ("pci", slot) for key, slot in zip(self._devices, self._find_slots(), strict=True)}
            self._load_mmio()
            for name in DEVICES:
                self._devices[name, "mmio"], self._places[name, "mmio"] = mmio, ("platform", "virtio-mmio.0")
            for bus, place in self._places.values():
                self.guest.run(_unbind(bus, place))
            memory = next(iter(self._devices.values())).memory
            self._counters = Counters(self.guest, memory, facts().out[kernel])
        except BaseException:
            self.close()
            raise

    def _find_slots(self) -> list[str]:
        # QEMU puts devices on the bus in the order of its options, and the names of slots sort likewise.
        return [path.split("/")[-2] for path in self.guest.run("grep -lE '0x10(41|44|45)' /sys/bus/pci/devices/*/device").out.split()]

    def _load_mmio(self) -> None:
        slot = self.guest.run("dirname $(grep -l 0xfeed /sys/bus/pci/devices/*/vendor)").out.strip()
        self.guest.run(f"echo 1 >{slot}/enable")
        address, irq = self.guest.run(f"head -n 1 {slot}/resource").out.split()[0], self.guest.read(f"{slot}/irq")
        self.guest.run(f"modprobe virtio_mmio device={MMIO_SIZE:#x}@{address}:{irq}")

    def close(self) -> None:
        """Ends guest and devices."""
        self.guest.stop()
        self._stack.close()

    def execute(self, plan: Plan) -> Outcome:
        """Has the device do what the plan says. Raises Broken."""
        key = plan.device, plan.transport
        device = self._devices[key]
        self._counters.take()
        began = time.monotonic()
        output, fault = "", None
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over, len(self._console())))
        watcher.start()
        device.arm(plan)
        try:
            output = self.guest.run(self._script(plan, *self._places[key]), timeout=STEP_SECONDS * (len(plan.steps) + 1), check=False).out
        except GuestError as error:
            fault = "\n".join([*self.guest.console.new_faults([])[:1], str(error)])
        finally:
            over.set()
            watcher.join()
            device.disarm()
        if device.problem:
            raise Broken(f"{plan}\n{device.problem}")
        seconds = time.monotonic() - began
        return Outcome(self._counters.take(), seconds, output, fault)

    def _watch(self, over: threading.Event, seen: int) -> None:
        """Ends QEMU when the kernel has complained: a guest whose thread died with a lock held would answer nothing any more."""
        while not over.wait(1):
            if FAULTS.search(self._console()[seen:]):
                time.sleep(REPORT_SECONDS)
                self.guest.qemu.process.kill()
                return

    def _console(self) -> str:
        return self.guest.console.path.read_text(errors="replace")

    def check(self) -> str | None:
        """What is wrong with the guest after all: devices that tell the truth are not used, or the kernel has complained."""
        for name, transport in self._devices:
            plan = honest(name, transport)
            outcome = self.execute(plan)
            if outcome.fault:
                return outcome.fault
        return None

    def _script(self, plan: Plan, bus: str, place: str) -> str:
        """The steps, and an unbinding at the end."""
        device = f"/sys/bus/{bus}/devices/{place}"
        steps = {
            "bind": f"echo {place} >{DRIVERS[bus]}/bind", "unbind": _unbind(bus, place), "use": USES[plan.device], "read": READ.format(bus=device),
            "sleep": SLEEP, "remove": f"echo 1 >{device}/remove; echo 1 >/sys/bus/pci/rescan" if bus == "pci" else "true",
        }
        return "\n".join(f"read uptime rest </proc/uptime; echo $uptime {step}; {steps[step]}" for step in (*plan.steps, "unbind"))


def _unbind(bus: str, place: str) -> str:
    return f"test ! -e {DRIVERS[bus]}/{place} || echo {place} >{DRIVERS[bus]}/unbind"
