# SPDX-License-Identifier: GPL-2.0
"""The cache: folders named after a hash of what they are made of, safe against killed runs and two runs at once.

An entry is complete when it holds `entry.json`, which is put there last, by rename; until then only the holder of
its exclusive lock looks inside, and the next holder throws away what a killed run left. Entries are built at their
final place because kernel build folders hold absolute paths. A run keeps a shared lock on each entry it uses until
it ends, so that nothing in use is ever removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from lab import host, paths
from lab.errors import LabError

STAMP = "entry.json"
KEEP_DAYS = 7
_held: dict[str, "Lock"] = {}


class Lock:
    """A flock on a small file of the cache, held until `release` or the end of the process."""

    def __init__(self, name: str) -> None:
        folder = paths.cache() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.fd = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def try_exclusive(self) -> bool:
        """Takes the lock for this process alone; False if another process has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def exclusive(self, purpose: str) -> None:
        """As `try_exclusive`, but waits, and says for what."""
        if not self.try_exclusive():
            print(f"lab: another run is busy with {purpose}; waiting for it …", flush=True)
            fcntl.flock(self.fd, fcntl.LOCK_EX)

    def shared(self) -> None:
        """Turns the lock into one that others can share; waits for an exclusive holder."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def release(self) -> None:
        """Gives the lock back."""
        os.close(self.fd)


@dataclass(frozen=True)
class Entry:
    """One folder of the cache. `parts` is everything its content depends on, `title` what to call it in messages."""

    kind: str
    title: str
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name: the kind and 12 hex digits of the hash of the parts."""
        digest = hashlib.sha256(json.dumps(self.parts).encode()).hexdigest()
        return f"{self.kind}-{digest[:12]}"

    @property
    def path(self) -> Path:
        """The folder, on the host."""
        return paths.cache() / self.name

    def complete(self) -> bool:
        """Whether the entry was built to its end."""
        return (self.path / STAMP).exists()

    def facts(self) -> dict:
        """What the builder returned when the entry was built."""
        return facts(self.path)

    def ensure(self, build: Callable[[Path], dict]) -> Path:
        """The folder, built by `build(folder)` if need be, and kept from removal until this process ends.

        `build` returns what is to be remembered (`facts`). Raises what `build` raises; the half-made folder is
        then left for a look and removed by the next try.
        """
        if self.name in _held:
            return self.path
        lock = Lock(self.name)
        if not self.complete():
            lock.exclusive(self.title)
            if not self.complete():
                self._build(build)
        lock.shared()
        if not self.complete():
            raise LabError(f"the cache's {self.title} was removed by another run; start again")
        os.utime(self.path / STAMP)
        _held[self.name] = lock
        prune(self.kind)
        return self.path

    def _build(self, build: Callable[[Path], dict]) -> None:
        remove(self.path)
        self.path.mkdir(parents=True)
        facts = build(self.path)
        draft = self.path / (STAMP + ".new")
        draft.write_text(json.dumps({"title": self.title, "parts": self.parts, "facts": facts}, indent=1) + "\n")
        draft.rename(self.path / STAMP)

    def discard(self) -> None:
        """Removes the entry. Raises LabError if another run uses it."""
        held = _held.pop(self.name, None)
        if held:
            held.release()
        lock = Lock(self.name)
        if not lock.try_exclusive():
            raise LabError(f"{self.title} is in use by another run; try again when that has ended")
        remove(self.path)
        lock.release()


def facts(folder: Path) -> dict:
    """What the builder of the complete entry in `folder` returned."""
    return json.loads((folder / STAMP).read_text())["facts"]


def entries() -> Iterator[Path]:
    """Every complete or half-made entry of the cache."""
    root = paths.cache()
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir() and path.name not in ("locks", "logs"))


def prune(kind: str) -> None:
    """Removes the kind's entries that a killed run left half-made, and those that nobody has used for KEEP_DAYS days."""
    oldest = time.time() - KEEP_DAYS * 86400
    for path in entries():
        stamp = path / STAMP
        if path.name.rpartition("-")[0] != kind or path.name in _held or (
                stamp.exists() and stamp.stat().st_mtime > oldest):
            continue
        lock = Lock(path.name)
        if lock.try_exclusive():
            why = f"not used for {KEEP_DAYS} days" if stamp.exists() else "left half-made by a killed run"
            print(f"lab: removing {path.name} from the cache, {why}", flush=True)
            remove(path)
        lock.release()


def remove_all() -> None:
    """Removes the whole cache. Raises LabError if a run uses it."""
    locks = []
    for path in entries():
        lock = Lock(path.name)
        if not lock.try_exclusive():
            raise LabError(f"{path.name} of the cache is in use by another run; try again when that has ended")
        locks.append(lock)
    remove(paths.cache())
    for lock in locks:
        lock.release()


def remove(path: Path) -> None:
    """Removes a folder, also one whose files belong to subordinate users. Raises LabError if that fails."""
    if not path.exists():
        return
    done = subprocess.run([*host.namespaces(pid=False), "rm", "-rf", "--one-file-system", str(path)], check=False)
    if done.returncode or path.exists():
        raise LabError(f"cannot remove {path}")


def size_mib(path: Path) -> int:
    """Disk space a folder takes, in MiB, as far as it can be read."""
    done = subprocess.run(["du", "-sm", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=False)
    return int(done.stdout.split()[0]) if done.stdout else 0
