# SPDX-License-Identifier: GPL-2.0
"""The lab's commands, run on the host: `python3 -m lab COMMAND`. The Makefile has a target for each."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Optional, Sequence

from lab import buildroot, cache, deb, doctor, enter, herd, host, intree, intree_kernel, kdir, kernels, lint, modules, patches, paths, rustdoc
from lab.errors import LabError
from lab.progress import Steps

BOTH = ["stock", "full"]
# What `make test-debug` runs: its own tests, and those of the drivers that do not measure time.
DEBUG_TESTS = (
    "tests/debug", "tests/test_balloon_inflate.py", "tests/test_balloon_remove.py", "tests/test_balloon_sleep.py",
    "tests/test_balloon_device.py", "tests/test_balloon_services.py",
    "tests/test_mmio.py", "tests/test_mmio_hostile.py", "tests/test_mmio_accesses.py",
    "tests/test_pci.py", "tests/test_pci_hostile.py", "tests/test_pci_life.py", "tests/test_pci_legacy.py", "tests/test_pci_admin.py",
    "tests/test_pci_sriov.py", "tests/test_harm.py",
)
# What `make test-arm64` runs, over MMIO and PCI, with all our modules below the drivers.
BELOW = ("virtio", "virtio_ring", "virtio_mmio", "virtio_pci")
ARM64_TESTS = (
    "tests/arm64", "tests/test_mmio.py::test_devices", "tests/test_mmio.py::test_sleep", "tests/test_ring.py", "tests/test_rng.py::test_life",
    "tests/test_balloon_inflate.py::test_targets", "tests/test_balloon_inflate.py::test_programs_want_memory_too",
    "tests/test_balloon_sleep.py::test_failed_hibernation", "tests/test_balloon_sleep.py::test_hibernation",
)


def build_modules() -> int:
    """Builds our modules for the lab's kernel `full`, or for the kernel build that KDIR names."""
    out = Path(os.environ.get("OUT") or paths.BUILD / "modules").resolve()
    named = os.environ.get("KDIR")
    if named:
        made = kdir.build(Steps(1).begin("modules"), Path(named).resolve(), out, os.environ.get("LLVM", ""))
    else:
        steps = Steps(2 + kernels.STEPS)
        buildroot.ensure(steps.begin("build root"))
        kernel = kernels.prepare("full", steps)
        made = modules.build(steps.begin("modules"), kernel, modules.out_folder(kernel))
    return _show(made)


def stock_modules() -> int:
    """Builds our modules for Debian's kernel: the archive's newest 7.3, or RELEASE (as `uname -r` prints it)."""
    steps = Steps(2 + kernels.STEPS)
    buildroot.ensure(steps.begin("build root"))
    kernel = kernels.prepare("stock", steps)
    return _show(modules.build(steps.begin("modules"), kernel, modules.out_folder(kernel)))


def build_deb() -> int:
    """Makes the Debian package that has DKMS install the balloon's module, for Debian's newest kernels."""
    return _show(deb.build(Steps(deb.STEPS)))


def test_deb() -> int:
    """Tries the Debian package in a Debian system."""
    facts = deb.for_guests(Steps(deb.STEPS + modules.STEPS_ALL + modules.STEPS_EACH + 1))
    return _inside(["python3", "-m", "pytest", "-o", "cache_dir=/src/build/pytest", *shlex.split(os.environ.get("PYTEST_ARGS", "")), "tests/deb"], facts)


def put_intree() -> int:
    """Puts our sources into the kernel tree that KSRC names, or brings those there up to date."""
    tree = intree.named_tree()
    changed = intree.install(tree)
    print(f"lab: {changed} files changed in {tree}; CONFIG_VIRTIO_RUST=y makes virtio from Rust there")
    return 0


def write_patches() -> int:
    """Writes the sources as a series of patches, for the git tree that KSRC names or the lab's kernel source."""
    return _show(patches.write(Steps(3)))


def demo() -> int:
    """Shows two guests hibernate with an inflated balloon, ours and C's, on the kernel that KERNEL names; STACK=all: all modules are ours."""
    stack = os.environ.get("STACK") or "balloon"
    if stack not in ("balloon", "all"):
        raise LabError(f"STACK={stack}: it must be balloon or all")
    kernel = os.environ.get("KERNEL") or ("full" if stack == "all" else "stock")
    if stack == "all" and kernel == "stock":
        raise LabError("KERNEL=stock: Debian's kernel has virtio built in, only its balloon can be ours; STACK=all needs KERNEL=full")
    if kernel not in BOTH:
        raise LabError(f"KERNEL={kernel}: it must be stock or full")
    facts = _prepare([kernel])
    return _inside(["python3", "-m", "lab.demo", "--kernel", kernel, "--stack", stack], facts)


