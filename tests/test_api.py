# SPDX-License-Identifier: GPL-2.0
"""The API for drivers in Rust, on either core and ring: what becomes of the buffers that a device has, and what its configuration reads as.

`tests/modules/virtio_held.rs` is a driver on the API, and its device, which uses no buffer, with the transport.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from lab.guest import Guest
from test_core import CORES, KERNEL

Factory = Callable[..., Guest]

LAYERS = {**CORES, "rust-ring": {"virtio_ring"}, "rust-core": {"virtio"}}
CONTROL = [pytest.param(name, marks=[] if name in ("rust", "c") else pytest.mark.long) for name in LAYERS]
SIZE = 4
"""How many buffers the queue takes."""

LIVE = [
    "device 0x3ffe of vendor 0xcafe", f"wide: Ok({0x0807_0605_0403_0201})", f"absent: Err(-{errno.ENOENT})", f"present: Ok({0x0c0b_0a09})",
    f"buffer {SIZE} is refused: -{errno.ENOSPC}", f"buffer {SIZE} is freed",
]
FREED = [f"buffer {number} is freed" for number in range(SIZE)]
LOST = "virtio_held virtio0: the device is not reset: the buffers that it has are lost"


@pytest.mark.parametrize("layers", CONTROL)
def test_buffers(guests: Factory, layers: str) -> None:
    """If this fails a driver frees memory that its device may still write to, never gets back what a reset gives back, reads fields that
    do not exist, or waits for ever for a device that changes them all the time."""
    warnings = [] if "virtio" in LAYERS[layers] else ["cut here", "WARNING: .*virtio_dev_remove"]
    guest = guests(
        kernel=KERNEL, driver=None, balloon=False, rust=LAYERS[layers], swap_mib=0, memory_mib=256, modules=["virtio_held"], allow=warnings,
    ).start()

    def steps(lie: int) -> list[str]:
        """What the module and the API say from loading to unloading, in order."""
        guest.run(f"dmesg -c >/dev/null; modprobe virtio_held lie={lie}; rmmod virtio_held", timeout=60)
        said = [line.removeprefix("virtio_held: > ") for line in guest.said("virtio_held")]
        return said[said.index(LIVE[0]):]

    assert steps(0) == [*LIVE, f"the queue goes, of {SIZE}", "reset", *FREED, "del_vqs"]

    # The buffers stay with a device that does not finish its reset, which is tried once. Our core says so, too.
    finish = "virtio_held virtio0: the device does not finish its reset: status 0xf"
    core = [finish] if "virtio" in LAYERS[layers] else []
    assert steps(1) == [*LIVE, f"the queue goes, of {SIZE}", "reset", *core, LOST, "del_vqs"]

    # A field of one access needs no second look. A wider one is not to be had.
    never_rests = [line for line in steps(2) if "does not stop to change its configuration" not in line]
    assert never_rests == [LIVE[0], f"wide: Err(-{errno.EIO})", *LIVE[2:], f"the queue goes, of {SIZE}", "reset", *FREED, "del_vqs"]
