# SPDX-License-Identifier: GPL-2.0
"""Builds guests' initramfs: busybox, `init.sh`, `agent.sh` and kernel modules with everything they depend on.

A base archive depends only on the kernel and the set of modules, and is kept in a cache folder under a name made from its
contents' inputs. What differs between guests (files of a test, static programs) goes into a second archive behind it, since the
kernel unpacks any number of archives in a row.
"""

from __future__ import annotations

import lzma
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .cache import cached
from .cpio import Archive
from .facts import Kernel, facts

INIT = Path(__file__).with_name("init.sh")
AGENT = Path(__file__).with_name("agent.sh")
SUFFIXES = (".ko", ".ko.xz")


@dataclass(frozen=True)
class ModuleSource:
    """Where a guest's modules come from: our own folder for those named in `rust`, else the kernel's folder, else ours again
    (test modules are only there)."""

    kernel: Kernel
    out: Path
    rust: frozenset[str] = frozenset()

    def find(self, name: str) -> Path:
        """Returns a module's file by its name, `-` and `_` being the same. Raises FileNotFoundError."""
        name = _canonical(name)
        folders = [self.out] if name in self.rust else [self.kernel.modules_dir, self.out]
        for folder in folders:
            if name in (index := _index(folder)):
                return index[name]
        where = " or ".join(str(folder) for folder in folders)
        raise FileNotFoundError(f"no module {name} for kernel {self.kernel.release} in {where}")


def build(source: ModuleSource, modules: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """Returns an initramfs with `modules` (names as modprobe takes them; not what is built into the kernel) and `files`.

    `files` maps paths in the guest to contents; a content that starts with `#!` or is an ELF file becomes executable.

    Raises FileNotFoundError when a module cannot be found.
    """
    extra = Archive()
    for path, data in files.items():
        executable = data[:2] == b"#!" or data[:4] == b"\x7fELF"
        extra.add_file(path.lstrip("/"), data, 0o755 if executable else 0o644)
    return _base(source.kernel, _closure(source, modules)) + (extra.finish() if files else b"")


def is_builtin(kernel: Kernel, name: str) -> bool:
    """Whether the kernel has no such module, so that it must be built in."""
    return _canonical(name) not in _index(kernel.modules_dir)


def _builtins(kernel: Kernel) -> list[str]:
    """The lines of the kernel's list of what would be modules and is built in; none if the lab has no list."""
    listed = kernel.modules_dir / "modules.builtin"
    return listed.read_text().splitlines() if listed.exists() else []


def _closure(source: ModuleSource, modules: Iterable[str]) -> dict[str, tuple[Path, list[str]]]:
    """Maps each module needed to its file and the names of those it depends on."""
    chosen: dict[str, tuple[Path, list[str]]] = {}
    builtin = {_canonical(Path(line).stem) for line in _builtins(source.kernel)}
    todo = [_canonical(name) for name in modules if _canonical(name) not in builtin]
    while todo:
        name = todo.pop()
        if name not in chosen:
            path = source.find(name)
            depends = _depends(path, path.stat().st_mtime_ns)
            chosen[name] = (path, depends)
            todo += depends
    return chosen


def _base(kernel: Kernel, modules: Mapping[str, tuple[Path, list[str]]]) -> bytes:
    """Returns the base archive, from the cache when one with the same inputs is there."""
    busybox = facts().busybox
    inputs = [busybox, *(path for _, (path, _) in sorted(modules.items()))]
    key = "\n".join([kernel.release, *_builtins(kernel)]).encode() + INIT.read_bytes() + AGENT.read_bytes() + Path(__file__).read_bytes()
    return cached("initramfs", inputs, key, lambda: _make_base(kernel, modules, busybox)).read_bytes()


def _make_base(kernel: Kernel, modules: Mapping[str, tuple[Path, list[str]]], busybox: Path) -> bytes:
    archive = Archive()
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "etc", "lab"):
        archive.add_dir(name)
    archive.add_char_device("dev/console", 5, 1)
    archive.add_file("init", INIT.read_bytes(), 0o755)
    archive.add_file("lab/agent", AGENT.read_bytes())
    archive.add_file("bin/busybox", busybox.read_bytes(), 0o755)
    # That of another architecture does not run here; it has the same applets.
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            archive.add_symlink(f"bin/{applet}", "busybox")
    archive.add_symlink("sbin", "bin")  # The kernel asks for /sbin/modprobe.
    folder = f"lib/modules/{kernel.release}"
    dep = []
    for name, (path, depends) in modules.items():
        archive.add_file(f"{folder}/{name}.ko", _stripped(path))
        dep.append(f"{name}.ko: " + " ".join(f"{other}.ko" for other in _load_order(modules, depends)))
    archive.add_file(f"{folder}/modules.dep", "\n".join([*dep, ""]).encode())
    # So that `modprobe` does not mind.
    archive.add_file(f"{folder}/modules.builtin", "\n".join([*_builtins(kernel), ""]).encode())
    return archive.finish()


def _load_order(modules: Mapping[str, tuple[Path, list[str]]], depends: list[str]) -> list[str]:
    """Everything below `depends`, a module before those it needs, as modules.dep lists it."""
    order: list[str] = []
    for name in depends:
        for other in (name, *_load_order(modules, modules[name][1])):
            if other in order:
                order.remove(other)
            order.append(other)
    return order


@cache
def _index(folder: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.rglob("*.ko*")):
        for suffix in SUFFIXES:
            if path.name.endswith(suffix):
                found[_canonical(path.name.removesuffix(suffix))] = path
    return found


@cache
def _depends(path: Path, _mtime: int) -> list[str]:
    """The `depends=` field of a module, as canonical names."""
    found = re.search(rb"\0depends=([^\0]*)\0", _unpacked(path))
    names = found.group(1).decode() if found else ""
    return [_canonical(name) for name in names.split(",") if name]


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _stripped(path: Path) -> bytes:
    """The module without debug information, which can be a hundred times its code."""
    data = _unpacked(path)
    if b".debug_info" not in data:
        return data
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "module.ko")
        copy.write_bytes(data)
        subprocess.run(["llvm-strip-19", "--strip-debug", copy], check=True)
        return copy.read_bytes()


def _canonical(name: str) -> str:
    return name.replace("-", "_")
