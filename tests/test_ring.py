# SPDX-License-Identifier: GPL-2.0
"""Virtqueues below the kernel's own drivers: what goes in comes out, with every feature of a ring that QEMU's devices offer.

Each test runs with our `virtio_ring.ko`; in `make test-long` with the C one as a control, and with either on our `virtio.ko`.
All else but the balloon is C.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from lab.guest import WITH_MMIO, Guest, facts

Factory = Callable[..., Guest]

KERNEL = list(facts().kernels)[-1]
"""`full`, or `debug` or `arm64` in the runs for these: Debian's kernel has the ring built in."""

LAYERS = {"rust": {"virtio_ring"}, "rust-core": {"virtio", "virtio_ring"}, "c-core": {"virtio"}, "c": set()}
"""Which modules are ours; the core's name says whose ring is below it."""

RINGS = [pytest.param("rust"), *(pytest.param(name, marks=pytest.mark.long) for name in ("rust-core", "c-core", "c"))]
BITS = {"indirect_desc": 28, "event_idx": 29, "iommu_platform": 33, "packed": 34, "in_order": 35}
"""The features of `Ring` by their numbers in the specification."""

CPUS = {"x86_64": 1, "aarch64": 2}[facts().kernels[KERNEL].arch]
"""Two where the order of accesses to a ring takes instructions of its own."""

MODULES = ("virtio_blk", "virtio_net", "virtio_console", "virtio_rng")
PROGRAMS = {f"/bin/{name}": facts().programs / name for name in ("blkcheck", "netcheck")}
DISK_MIB = 4


