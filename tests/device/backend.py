# SPDX-License-Identifier: GPL-2.0
"""The thread that serves QEMU: it speaks vhost-user, keeps the rings, and calls the device.

It accepts one QEMU process after another on the same socket, so that a device can outlive the guest's machine, as seen by a guest
that hibernates.
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import struct
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .memory import PAGE, BadAddress, Memory
from .ring import Buffer, PackedRing, Ring, RingError, SplitRing
from .vhost_user import BACKEND_CONFIG_CHANGE, F_PROTOCOL_FEATURES, PROTOCOL_FEATURES, Message, Request, receive, reply, tell

RING_PACKED = 34
REQUIRED = 2
"""Queues that every driver uses."""

POLL_SECONDS = 0.1
"""How often the rings are looked at without a notification."""

_NO_FD = 1 << 8
"""In the payload that names a queue: no descriptor comes along."""


class Device(Protocol):
    """What the thread asks of a device; all calls come with the lock of the thread held."""

    offered: int
    """The feature bits that the guest shall see."""

    def read_config(self) -> bytes:
        """The whole configuration space."""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote to the configuration space; the parts it did not touch are as it last read them."""

    def started(self, features: int) -> None:
        """The driver has set DRIVER_OK, with these features."""

    def stopped(self) -> None:
        """The driver has reset the device, or QEMU is gone."""

    def available(self, queue: int) -> None:
        """There may be new buffers in a queue."""

    def violation(self, text: str) -> None:
        """The driver broke a rule."""


@dataclass
class Queue:
    """What QEMU said about one queue; it is live while `ring` is set."""

    size: int = 0
    addresses: tuple[int, int, int] = (0, 0, 0)
    """Descriptor area, driver area, device area, as QEMU's addresses."""
    base: int = 0
    kick: int | None = None
    call: int | None = None
    ring: Ring | None = None


