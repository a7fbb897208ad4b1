# SPDX-License-Identifier: GPL-2.0
"""Runs commands in the build root: its own mount and process namespaces, the checkout at /src, the cache at /cache.

As an ordinary user a user namespace makes that user root inside, so that files made in the checkout are the user's.
When the process that entered dies, however it dies, everything inside is killed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Optional, Sequence

from lab import host, paths

KEPT = ("TERM", "COLUMNS", "CI", "NO_COLOR", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
SETTINGS = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "KBUILD_BUILD_USER": "lab",
    "KBUILD_BUILD_HOST": "lab",
}


def command(root: Path, argv: Sequence[str], cwd: str = "/src", env: Optional[dict[str, str]] = None,
            writable: bool = False) -> list[str]:
    """The host command that runs `argv` inside. The root is read-only unless `writable`; /tmp and /run are fresh."""
    settings = {**SETTINGS, **{name: os.environ[name] for name in KEPT if name in os.environ}, **(env or {})}
    binds = [str(paths.CHECKOUT), "/src", str(paths.cache()), "/cache"]
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if Path(name).exists() and (root / name.lstrip("/")).exists():
            binds += [os.path.realpath(name), name]
    return [*host.namespaces(), "sh", str(paths.STEPS / "enter.sh"), str(root), "rw" if writable else "ro", cwd,
            *binds, "--", *(f"{name}={value}" for name, value in settings.items()), *argv]


def run(root: Path, argv: Sequence[str], env: Optional[dict[str, str]] = None) -> int:
    """Runs `argv` inside on this terminal and returns its exit status."""
    with subprocess.Popen(command(root, argv, env=env), preexec_fn=host.die_with_parent) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # The command inside got it too and decides how to end.
            except BaseException:
                process.kill()
                raise


def output(root: Path, argv: Sequence[str]) -> str:
    """What a command prints inside. Raises subprocess.CalledProcessError if it fails."""
    return subprocess.run(command(root, argv, cwd="/"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=True, preexec_fn=host.die_with_parent).stdout
