# SPDX-License-Identifier: GPL-2.0
"""What is measured of virtio-pci, and of all our modules together: requests, datagrams, and devices that are bound, beside the C modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from lab.guest import Guest, facts

from .profile import CountedGuest, Profile, Snapshot, Symbols
from .results import Row, Samples, Say
from .ring import DATAGRAMS, LATENCY_NS, NETS, REQUESTS, path

ROUNDS = 3
PARTS = ("disks", "net", "probe")
MODULES = ("virtio_blk", "virtio_net", "virtio_rng")
TRANSPORT, ALL = "virtio_pci", "all modules"
OURS: dict[str, set[str]] = {"C": set(), TRANSPORT: {"virtio_pci"}, ALL: {"virtio", "virtio_ring", "virtio_pci"}}
"""What is ours in each of the guests."""

PROBED = 32
"""Devices that are bound at a time, in slots of eight functions."""

FIRST_SLOT = 16
TARGET = 1.0
DRIVER = "/sys/bus/pci/drivers/virtio-pci"
WORK = {"disks": ("4 KiB read", "128 KiB in 32 pieces"), "net": ("datagram in 64 bytes sent",)}


def measure(kernel: str, parts: Collection[str], say: Say, profile: Profile | None = None) -> list[Row]:
    """Measures C's modules, our transport on C's others, and ours alone. Raises GuestError when a guest does not do its part."""
    samples = {name: Bench(kernel, name, ours, parts, lambda text, name=name: say(f"{name:<11}  {text}"), profile).run() for name, ours in OURS.items()}
    return [
        Row(f"{name}; ours: {who}", "instructions", samples["C"][name], samples[who][name], TARGET)
        for who in (TRANSPORT, ALL) for name in work(parts)
    ]


def work(parts: Collection[str]) -> list[str]:
    """What is measured in these parts; samples have these names."""
    names = [f"{name}, {ring}" for part in parts for name in WORK.get(part, ()) for ring in NETS]
    return [*names, *(["device bound"] if "probe" in parts else [])]


class Bench:
    """One guest, in which these modules are ours."""

    def __init__(self, kernel: str, name: str, ours: Collection[str], parts: Collection[str], say: Say, profile: Profile | None) -> None:
        self._name = name
        self._parts = parts
        self._say = say
        self._profile = profile
        self._counter = CountedGuest()
        self._samples: Samples = defaultdict(list)
        self._guest = Guest(
            f"bench-pci-{name.replace(' ', '-')}", kernel=kernel, driver=None, balloon=False, swap_mib=0, memory_mib=512, icount=True,
            modules=MODULES, rust=ours, files={"/bin/ringload": facts().programs / "ringload"}, qemu_options=[*self._counter.options, *_devices()],
        )

    def run(self) -> Samples:
        """Boots the guest and measures the parts asked for."""
        self._say("boots")
        with self._guest as guest:
            guest.run("modprobe -a " + " ".join(MODULES))
            symbols = Symbols(guest)
            for number in range(ROUNDS):
                self._say(f"round {number + 1} of {ROUNDS}")
                keep = self._profile if number == 0 else None
                for place, ring in enumerate(NETS):
                    if "disks" in self._parts:
                        for name, pieces in zip(WORK["disks"], REQUESTS):
                            self._count(f"{name}, {ring}", f"ringload read /dev/vd{'ab'[place]} {pieces}", REQUESTS[pieces], symbols, keep)
                    if "net" in self._parts:
                        guest.run(
                            f"ip link set eth{place} up; ip addr flush dev eth{place}; ip addr add 10.0.{place}.1/24 dev eth{place}; "
                            f"arp -s 10.0.{place}.2 52:54:00:ff:ff:0{place}"
                        )
                        self._count(f"{WORK['net'][0]}, {ring}", f"ringload send 10.0.{place}.2:9", DATAGRAMS, symbols, keep)
                if "probe" in self._parts:
                    self._probe(symbols, keep)
        return self._samples

    def _count(self, name: str, command: str, amounts: tuple[int, int], symbols: Symbols, profile: Profile | None) -> None:
        few, many = amounts
        self._guest.run(f"{command} {few}")
        runs = [self._spent(f"{command} {amount}") for amount in amounts]
        self._keep(name, runs[1] - runs[0], many - few, symbols, profile)

    def _probe(self, symbols: Symbols, profile: Profile | None) -> None:
        functions = f"cd {DRIVER}; for slot in {' '.join(f'{FIRST_SLOT + n:02x}' for n in range(PROBED // 8))}; do for f in 0 1 2 3 4 5 6 7; do"
        self._guest.run(f"{functions} echo 0000:00:$slot.$f >unbind; done; done")
        spent = self._spent(f"{functions} echo 0000:00:$slot.$f >bind; done; done")
        bound = int(self._guest.run(f"ls {DRIVER} | grep -c '^0000:00:1'").out)
        assert bound >= PROBED, f"{bound} devices were bound"
        self._keep("device bound", spent, PROBED, symbols, profile)

    def _spent(self, command: str) -> Snapshot:
        before = self._counter.snapshot()
        self._guest.run(command)
        return self._counter.snapshot() - before

    def _keep(self, name: str, spent: Snapshot, pieces: int, symbols: Symbols, profile: Profile | None) -> None:
        self._samples[name].append(path(symbols.functions(spent)) / pieces)
        if profile:
            profile.add(f"{self._name}: {name}", spent, pieces, symbols)


def _devices() -> list[str]:
    options = ["-object", "rng-builtin,id=random"]
    for place, more in enumerate(NETS.values()):
        common = f"disable-legacy=on,ioeventfd=off{',' + more if more else ''}"
        options += ["-blockdev", f"driver=null-co,node-name=null{place},size={1 << 30},read-zeroes=on,latency-ns={LATENCY_NS}"]
        options += ["-device", f"virtio-blk-pci,{common},drive=null{place}"]
        options += ["-netdev", f"user,id=net{place},restrict=on", "-device", f"virtio-net-pci,{common},netdev=net{place}"]
    for number in range(PROBED):
        address = f"{FIRST_SLOT + number // 8:#x}.{number % 8}"
        options += ["-device", f"virtio-rng-pci,disable-legacy=on,ioeventfd=off,rng=random,multifunction=on,addr={address}"]
    return options
