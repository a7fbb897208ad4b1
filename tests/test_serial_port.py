# SPDX-License-Identifier: GPL-2.0
"""A serial port that a program holds open over hibernation, as the guest agent of libvirt does: `Documentation/guest-agent.rst`.

After the resume the port is dead, below our modules as below those of C: `virtio_console` of Linux 7.3 loses what the host says. The
patch for it is `tests/patches/virtio_console-restore.patch`.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import paths
from lab.guest import Guest, facts
from test_ring import KERNEL

Factory = Callable[..., Guest]

STACKS = {"rust": {"virtio_pci", "virtio", "virtio_ring"}, "c": set()}
CONTROL = [pytest.param("rust"), pytest.param("c", marks=pytest.mark.long)]
PATCH = paths.CHECKOUT / "tests" / "patches" / "virtio_console-restore.patch"
DRIVER = "drivers/char/virtio_console.c"
MODULE = "/lab/virtio_console.ko"

# It keeps the port open, and says what it is told, as long as that is possible.
AGENT = """
exec 3<>$(ls /dev/vport*p1); while true; do if read -r word <&3; then echo got-$word >&3; else usleep 50000; fi; done"""


class Host:
    """The host's end of the port: connects as soon as QEMU listens, over and over, as libvirt does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._seen = b""
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def ask(self, word: str, seconds: float) -> bool:
        """Whether the guest's program answers to a word."""
        end = time.monotonic() + seconds
        said = 0.0
        while time.monotonic() < end:
            with self._lock:
                if f"got-{word}\n".encode() in self._seen:
                    return True
                if self._socket and time.monotonic() > said + 1:
                    said = time.monotonic()
                    self._socket.sendall(f"{word}\n".encode())
            time.sleep(0.05)
        return False

    def reconnect(self) -> None:
        """Closes the connection; a new one follows at once."""
        with self._lock:
            assert self._socket
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket = None

    def close(self) -> None:
        """Disconnects for good."""
        self._over = True
        self.reconnect()
        self._thread.join()

    def _run(self) -> None:
        while not self._over:
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(str(self._path))
                    with self._lock:
                        self._socket = connection
                    while data := connection.recv(4096):
                        with self._lock:
                            self._seen += data
                except OSError:
                    pass  # QEMU does not run, or does not any more.
                with self._lock:
                    if self._socket is connection:
                        self._socket = None
            time.sleep(0.02)


@contextmanager
def connected(guests: Factory, stack: str, folder: Path, load: str, **options: object) -> Iterator[tuple[Guest, Host]]:
    """A guest with a port, a program that reads from it, and the host's end; `load` loads the driver."""
    path = folder / "port"
    guest = guests(
        kernel=KERNEL, driver=stack, rust=STACKS[stack], memory_mib=384, swap_mib=500, modules=["virtio_console"],
        qemu_options=[
            "-device", "virtio-serial-pci,id=serial,disable-legacy=on", "-chardev", f"socket,id=port,path={path},server=on,wait=off",
            "-device", "virtserialport,bus=serial.0,chardev=port,name=agent",
        ], **options,
    ).start()
    host = Host(path)
    try:
        guest.run(f"{load}; until ls /dev/vport*p1; do usleep 100000; done")
        open_port(guest)
        assert host.ask("awake", 60)
        yield guest, host
    finally:
        host.close()


def open_port(guest: Guest) -> None:
    """Starts the guest's program anew."""
    guest.run(f"kill $(cat /tmp/agent.pid 2>/dev/null) 2>/dev/null; ({AGENT}) >/tmp/agent 2>&1 & echo $! >/tmp/agent.pid")


def sleep_and_wake(guest: Guest) -> None:
    assert guest.hibernate() is None
    result = guest.resume()
    assert result is not None and result.status == 0


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="virtio_console of 7.3 announces its ports before it can take an answer")
@pytest.mark.parametrize("stack", CONTROL)
def test_hibernation(guests: Factory, stack: str, tmp_path: Path) -> None:
    """If this fails as expected the host cannot reach the guest's agent after a hibernation. If it passes the kernel has been mended: take
    away the mark, the patch, and what `guest-agent.rst` says."""
    with connected(guests, stack, tmp_path, "modprobe virtio_console") as (guest, host):
        if guest.hibernate() is not None or guest.resume() is None:
            raise RuntimeError("the guest did not hibernate")
        assert host.ask("again", 10)


@pytest.mark.long
@pytest.mark.parametrize("stack", STACKS)
def test_ways_around(guests: Factory, stack: str, tmp_path: Path) -> None:
    """If this fails what `guest-agent.rst` tells users to do does not help."""
    with connected(guests, stack, tmp_path, "modprobe virtio_console") as (guest, host):
        sleep_and_wake(guest)
        host.reconnect()
        assert host.ask("reconnected", 20), "the host's side connected anew"

        sleep_and_wake(guest)
        open_port(guest)
        reopened = host.ask("opened", 10)
        print("the guest's program alone, started anew:", "lives" if reopened else "does not help")
        guest.run(
            "kill $(cat /tmp/agent.pid); cd /sys/bus/virtio/drivers/virtio_console; for device in virtio*; do "
            "echo $device >unbind; echo $device >bind; done; until ls /dev/vport*p1; do usleep 100000; done"
        )
        open_port(guest)
        assert host.ask("bound", 20), "the guest's driver bound anew"


@pytest.mark.long
@pytest.mark.parametrize("stack", STACKS)
def test_patch(guests: Factory, stack: str, tmp_path: Path) -> None:
    """If this fails the patch does not mend the driver."""
    built = patched_driver(tmp_path / "driver")
    with connected(guests, stack, tmp_path, f"insmod {MODULE}", files={MODULE: built}) as (guest, host):
        for number in range(5):
            sleep_and_wake(guest)
            assert host.ask(f"again{number}", 20), f"hibernation {number}"


def patched_driver(folder: Path) -> Path:
    """Builds the kernel's driver with the patch."""
    kernel = facts().kernels[KERNEL]
    (folder / DRIVER).parent.mkdir(parents=True)
    shutil.copyfile(kernel.source / DRIVER, folder / DRIVER)
    subprocess.run(["patch", "-p1", "--fuzz=0", "-i", PATCH], cwd=folder, check=True)
    source = (folder / DRIVER).parent
    (source / "Kbuild").write_text("obj-m := virtio_console.o\nccflags-y := -I$(srctree)/drivers/char\n")
    out = folder / "out"
    subprocess.run(["sh", paths.STEPS / "modules.sh", source, out, kernel.source, kernel.build, *kernel.make], check=True)
    return out / "virtio_console.ko"
