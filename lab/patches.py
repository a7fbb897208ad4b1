# SPDX-License-Identifier: GPL-2.0
"""`make patches`: the sources as a series of patches for a kernel, with a cover letter, in build/patches.

The commits are written by `git fast-import`, so that no file of a working tree is touched. In a git tree that KSRC names
they become the branch `virtio-rust` on top of its HEAD; without KSRC a repository with nothing but the files that are
changed is made in build/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from lab import buildroot, enter, host, intree, kernels, paths, series
from lab.errors import LabError
from lab.progress import Steps

OUT = paths.BUILD / "patches"
REPOSITORY = paths.BUILD / "patches.git"
BRANCH = "virtio-rust"
BASE = "base"
# Who signs when git knows of nobody.
NOBODY = "The virtio-rust developers <virtio-rust@example.org>"
SUBJECT = "Virtio core, rings, transports and balloon in Rust"
COVER = """\
This series adds implementations in Rust of virtio_ring, virtio,
virtio_mmio, virtio_pci and virtio_balloon, and CONFIG_VIRTIO_RUST, which
chooses between them and those in C. They have the same exported
functions, module names, parameters and files in sysfs, so that drivers
and transports in C work on them, and they on those in C: the series can
be applied up to any patch.

What is different from C:

- The device is not trusted. What the driver wrote is kept in private
  memory; what the device writes is fetched once and checked before it is
  used. No wait for a device is without end.
- The balloon stays inflated over hibernation: no page is moved before
  the image is written, and the resumed kernel takes its pages back by its
  own books.
- Rings keep the memory of indirect tables, so that no request allocates.

The wrappers in drivers/virtio/rust/kernel_ext know nothing of virtio and
could move to the kernel crate.

Without yet: architectures other than x86-64 and arm64.
"""


@dataclass(frozen=True)
class Git:
    """A repository, and how to run git for it: with the host's, or with that of the build root."""

    folder: Path
    root: Optional[Path] = None

    def run(self, *arguments: str, data: Optional[bytes] = None, check: bool = True) -> bytes:
        """Runs git and returns what it prints. Raises LabError if `check` is set and it fails."""
        command = ["git", "-C", paths.inside(self.folder) if self.root else str(self.folder), *arguments]
        command = enter.command(self.root, command) if self.root else command
        done = subprocess.run(command, input=data or b"", stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              preexec_fn=host.die_with_parent)
        if check and done.returncode:
            raise LabError(f"git {arguments[0]} in {self.folder}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def ident(self) -> str:
        """Name and address of who makes the commits."""
        named = " ".join(self.run("var", "GIT_AUTHOR_IDENT", check=False).decode().split()[:-2]) if not self.root else ""
        return named or NOBODY


def write(steps: Steps) -> list[Path]:
    """Writes the series, for the git tree that KSRC names if it is set, and returns its files. Raises LabError."""
    if os.environ.get("KSRC"):
        git = _named(intree.named_tree())
        base = "HEAD"
    else:
        git = _throw_away(steps)
        base = BASE
    step = steps.begin("patches")
    start = git.run("rev-parse", base).decode().strip()

    originals = {path: git.run("show", f"{start}:{path}", check=False) or None for path in series.CHANGED}
    git.run("fast-import", "--force", "--quiet", data=_commits(originals, start, git.ident()))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    out = paths.inside(OUT) if git.root else str(OUT)
    options = ["--quiet", "--cover-letter", "--stat=72", "--no-signature", "-o", out]
    git.run("-c", f"user.name={git.ident().rsplit(' <')[0]}", "-c", f"user.email={git.ident().rsplit('<')[1].rstrip('>')}",
            "format-patch", *options, f"{start}..{BRANCH}")
    made = sorted(OUT.glob("*.patch"))
    _address(made[0])
    step.done(f"{len(made) - 1} and a cover letter")
    return made


def _named(folder: Path) -> Git:
    """The user's tree, after a look whether the branch can be made. Raises LabError."""
    if not shutil.which("git"):
        raise LabError("git is missing: install git")
    git = Git(folder)
    if Path(os.fsdecode(git.run("rev-parse", "--show-toplevel", check=False).strip())) != folder:
        raise LabError(f"KSRC={folder} is no git tree; without KSRC the patches are made for the lab's kernel source")
    if git.run("symbolic-ref", "-q", "HEAD", check=False).decode().strip() == f"refs/heads/{BRANCH}":
        raise LabError(f"the branch {BRANCH} is checked out in {folder}, and would be made anew: check out another one")
    if git.run("ls-tree", "HEAD", series.FOLDER):
        raise LabError(f"HEAD of {folder} has {series.FOLDER} already: check out a commit without it")
    return git


def _throw_away(steps: Steps) -> Git:
    """A new repository with the files of the lab's kernel source that the series changes."""
    root = buildroot.ensure(steps.begin("build root"))
    source, _ = kernels.ingredients(steps.begin("kernel source"), "source.sh")
    shutil.rmtree(REPOSITORY, ignore_errors=True)
    REPOSITORY.mkdir(parents=True)
    git = Git(REPOSITORY, root)
    git.run("init", "--quiet", "--bare", "--initial-branch", BASE)
    found = {path: source.path / "linux" / path for path in series.CHANGED}
    contents = {path: file.read_bytes() for path, file in found.items() if file.is_file()}
    git.run("fast-import", "--quiet", data=_commit(BASE, None, NOBODY, f"Linux {source.facts()['version']}\n", contents))
    return git


def _commits(originals: dict[str, Optional[bytes]], start: str, ident: str) -> bytes:
    """All commits of the series as `git fast-import` reads them, on top of `start` with the files that are changed."""
    stream, before = b"", {}
    for number, patch in enumerate(series.SERIES, 1):
        after = series.state(originals.get, number)
        changed = {path: data for path, data in after.items() if before.get(path, originals.get(path)) != data}
        message = f"{patch.subject}\n\n{patch.text}\nSigned-off-by: {ident}\n"
        stream += _commit(BRANCH, None if before else start, ident, message, changed)
        before = after
    return stream


def _commit(branch: str, parent: Optional[str], ident: str, message: str, contents: dict[str, bytes]) -> bytes:
    """A commit on the branch, on what is there already unless another parent is named."""
    lines = [f"commit refs/heads/{branch}", f"committer {ident} {int(time.time())} +0000"]
    stream = "\n".join(lines).encode() + b"\n" + _data(message.encode())
    if parent:
        stream += f"from {parent}\n".encode()
    for path, data in contents.items():
        stream += f"M 100644 inline {path}\n".encode() + _data(data)
    return stream + b"\n"


def _data(data: bytes) -> bytes:
    return f"data {len(data)}\n".encode() + data + b"\n"


def _address(cover: Path) -> None:
    """Puts subject and text into the cover letter."""
    text = cover.read_text()
    cover.write_text(text.replace("*** SUBJECT HERE ***", SUBJECT).replace("*** BLURB HERE ***\n", COVER))
