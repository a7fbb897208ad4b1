# SPDX-License-Identifier: GPL-2.0
"""The host's end of the serial line on which a guest's agent (`agent.sh`) runs shell scripts."""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass

MAX_SCRIPT = 48 << 10
"""Bytes a script may have: more could overflow the guest's tty buffer while its agent is busy."""


@dataclass(frozen=True)
class Ready:
    """A guest that booted afresh says so before anything else."""

    boot_id: str


@dataclass(frozen=True)
class Answer:
    """What the script with this number printed (stdout and stderr together), and its exit status."""

    number: int
    status: int
    output: str


class Agent:
    """One connection, that is, one QEMU process. The numbers of requests are the caller's: a resumed image answers a request
    that was sent to the QEMU process before."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def send(self, number: int, script: str) -> None:
        """Asks the agent to run a script.

        Raises ValueError when the script is longer than MAX_SCRIPT bytes, OSError when QEMU is gone.
        """
        data = script.encode()
        if len(data) > MAX_SCRIPT:
            raise ValueError(f"a script of {len(data)} bytes is too long, the limit is {MAX_SCRIPT}; use `files=`")
        self._connection.sendall(f"{number} {len(data)}\n".encode() + data)

    def receive(self, timeout: float) -> Ready | Answer | None:
        """Returns the next message, or None when none is complete after `timeout` seconds.

        Raises EOFError when QEMU has closed the line, that is, has ended.
        """
        message = self._parse()
        if message is None and select.select([self._connection], [], [], timeout)[0]:
            try:
                data = self._connection.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError("QEMU closed the agent's serial line")
            self._buffer += data
            message = self._parse()
        return message

    def close(self) -> None:
        """Closes the host's end."""
        self._connection.close()

    def _parse(self) -> Ready | Answer | None:
        while b"\n" in self._buffer:
            line, rest = self._buffer.split(b"\n", 1)
            match line.split():
                case [b"ready", boot_id]:
                    self._buffer = rest
                    return Ready(boot_id.decode())
                case [b"answer", number, status, size]:
                    if len(rest) < int(size):
                        return None
                    self._buffer = rest[int(size):]
                    return Answer(int(number), int(status), rest[:int(size)].decode(errors="replace"))
                case _:
                    self._buffer = rest  # A UART's garbage while it is set up.
        return None
