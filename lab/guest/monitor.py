# SPDX-License-Identifier: GPL-2.0
"""The QMP connection to one QEMU process, without asyncio for its users."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, QMPClient, QMPError


class Monitor:
    """Sends QMP commands and collects events; every message goes to a log with the host's time in seconds."""

    def __init__(self, connection: socket.socket, log: Path, name: str) -> None:
        """Takes over `connection` and negotiates. Raises QMPError when QEMU does not answer as it should."""
        self._log = log
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient(name)
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        self._events: list[dict[str, Any]] = []
        try:
            self._loop.run_until_complete(asyncio.wait_for(self._client.connect(connection), 60))
        except BaseException:
            self._loop.close()
            raise

    def execute(self, command: str, timeout: float = 60, **arguments: Any) -> Any:
        """Runs one command and returns what it returns; `_` in argument names stands for `-`.

        Raises QMPError (its subclass ExecuteError for a command that QEMU refuses), TimeoutError after `timeout` seconds.
        """
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._write("->", {"execute": command, "arguments": arguments})
        try:
            answer = self._run(self._client.execute(command, arguments or None), timeout)
        except Exception as error:
            self._write("<-", {"error": f"{type(error).__name__}: {error}"})
            raise
        self._write("<-", {"return": answer})
        return answer

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """All events so far, oldest first, or those called `name`."""
        self._run(asyncio.sleep(0.01), 10)
        return [event for event in self._events if name in (None, event["event"])]

    def wait_event(self, name: str, timeout: float, seen: int = 0) -> dict[str, Any]:
        """Waits until more than `seen` events called `name` have come and returns the first of the new ones.

        Raises TimeoutError after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while len(found := self.events(name)) <= seen:
            if time.monotonic() > end:
                raise TimeoutError(f"no QMP event {name} in {timeout} s")
            self._run(asyncio.sleep(0.05), 10)
        return found[seen]

    def close(self) -> None:
        """Ends the connection; QEMU may be gone already."""
        try:
            self._run(self._client.disconnect(), 10)
        except (QMPError, EOFError, OSError, TimeoutError):
            pass  # It is QEMU that left first.
        self._loop.close()

    def _run(self, coroutine: Any, timeout: float) -> Any:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(coroutine, timeout))
        finally:
            for event in self._listener.clear():
                self._events.append(dict(event))
                self._write("<-", dict(event))

    def _write(self, direction: str, message: dict[str, Any]) -> None:
        with self._log.open("a") as log:
            print(f"{time.time():.6f} {direction} {json.dumps(message)}", file=log)
