# SPDX-License-Identifier: GPL-2.0
"""The vhost-user protocol, the part that QEMU needs to drive a device in another process (docs/interop/vhost-user.rst of QEMU)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

F_PROTOCOL_FEATURES = 30
"""Feature bit that belongs to the protocol and never reaches the guest."""

PROTOCOL_FEATURES = 1 << 0 | 1 << 5 | 1 << 9
"""Several queues, a channel for the device's own messages, configuration space."""

BACKEND_CONFIG_CHANGE = 2
"""The device's message that its configuration has changed."""

_HEADER = struct.Struct("<III")
_VERSION, _REPLY = 1, 4


class Request(IntEnum):
    """Messages of QEMU; those without a meaning here are left out."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25


@dataclass(frozen=True)
class Message:
    """One message with the file descriptors that came with it, which belong to the receiver."""

    request: int
    payload: bytes
    fds: tuple[int, ...]

    def u64(self) -> int:
        """The payload of most messages."""
        return struct.unpack_from("<Q", self.payload)[0]


def receive(connection: socket.socket) -> Message:
    """Waits for the next message. Raises EOFError when QEMU has closed the connection."""
    try:
        data, fds, _, _ = socket.recv_fds(connection, _HEADER.size, 8)
    except ConnectionResetError:
        data, fds = b"", []
    if len(data) < _HEADER.size:
        raise EOFError("QEMU closed the connection")
    request, _, size = _HEADER.unpack(data)
    payload = b""
    while len(payload) < size:
        part = connection.recv(size - len(payload))
        if not part:
            raise EOFError("QEMU closed the connection")
        payload += part
    return Message(request, payload, tuple(fds))


def reply(connection: socket.socket, request: int, payload: bytes) -> None:
    """Answers a message."""
    connection.sendall(_HEADER.pack(request, _VERSION | _REPLY, len(payload)) + payload)


def tell(connection: socket.socket, request: int) -> bool:
    """Sends a message of the device without payload; returns False, having sent nothing, when QEMU does not keep up."""
    try:
        connection.send(_HEADER.pack(request, _VERSION, 0), socket.MSG_DONTWAIT)
        return True
    except BlockingIOError:
        return False
