# SPDX-License-Identifier: GPL-2.0
"""The counters of our modules, read from the guest's memory, and the lines of the source that they stand for: see `lab/coverage.py`."""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from device.memory import PAGE, Memory
from lab import coverage, paths
from lab.guest import Guest

MODULES = ("virtio_ring", "virtio", "virtio_pci", "virtio_mmio", "virtio_balloon", "virtio_rng")
COUNTERS, PLACES = "__sancov_cntrs", "__sancov_pcs"
_HIT = bytes([0, *[1] * 255])
_PLACE_SIZE = 16
_FILE = re.compile(r"^(/\S+?):(\d+)")


class Counters:
    """The counters of all modules, one behind the other."""

    def __init__(self, guest: Guest, memory: Memory, modules: Path) -> None:
        """Finds those of the modules that are loaded; they must stay so."""
        self._parts: list[memoryview] = []
        for name in MODULES:
            address = int(guest.read(f"/sys/module/{name}/sections/{COUNTERS}"), 16)
            size = _size(_module(modules, name))
            while size:
                part = min(size, PAGE - address % PAGE)
                self._parts.append(memory.guest(_physical(guest, address), part))
                address, size = address + part, size - part

    def take(self) -> int:
        """Which ones have counted, one byte for each, and sets all to 0."""
        seen = b""
        for part in self._parts:
            seen += bytes(part)
            part[:] = bytes(len(part))
        return int.from_bytes(seen.translate(_HIT), "little")


def _physical(guest: Guest, address: int) -> int:
    answer = guest.qmp("human-monitor-command", command_line=f"gva2gpa {address:#x}")
    return int(answer.split()[-1], 16)


def _module(modules: Path, name: str) -> Path:
    return next(path for path in modules.rglob(f"{name}.ko"))


def _size(module: Path) -> int:
    return next(section.size for section in coverage.sections(module.read_bytes()) if section.name == COUNTERS)


# Lines


@dataclass(frozen=True)
class Place:
    """A line of our source at which a block of instructions begins."""

    file: str
    line: int


def places(modules: Path) -> list[Place | None]:
    """Where each counter counts, in the order of `Counters`; None: in code of the kernel crate alone."""
    found: list[Place | None] = []
    for name in MODULES:
        found += _places_of(_module(modules, name))
    return found


def _places_of(module: Path) -> list[Place | None]:
    data = module.read_bytes()
    known = coverage.sections(data)
    size = next(section.size for section in known if section.name == COUNTERS)
    relocated = next(section for section in known if section.name == f".rela{PLACES}")
    wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for _, place, symbol, addend in coverage.relocations(data, relocated):
        if place % _PLACE_SIZE == 0:
            section, value = coverage.symbol(data, known, symbol)
            wanted[known[section].name].append((place // _PLACE_SIZE, value + addend))
    result: list[Place | None] = [None] * size
    for section_name, entries in wanted.items():
        for (number, _), frames in zip(entries, _frames(module, section_name, [at for _, at in entries]), strict=True):
            if number < size:
                result[number] = next(filter(None, map(_ours, frames)), None)
    return result


def _frames(module: Path, section: str, addresses: list[int]) -> list[list[str]]:
    """For each address its place, the one that it was inlined to, and so on."""
    text = "".join(f"{address:#x}\n" for address in addresses)
    done = subprocess.run(["addr2line", "-a", "-i", "-j", section, "-e", module], input=text, capture_output=True, text=True, check=True)
    frames: list[list[str]] = []
    for line in done.stdout.splitlines():
        if line.startswith("0x"):
            frames.append([])
        else:
            frames[-1].append(line)
    return frames


def _ours(frame: str) -> Place | None:
    found = _FILE.match(frame)
    if found is None:
        return None
    path = Path(os.path.normpath(found[1]))
    if paths.CHECKOUT not in path.parents or "build" in path.parts:
        return None
    return Place(str(path.relative_to(paths.CHECKOUT)), int(found[2]))
