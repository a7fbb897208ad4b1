# SPDX-License-Identifier: GPL-2.0
"""A network interface whose physical function administers virtual ones (Virtio 1.4, 2.12 and 2.13).

The virtual functions themselves are not here: `tests/modules/pci_functions.rs` has them, in the guest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from device.ring import Buffer

from .net import Net
from .virtio import ADMIN_VQ, SR_IOV

FUNCTIONS = 4
OBJECTS = 6
"""How many objects for parts of states there can be."""

OWN, SRIOV = 0, 1
"""Types of groups."""

OK, ENOENT, EAGAIN, EEXIST, EINVAL, ENOSPC = 0, 2, 11, 17, 22, 28
"""Statuses: Linux's errno."""


class Opcode(IntEnum):
    """The commands that there are."""

    LIST_QUERY, LIST_USE = 0, 1
    COMMON_WRITE, COMMON_READ, DEVICE_WRITE, DEVICE_READ, NOTIFY_INFO = 2, 3, 4, 5, 6
    CAP_LIST, CAP_GET, CAP_SET = 7, 8, 9
    CREATE, DESTROY = 0xA, 0xD
    METADATA, PARTS_GET, PARTS_SET, MODE_SET = 0xE, 0xF, 0x10, 0x11


FOR_FUNCTIONS = sum(1 << opcode for opcode in Opcode) & ~3
FOR_ITSELF = 1 << Opcode.CAP_LIST | 1 << Opcode.CAP_GET | 1 << Opcode.CAP_SET
LENGTH_MATTERS = {Opcode.COMMON_WRITE, Opcode.COMMON_READ, Opcode.DEVICE_WRITE, Opcode.DEVICE_READ, Opcode.PARTS_SET, Opcode.PARTS_GET}
"""Commands without padding: nothing else says how much is meant."""


@dataclass
class Command:
    """A command as the driver sent it."""

    opcode: int
    group: int
    member: int
    data: bytes
    room: int
    """For the result, in bytes."""
    buffer: Buffer


@dataclass
class Answer:
    """What the device makes of it."""

    status: int = OK
    result: bytes = b""
    qualifier: int = 0
    length: int | None = None
    """What the device says that it wrote, if that is not true."""


Lie = Callable[[Command, Answer], Answer | None]
"""Makes what the driver gets of an honest answer; None: it gets nothing."""


@dataclass
class Function:
    """The state of a virtual function."""

    common: bytearray
    device: bytearray
    parts: bytes
    stopped: bool = False


