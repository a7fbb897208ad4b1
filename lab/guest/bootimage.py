# SPDX-License-Identifier: GPL-2.0
"""Unpacks a bzImage: a guest that starts at the PVH entry of the plain vmlinux inside saves the time that firmware and the
decompressor take, a third of the whole boot under TCG."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from .cache import cached

# Offsets in the boot protocol's setup header (Documentation/arch/x86/boot.rst).
SETUP_SECTORS = 0x1F1
MAGIC = 0x202
PAYLOAD = 0x248

PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen\0")
"""ELF note with the address of the PVH entry, for x86-64."""


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dqc"], input=data, check=True, capture_output=True).stdout


SIZE = 4
"""Bytes with the unpacked size behind a payload; gzip has such a field of its own and gets no second one."""

UNPACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x28\xb5\x2f\xfd": lambda data: _zstd(data[:-SIZE]),
    b"\x1f\x8b": gzip.decompress,
    b"\xfd7zXZ\0": lambda data: lzma.decompress(data[:-SIZE]),
}


def bootable(image: Path) -> Path:
    """Returns the vmlinux of a bzImage, unpacked in the cache, or `image` itself when it cannot be started that way."""
    data = image.read_bytes()
    if data[MAGIC:MAGIC + 4] != b"HdrS":
        return image
    offset, length = struct.unpack_from("<II", data, PAYLOAD)
    start = (data[SETUP_SECTORS] + 1) * 512 + offset
    payload = data[start:start + length]
    for magic, unpack in UNPACK.items():
        if payload.startswith(magic):
            vmlinux = cached("vmlinux", [image], b"", lambda: unpack(payload))
            return vmlinux if PVH_NOTE in vmlinux.read_bytes() else image
    return image