def bench() -> int:
    """Measures all that the others do, and the kernel with all of virtio from Rust beside the one from C's files."""
    return _bench("stack")


def bench_balloon() -> int:
    """Measures our balloon driver beside C's on the kernel that KERNEL names; PROFILE=1 says where the instructions go."""
    return _bench("balloon")


def bench_ring() -> int:
    """Measures our virtio_ring beside C's below the kernel's own drivers; PROFILE=1 says where the instructions go."""
    return _bench("ring")


def bench_rng() -> int:
    """Measures the sample driver beside C's; PROFILE=1 says where the instructions go."""
    return _bench("rng")


def bench_mmio() -> int:
    """Measures virtio_mmio beside C's; PROFILE=1 says where the instructions go."""
    return _bench("mmio")


def bench_pci() -> int:
    """Measures virtio_pci, and all our modules together, beside C's; PROFILE=1 says where the instructions go."""
    return _bench("pci")


def test() -> int:
    """Runs the tests on both kernels."""
    return _pytest([])


def test_long() -> int:
    """Runs the tests, and those marked as long as well; then, unless TESTS names some, those of the kernel `rust` and a minute of `fuzz`."""
    everything = ["-m", ""]
    status = _pytest(everything)
    if os.environ.get("TESTS"):
        return status
    return max(status, _pytest(everything, ["rust"], ("tests/intree",)), _fuzz("debug", ["--duration", "60"]))


def test_intree() -> int:
    """Runs the tests of a kernel that has virtio built in from our sources, and of a Debian system on it; KERNEL: `rust`, `rust-debug`."""
    kernel = os.environ.get("KERNEL") or "rust"
    known = [name for name, variant in intree_kernel.VARIANTS.items() if variant.ours]
    if kernel not in known:
        raise LabError(f"KERNEL={kernel}: it must be {' or '.join(known)}")
    return _pytest([], [kernel], ("tests/intree",))


def test_debug() -> int:
    """Runs the tests of balloon and transports and those that look for errors of memory and locking, on the kernel `debug`."""
    return _pytest([], ["debug"], DEBUG_TESTS)


def test_arm64() -> int:
    """Runs the tests of transports, rings and balloon on an emulated arm64 machine with the kernel `arm64`."""
    return _pytest([f"--below={module}" for module in BELOW], ["arm64"], ARM64_TESTS)


def fuzz() -> int:
    """Feeds drivers devices that lie for DURATION seconds, on the kernel that KERNEL names, or replays the one that INPUT names."""
    kernel = os.environ.get("KERNEL") or "debug"
    if kernel not in ("debug", "full"):
        raise LabError(f"KERNEL={kernel}: it must be debug or full")
    seconds, one = os.environ.get("DURATION") or "600", os.environ.get("INPUT")
    if not seconds.isdecimal():
        raise LabError(f"DURATION={seconds}: it must be a number of seconds")
    what = ["--duration", seconds]
    if one:
        path = Path(one).resolve()
        if paths.CHECKOUT not in path.parents or not path.is_file():
            raise LabError(f"INPUT={one}: there is no such file in the checkout")
        what = ["--input", paths.inside(path)]
    return _fuzz(kernel, what)


def run_lint() -> int:
    """Checks the style: rustfmt, checkpatch, clippy."""
    lint.check(Steps(lint.STEPS))
    print("lint: no complaints")
    return 0


def run_rustfmt() -> int:
    """Formats the Rust files."""
    lint.rustfmt(Steps(2))
    return 0


def run_rustdoc() -> int:
    """Makes pages of the documentation in the source."""
    return _show(rustdoc.build())


def shell() -> int:
    """Opens a shell in the build root; the checkout is at /src, the cache at /cache."""
    root = buildroot.ensure(Steps(1).begin("build root"))
    return enter.run(root, ["bash"])


def update() -> int:
    """Makes the build root anew from what the archive has today; kernels follow when their source or tools changed."""
    buildroot.entry().discard()
    buildroot.ensure(Steps(1).begin("build root"))
    return 0


def clean() -> int:
    """Removes what was built in the checkout."""
    shutil.rmtree(paths.BUILD, ignore_errors=True)
    return 0


def distclean() -> int:
    """Removes what was built in the checkout, and the cache."""
    clean()
    cache.remove_all()
    return 0


