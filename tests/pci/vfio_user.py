# SPDX-License-Identifier: GPL-2.0
"""The device's side of the vfio-user protocol, as far as QEMU's `vfio-user-pci` needs it (docs/interop/vfio-user.rst of QEMU).

Every access of the guest to the device's registers is a message that is answered here, so that a test decides what the guest reads.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import struct
import tempfile
import threading
from enum import IntEnum
from mmap import mmap
from pathlib import Path
from typing import Protocol

from device.memory import Memory, Region

CONFIG_REGION = 7
"""Regions 0 to 5 are the BARs, 6 the ROM, 8 the VGA ports; 7 is the configuration space."""
REGIONS = 9

INTX, MSI, MSIX = 0, 1, 2
IRQS = 5

_HEADER = struct.Struct("<HHIII")  # id, command, size, flags, errno
_REPLY, _NO_REPLY, _ERROR = 1, 1 << 4, 1 << 5
_RESETTABLE, _PCI = 1, 2
_READABLE, _WRITABLE = 1, 2
_EVENTFD, _MASKABLE, _AUTOMASKED = 1, 2, 4
_DATA_EVENTFD, _ACTION_UNMASK, _ACTION_TRIGGER = 1 << 2, 1 << 4, 1 << 5


class Command(IntEnum):
    """Messages of QEMU."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    RESET = 13


class Device(Protocol):
    """What the server asks of a device; all calls come with the lock of the server held."""

    sizes: dict[int, int]
    """The size of each region it has, in bytes; those of BARs are powers of two."""
    vectors: int
    """MSI-X vectors."""

    def read(self, region: int, offset: int, size: int) -> bytes:
        """What the guest shall read."""

    def write(self, region: int, offset: int, data: bytes) -> None:
        """The guest has written."""

    def reset(self) -> None:
        """The machine was reset."""


class DmaMemory(Memory):
    """The guest's memory as the device sees it. An address of the device is an address of the guest."""

    def map(self, address: int, size: int, fd: int, offset: int) -> None:
        """Adds a piece of memory, which is in a file."""
        self._regions.append(Region(address, size, address, memoryview(mmap(fd, size, offset=offset))))

    def unmap(self, address: int, size: int) -> None:
        """Takes pieces of memory away."""
        self._regions = [region for region in self._regions if not address <= region.guest < address + size]


