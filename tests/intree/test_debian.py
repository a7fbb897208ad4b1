# SPDX-License-Identifier: GPL-2.0
"""A Debian system on the kernel `rust` or `rust-debug`: root, swap, network, console, random numbers, sockets and balloon over virtio."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from device.vsock import VsockDevice
from lab.guest import Guest, facts
from test_kernel import KERNEL
from test_ring import Ring

Factory = Callable[..., Guest]

BOOT_SECONDS = 240
"""systemd takes its time where the CPU is emulated."""

MEMORY_MIB = 1024
VSOCK_BYTES = 400_000
LOGIN = "login: "

FIO = (
    "fio --name=check --filename={file} --size={mib}m --rw=randrw --bsrange=512-256k --blockalign=512 --direct=1"
    " --ioengine=libaio --iodepth={depth} --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed={seed} {more}"
)
"""Random requests of all sizes, each read back and compared."""


class Network:
    """Two network interfaces of a guest, connected with each other outside of it. Inside one of them is in a name space of its own,
    so that what is sent from one address to the other really goes through both. Neither has checksums in hardware: TCP sees what
    was changed on the way."""

    CHECKSUMS = "csum=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
    SERVER, CLIENT = "10.0.0.1", "10.0.0.2"
    INSIDE = "ip netns exec far"

    @classmethod
    def options(cls) -> list[str]:
        """The options for QEMU, which has a hub to connect them.

        With packed rings and event_idx the device of QEMU 11.1 stands still when it sends to another one: it waits for a notification
        at a place that it has passed. So it does below C's rings, on the kernel `c`.
        """
        options = []
        for number, ring in enumerate(("packed=on,event_idx=off", "packed=off")):
            options += ["-netdev", f"hubport,id=net{number},hubid=0"]
            device = f"virtio-net-pci,disable-legacy=on,{ring},{cls.CHECKSUMS}"
            options += ["-device", f"{device},netdev=net{number},mac=52:54:00:00:01:0{number}"]
        return options

    @classmethod
    def begin(cls, guest: Guest) -> None:
        """Gives both an address, and starts a server."""
        names = [
            guest.run(f"basename $(dirname $(grep -l 52:54:00:00:01:0{end} /sys/class/net/*/address))").out.strip() for end in range(2)
        ]
        guest.run(
            f"ip netns add far; ip link set {names[1]} netns far; ip addr add {cls.SERVER}/24 dev {names[0]}; ip link set {names[0]} up;"
            f"{cls.INSIDE} ip addr add {cls.CLIENT}/24 dev {names[1]}; {cls.INSIDE} ip link set {names[1]} up"
        )
        guest.run(f"systemd-run --quiet --unit=server iperf3 -s -B {cls.SERVER}; sleep 1; systemctl is-active server")

    @classmethod
    def check(cls, guest: Guest) -> None:
        """Asserts that nothing arrived changed, and that something arrived."""
        for inside in ("", cls.INSIDE):
            lines = guest.run(f"{inside} nstat -a -z -s TcpInCsumErrors TcpInSegs").out.splitlines()
            counts = {name: int(count) for name, count, _ in (line.split() for line in lines if not line.startswith("#"))}
            assert counts["TcpInCsumErrors"] == 0 and counts["TcpInSegs"] > 100, counts


def boot(guests: Factory, options: Sequence[str] = (), **settings: object) -> Guest:
    """A Debian system that has come up; its swap is in use. More options for QEMU come last."""
    guest = guests(**{
        "kernel": KERNEL, "root": facts().debian, "memory_mib": MEMORY_MIB, "cpus": 2,
        "swap_mib": 800, "swap": "virtio-blk-pci,disable-legacy=on", "balloon": "virtio-balloon-pci,disable-legacy=on",
        "qemu_options": [*Network.options(), "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random", *options],
        **settings,
    })
    guest.start(timeout=BOOT_SECONDS)
    guest.run("systemctl is-system-running --wait", timeout=BOOT_SECONDS, check=False)
    guest.run("swapon /dev/vda; dmesg -n 7")
    return guest


def is_up(guest: Guest) -> bool:
    """Whether systemd has started all that it was to start."""
    return guest.run("systemctl is-system-running", check=False).out.strip() == "running"


def test_system(guests: Factory, tmp_path: Path) -> None:
    """If this fails a Debian system does not come up on a kernel with all of virtio from Rust, or cannot be used."""
    path = tmp_path / "console"
    console = [
        "-chardev", f"socket,id=hvc0,path={path},server=on,wait=off", "-device", "virtio-serial-pci,disable-legacy=on", "-device", "virtconsole,chardev=hvc0",
    ]
    guest = boot(guests, console)
    assert is_up(guest), guest.run("systemctl --failed; systemctl list-jobs").out
    guest.wait_for(lambda: LOGIN in guest.console.text(), 60, "there is no login on the console")
    assert guest.run("findmnt -n -o SOURCE,FSTYPE /").out.split() == ["/dev/vdb", "ext4"]
    assert log_in(guest, path) == "42"
    packages(guest)
    assert guest.read("/sys/class/misc/hw_random/rng_current") == "virtio_rng.0"
    Network.begin(guest)
    guest.run(f"{Network.INSIDE} iperf3 -c {Network.SERVER} -n 4M")
    guest.inflate(200)
    guest.inflate(0)


def log_in(guest: Guest, path: Path) -> str:
    """Logs in over virtio_console, lets the shell there calculate, and returns what it finds."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.settimeout(1)
        said = b""

        def answers(pattern: bytes) -> bool:
            nonlocal said
            try:
                said += line.recv(4096)
            except TimeoutError:
                line.sendall(b"\n")
            return re.search(pattern, said) is not None

        guest.wait_for(lambda: answers(rb"login: "), 60, "there is no login on virtio_console")
        line.sendall(b"root\n")
        guest.wait_for(lambda: answers(rb"root@debian:~# "), 60, "the login on virtio_console fails")
        line.sendall(b"echo result $((6 * 7))\n")
        guest.wait_for(lambda: answers(rb"result \d+"), 60, "the shell on virtio_console does not answer")
    found = re.search(rb"result (\d+)\s", said)
    assert found
    return found[1].decode()


