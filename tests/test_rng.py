# SPDX-License-Identifier: GPL-2.0
"""The sample driver: the entropy device below /dev/hwrng, on either core and ring."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from device.entropy import EntropyDevice, boastful, empty, honest, mute, stingy
from lab.guest import Guest, facts

Factory = Callable[..., Guest]

PAGE = 4096
UNPLUG = [
    "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", "-device", "pcie-root-port,id=port0,chassis=1,slot=1",
    "-device", "virtio-rng-pci,disable-legacy=on,id=rng,bus=port0,rng=entropy",
]
RINGS = [pytest.param(False, id="split"), pytest.param(True, id="packed", marks=pytest.mark.long)]


def boot(guests: Factory, kernel: str, driver: str, devices: list[str], stack: bool = True, **options: object) -> Guest:
    """A guest with these devices whose entropy driver is loaded; `stack`: ours is on our own core and ring where they are modules."""
    ours = {"virtio_rng"} if driver == "rust" else set()
    ours |= {"virtio", "virtio_ring"} if ours and stack and kernel != "stock" else set()
    files = {"/bin/readnow": facts().programs / "readnow"}
    options = {"driver": None, "files": files, "balloon": False, "swap_mib": 0, "memory_mib": 256, **options}
    guest = guests(kernel=kernel, modules=["virtio_rng"], rust=ours, qemu_options=devices, **options).start()
    guest.run("modprobe virtio_rng")
    return guest


def backend(options: str = "") -> list[str]:
    """QEMU's own entropy device, which gives good bytes."""
    return ["-object", "rng-random,filename=/dev/urandom,id=entropy", *(["-device", options] if options else UNPLUG)]


def check(guest: Guest, pages: int = 16) -> None:
    """Reads from the device and looks whether the bytes are such as random ones are."""
    script = f"dd if=/dev/hwrng of=/tmp/read bs={PAGE} count={pages} 2>/dev/null; stat -c %s /tmp/read; gzip -c /tmp/read | wc -c; rm /tmp/read"
    size, packed = guest.run(script).out.split()
    assert int(size) == pages * PAGE
    assert int(packed) > int(size), "the bytes repeat"


def load(guest: Guest) -> None:
    """Reads all the time, in the background, beginning anew whenever it ends."""
    guest.run("(while [ ! -e /tmp/stop ]; do dd if=/dev/hwrng of=/dev/null bs=1000 count=100000 2>>/tmp/errors || usleep 1000; done; echo >/tmp/ended) &")


def unload(guest: Guest) -> None:
    """Ends the reading, which must end by itself."""
    guest.run("echo >/tmp/stop; killall dd 2>/dev/null; i=0; until [ -e /tmp/ended ] || [ $i -gt 40 ]; do usleep 50000; i=$((i+1)); done; test -e /tmp/ended; rm /tmp/stop /tmp/ended")


@pytest.mark.everyday("kernel", {"stock": []})
def test_life(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a driver made after the sample hangs or crashes when its device goes while it is used."""
    guest = boot(guests, kernel, driver, backend(), kernel_options=["pcie_ports=native"])
    assert "virtio_rng.v" in guest.run("cat /sys/class/misc/hw_random/rng_current").out or driver == "c"
    check(guest)
    load(guest)
    for _ in range(5):
        guest.run("cd /sys/bus/virtio/drivers/virtio_rng; dev=$(ls -d virtio[0-9]*); usleep 100000; echo $dev >unbind; usleep 20000; echo $dev >bind", timeout=20)
    guest.run("usleep 100000; rmmod virtio_rng; modprobe virtio_rng", timeout=20)
    unload(guest)
    check(guest)
    if kernel == "debug":
        return  # Lockdep complains of pciehp as soon as a device goes, whatever it is.
    load(guest)
    guest.qmp("device_del", id="rng")
    guest.wait_for(lambda: "virtio" not in guest.run("cat /sys/class/misc/hw_random/rng_available").out, 30, "the device does not go")
    unload(guest)
    assert "No such device" in guest.run("cat /tmp/errors").out
    guest.run("rmmod virtio_rng")


@pytest.mark.long
def test_sleep(guests: Factory, kernel: str, driver: str) -> None:
    """If this fails a guest that hibernates has no entropy afterwards, or does not wake up at all."""
    guest = boot(guests, kernel, driver, backend("virtio-rng-pci,disable-legacy=on,rng=entropy"), swap_mib=600)
    load(guest)
    before = guest.run("cat /sys/class/misc/hw_random/rng_current").out
    result = guest.hibernate("test_resume")
    assert result is not None and result.status == 0
    assert guest.run("cat /sys/class/misc/hw_random/rng_current").out == before
    check(guest)
    assert guest.hibernate() is None
    guest.resume()
    check(guest)
    unload(guest)
    check(guest)


@pytest.mark.parametrize("packed", RINGS)
@pytest.mark.everyday("kernel", {"stock": []})
def test_odd_devices(guests: Factory, kernel: str, packed: bool) -> None:
    """If this fails a device gets at memory that is not its own, or keeps readers or the driver's removal for ever."""
    with EntropyDevice(packed=packed) as device:
        guest = boot(guests, kernel, "rust", device.options, stack=packed, shared_memory=True)
        check(guest)
        assert device.sizes == {PAGE} and device.most == 2
        assert guest.run("readnow /dev/hwrng").out == "64 bytes\n"

        # What the device does not own up to is not given out; what it boasts of is bounded by the buffer.
        device.behave(stingy)
        guest.run(f"dd if=/dev/hwrng of=/dev/null bs={PAGE} count=4")
        assert count(guest, 1) == (PAGE, 0)
        device.behave(boastful)
        guest.run("dd if=/dev/hwrng of=/dev/null bs=64 count=4")
        written, rest = count(guest, 10)
        assert written + rest == 10 * PAGE
        assert 9 * 64 <= written <= 11 * 64, "each page begins with a line that the device wrote"

        # Nothing but empty answers, or none at all: readers wait, and can be stopped.
        for answer in (empty, mute):
            device.behave(answer)
            guest.run(f"dd if=/dev/hwrng of=/dev/null bs={PAGE} count=3 & sleep 1; kill $!; wait $!; true", timeout=10)
            script = "dd if=/dev/hwrng of=/dev/null bs=64 & pid=$!; sleep 1; kill -0 $pid || exit 3; kill $pid; wait $pid; [ $? -gt 128 ]"
            guest.run(script, timeout=5)
            assert guest.run("readnow /dev/hwrng", timeout=5).out == f"error {errno.EAGAIN}\n"
        guest.run("dd if=/dev/hwrng of=/dev/null bs=64 & usleep 200000; rmmod virtio_rng; wait $!; modprobe virtio_rng", timeout=5)
        device.behave(honest)
        check(guest)
        assert device.violations == []


def count(guest: Guest, pages: int) -> tuple[int, int]:
    """Reads, and says how many bytes are those of the device and how many are not."""
    script = f"dd if=/dev/hwrng of=/tmp/read bs={PAGE} count={pages}; for byte in 245 132; do tr -cd \\\\$byte </tmp/read | wc -c; done"
    written, rest = guest.run(script + " 2>/dev/null").out.split()[-2:]
    return int(written), int(rest)
