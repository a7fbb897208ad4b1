# SPDX-License-Identifier: GPL-2.0
"""Guests for tests and the demo; runs inside the build root.

    from lab.guest import Guest

    with Guest(kernel="stock", driver="c") as guest:
        guest.inflate(512)                 # MiB
        guest.run("echo hello")
        assert guest.hibernate() is None   # QEMU has ended
        guest.resume()                     # in a new QEMU process

`guest.py` has the guest, `trace.py` the host's view of its balloon, `pmtimes.py` what its kernel says about sleeping,
`init.sh` what runs in it.
"""

from .errors import GuestError, GuestTimeout, KernelFault, QemuDied, ScriptFailed
from .facts import facts
from .guest import BALLOON, PAGES_PER_MIB, Guest
from .machines import WITH_MMIO
from .qemu import BALLOON_ID, ROOT_PORT, SWAP_DEVICE
from .shell import Result
from .trace import Mark, Traffic

__all__ = [
    "BALLOON", "BALLOON_ID", "PAGES_PER_MIB", "ROOT_PORT", "SWAP_DEVICE", "Guest", "GuestError", "GuestTimeout", "KernelFault", "Mark",
    "QemuDied", "Result", "ScriptFailed", "Traffic", "WITH_MMIO", "facts",
]
