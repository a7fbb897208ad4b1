"""A memory balloon device in Python, honest or hostile, behind QEMU's `vhost-user-test-device-pci`.

`balloon.py` is the device and what a test can make it do, `behaviour.py` the ways it may misbehave, `guest.py` starts a guest on it,
`rig.py` keeps both for several tests.
Below: `backend.py` the thread that serves QEMU, `vhost_user.py` the protocol, `ring.py` both ring formats, `memory.py`.
"""

from .balloon import DEFLATE, INFLATE, MUST_TELL_HOST, BalloonDevice, Behaviour, Request, honest
from .guest import DeviceGuest
from .rig import FORMATS, Rig

__all__ = ["DEFLATE", "INFLATE", "MUST_TELL_HOST", "BalloonDevice", "Behaviour", "DeviceGuest", "FORMATS", "Request", "Rig", "honest"]
