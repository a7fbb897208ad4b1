# SPDX-License-Identifier: GPL-2.0
"""Puts a guest on a `BalloonDevice`: its memory is shared with the device, which QEMU reaches by vhost-user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.guest import Guest

from .balloon import CONFIG_SIZE, BalloonDevice

QUEUE_SIZE = 128


class DeviceGuest(Guest):
    """A guest whose balloon is a device of ours. It starts without a balloon driver: `load()` comes when the device is ready.

    What the harness asks QEMU about a balloon (`set_target()`, `actual()`, `traffic()`) the device itself tells here.
    """

    def __init__(self, name: str, device: BalloonDevice, *others: BalloonDevice, memory_mib: int = 512, **options: Any) -> None:
        """As for `Guest`, with a balloon on each of the devices; the size of guest pages that they know is 4 KiB."""
        self.device = device
        super().__init__(
            name,
            memory_mib=memory_mib,
            shared_memory=True,
            balloon=_model("device", device),
            qemu_options=[
                *_socket("device", device),
                *(word for i, other in enumerate(others) for word in (*_socket(f"other{i}", other), "-device", _model(f"other{i}", other))),
            ],
            **options,
        )
        self._late = []

    def stop(self) -> None:
        """As for `Guest`; leaves what the device saw beside the guest's logs."""
        super().stop()
        with self.device.lock:
            Path(self.logs, "device.log").write_text("\n".join([*self.device.history, ""]))


def _socket(name: str, device: BalloonDevice) -> list[str]:
    """Options for QEMU's connection to a device."""
    return ["-chardev", f"socket,id={name},path={device.socket}"]


def _model(name: str, device: BalloonDevice) -> str:
    """A device at the other end of that connection, as `-device` takes it."""
    packed = ",packed=on" if device.packed else ""
    return f"vhost-user-test-device-pci,chardev={name},virtio-id=5,num_vqs={len(device.queue_names)},config_size={CONFIG_SIZE},vq_size={QUEUE_SIZE}{packed}"