class Server:
    """Serves a device on the socket at `path`, from `start()` to `close()`, to one QEMU process."""

    def __init__(self, device: Device) -> None:
        """Makes the socket."""
        self.lock = threading.RLock()
        self.memory = DmaMemory()
        self._device = device
        self._dir = Path(tempfile.mkdtemp(prefix="lab-pci-"))
        self.path = self._dir / "socket"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._eventfds: dict[tuple[int, int], int] = {}
        self._line, self._masked = False, False
        self._thread = threading.Thread(target=self._run, name="pci-device", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def close(self) -> None:
        """Ends the connection and the thread, and removes the socket."""
        for end in (self._connection, self._listener):
            if end:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # QEMU has closed it.
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self._dir)

    @property
    def msix(self) -> bool:
        """Whether the guest has enabled MSI-X."""
        return any(index == MSIX for index, _ in self._eventfds)

    def message(self, vector: int) -> None:
        """Sends the guest an MSI-X message; does nothing while it does not want it."""
        self._signal(MSIX, vector)

    def set_line(self, level: bool) -> None:
        """Asserts the interrupt line, or no longer does."""
        self._line = level
        self._look_at_line()

    def _look_at_line(self) -> None:
        if self._line and not self._masked and (INTX, 0) in self._eventfds:
            self._masked = True  # Until QEMU unmasks it, which it does at the next access to a BAR.
            self._signal(INTX, 0)

    def _signal(self, index: int, number: int) -> None:
        fd = self._eventfds.get((index, number))
        if fd is not None:
            os.eventfd_write(fd, 1)

    # Messages

    def _run(self) -> None:
        try:
            self._connection = self._listener.accept()[0]
        except OSError:
            return
        try:
            while True:
                self._serve(self._connection)
        except (EOFError, ConnectionError):
            pass  # QEMU has ended.
        finally:
            for fd in self._eventfds.values():
                os.close(fd)
            self._connection.close()

    def _serve(self, connection: socket.socket) -> None:
        data, fds, _, _ = socket.recv_fds(connection, _HEADER.size, 16)
        data += _receive(connection, _HEADER.size - len(data))
        number, command, size, flags, _ = _HEADER.unpack(data)
        payload = _receive(connection, size - _HEADER.size)
        problem = 0
        try:
            with self.lock:
                answer = self._handle(command, payload, fds)
        except OSError as error:
            answer, problem = b"", error.errno or errno.EIO
        if not flags & _NO_REPLY:
            kind = _REPLY | (_ERROR if problem else 0)
            connection.sendall(_HEADER.pack(number, command, _HEADER.size + len(answer), kind, problem) + answer)

    def _handle(self, command: int, payload: bytes, fds: list[int]) -> bytes:
        match command:
            case Command.VERSION:
                return payload[:4] + json.dumps({"capabilities": {"max_msg_fds": 8}}).encode() + b"\0"
            case Command.DMA_MAP:
                _, _, offset, address, size = struct.unpack("<IIQQQ", payload)
                for fd in fds:
                    self.memory.map(address, size, fd, offset)
                    os.close(fd)
                return b""
            case Command.DMA_UNMAP:
                _, _, address, size = struct.unpack("<IIQQ", payload)
                self.memory.unmap(address, size)
                return payload
            case Command.GET_INFO:
                return struct.pack("<IIII", 16, _RESETTABLE | _PCI, REGIONS, IRQS)
            case Command.GET_REGION_INFO:
                index = struct.unpack_from("<I", payload, 8)[0]
                size = self._device.sizes.get(index, 0)
                return struct.pack("<IIIIQQ", 32, _READABLE | _WRITABLE if size else 0, index, 0, size, 0)
            case Command.GET_IRQ_INFO:
                index = struct.unpack_from("<I", payload, 8)[0]
                flags, count = {INTX: (_EVENTFD | _MASKABLE | _AUTOMASKED, 1), MSIX: (_EVENTFD, self._device.vectors)}.get(index, (0, 0))
                return struct.pack("<IIII", 16, flags, index, count)
            case Command.SET_IRQS:
                self._set_irqs(payload, fds)
                return b""
            case Command.REGION_READ:
                offset, region, size = struct.unpack("<QII", payload)
                return payload + self._device.read(region, offset, size)
            case Command.REGION_WRITE:
                offset, region, size = struct.unpack_from("<QII", payload)
                self._device.write(region, offset, payload[16:16 + size])
                return payload[:16]
            case Command.RESET:
                self._device.reset()
                return b""
        raise OSError(errno.ENOTSUP, f"message {command}")

    def _set_irqs(self, payload: bytes, fds: list[int]) -> None:
        _, flags, index, start, count = struct.unpack_from("<IIIII", payload)
        if flags & _ACTION_UNMASK and index == INTX:
            self._masked = False
            self._look_at_line()
        elif flags & _ACTION_TRIGGER:
            # Without descriptors: these vectors are not wanted any more; a count of 0 means all.
            numbers = range(start, start + count) if count else [number for other, number in self._eventfds if other == index]
            for number in numbers:
                if (index, number) in self._eventfds:
                    os.close(self._eventfds.pop((index, number)))
            if flags & _DATA_EVENTFD:
                self._eventfds |= {(index, start + place): fd for place, fd in enumerate(fds)}
            if index == INTX:
                self._masked = False
                self._look_at_line()


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("QEMU closed the connection")
        data += part
    return data
