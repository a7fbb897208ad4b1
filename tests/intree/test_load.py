# SPDX-License-Identifier: GPL-2.0
"""A busy Debian system on the kernel `rust` or `rust-debug`: disks, network, memory and the balloon at once, then hibernation after hibernation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from lab.guest import Guest
from test_debian import BOOT_SECONDS, FIO, Network, boot
from test_kernel import KERNEL

Factory = Callable[..., Guest]

SEED = 8
LARGEST_MIB = 350
"""The largest balloon: a third of the memory, so that the programs do not starve."""

JOBS = {
    "disk": "while :; do " + FIO.format(file="/var/tmp/fio", mib=96, depth="$(shuf -n 1 -e 1 8 64 256)", seed="$RANDOM", more="--runtime=60")
    + " || exit; done",
    "network": f"while :; do {Network.INSIDE} iperf3 -c {Network.SERVER} -t 20 --bidir || exit; done",
    "memory": "while :; do stress-ng --vm 1 --vm-bytes 150m --vm-method flip --verify --io 1 --timeout 60 || exit; done",
}
"""What runs all the time; a job that fails ends, which is how it is noticed."""


def begin(guest: Guest) -> None:
    """Starts all jobs, each with a log."""
    Network.begin(guest)
    for name, script in JOBS.items():
        guest.run(f"mkdir -p /run/jobs; cat >/run/jobs/{name}.sh <<'END'\n{script}\nEND")
        guest.run(f"systemd-run --quiet --unit=job-{name} bash -c 'bash /run/jobs/{name}.sh >/run/jobs/{name}.log 2>&1'")


def check(guest: Guest) -> None:
    """Asserts that no job has ended."""
    for name in JOBS:
        state = guest.run(f"systemctl is-active job-{name}", check=False).out.strip()
        assert state == "active", f"{name} is {state}:\n{guest.run(f'tail -n 30 /run/jobs/{name}.log').out}"


def end(guest: Guest, total_kib: int) -> None:
    """Stops all jobs, and asserts that nothing was changed on the network and that the balloon gives all pages back."""
    Network.check(guest)
    guest.run("systemctl stop " + " ".join(f"job-{name}" for name in JOBS), timeout=120)
    guest.set_target(0)
    guest.wait_actual(0, timeout=120)
    assert guest.meminfo()["MemTotal"] == total_kib, "pages are missing"


def balloon(guest: Guest, pick: random.Random, seconds: float) -> None:
    """Sets another target every few seconds, and looks after the jobs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        guest.set_target(pick.randrange(LARGEST_MIB))
        time.sleep(pick.uniform(1, 8))
        check(guest)


def sleep(guest: Guest, pick: random.Random) -> None:
    """Hibernates the busy system and resumes it on a host that wants another balloon."""
    assert guest.hibernate(pick.choice(["platform", "shutdown"]), timeout=300) is None
    guest.resume(target_mib=pick.randrange(LARGEST_MIB), timeout=BOOT_SECONDS)
    check(guest)


# On the kernel that looks for errors in all it does the load is what is looked for, on the other one `make test-long` has it.
AMOUNTS = {
    "rust": [pytest.param(60, 1, id="short"), pytest.param(30 * 60, 10, id="long", marks=pytest.mark.long)],
    "rust-debug": [pytest.param(10 * 60, 1, id="debug")],
}
"""Seconds of the load, and how many hibernations follow."""


@pytest.mark.parametrize(("seconds", "sleeps"), AMOUNTS[KERNEL])
def test_load(guests: Factory, seconds: float, sleeps: int) -> None:
    """If this fails a busy system loses data, memory or a connection: under load, or when it hibernates in the midst of it."""
    pick = random.Random(SEED)
    guest = boot(guests, swap_mib=1500)
    total_kib = guest.meminfo()["MemTotal"]
    begin(guest)
    balloon(guest, pick, seconds)
    for _ in range(sleeps):
        sleep(guest, pick)
        balloon(guest, pick, 10)
    end(guest, total_kib)
