# SPDX-License-Identifier: GPL-2.0
"""Shows long work as it goes: a live line on a terminal, a plain line now and then in a pipe; the rest goes to a log."""

from __future__ import annotations

import re
import selectors
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional, Sequence

from lab import host
from lab.errors import LabError

PLAIN_INTERVAL = 20.0
TAIL_LINES = 40


class Steps:
    """Numbers the steps of one command: `[n/total] title`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.number = 0

    def begin(self, title: str) -> "Step":
        """Starts the next step."""
        self.number += 1
        self.total = max(self.total, self.number)
        return Step(f"[{self.number}/{self.total}] {title}")


class Step:
    """One step: runs any number of commands and ends with one line that says how long it took."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.started = time.monotonic()
        self.live = sys.stdout.isatty()
        self.shown = self.started
        self.worked = False

    def run(self, argv: Sequence[str], log: Path, doing: str, counted: str = "", unit: str = "",
            expected: int = 0, hints: Optional[dict[str, str]] = None) -> int:
        """Runs a command with its output in `log` (appended); returns how many of its lines matched `counted`.

        `expected` is the count to show as the goal, 0 if not known. Raises LabError with the log's last lines, and
        with the first of `hints` (pattern to advice) whose pattern is in the command's output.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        pattern = re.compile(counted.encode()) if counted else None
        seen = 0
        if not self.worked:
            self.worked = True
            self._plain(doing)
        with log.open("ab", buffering=0) as out:
            out.write(f"$ {shlex.join(argv)}\n".encode())
            begin = out.tell()
            with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  preexec_fn=host.die_with_parent) as process:
                try:
                    for chunk in _lines(process):
                        if chunk:
                            out.write(chunk)
                            seen += bool(pattern and pattern.search(chunk))
                        self._show(doing, seen, unit, expected)
                except BaseException:
                    process.kill()
                    raise
        if process.returncode:
            self._wipe()
            raise LabError(self._failure(doing, process.returncode, log, begin, hints or {}))
        return seen

    def done(self, remark: str = "") -> None:
        """Ends the step with a line of its own."""
        self._wipe()
        took = f" ({_clock(time.monotonic() - self.started)})" if self.worked else ""
        print(f"{self.label}: {remark or 'ready'}{took}", flush=True)

    def _show(self, doing: str, seen: int, unit: str, expected: int) -> None:
        now = time.monotonic()
        if now - self.shown < (0.5 if self.live else PLAIN_INTERVAL):
            return
        self.shown = now
        text = f"{doing}, {_clock(now - self.started)}"
        if seen:
            text += f", {seen} of about {expected} {unit}" if expected >= seen else f", {seen} {unit}"
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r\033[K" + f"{self.label}: {text}"[:width])
            sys.stdout.flush()
        else:
            self._plain(text)

    def _plain(self, text: str) -> None:
        if not self.live:
            print(f"{self.label}: {text}", flush=True)

    def _wipe(self) -> None:
        if self.live:
            sys.stdout.write("\r\033[K")

    def _failure(self, doing: str, status: int, log: Path, begin: int, hints: dict[str, str]) -> str:
        with log.open("rb") as text:
            text.seek(begin)
            output = text.read().decode(errors="replace")
        tail = "\n".join("  | " + line for line in output.splitlines()[-TAIL_LINES:])
        advice = next((advice for sign, advice in hints.items() if re.search(sign, output)), "")
        return (f"{self.label}: {doing} failed (status {status}). Last lines of {log}:\n{tail}"
                + (f"\n{advice}" if advice else ""))


def _lines(process: subprocess.Popen):
    """Yields the process's output line by line, and an empty chunk at least twice a second."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if not selector.select(timeout=0.5):
                yield b""
                continue
            data = process.stdout.read1(65536)
            if not data:
                break
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line + b"\n"
    if rest:
        yield rest


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
