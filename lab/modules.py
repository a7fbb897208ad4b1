# SPDX-License-Identifier: GPL-2.0
"""Builds our modules, the tests' own modules and the tests' programs for the lab's kernels, inside the build root."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Optional

from lab import accel, buildroot, cache, coverage, enter, intree_kernel, kernels, paths, rootfs, sysroot
from lab.kernels import Kernel
from lab.progress import Step, Steps
from lab.sysroot import Userland

TEST_MODULES = paths.CHECKOUT / "tests" / "modules"
TEST_PROGRAMS = paths.CHECKOUT / "tests" / "programs"
OBJECT_LINE = r"^  (CC|LD|RUSTC|BINDGEN|MODPOST)( |\[)"
# The steps of `for_guests` for each kernel, and beside them: build root, user space, test programs, acceleration.
STEPS_EACH = kernels.STEPS + 1
STEPS_ALL = 4


def out_folder(kernel: Kernel) -> Path:
    """Where the modules for a kernel of the lab are left, in the checkout."""
    folders = {"full": "modules", "stock": f"stock-modules/{kernel.release}", "debug": "debug-modules", "arm64": "arm64-modules"}
    return paths.BUILD / folders.get(kernel.name, f"intree-kernel/{kernel.name}/modules")


def build(step: Step, kernel: Kernel, out: Path) -> list[Path]:
    """Builds our modules for a kernel of the lab into `out` and returns the .ko files. Raises LabError."""
    lock = _checkout_lock()
    make(step, kernel, paths.CHECKOUT, out)
    lock.release()
    step.done(f"for {kernel.release}")
    return sorted([*out.glob("*.ko"), *out.glob("samples/*.ko")])


def for_guests(steps: Steps, names: list[str], counting: bool = False) -> Path:
    """Makes everything guests on the kernels named need, which are all of one architecture; returns the file that tells the
    harness. `counting`: our modules count which of their branches are taken. Raises LabError."""
    accel.asked()
    buildroot.ensure(steps.begin("build root"))
    made = [(intree_kernel if name in intree_kernel.VARIANTS else kernels).prepare(name, steps) for name in names]
    lock = _checkout_lock()
    outs = {kernel.name: out_folder(kernel) for kernel in made}
    for kernel in made:
        if kernel.name in intree_kernel.VARIANTS:
            continue  # It has everything built in.
        step = steps.begin(f"modules for `{kernel.name}`")
        if counting:
            outs[kernel.name] = paths.BUILD / "counting-modules" / kernel.name
        out = outs[kernel.name]
        make(step, kernel, paths.CHECKOUT, out, coverage.VARIABLES if counting else ())
        if counting:
            coverage.finish(out)
        elif TEST_MODULES.is_dir():
            make(step, kernel, TEST_MODULES, out / "tests")
            for module in (out / "tests").glob("*.ko"):
                _link(module, out / module.name)
        step.done()
    userland = sysroot.prepare(made[0].arch, steps.begin("user space"))
    programs = paths.BUILD / ("programs" if made[0].arch == "x86_64" else f"programs-{made[0].arch}")
    if TEST_PROGRAMS.is_dir():
        _programs(steps.begin("test programs"), programs, userland)
    debian = {}
    if any(name in intree_kernel.VARIANTS for name in names):
        debian["debian"] = paths.inside(rootfs.ensure(steps.begin("Debian system")))
    step = steps.begin("acceleration")
    acceleration, reason = accel.chosen(made[0].image, made[0].arch)
    step.done(f"{acceleration} ({reason})")
    facts = {
        "kernels": {kernel.name: kernel.facts() for kernel in made},
        "out": {name: paths.inside(out) for name, out in outs.items()},
        "programs": paths.inside(programs),
        "busybox": userland.busybox,
        "accel": acceleration,
        **debian,
    }
    path = paths.BUILD / f"facts-{'-'.join(names)}{'-counting' if counting else ''}.json"
    _write(path, json.dumps(facts, indent=1) + "\n")
    lock.release()
    return path


def make(step: Step, kernel: Kernel, folder: Path, out: Path, variables: tuple[str, ...] = (),
         log: Optional[Path] = None) -> None:
    """Builds the modules of one folder for a kernel of the lab, with more make variables if given. Raises LabError."""
    out.mkdir(parents=True, exist_ok=True)
    script = ["sh", "/src/lab/steps/modules.sh", paths.inside(folder), paths.inside(out), kernel.source, kernel.build,
              *kernel.make, *variables]
    log = log or paths.BUILD / "logs" / f"modules-{kernel.name}.log"
    step.run(enter.command(buildroot.root(), script), log, "building", OBJECT_LINE, "objects")


def _programs(step: Step, out: Path, userland: Userland) -> None:
    script = ["sh", "/src/lab/steps/programs.sh", paths.inside(TEST_PROGRAMS), paths.inside(out), *userland.rustc_options]
    step.run(enter.command(buildroot.root(), script), paths.BUILD / "logs" / "programs.log", "building")
    step.done()


def _checkout_lock() -> cache.Lock:
    """Keeps two runs in one checkout from building the same files at the same time."""
    lock = cache.Lock("checkout-" + hashlib.sha256(str(paths.CHECKOUT).encode()).hexdigest()[:12])
    lock.exclusive("building modules in this checkout")
    return lock


def _link(source: Path, target: Path) -> None:
    draft = target.with_name(target.name + ".new")
    draft.unlink(missing_ok=True)
    os.link(source, draft)
    draft.rename(target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    draft.rename(path)
