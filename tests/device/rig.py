# SPDX-License-Identifier: GPL-2.0
"""A guest and its balloon device, kept over several tests because booting takes longer than most of them."""

from __future__ import annotations

import time
from pathlib import Path

from .balloon import MUST_TELL_HOST, BalloonDevice, Behaviour, honest
from .guest import DeviceGuest

FORMATS = {"split": MUST_TELL_HOST, "packed": 0}
"""Ring formats with the features of the device in that rig, so that every test sees MUST_TELL_HOST on and off."""


class Rig:
    """The pair, for one kernel and ring format. Between two tests the driver is not loaded and the balloon is empty."""

    def __init__(self, kernel: str, ring: str, logs: Path, features: int | None = None, **options: object) -> None:
        """Boots the guest, which takes `options`, on a device that offers `features` instead of those in `FORMATS`."""
        self.device = BalloonDevice(packed=ring == "packed", features=FORMATS[ring] if features is None else features)
        # Where the rings are modules they are ours, so that both kinds meet every device.
        ours = set() if kernel == "stock" else {"virtio_ring"}
        # The detectors of the kernel `debug` take some memory for themselves.
        memory = 1024 if kernel == "debug" else 512
        self.guest = DeviceGuest(f"{kernel}-{ring}", self.device, memory_mib=memory, kernel=kernel, rust=ours, logs=logs, **options)
        try:
            self.guest.start()
            # Compaction would migrate balloon pages at times of its own choice.
            self.guest.run("echo 0 >/proc/sys/vm/compaction_proactiveness")
            self.mem_total = self.guest.meminfo()["MemTotal"]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends guest and device."""
        self.guest.stop()
        self.device.__exit__(None, None, None)

    # Steps of a test

    def begin(self) -> None:
        """Makes the device honest and empty, and the record and the kernel's log empty, too."""
        self.device.be_honest()
        self.device.keeps_actual = True
        self.device.forget()
        self.device.clear_record()
        self.guest.run("dmesg -c >/dev/null")

    def load(self, target: int = 0, behaviour: Behaviour = honest) -> None:
        """Loads the driver, with the device wanting `target` pages from the beginning."""
        self.device.behaviour = behaviour
        self.device.set_target(target)
        self.guest.run("modprobe virtio_balloon")

    def unload(self, timeout: float = 60) -> float:
        """Removes the driver and returns how long that took, in seconds."""
        start = time.monotonic()
        self.guest.run("rmmod virtio_balloon", timeout)
        return time.monotonic() - start

    def inflate(self, pages: int) -> None:
        """Loads the driver and waits until the balloon has this size."""
        self.load(pages)
        self.settle(pages)

    def go_to(self, pages: int) -> None:
        """Changes the target and waits until the balloon has that size."""
        self.device.set_target(pages)
        self.settle(pages)

    def wait_outstanding(self, queue: int) -> None:
        """Waits until a request of this queue waits for its answer."""
        self.guest.wait_for(lambda: any(r.queue == queue for r in self.device.outstanding), 20, f"no request in queue {queue}")

    def settle(self, pages: int, timeout: float = 60) -> None:
        """Waits until the device has `pages` pages and knows it; then all books must agree."""
        device = self.device

        def settled() -> bool:
            with device.lock:
                return not device.outstanding and len(device.pages) == pages and device.actual == pages

        self.guest.wait_for(settled, timeout, lambda: f"{len(device.pages)} pages in the balloon, actual {device.actual}, not {pages},")
        self.check_books(pages)

    def check_books(self, pages: int) -> None:
        """The kernel's count of balloon pages, its MemTotal and the driver's own count all say `pages`."""
        script = """
            cat /proc/sys/vm/stat_refresh  # Adds up the counters of the CPUs.
            grep nr_balloon_pages /proc/vmstat
            awk '/^MemTotal|^Balloon/ { print $1, $2 }' /proc/meminfo
            cat /sys/kernel/debug/virtio_balloon*/state"""
        words = [line.split() for line in self.guest.run(script).out.splitlines()]
        books = {line[0].rstrip(":"): line[1] for line in words}
        assert int(books["nr_balloon_pages"]) == pages
        assert int(books["held_pages"]) == pages
        assert int(books["Balloon"]) == pages * 4
        assert int(books["MemTotal"]) == self.mem_total - pages * 4

    def end(self) -> None:
        """What holds after every test: the driver can be removed, then no page is missing, and it broke no rule."""
        self.device.be_honest()
        self.guest.run("! grep -q '^virtio_balloon ' /proc/modules || rmmod virtio_balloon")
        assert self.device.violations == []
        assert self.guest.meminfo()["MemTotal"] == self.mem_total
        assert self.guest.run("cat /proc/sys/vm/stat_refresh; grep nr_balloon_pages /proc/vmstat").out == "nr_balloon_pages 0\n"
        self.guest.check()

    # What the kernel says

    def state(self) -> dict[str, str]:
        """The driver's state in debugfs."""
        lines = self.guest.run("cat /sys/kernel/debug/virtio_balloon*/state").out.splitlines()
        return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}

    def log(self, word: str = "virtio_balloon virtio") -> list[str]:
        """The lines of the kernel's log since the test began that contain a word; by default those about the device.

        Leaves out the driver's remark about a slow answer: on a busy machine an honest device is slow, too.
        """
        return [line for line in self.guest.dmesg() if word in line and "has not answered a request for" not in line]