COMMANDS = {
    "modules": build_modules, "stock-modules": stock_modules, "deb": build_deb, "test-deb": test_deb, "intree": put_intree, "patches": write_patches,
    "demo": demo, "bench": bench, "bench-balloon": bench_balloon, "bench-ring": bench_ring, "bench-rng": bench_rng, "bench-mmio": bench_mmio,
    "bench-pci": bench_pci, "test": test, "test-long": test_long, "test-intree": test_intree, "test-debug": test_debug,
    "test-arm64": test_arm64, "fuzz": fuzz,
    "lint": run_lint, "rustfmt": run_rustfmt, "rustdoc": run_rustdoc, "doctor": doctor.report, "shell": shell, "update": update,
    "clean": clean, "distclean": distclean,
}


def _prepare(names: list[str]) -> Path:
    return modules.for_guests(Steps(modules.STEPS_ALL + modules.STEPS_EACH * len(names)), names)


def _fuzz(kernel: str, options: list[str]) -> int:
    facts = modules.for_guests(Steps(modules.STEPS_ALL + modules.STEPS_EACH), [kernel], counting=True)
    return _inside(["python3", "/src/tests/fuzz/run.py", "--kernel", kernel, *options], facts)


def _bench(name: str) -> int:
    kernel = os.environ.get("KERNEL") or "full"
    if name == "stack" and kernel != "full":
        raise LabError(f"KERNEL={kernel}: make bench measures modules on full, and has kernels of its own for the whole")
    if name in ("ring", "pci") and kernel == "stock":
        raise LabError(f"KERNEL=stock: Debian's kernel has virtio_{name} built in; measure it on full")
    if name == "mmio" and kernel == "stock":
        raise LabError("KERNEL=stock: Debian's kernel takes no devices from the command line; measure virtio_mmio on full")
    if kernel not in BOTH:
        raise LabError(f"KERNEL={kernel}: it must be stock or full")
    names = [kernel, *(["rust", "c"] if name == "stack" else [])]
    options = [*(["--profile"] if os.environ.get("PROFILE") else []), *shlex.split(os.environ.get("BENCH_ARGS", ""))]
    command = ["python3", "-m", "lab.bench", name, "--kernel", kernel, *options]
    # Options that are wrong are better found before kernels are built.
    status = enter.run(buildroot.ensure(Steps(1).begin("build root")), [*command, "--check"])
    return status or _inside(command, _prepare(names))


def _pytest(default: list[str], names: list[str] = BOTH, tests: tuple[str, ...] = ("tests",)) -> int:
    began = time.monotonic()
    chosen = shlex.split(os.environ.get("TESTS", ""))
    for test in chosen:
        if not (paths.CHECKOUT / test.partition("::")[0]).exists():
            raise LabError(f"TESTS={test}: there is no such file; `ls tests/test_*.py` lists them, relative to the checkout")
    facts = _prepare(names)
    options = ["-o", "cache_dir=/src/build/pytest", *default, *shlex.split(os.environ.get("PYTEST_ARGS", ""))]
    status = _inside(["python3", "-m", "pytest", *options, *(chosen or tests)], facts, _herd(chosen or tests))
    minutes = (time.monotonic() - began) / 60
    print(f"lab: tests {'FAILED, the guests’ logs are in build/logs/' if status else 'passed'} ({minutes:.1f} min in all)")
    return status


def _herd(chosen: Sequence[str]) -> dict[str, str]:
    """Where herd7 is, if tests that need it were chosen. Without it these fail, and no others."""
    if not any(name.rstrip("/") == "tests" or "test_litmus" in name for name in chosen):
        return {}
    try:
        return {"LAB_HERD": paths.inside(herd.ensure(Steps(1).begin("herd7")))}
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return {}


def _inside(argv: list[str], facts: Path, settings: Optional[dict[str, str]] = None) -> int:
    print(f"lab: {' '.join(argv)}", flush=True)
    return enter.run(buildroot.root(), argv, {"LAB_FACTS": paths.inside(facts), **(settings or {})})


def _show(made: list[Path]) -> int:
    for module in made:
        print(module)
    return 0


def main() -> int:
    """Runs one command; its exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m lab", description="The lab's commands; `make help` explains them.")
    parser.add_argument("command", choices=sorted(COMMANDS))
    command = COMMANDS[parser.parse_args().command]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if "MAKELEVEL" in os.environ:
        host.die_with_parent(signal.SIGTERM)
    try:
        return command()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
