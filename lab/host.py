# SPDX-License-Identifier: GPL-2.0
"""What the host has to give: namespaces, disk space, the address of a Debian archive, and mmdebstrap."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from lab.errors import LabError

PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Makes the calling process get a signal when its parent ends. For use as a `preexec_fn` too."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)


def namespaces(pid: bool = True) -> list[str]:
    """The command prefix that gives mount (and process) namespaces, and a user namespace unless we are root.

    Everything in the process namespace is killed when the prefix's own process ends.
    """
    prefix = ["unshare", "--mount"]
    if os.geteuid() != 0:
        prefix += ["--user", "--map-root-user", "--map-auto"]
    return prefix + (["--pid", "--fork", "--kill-child"] if pid else [])


def require_namespaces() -> None:
    """Raises LabError, saying what to change, unless this user can make the namespaces and mount in them."""
    if not shutil.which("unshare"):
        raise LabError("unshare is missing: install util-linux")
    probe = [*namespaces(), "sh", "-c", "mount -t tmpfs tmpfs /mnt && mount -t proc proc /proc"]
    done = subprocess.run(probe, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stdout.strip().splitlines()[-1:] or ["no message"]
    if os.geteuid() == 0:
        raise LabError(f"root may not make mount namespaces here ({said[0]}): in a container, it must be privileged")
    raise LabError(f"this user cannot enter a build root ({said[0]}). {_user_namespace_hint()}")


def _user_namespace_hint() -> str:
    user = os.environ.get("USER") or str(os.geteuid())
    if not shutil.which("newuidmap"):
        return "As root: apt-get install uidmap"
    ranges = Path("/etc/subuid").read_text() if Path("/etc/subuid").exists() else ""
    if not re.search(rf"^({re.escape(user)}|{os.geteuid()}):", ranges, re.M):
        return f"As root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {user}"
    for name, wanted in (("kernel/unprivileged_userns_clone", "1"),
                         ("kernel/apparmor_restrict_unprivileged_userns", "0")):
        knob = Path("/proc/sys") / name
        if knob.exists() and knob.read_text().strip() != wanted:
            return f"As root: sysctl {name.replace('/', '.')}={wanted}"
    return "It needs unprivileged user namespaces and util-linux 2.38 or newer; or run as root"


def require_space(folder: Path, mib: int, purpose: str) -> None:
    """Raises LabError unless the folder's file system has `mib` MiB left."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free >> 20
    if free < mib:
        raise LabError(f"{purpose} needs {mib} MiB in {folder}, which has {free} MiB left: "
                       "make room, or set LAB_CACHE to a folder on another disk")


def archive() -> tuple[str, str]:
    """The addresses of a Debian archive and of its security archive; empty if nothing names one.

    $DEBIAN_MIRROR comes first, then what the host's own apt uses.
    """
    mirror = os.environ.get("DEBIAN_MIRROR", "").rstrip("/")
    if mirror:
        return mirror, _security_beside(mirror)
    if not shutil.which("apt-get"):
        return "", ""
    layout = "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)"
    done = subprocess.run(["apt-get", "indextargets", "--format", layout], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False)
    found = {}
    for line in done.stdout.splitlines():
        origin, label, codename, address = line.split("|", 3)
        if origin == "Debian" and label in ("Debian", "Debian-Security") and "backports" not in codename:
            found.setdefault(label, address.rstrip("/"))
    mirror = found.get("Debian", "")
    return mirror, found.get("Debian-Security") or _security_beside(mirror)


def _security_beside(mirror: str) -> str:
    return mirror + "-security" if mirror.endswith("/debian") else ""


def require_mmdebstrap() -> None:
    """Installs mmdebstrap if it is missing, we are root and apt is there. Raises LabError otherwise."""
    if shutil.which("mmdebstrap"):
        return
    command = "apt-get update && apt-get install -y --no-install-recommends mmdebstrap"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"mmdebstrap is missing. As root, on Debian or Ubuntu: {command}")
    print(f"lab: mmdebstrap is missing, installing it: {command}", flush=True)
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                          check=False)
    if done.returncode or not shutil.which("mmdebstrap"):
        raise LabError(f"installing mmdebstrap failed:\n{done.stdout[-1500:]}\nTry: {command}")
