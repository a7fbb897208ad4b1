# SPDX-License-Identifier: GPL-2.0
"""The build root: Debian 13 with its backports, made by mmdebstrap, with every tool the lab uses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Sequence

from lab import enter, host, paths
from lab.cache import Entry
from lab.errors import LabError
from lab.progress import Step

SUITE = "trixie"
NEEDS_MIB = 4000
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Packages that the suite and its backports both have are taken from the suite, but for these.
PINS = f"""Package: linux-* qemu-* python3-qemu-qmp seabios ipxe-qemu
Pin: release n={SUITE}-backports
Pin-Priority: 500
"""
# With no address to give, mmdebstrap writes its default; backports are then put beside the suite's own line.
ADD_BACKPORTS = (f"sed -n 's/^deb \\(.* {SUITE}\\) \\(.*\\)/deb \\1-backports \\2/p' \"$1/etc/apt/sources.list\""
                 " >\"$1/etc/apt/sources.list.d/backports.list\"")
SETUP = "printf '%s' \"$LAB_PINS\" >\"$1/etc/apt/preferences.d/lab\""
FINISH = "mkdir -p \"$1/src\" \"$1/cache\" && touch \"$1/etc/resolv.conf\" \"$1/etc/hosts\""
LEAVE_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*",
             "/usr/share/gtk-doc/*", "/usr/share/javascript/*")
HINTS = {
    "NO_PUBKEY|not signed|no installed keyring|Missing key": "The host's debian-archive-keyring does not know Debian "
    f"13 ({SUITE}): install a newer version of that package",
    "Temporary failure resolving|Could not resolve|Could not connect|Cannot initiate|Network is unreachable|"
    "Connection timed out": "The Debian archive cannot be reached: check the network, set DEBIAN_MIRROR to an archive "
    "near you, or http_proxy",
    "No space left on device": "The disk is full: make room, or set LAB_CACHE to a folder on another disk",
    "Unable to locate package|has no installation candidate": "The archive lacks a package named above: set "
    "DEBIAN_MIRROR to a complete Debian archive",
    "does not have a Release file|404 +Not Found": f"The archive does not have {SUITE} and {SUITE}-backports: set "
    "DEBIAN_MIRROR to a complete Debian archive",
}
# The same for packages of the versions that the archive had when the root was made.
OUTDATED = {"404 +Not Found|was not found": "The archive has replaced this version since the build root was made: `make update` makes "
            "a new one", **HINTS}


def packages() -> list[str]:
    """The package list: names, with an `@` in front of those from backports."""
    lines = (paths.CONFIG / "packages.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def entry() -> Entry:
    """The build root's place in the cache."""
    return Entry("buildroot", "build root", (SUITE, *packages(), PINS, SETUP, ADD_BACKPORTS, FINISH, *LEAVE_OUT))


def root() -> Path:
    """The root folder, whether it exists or not."""
    return entry().path / "root"


def ensure(step: Step) -> Path:
    """The root folder of a complete build root, made if need be. Raises LabError."""
    host.require_namespaces()
    entry().ensure(lambda folder: _make(folder, step))
    step.done()
    return root()


def _make(folder: Path, step: Step) -> dict:
    host.require_mmdebstrap()
    host.require_space(paths.cache(), NEEDS_MIB, "the build root")
    if not KEYRING.exists():
        raise LabError("the keys of Debian's archive are missing. As root: apt-get install debian-archive-keyring")
    wanted = packages()
    step.run(mmdebstrap(folder / "root", wanted, FINISH), paths.cache() / "logs" / f"{folder.name}.log",
             "installing Debian packages", counted=r"^(Unpacking|Setting up) ", unit="package steps", expected=1050,
             hints=HINTS)
    return {"versions": _versions(folder / "root")}


def mmdebstrap(target: Path, wanted: Sequence[str], finish: str, suite: str = SUITE) -> list[str]:
    """The command that makes a Debian tree with these packages; `finish` is a shell script that gets it as `$1`."""
    sources, hooks = _sources(suite)
    return [
        *host.namespaces(), "env", "LC_ALL=C", f"LAB_PINS={PINS}", "mmdebstrap", "--mode=root", "--variant=minbase",
        "--format=directory", "--components=main", "--verbose", "--skip=cleanup/apt/lists",
        f"--include={','.join(name.lstrip('@') for name in wanted)}",
        "--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEAVE_OUT),
        *(f"--aptopt={setting}" for setting in _apt_settings()),
        *(f"--setup-hook={hook}" for hook in (SETUP, *hooks)), f"--customize-hook={finish}",
        suite, str(target), *sources,
    ]


def _sources(suite: str) -> tuple[list[str], list[str]]:
    """The sources.list lines for mmdebstrap, and the setup hooks that are needed when there are none.

    Of a suite that is not the build root's, only that itself is asked for: it has no backports.
    """
    mirror, security = host.archive()
    if suite != SUITE:
        return [f"deb {mirror} {suite} main"] if mirror else [], []
    if not mirror:
        return [], [ADD_BACKPORTS]
    lines = [f"deb {mirror} {suite} main" for suite in (SUITE, f"{SUITE}-updates", f"{SUITE}-backports")]
    if security:
        lines.append(f"deb {security} {SUITE}-security main")
    return lines, []


def _apt_settings() -> list[str]:
    """What the host's apt needs to reach its archive: proxies, certificates, a clock that is off."""
    try:
        dump = subprocess.run(["apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', "Acquire"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    wanted = re.compile(r"Acquire::(Check-|https?::(Proxy|CaInfo|Verify-|Timeout)|Retries)")
    return [line for line in dump.splitlines() if wanted.match(line)]


def _versions(target: Path) -> dict[str, str]:
    """Package versions in the root, by package."""
    listed = enter.output(target, ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"])
    return dict(line.split(" ", 1) for line in listed.splitlines())