@dataclass(frozen=True)
class Ring:
    """The features of a device's rings, by the names QEMU gives them."""

    packed: bool = False
    event_idx: bool = True
    indirect_desc: bool = True
    iommu_platform: bool = False
    in_order: bool = False

    @property
    def name(self) -> str:
        """A name for the device, short enough for a disk's serial number (20 bytes)."""
        words = {"event_idx": "ev", "indirect_desc": "ind", "iommu_platform": "dma", "in_order": "ord"}
        return "-".join(["packed" if self.packed else "split", *(words[name] for name, on in self._flags() if on and name != "packed")])

    @property
    def options(self) -> str:
        """What is behind the device's name in QEMU's `-device`."""
        return ",".join(f"{name}={'on' if on else 'off'}" for name, on in self._flags())

    @property
    def bits(self) -> int:
        """The features that are on, as a device offers them."""
        return sum(1 << BITS[name] for name, on in self._flags() if on)

    def check(self, features: str) -> None:
        """Asserts that these features were negotiated; takes the device's file `features` in sysfs."""
        found = {name: features[bit] == "1" for name, bit in BITS.items()}
        assert found == dict(self._flags()), f"{self.name} has other features"

    def _flags(self) -> list[tuple[str, bool]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


ALL = [Ring(*flags) for flags in itertools.product((False, True), repeat=4)]
IN_ORDER = [Ring(packed, in_order=True) for packed in (False, True)]
# Each value of each feature, and each pair of values of two features, is in one of them.
PAIRWISE = [
    Ring(False, True, True, False), Ring(False, False, False, True), Ring(True, True, False, True), Ring(True, False, True, False),
    Ring(True, True, True, True), Ring(False, False, True, True), Ring(True, False, False, False), Ring(False, True, False, False),
]


class Devices:
    """Devices of one guest: the options for QEMU, and checks of each in the guest."""

    def __init__(self, folder: Path, suffix: str, interfaces: Sequence[str] = ("disable-legacy=on",)) -> None:
        """`suffix` is how the names of the machine's virtio devices end: `pci` or `device`; `interfaces` are options of those on PCI, for
        the first device of a kind, the second, and so on, then from the beginning."""
        self._folder = folder
        self._suffix = suffix
        self._interfaces = interfaces
        self._kinds: Counter[str] = Counter()
        self._disks: list[Ring] = []
        self._nets: list[Ring] = []
        self._serials: list[Ring] = []
        self._rngs: list[Ring] = []
        self.options: list[str] = []

    def _add(self, kind: str, ring: Ring, rest: str) -> None:
        interface = f",{self._interfaces[self._kinds[kind] % len(self._interfaces)]}" if self._suffix == "pci" else ""
        self._kinds[kind] += 1
        self.options += ["-device", f"virtio-{kind}-{self._suffix}{interface},{ring.options}{rest}"]

    def disks(self, rings: Sequence[Ring], options: str = "") -> None:
        """Adds a disk for each of the rings, with options of its `-drive`. Those without indirect descriptors have small queues, which are often full."""
        for ring in rings:
            number = len(self._disks)
            path = self._folder / f"disk{number}"
            with path.open("wb") as file:
                file.truncate(DISK_MIB << 20)
            self.options += ["-drive", f"if=none,id=disk{number},file={path},format=raw,cache=unsafe{options}"]
            self._add("blk", ring, f",drive=disk{number},serial={ring.name}{'' if ring.indirect_desc else ',queue-size=16'}")
            self._disks.append(ring)

    def nets(self, rings: Sequence[Ring]) -> None:
        """Adds a network interface for each of the rings; the first is connected with the second, and so on."""
        for ring in rings:
            number = len(self._nets)
            self.options += ["-netdev", f"hubport,id=net{number},hubid={number // 2}"]
            self._add("net", ring, f",netdev=net{number},mac=52:54:00:00:00:{number:02x}")
            self._nets.append(ring)

    def serials(self, rings: Sequence[Ring]) -> None:
        """Adds a serial port for each of two rings, connected with each other."""
        path = self._folder / "serial"
        for number, (ring, server) in enumerate(zip(rings, (",server=on,wait=off", ""), strict=True)):
            self._add("serial", ring, f",id=serial{number}")
            self.options += ["-chardev", f"socket,id=port{number},path={path}{server}"]
            self.options += ["-device", f"virtserialport,bus=serial{number}.0,chardev=port{number},name=port{number}"]
        self._serials += rings

    def rngs(self, rings: Sequence[Ring]) -> None:
        """Adds a random number generator for each of the rings."""
        self.options += ["-object", "rng-random,id=random,filename=/dev/urandom"]
        for ring in rings:
            self._add("rng", ring, ",rng=random")
        self._rngs += rings

    def check(self, guest: Guest) -> None:
        """Uses all devices."""
        guest.run("modprobe -a " + " ".join(MODULES))
        disks = guest.run("for disk in $(ls -d /sys/block/vd* 2>/dev/null); do echo ${disk##*/} $(cat $disk/serial) $(cat $disk/device/features); done").out
        found = {serial: (disk, features) for disk, serial, features in (line.split() for line in disks.splitlines())}
        for seed, ring in enumerate(self._disks):
            disk, features = found[ring.name]
            ring.check(features)
            print(ring.name, guest.run(f"blkcheck /dev/{disk} {(1, 4, 16)[seed % 3]} {(60, 15, 4)[seed % 3]} {seed}").out.strip())
        # The kernel may find the devices in another order than QEMU has them.
        lines = guest.run("for net in $(ls -d /sys/class/net/eth* 2>/dev/null); do echo $(cat $net/address) ${net##*/}; done").out.splitlines()
        nets = dict(line.split() for line in lines)
        for number in range(0, len(self._nets), 2):
            pair = [nets[f"52:54:00:00:00:{end:02x}"] for end in (number, number + 1)]
            for ring, net in zip(self._nets[number:], pair):
                ring.check(guest.read(f"/sys/class/net/{net}/device/features"))
                guest.run(f"ip link set {net} up")
            print(guest.run(f"netcheck {' '.join(pair)} 1000 {number}").out.strip())
        if self._serials:
            self._check_serials(guest)
        for number, ring in enumerate(self._rngs):
            guest.run(f"echo virtio_rng.{number} >/sys/class/misc/hw_random/rng_current")
            size = int(guest.run("head -c 16384 /dev/hwrng | gzip | wc -c").out)
            assert size > 16384, f"{ring.name}: random numbers should not be compressible, but shrink to {size} bytes"

    def _check_serials(self, guest: Guest) -> None:
        names = guest.run("for port in /sys/class/virtio-ports/*; do echo $(cat $port/name) ${port##*/}; done").out
        ports = dict(line.split() for line in names.splitlines())
        for number, ring in enumerate(self._serials):
            ring.check(guest.read(f"/sys/class/virtio-ports/{ports[f'port{number}']}/device/features"))
        for there, back in (("port0", "port1"), ("port1", "port0")):
            guest.run(
                f"head -c 262144 /dev/urandom >/tmp/sent; head -c 262144 </dev/{ports[back]} >/tmp/received & "
                f"cat /tmp/sent >/dev/{ports[there]}; wait; cmp /tmp/sent /tmp/received"
            )


def boot(guests: Factory, ring: str, **options: object) -> Guest:
    """A started guest without swap, with one of `LAYERS` below the drivers; the balloon driver is as the ring."""
    driver = "rust" if "virtio_ring" in LAYERS[ring] else "c"
    settings = {
        "kernel": KERNEL, "rust": LAYERS[ring], "driver": driver, "swap_mib": 0, "files": PROGRAMS, "memory_mib": 512, "modules": MODULES, "cpus": CPUS,
    }
    return guests(**{**settings, **options}).start()


def use_balloon(guest: Guest) -> None:
    """Inflates and deflates the balloon."""
    for mib in (128, 0):
        guest.inflate(mib)


@pytest.mark.parametrize("ring", RINGS)
def test_pci(guests: Factory, ring: str, tmp_path: Path) -> None:
    """If this fails disks lose data, or networks frames, with some combination of a ring's features."""
    devices = Devices(tmp_path, "pci")
    devices.disks([*ALL, *IN_ORDER])
    devices.nets(PAIRWISE[:4])
    devices.serials(PAIRWISE[4:6])
    devices.rngs(PAIRWISE[6:])
    guest = boot(guests, ring, balloon="virtio-balloon-pci,ioeventfd=off,packed=on", qemu_options=devices.options)
    devices.check(guest)
    use_balloon(guest)


@pytest.mark.parametrize("ring", RINGS)
def test_bounce_buffers(guests: Factory, ring: str, tmp_path: Path) -> None:
    """If this fails a guest whose memory devices cannot reach, an encrypted one, loses data, or runs out of bounce buffers after some requests."""
    devices = Devices(tmp_path, "pci")
    mapped = [features for features in ALL if features.iommu_platform]
    devices.disks(mapped)
    devices.nets(mapped[:2])
    guest = boot(guests, ring, balloon=False, driver=None, qemu_options=devices.options, kernel_options=["swiotlb=8192,force,track_hiwater"])
    devices.check(guest)
    assert int(guest.read("/sys/kernel/debug/swiotlb/io_tlb_used_hiwater")) > 0, "nothing was bounced"
    guest.run("rmmod virtio_blk virtio_net")
    assert int(guest.read("/sys/kernel/debug/swiotlb/io_tlb_used")) == 0, "buffers were not given back"


SHORT = (Ring(iommu_platform=True), Ring(packed=True, iommu_platform=True), Ring(packed=True, indirect_desc=False, iommu_platform=True))


@pytest.mark.parametrize("slots", [512, pytest.param(1024, marks=pytest.mark.long)])
@pytest.mark.parametrize("ring", RINGS)
def test_bounce_buffers_run_out(guests: Factory, ring: str, slots: int, tmp_path: Path) -> None:
    """If this fails requests fail for want of bounce buffers, instead of waiting for those of requests under way: writes to a disk are lost."""
    devices = Devices(tmp_path, "pci")
    # So slow that requests pile up.
    devices.disks(SHORT, ",throttling.iops-total=30")
    # C says EIO on a packed ring, and its disk has an error.
    c_differs = "virtio_ring" not in LAYERS[ring]
    guest = boot(
        guests, ring, balloon=False, driver=None, qemu_options=devices.options, kernel_options=[f"swiotlb={slots},force"], memory_mib=384,
        allow=["I/O error", "buffer is full"] if c_differs else ["buffer is full"],
    )
    guest.run("modprobe virtio_blk")
    disks = guest.run("for d in $(ls /sys/block | grep vd); do echo $d; (blkcheck /dev/$d 16 3 7 >/tmp/$d 2>&1; echo status $? >>/tmp/$d) & done; wait", timeout=200).out.split()
    results = guest.run("cat /tmp/vd*").out
    assert len(disks) == len(SHORT)
    assert any("buffer is full" in line for line in guest.dmesg()), "nothing ran out"
    assert (results.count("status 0") == len(disks)) != c_differs, results
    guest.run("rmmod virtio_blk")
    assert int(guest.read("/sys/kernel/debug/swiotlb/io_tlb_used")) == 0, "buffers were not given back"


@pytest.mark.parametrize("ring", RINGS)
def test_mmio(guests: Factory, ring: str, tmp_path: Path) -> None:
    """If this fails the ring works with PCI only. virtio-mmio makes its rings itself, and one interrupt serves all queues."""
    devices = Devices(tmp_path, "device")
    devices.disks(PAIRWISE[:4])
    devices.nets(PAIRWISE[4:6])
    devices.rngs(PAIRWISE[6:7])
    guest = boot(
        guests, ring, machine=next(iter(WITH_MMIO[facts().kernels[KERNEL].arch].values())), balloon="virtio-balloon-device",
        qemu_options=["-global", "virtio-mmio.force-legacy=false", *devices.options],
    )
    devices.check(guest)
    use_balloon(guest)