class Owner(Net):
    """The physical function."""

    admin_queues = 1

    def __init__(self) -> None:
        super().__init__(ADMIN_VQ | SR_IOV)
        self.violations: list[str] = []
        self.commands: list[Command] = []
        self.lie: Lie = lambda command, answer: answer
        self.kept: list[Command] = []
        """Those that were not answered."""
        self.reset()

    def reset(self) -> None:
        """The device was reset: nothing is agreed, there are no objects."""
        self.used: dict[int, int] = {}
        self.objects: dict[int, int] = {}
        self.limit = 0
        self.kept.clear()
        self.functions = [Function(bytearray(range(24)), bytearray(range(100, 116)), bytes([number] * 100)) for number in range(1, FUNCTIONS + 1)]

    def process(self, queue: int, buffer: Buffer) -> int | None:
        """Does what a command says."""
        if queue < self.queues:
            return super().process(queue, buffer)
        data = buffer.data()
        room = sum(len(part) for part in buffer.writable)
        if len(data) < 24 or room < 8:
            self.violations.append(f"a command of {len(data)} bytes with room for {room}")
            return 0
        opcode, group, reserved, member = struct.unpack_from("<HH12sQ", data)
        command = Command(opcode, group, member, data[24:], room - 8, buffer)
        self.commands.append(command)
        self._check(command, reserved)
        answer = self.lie(command, self._answer(command))
        if answer is None:
            self.kept.append(command)
            return None
        return self.fill(command, answer)

    def fill(self, command: Command, answer: Answer) -> int:
        """Writes an answer to its place; how long the device says it is."""
        text = struct.pack("<HHI", answer.status, answer.qualifier, 0) + answer.result
        text = text[:8 + command.room]
        rest = text
        for part in command.buffer.writable:
            part[:len(rest)] = rest[:len(part)]
            rest = rest[len(part):]
        return len(text) if answer.length is None else answer.length

    def _check(self, command: Command, reserved: bytes) -> None:
        """Looks for what the specification forbids."""
        name = f"command {command.opcode:#x} for group {command.group}, member {command.member}"
        if any(reserved):
            self.violations.append(f"{name}: reserved bytes are not 0")
        if command.opcode not in list(Opcode):
            self.violations.append(f"{name}: there is no such command")
            return
        if command.opcode <= Opcode.LIST_USE:
            if command.member:
                self.violations.append(f"{name}: lists are of groups")
            if command.opcode == Opcode.LIST_USE and self.kept:
                self.violations.append(f"{name}, while others are under way")
        elif not self.used.get(command.group, 0) >> command.opcode & 1:
            self.violations.append(f"{name}: not agreed upon")
        elif command.group == SRIOV and not 1 <= command.member <= FUNCTIONS:
            self.violations.append(f"{name}: there is no such function")
        if command.opcode not in LENGTH_MATTERS and (len(command.data) % 8 or command.room % 8):
            self.violations.append(f"{name}: {len(command.data)} bytes of data, {command.room} of room")

    def _answer(self, command: Command) -> Answer:
        """The truth."""
        match command.opcode:
            case Opcode.LIST_QUERY:
                return Answer(result=struct.pack("<Q", FOR_FUNCTIONS if command.group == SRIOV else FOR_ITSELF))
            case Opcode.LIST_USE:
                self.used[command.group] = struct.unpack_from("<Q", command.data)[0]
                return Answer()
            case Opcode.CAP_LIST:
                return Answer(result=struct.pack("<Q", 1))
            case Opcode.CAP_GET:
                return Answer(result=bytes([OBJECTS + 3, OBJECTS]))
            case Opcode.CAP_SET:
                self.limit = command.data[8]
                return Answer(OK if command.data[8] <= OBJECTS + 3 and command.data[9] <= OBJECTS else EINVAL)
        return self._serve(command, self.functions[(command.member - 1) % FUNCTIONS])

    def _serve(self, command: Command, function: Function) -> Answer:
        """What is about one virtual function."""
        registers = function.common if command.opcode in (Opcode.COMMON_READ, Opcode.COMMON_WRITE) else function.device
        match command.opcode:
            case Opcode.COMMON_WRITE | Opcode.DEVICE_WRITE:
                at, value = command.data[0], command.data[8:]
                if at + len(value) > len(registers):
                    return Answer(EINVAL, qualifier=1)
                registers[at:at + len(value)] = value
                return Answer()
            case Opcode.COMMON_READ | Opcode.DEVICE_READ:
                at = command.data[0]
                return Answer(result=bytes(registers[at:at + command.room])) if at + command.room <= len(registers) else Answer(EINVAL, qualifier=1)
            case Opcode.NOTIFY_INFO:
                return Answer(result=notify_info((2, 2, 0x10), (1, 0, 0x4000)))
            case Opcode.MODE_SET:
                function.stopped = bool(command.data[0] & 1)
                return Answer()
            case Opcode.PARTS_SET:
                if not function.stopped or self._object(command) is None:
                    return Answer(EINVAL)
                function.parts = command.data[8:]
                return Answer()
        return self._serve_object(command, function)

    def _object(self, command: Command) -> int | None:
        """The member that has the object of a command."""
        kind, number = struct.unpack_from("<H2xI", command.data)
        return self.objects.get(number) if kind == 0 else None

    def _serve_object(self, command: Command, function: Function) -> Answer:
        number = struct.unpack_from("<4xI", command.data)[0]
        exists = self._object(command) == command.member
        match command.opcode:
            case Opcode.CREATE if number in self.objects:
                return Answer(EEXIST)
            case Opcode.CREATE if number >= self.limit:
                return Answer(ENOSPC)
            case Opcode.CREATE:
                self.objects[number] = command.member
                return Answer()
            case _ if not exists:
                return Answer(ENOENT)
            case Opcode.DESTROY:
                del self.objects[number]
                return Answer()
            case Opcode.METADATA:
                return Answer(result=struct.pack("<II", len(function.parts), 0))
            case Opcode.PARTS_GET:
                return Answer(result=function.parts)
        return Answer(EINVAL)


def notify_info(*entries: tuple[int, int, int]) -> bytes:
    """The result of NOTIFY_INFO: flags, BAR and offset of each place."""
    return b"".join(struct.pack("<BB6xQ", *entry) for entry in entries).ljust(64, b"\0")
