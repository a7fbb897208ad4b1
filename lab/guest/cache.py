# SPDX-License-Identifier: GPL-2.0
"""A small cache of generated files in the temporary folder, named by what they were made from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def cached(kind: str, inputs: Iterable[Path], key: bytes, make: Callable[[], bytes]) -> Path:
    """Returns the path of the file that `make()` gives the contents of, which runs only when there is no such file yet.

    `inputs` are files it depends on (known by path, size and time), `key` is what it depends on besides. Two processes may ask
    for the same file at once.
    """
    digest = hashlib.sha256(key)
    for path in inputs:
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    folder = Path(tempfile.gettempdir()) / f"lab-guest-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{kind}-{digest.hexdigest()[:32]}"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(make())
        os.rename(file.name, path)
    return path
