"""Puts a guest on a `BalloonDevice`: its memory is shared with the device, which QEMU reaches by vhost-user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.guest import Guest

from .balloon import CONFIG_SIZE, BalloonDevice

QUEUE_SIZE = 128


class DeviceGuest(Guest):
    """A guest whose balloon is a device of ours. It starts without a balloon driver: `load()` comes when the device is ready.

    What the harness asks QEMU about a balloon (`set_target()`, `actual()`, `traffic()`) the device itself tells here.
    """

    def __init__(self, name: str, device: BalloonDevice, *, memory_mib: int = 512, qemu_options: Sequence[str] = (), **options: Any) -> None:
        """As for `Guest`; the size of guest pages that the device knows is 4 KiB."""
        self.device = device
        super().__init__(
            name,
            memory_mib=memory_mib,
            balloon=f"vhost-user-test-device-pci,chardev=device,virtio-id=5,num_vqs={len(device.queue_names)},config_size={CONFIG_SIZE},"
                    f"vq_size={QUEUE_SIZE}" + (",packed=on" if device.packed else ""),
            qemu_options=[
                "-chardev", f"socket,id=device,path={device.socket}",
                "-object", f"memory-backend-memfd,id=ram,size={memory_mib}M,share=on", "-machine", "memory-backend=ram",
                *qemu_options,
            ],
            **options,
        )
        self._late = []

    def stop(self) -> None:
        """As for `Guest`; leaves what the device saw beside the guest's logs."""
        super().stop()
        with self.device.lock:
            Path(self.logs, "device.log").write_text("\n".join([*self.device.history, ""]))
