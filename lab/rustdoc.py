# SPDX-License-Identifier: GPL-2.0
"""`make rustdoc`: the documentation of the API and of every module, as pages; a warning is an error.

Each module is read by rustdoc with the very flags with which the kernel's build compiled it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lab import buildroot, enter, kernels, modules, paths
from lab.errors import LabError
from lab.progress import Steps

OUT = paths.BUILD / "rustdoc"
LOG = paths.BUILD / "logs" / "rustdoc.log"
STEPS = 2 + kernels.STEPS + 1
COMPILED = re.compile(r"^savedcmd_\S+\.o := (.* rustc .*?\.rs)\s*;", re.MULTILINE)
"""A compilation as Kbuild keeps it in a `.cmd` file."""

COMPILERS_OWN = re.compile(r"--emit=|-Zbinary_dep_depinfo")
"""Flags that rustdoc does not know."""


ALLOWED = ["-Arustdoc::private-intra-doc-links"]
"""Macros are private to the module that they are compiled into, and have no pages."""


def build() -> list[Path]:
    """Writes the pages and returns the first one of each module. Raises LabError."""
    steps = Steps(STEPS)
    root = buildroot.ensure(steps.begin("build root"))
    kernel = kernels.prepare("full", steps)
    out = modules.out_folder(kernel)
    modules.build(steps.begin("modules"), kernel, out)
    step = steps.begin("rustdoc")
    LOG.unlink(missing_ok=True)
    found = [match.group(1) for path in sorted(out.rglob(".*.o.cmd")) if (match := COMPILED.search(path.read_text()))
             and out / "tests" not in path.parents]
    if not found:
        raise LabError(f"no compiled module was found in {out}")
    pages = []
    for command in found:
        words = shlex.split(command)
        first = words.index("rustc")
        source = words[-1]
        settings = dict(word.split("=", 1) for word in words[:first])
        settings |= {"RUSTC_BOOTSTRAP": "1", "VIRTIO_BINDINGS": paths.inside(out / "virtio_bindings.rs")}
        flags = [word for word in words[first + 1:-1] if not COMPILERS_OWN.match(word)]
        flags[flags.index("--out-dir") + 1] = paths.inside(OUT)
        argv = ["rustdoc", *flags, "-Dwarnings", *ALLOWED, source]
        step.run(enter.command(root, argv, cwd=paths.inside(out), env=settings), LOG, f"running for {Path(source).name}")
        pages.append(OUT / Path(source).stem / "index.html")
    step.done("no complaints")
    return pages
