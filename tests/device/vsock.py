# SPDX-License-Identifier: GPL-2.0
"""A socket device (Virtio 1.4, 5.10) whose host side sends back what it gets, reversed piece by piece.

Rules that the driver must keep are checked: it sends no more than the device has room for, and counts no more as taken than it was sent.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from types import TracebackType
from typing import Self

from .backend import RING_PACKED, Backend

HOST, GUEST = 2, 52
"""Addresses (cids)."""

PORT = 1024
"""Where the device listens."""

PIECE = 2048
"""Bytes that are reversed together and fit into any receive buffer; a rest at the end of the stream is shorter."""

ROOM = 65536
"""How many bytes the device takes that it has not counted as forwarded."""

RECEIVE, TRANSMIT = 0, 1
_STREAM = 1
_BOTH_DIRECTIONS = 3
_CONFIG_SIZE = 8

_HEADER = struct.Struct("<QQIIIHHIII")
"""src_cid, dst_cid, src_port, dst_port, len, type, op, flags, buf_alloc, fwd_cnt."""


class Op(IntEnum):
    """What a packet is for."""

    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


@dataclass
class Connection:
    """A stream from a port of the guest."""

    port: int
    piece: bytearray = field(default_factory=bytearray)
    """What came and waits for the rest of its piece."""
    back: deque[bytes] = field(default_factory=deque)
    """What is to be sent back."""
    received: int = 0
    told: int = 0
    """How many of the bytes received the guest knows to be forwarded."""
    sent: int = 0
    peer_room: int = 0
    peer_forwarded: int = 0


class VsockDevice:
    """The device, with one of the ring formats and the features of rings named by their bits."""

    def __init__(self, features: int, options: str, name: str, suffix: str = "pci") -> None:
        """`options` go to QEMU's device called `name`; `suffix` as in the names of the machine's virtio devices: `pci` or `device`."""
        self.offered = 1 << 32 | features
        self.received = 0
        """Bytes of all connections."""
        self.violations: list[str] = []
        self._connections: dict[int, Connection] = {}
        self._replies: deque[bytes] = deque()
        self._backend = Backend(self, 3)
        self.options = [
            "-chardev", f"socket,id={name},path={self._backend.path}", "-device",
            f"vhost-user-test-device{'-pci' if suffix == 'pci' else ''},id={name}d,chardev={name},virtio-id=19,num_vqs=3,"
            f"config_size={_CONFIG_SIZE},vq_size=64,{options}",
        ]
        """For a guest with shared memory."""
        self._backend.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._backend.close()

    # What the backend asks

    def read_config(self) -> bytes:
        return struct.pack("<Q", GUEST)

    def write_config(self, offset: int, data: bytes) -> None:
        self.violation(f"{len(data)} bytes written to the configuration, which is read-only")

    def started(self, features: int) -> None:
        if features & ~self.offered:
            self.violation(f"features {features & ~self.offered:#x} that were not offered")
        if bool(features >> RING_PACKED & 1) != bool(self.offered >> RING_PACKED & 1):
            self.violation("the other ring format")
        self.stopped()

    def stopped(self) -> None:
        self._connections.clear()
        self._replies.clear()

    def available(self, queue: int) -> None:
        if queue == TRANSMIT:
            while buffer := self._backend.pop(TRANSMIT):
                if buffer.writable:
                    self.violation("a writable part in a packet to the device")
                self._take(buffer.data())
                self._use(TRANSMIT, buffer.id, 0, buffer.slots)
        if queue in (RECEIVE, TRANSMIT):
            self._fill()

    def violation(self, text: str) -> None:
        self.violations.append(text)

    # From the guest

    def _take(self, packet: bytes) -> None:
        source, target, port, listener, size, kind, op, flags, room, forwarded = _HEADER.unpack_from(packet)
        data = packet[_HEADER.size:]
        if (source, target, listener, kind) != (GUEST, HOST, PORT, _STREAM) or size != len(data):
            self.violation(f"a packet from {source}:{port} to {target}:{listener} of type {kind} with {size} bytes in {len(data)}")
            return
        if op == Op.REQUEST:
            self._connections[port] = Connection(port)
        connection = self._connections.get(port)
        if connection is None:
            if op != Op.RST:
                self._reply(Connection(port), Op.RST)
            return
        connection.peer_room, connection.peer_forwarded = room, forwarded
        if forwarded > connection.sent:
            self.violation(f"{forwarded} bytes are counted of {connection.sent} that were sent")
        match op:
            case Op.REQUEST:
                self._reply(connection, Op.RESPONSE)
            case Op.RW:
                self._echo(connection, data)
            case Op.CREDIT_REQUEST:
                self._reply(connection, Op.CREDIT_UPDATE)
            case Op.SHUTDOWN if flags == _BOTH_DIRECTIONS:
                self._reply(connection, Op.RST)
                del self._connections[port]
            case Op.SHUTDOWN:
                self._turn(connection, len(connection.piece))
            case Op.RST:
                del self._connections[port]
            case Op.CREDIT_UPDATE:
                pass
            case _:
                self.violation(f"operation {op}")

    def _echo(self, connection: Connection, data: bytes) -> None:
        connection.received += len(data)
        self.received += len(data)
        if connection.received - connection.told > ROOM:
            self.violation(f"{connection.received - connection.told} bytes on their way to a device with room for {ROOM}")
        connection.piece += data
        while len(connection.piece) >= PIECE:
            self._turn(connection, PIECE)
        self._reply(connection, Op.CREDIT_UPDATE)

    @staticmethod
    def _turn(connection: Connection, size: int) -> None:
        if size:
            connection.back.append(bytes(reversed(connection.piece[:size])))
            del connection.piece[:size]

    # To the guest

    def _packet(self, connection: Connection, op: Op, data: bytes = b"") -> bytes:
        # All that came was looked at, so that it counts as forwarded.
        connection.told = connection.received
        return _HEADER.pack(HOST, GUEST, PORT, connection.port, len(data), _STREAM, op, 0, ROOM, connection.told) + data

    def _reply(self, connection: Connection, op: Op) -> None:
        self._replies.append(self._packet(connection, op))

    def _next(self) -> bytes | None:
        if self._replies:
            return self._replies.popleft()
        for connection in self._connections.values():
            if not connection.back:
                continue
            data = connection.back[0]
            if connection.sent + len(data) > connection.peer_forwarded + connection.peer_room:
                continue
            connection.back.popleft()
            connection.sent += len(data)
            return self._packet(connection, Op.RW, data)
        return None

    def _fill(self) -> None:
        """Sends what there is for as long as there are buffers."""
        while self._replies or any(connection.back for connection in self._connections.values()):
            packet = self._next()
            buffer = self._backend.pop(RECEIVE) if packet else None
            if packet is None:
                return
            if buffer is None:
                self._replies.appendleft(packet)
                return
            rest = memoryview(packet)
            for part in buffer.writable:
                part[:len(rest)], rest = rest[:len(part)], rest[len(part):]
            if buffer.readable or rest:
                self.violation(f"a receive buffer with {len(buffer.readable)} readable parts and too small by {len(rest)} bytes")
            self._use(RECEIVE, buffer.id, len(packet), buffer.slots)

    def _use(self, queue: int, number: int, length: int, slots: int) -> None:
        ring = self._backend.queues[queue].ring
        assert ring
        ring.use((number, length, slots))
        self._backend.interrupt(queue)