class Backend:
    """Serves a device with a number of queues on the socket at `path`, from `start()` to `close()`."""

    def __init__(self, device: Device, queues: int) -> None:
        """Makes the socket."""
        self.lock = threading.RLock()
        self.queues = [Queue() for _ in range(queues)]
        self._device = device
        self._memory = Memory()
        self._features = 0
        self._dir = Path(tempfile.mkdtemp(prefix="lab-device-"))
        self.path = self._dir / "socket"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._channel: socket.socket | None = None
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="balloon-device", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, the connection and the socket."""
        self._closing = True
        self._thread.join()
        self._selector.close()
        shutil.rmtree(self._dir)

    def interrupt(self, index: int) -> None:
        """Notifies the driver about a queue; does nothing while there is no driver."""
        with self.lock:
            call = self.queues[index].call
            if call is not None:
                os.eventfd_write(call, 1)

    def notify_config(self) -> bool:
        """Tells the driver that the configuration has changed.

        Returns False when there is no live driver, or QEMU does not keep up. QEMU 11.1 crashes when it finds the message after the
        driver has reset the device: leave some time between the two.
        """
        with self.lock:
            return self._channel is not None and self.live and tell(self._channel, BACKEND_CONFIG_CHANGE)

    @property
    def live(self) -> bool:
        """Whether there is a driver that has set DRIVER_OK; it need not use all queues."""
        return all(queue.ring for queue in self.queues[:REQUIRED])

    def page(self, pfn: int) -> memoryview:
        """The contents of a page of the guest. Raises BadAddress."""
        return self._memory.guest(pfn * PAGE, PAGE)

    def outside(self, pfns: set[int]) -> set[int]:
        """Those of the page numbers that are not in the guest's memory."""
        return self._memory.outside(pfns)

    def pop(self, index: int) -> Buffer | None:
        """Takes the next available buffer of a queue, or None; what the driver did wrong is a violation."""
        ring = self.queues[index].ring
        try:
            return ring.pop() if ring else None
        except (RingError, BadAddress) as error:
            self._device.violation(f"queue {index}: {error}")
            return None

    # Events

    def _run(self) -> None:
        try:
            while not self._closing:
                ready = self._selector.select(POLL_SECONDS)
                with self.lock:
                    # The protocol comes first: it may take away the queue of a notification.
                    for key, _ in sorted(ready, key=lambda item: item[0].data is not None):
                        self._serve(key)
                    if not ready:
                        for index in range(len(self.queues)):
                            self._look(index)
        finally:
            # Whatever ended the thread: QEMU must not wait for an answer.
            with self.lock:
                self._disconnect()
                self._listener.close()

    def _serve(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._disconnect()
            self._connection = self._listener.accept()[0]
            self._selector.register(self._connection, selectors.EVENT_READ)
        elif key.fileobj is self._connection:
            try:
                self._handle(receive(self._connection))
            except (EOFError, BrokenPipeError):
                self._disconnect()
        elif key.data is not None and self.queues[key.data].kick == key.fd:
            try:
                os.eventfd_read(key.fd)
            except BlockingIOError:
                return
            self._look(key.data)

    def _look(self, index: int) -> None:
        if self.queues[index].ring:
            self._device.available(index)

    # Protocol

    def _handle(self, message: Message) -> None:
        match message.request:
            case Request.GET_FEATURES:
                self._reply_u64(message, self._device.offered | 1 << F_PROTOCOL_FEATURES)
            case Request.SET_FEATURES:
                self._features = message.u64() & ~(1 << F_PROTOCOL_FEATURES)
            case Request.GET_PROTOCOL_FEATURES:
                self._reply_u64(message, PROTOCOL_FEATURES)
            case Request.GET_QUEUE_NUM:
                self._reply_u64(message, len(self.queues))
            case Request.SET_BACKEND_REQ_FD:
                self._channel = socket.socket(fileno=message.fds[0])
            case Request.SET_MEM_TABLE:
                self._memory = Memory(message.payload, message.fds)
                for fd in message.fds:
                    os.close(fd)
            case Request.GET_CONFIG:
                offset, size, _ = struct.unpack_from("<III", message.payload)
                data = self._device.read_config()[offset:offset + size]
                self._reply(message, message.payload[:12] + data.ljust(size, b"\0"))
            case Request.SET_CONFIG:
                offset, size, _ = struct.unpack_from("<III", message.payload)
                self._device.write_config(offset, message.payload[12:12 + size])
            case _:
                self._handle_queue(message)

    def _handle_queue(self, message: Message) -> None:
        match message.request:
            case Request.SET_VRING_NUM:
                index, self.queues[index].size = struct.unpack("<II", message.payload)
            case Request.SET_VRING_BASE:
                index, self.queues[index].base = struct.unpack("<II", message.payload)
            case Request.SET_VRING_ADDR:
                index, _, desc, device, driver, _ = struct.unpack("<IIQQQQ", message.payload)
                self.queues[index].addresses = desc, driver, device
            case Request.SET_VRING_CALL:
                queue = self.queues[message.u64() & 0xFF]
                self._close_fd(queue.call)
                queue.call = self._fd(message)
            case Request.SET_VRING_KICK:
                self._start(message.u64() & 0xFF, self._fd(message))
            case Request.SET_VRING_ERR:
                self._close_fd(self._fd(message))
            case Request.GET_VRING_BASE:
                index = struct.unpack_from("<I", message.payload)[0]
                ring = self.queues[index].ring
                self._reply(message, struct.pack("<II", index, ring.base() if ring else self.queues[index].base))
                self._stop(index)

    def _start(self, index: int, kick: int | None) -> None:
        queue = self.queues[index]
        was_live = self.live
        make = PackedRing if self._features >> RING_PACKED & 1 else SplitRing
        try:
            queue.ring = make(self._memory, queue.size, *queue.addresses, queue.base)
        except (RingError, BadAddress) as error:
            self._device.violation(f"queue {index}: {error}")
            return
        queue.kick = kick
        if kick is not None:
            os.set_blocking(kick, False)
            self._selector.register(kick, selectors.EVENT_READ, index)
        if self.live and not was_live:
            self._device.started(self._features)
        if self.live:
            for number in range(len(self.queues)):
                self._look(number)

    def _stop(self, index: int) -> None:
        queue = self.queues[index]
        was_live = self.live
        if queue.kick is not None:
            self._selector.unregister(queue.kick)
            os.close(queue.kick)
            queue.kick = None
        queue.ring = None
        if was_live and not self.live:
            self._device.stopped()

    def _disconnect(self) -> None:
        for index, queue in enumerate(self.queues):
            self._stop(index)
            self._close_fd(queue.call)
            queue.call = None
        if self._connection:
            self._selector.unregister(self._connection)
            self._connection.close()
            self._connection = None
        if self._channel:
            self._channel.close()
            self._channel = None
        self._memory = Memory()

    def _reply(self, message: Message, payload: bytes) -> None:
        assert self._connection
        reply(self._connection, message.request, payload)

    def _reply_u64(self, message: Message, value: int) -> None:
        self._reply(message, struct.pack("<Q", value))

    @staticmethod
    def _fd(message: Message) -> int | None:
        return message.fds[0] if message.fds and not message.u64() & _NO_FD else None

    @staticmethod
    def _close_fd(fd: int | None) -> None:
        if fd is not None:
            os.close(fd)