def packages(guest: Guest) -> None:
    """Installs a package of the repository in the image."""
    guest.run("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install hello", timeout=120)
    assert guest.run("hello").out.strip() == "Hello, world!"


def test_host(guests: Factory, tmp_path: Path) -> None:
    """If this fails a system loses what it writes to a folder of its host, over 9p, or sends it by a socket."""
    share = tmp_path / "share"
    share.mkdir()
    shutil.copy(facts().programs / "vsockcheck", share)
    ring = Ring(packed=True)
    folder = ["-fsdev", f"local,id=folder,path={share},security_model=none", "-device", "virtio-9p-pci,disable-legacy=on,fsdev=folder,mount_tag=folder"]
    with VsockDevice(ring.bits, ring.options, "sockets") as sockets:
        guest = boot(guests, [*folder, *sockets.options], shared_memory=True)
        guest.run("set -e; mount -t 9p -o trans=virtio,version=9p2000.L folder /mnt; head -c 16m /dev/urandom >/run/file; cp /run/file /mnt/file; sync")
        assert guest.run("sha256sum </run/file").out.split()[0] == hashlib.sha256((share / "file").read_bytes()).hexdigest()
        (share / "answer").write_bytes((share / "file").read_bytes()[::-1])
        assert guest.run("sha256sum </mnt/answer").out.split()[0] == hashlib.sha256((share / "answer").read_bytes()).hexdigest()
        guest.run(f"/mnt/vsockcheck {VSOCK_BYTES} 1")
        assert (sockets.received, sockets.violations) == (VSOCK_BYTES, [])


def test_data(guests: Factory) -> None:
    """If this fails a file system on virtio_blk loses data, or streams over virtio_net stall or break."""
    guest = boot(guests)
    print(guest.run(FIO.format(file="/var/tmp/fio", mib=64, depth=32, seed=1, more="--runtime=60"), timeout=300).out)
    Network.begin(guest)
    print(guest.run(f"{Network.INSIDE} iperf3 -c {Network.SERVER} -t 10 --bidir", timeout=120).out)
    Network.check(guest)


@pytest.mark.parametrize("mode", ["platform", pytest.param("shutdown", marks=pytest.mark.long)])
def test_hibernation(guests: Factory, mode: str) -> None:
    """If this fails a system with root and swap on virtio disks and an inflated balloon does not survive hibernation."""
    guest = boot(guests)
    guest.run("head -c 64m /dev/urandom >/root/file; cp /root/file /run/file; sha256sum /root/file /run/file >/root/sums; sync")
    guest.inflate(300)
    mark = guest.mark()
    assert guest.hibernate(mode, timeout=300) is None
    assert guest.traffic(mark).pages == 0, "hibernation should move no page"
    guest.resume(target_mib=100, timeout=BOOT_SECONDS)
    guest.run("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /root/sums", timeout=120)
    guest.wait_actual(100 * 256)
    guest.inflate(0)
    packages(guest)
    assert is_up(guest), guest.run("systemctl --failed").out
