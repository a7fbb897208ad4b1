# SPDX-License-Identifier: GPL-2.0
"""A memory balloon device in Python, honest or hostile, behind QEMU's `vhost-user-test-device-pci`.

`balloon.py` is the device and what a test can make it do, `behaviour.py` the ways it may misbehave, `guest.py` starts a guest on it,
`rig.py` keeps both for several tests, `services.py` the optional queues.
Below: `backend.py` the thread that serves QEMU, `vhost_user.py` the protocol, `ring.py` both ring formats, `memory.py`.
"""

from .balloon import (
    DEFLATE, DEFLATE_ON_OOM, FREE_PAGE_HINT, INFLATE, MUST_TELL_HOST, PAGE_POISON, REPORTING, STATS_VQ, BalloonDevice, Behaviour, Request,
    honest,
)
from .guest import DeviceGuest
from .rig import FORMATS, Rig

__all__ = ["DEFLATE", "DEFLATE_ON_OOM", "FREE_PAGE_HINT", "INFLATE", "MUST_TELL_HOST", "PAGE_POISON", "REPORTING", "STATS_VQ", "BalloonDevice", "Behaviour", "DeviceGuest", "FORMATS", "Request", "Rig", "honest"]
