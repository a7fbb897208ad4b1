# SPDX-License-Identifier: GPL-2.0
"""What is measured of virtio-mmio: requests and datagrams on microvm, on the rings of C, beside the C module.

The machine does not boot with a clock of counted instructions (`icount`), so that the figures of two rounds differ more than others do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from lab.guest import Guest, facts
from lab.guest.guest import Driver

from .profile import CountedGuest, Profile, Symbols
from .results import Row, Samples, Say
from .ring import DATAGRAMS, LATENCY_NS, NETS, REQUESTS, path

ROUNDS = 2
PARTS = ("disks", "net")
MODULES = ("virtio_blk", "virtio_net")
TARGET = 1.0


def measure(kernel: str, parts: Collection[str], say: Say, profile: Profile | None = None) -> list[Row]:
    """Measures both modules. Raises GuestError when a guest does not do its part."""
    samples: dict[Driver, Samples] = {"c": defaultdict(list), "rust": defaultdict(list)}
    for driver, found in samples.items():
        _measure(kernel, driver, parts, found, lambda text: say(f"{driver:<4}  {text}"), profile)
    c, rust = samples["c"], samples["rust"]
    names = [name for part, name in (("disks", "4 KiB read"), ("net", "datagram in 64 bytes sent")) if part in parts]
    return [
        Row(f"{prefix}{name}, {ring}", "instructions", c[f"{name}, {ring}{suffix}"], rust[f"{name}, {ring}{suffix}"], target)
        for name in names for ring in NETS for prefix, suffix, target in (("", "", TARGET), ("virtio_mmio in ", ", module", None))
    ]


def _measure(kernel: str, driver: Driver, parts: Collection[str], samples: Samples, say: Say, profile: Profile | None) -> None:
    counter = CountedGuest()
    say("boots")
    guest = Guest(
        f"bench-mmio-{driver}", kernel=kernel, driver=None, balloon=False, swap_mib=0, memory_mib=512, modules=MODULES,
        machine="microvm,acpi=off,rtc=off", rust={"virtio_mmio"} if driver == "rust" else set(), files={"/bin/ringload": facts().programs / "ringload"},
        qemu_options=[*counter.options, "-global", "virtio-mmio.force-legacy=off", "-global", "virtio-mmio.ioeventfd=off", *_devices()],
    )

    def count(name: str, command: str, amounts: tuple[int, int], keep: bool) -> None:
        few, many = amounts
        guest.run(f"{command} {few}")
        runs = []
        for amount in amounts:
            before = counter.snapshot()
            guest.run(f"{command} {amount}")
            runs.append(counter.snapshot() - before)
        spent, done = runs[1] - runs[0], many - few
        functions = symbols.functions(spent)
        samples[name].append(path(functions) / done)
        samples[f"{name}, module"].append(sum(number for function, number in functions.items() if function.module == "virtio_mmio") / done)
        if profile and keep:
            profile.add(f"{driver}: {name}", spent, done, symbols)

    with guest:
        guest.run("modprobe -a " + " ".join(MODULES))
        symbols = Symbols(guest)
        disks = guest.run("for disk in /sys/block/vd*; do echo $(cat $disk/serial) ${disk##*/}; done").out
        disk_of = dict(line.rsplit(maxsplit=1) for line in disks.splitlines())
        nets = guest.run("for net in /sys/class/net/eth*; do echo $(cat $net/address) ${net##*/}; done").out
        net_of = dict(line.split() for line in nets.splitlines())
        for number in range(ROUNDS):
            say(f"round {number + 1} of {ROUNDS}")
            for place, ring in enumerate(NETS):
                if "disks" in parts:
                    count(f"4 KiB read, {ring}", f"ringload read /dev/{disk_of[ring]} 1", REQUESTS[1], number == 0)
                if "net" in parts:
                    net = net_of[_mac(place)]
                    guest.run(
                        f"ip link set {net} up; ip addr flush dev {net}; ip addr add 10.0.{place}.1/24 dev {net}; "
                        f"arp -s 10.0.{place}.2 52:54:00:ff:ff:0{place}"
                    )
                    count(f"datagram in 64 bytes sent, {ring}", f"ringload send 10.0.{place}.2:9", DATAGRAMS, number == 0)


def _mac(place: int) -> str:
    return f"52:54:00:00:00:0{place}"


def _devices() -> list[str]:
    options = []
    for place, (ring, more) in enumerate(NETS.items()):
        more = f",{more}" if more else ""
        options += ["-blockdev", f"driver=null-co,node-name=null{place},size={1 << 30},read-zeroes=on,latency-ns={LATENCY_NS}"]
        options += ["-device", f"virtio-blk-device,drive=null{place},serial={ring}{more}"]
        options += ["-netdev", f"user,id=net{place},restrict=on", "-device", f"virtio-net-device,netdev=net{place},mac={_mac(place)}{more}"]
    return options
