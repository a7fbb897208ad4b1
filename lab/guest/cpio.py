# SPDX-License-Identifier: GPL-2.0
"""A writer for cpio archives in the `newc` format, the one the kernel unpacks as an initramfs."""

from __future__ import annotations

import stat


class Archive:
    """Collects entries in memory; `finish()` gives the archive as bytes. Several archives may follow each other in one file."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0
        self._dirs: set[str] = set()

    def add_file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a regular file and the folders above it. `path` has no leading slash."""
        self._parents(path)
        self._entry(path, stat.S_IFREG | mode, data)

    def add_dir(self, path: str) -> None:
        """Adds a folder and the folders above it, once."""
        if path and path not in self._dirs:
            self._parents(path)
            self._dirs.add(path)
            self._entry(path, stat.S_IFDIR | 0o755, b"")

    def add_symlink(self, path: str, target: str) -> None:
        """Adds a symbolic link."""
        self._parents(path)
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def add_char_device(self, path: str, major: int, minor: int) -> None:
        """Adds a character device node, readable and writable by root only."""
        self._parents(path)
        self._entry(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def finish(self) -> bytes:
        """Appends the trailer and returns the whole archive, padded to 512 bytes."""
        self._entry("TRAILER!!!", 0, b"")
        data = b"".join(self._parts)
        return data + bytes(-len(data) % 512)

    def _parents(self, path: str) -> None:
        self.add_dir(path.rpartition("/")[0])

    def _entry(self, path: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        name = path.encode() + b"\0"
        # Fields: ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        self._parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]
