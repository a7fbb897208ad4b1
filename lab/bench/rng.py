# SPDX-License-Identifier: GPL-2.0
"""What is measured of the sample driver: reading /dev/hwrng, beside the kernel's own driver."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from lab.guest import Guest
from lab.guest.guest import Driver

from .profile import CountedGuest, Profile, Symbols
from .results import Row, Samples, Say
from .ring import path

ROUNDS = 3
PARTS = ("read",)
KIB = (64, 576)
"""Two amounts to read: what a KiB costs is the difference of two runs by the difference of the amounts."""

NOTIFY = {"vp_notify", "vp_notify_with_data"}
TARGET = 0.2


def measure(kernel: str, parts: Collection[str], say: Say, profile: Profile | None = None) -> list[Row]:
    """Measures both drivers. Raises GuestError when a guest does not do its part."""
    samples: dict[Driver, Samples] = {"c": defaultdict(list), "rust": defaultdict(list)}
    for driver, found in samples.items():
        _measure(kernel, driver, found, lambda text: say(f"{driver:<4}  {text}"), profile)
    c, rust = samples["c"], samples["rust"]
    return [
        Row("all per KiB read, user space, scheduler and idle loop included", "instructions", c["all"], rust["all"]),
        Row("path per KiB read", "instructions", c["path"], rust["path"], TARGET),
        Row("of it virtio modules", "instructions", c["modules"], rust["modules"]),
        Row("notifications per KiB", "1", c["notifications"], rust["notifications"], TARGET),
    ]


def _measure(kernel: str, driver: Driver, samples: Samples, say: Say, profile: Profile | None) -> None:
    counter = CountedGuest()
    say("boots")
    guest = Guest(
        f"bench-rng-{driver}", kernel=kernel, driver=None, balloon=False, swap_mib=0, memory_mib=256, icount=True, modules=("virtio_rng",),
        rust={"virtio_rng"} if driver == "rust" else set(),
        qemu_options=[*counter.options, "-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,disable-legacy=on,ioeventfd=off,rng=rng"],
    )
    with guest:
        guest.run("modprobe virtio_rng; dd if=/dev/hwrng of=/dev/null bs=4096 count=16")
        symbols = Symbols(guest)
        few, many = KIB
        for number in range(ROUNDS):
            say(f"reads, {number + 1} of {ROUNDS}")
            runs = []
            for size in KIB:
                before = counter.snapshot()
                guest.run(f"dd if=/dev/hwrng of=/dev/null bs=4096 count={size // 4}")
                runs.append(counter.snapshot() - before)
            spent, read = runs[1] - runs[0], many - few
            functions, calls = symbols.functions(spent), symbols.calls(spent)
            samples["all"].append(spent.total / read)
            samples["path"].append(path(functions) / read)
            samples["modules"].append(sum(count for function, count in functions.items() if function.module.startswith("virtio")) / read)
            samples["notifications"].append(sum(count for function, count in calls.items() if function.name in NOTIFY) / read)
            if profile and number == 0:
                profile.add(f"{driver}: KiB read", spent, read, symbols)
