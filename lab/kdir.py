# SPDX-License-Identifier: GPL-2.0
"""`make modules KDIR=…`: builds our modules with the host's tools for a kernel build of the user's, after checking both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from lab import kernels, paths
from lab.errors import LabError
from lab.progress import Step

# Option and how to get it; the driver cannot be built without.
REQUIRED = {
    "CONFIG_RUST": "turn it on (`make LLVM=1 rustavailable` in the kernel source says what it lacks)",
    "CONFIG_MODULES": "turn it on",
    "CONFIG_SPARSEMEM_VMEMMAP": "turn it on",
    "CONFIG_VIRTIO": "turn it on, built in or as a module",
    "CONFIG_BALLOON": "turn on CONFIG_VIRTIO_BALLOON=m, which selects it",
}
# Option and name of the architectures that are known.
ARCHITECTURES = {"CONFIG_X86_64": "x86_64", "CONFIG_ARM64": "arm64"}


def build(step: Step, kdir: Path, out: Path, llvm: str) -> list[Path]:
    """Builds for the kernel build in `kdir` into `out`; returns the .ko files. Raises LabError with one clear line."""
    config = _config(kdir)
    _check_kernel(kdir, config)
    compiler = _check_tools(config, llvm)
    out.mkdir(parents=True, exist_ok=True)
    stamp = out / ".kernel"
    if out.joinpath("Module.symvers").exists() and (not stamp.exists() or stamp.read_text() != str(kdir)):
        raise LabError(f"{out} holds modules for another kernel: remove it (make clean), or name another folder with OUT=")
    stamp.write_text(str(kdir))
    arch = next(arch for option, arch in ARCHITECTURES.items() if option in config)
    command = ["make", "-C", str(kdir), f"-j{os.cpu_count()}", f"ARCH={arch}", f"M={paths.CHECKOUT}", f"MO={out}", "modules",
               f"LLVM={llvm}" if llvm else f"CC={compiler}"]
    step.run(command, paths.BUILD / "logs" / "modules.log", "building")
    step.done(str(out))
    return sorted(out.glob("*.ko"))


def _config(kdir: Path) -> dict[str, str]:
    if not kdir.is_dir():
        raise LabError(f"KDIR={kdir}: there is no such folder")
    if not (kdir / "Makefile").exists():
        raise LabError(f"KDIR={kdir} is no kernel build: it has no Makefile")
    if not (kdir / ".config").exists():
        raise LabError(f"KDIR={kdir} is not configured: it has no .config; name the build's output folder (O=)")
    lines = re.findall(r"^(CONFIG_\w+)=(.*)$", (kdir / ".config").read_text(), re.M)
    return {name: value.strip('"') for name, value in lines}


def _check_kernel(kdir: Path, config: dict[str, str]) -> None:
    if not ARCHITECTURES.keys() & config.keys():
        raise LabError(f"KDIR={kdir}: these modules are for the architectures {', '.join(ARCHITECTURES.values())}, this kernel is for none of them")
    for option, advice in REQUIRED.items():
        if option not in config:
            raise LabError(f"KDIR={kdir}: {option} is off in this kernel: {advice}, and build it anew")
    if config.get("CONFIG_VIRTIO_BALLOON") == "y":
        raise LabError(f"KDIR={kdir}: CONFIG_VIRTIO_BALLOON=y, the C driver is built in and cannot be replaced: make it =m")
    release = kdir / "include/config/kernel.release"
    if not release.exists() or not (kdir / "scripts/module.lds").exists():
        raise LabError(f"KDIR={kdir} is not prepared for modules: run `make modules_prepare` there{_rust_source()}")
    if not release.read_text().startswith(kernels.SERIES + ".") and release.read_text().strip() != kernels.SERIES:
        raise LabError(f"KDIR={kdir} is Linux {release.read_text().strip()}; these modules are for {kernels.SERIES}")
    if not (kdir / "rust/libcore.rmeta").exists() or not any((kdir / "rust").glob("**/libkernel.rmeta")):
        raise LabError(f"KDIR={kdir} has no Rust metadata: run `make modules_prepare` in a build folder with the full source"
                       f" (distributions' header packages lack it; for Debian's kernel: make stock-modules){_rust_source()}")
    if not (kdir / "Module.symvers").exists():
        raise LabError(f"KDIR={kdir} has no Module.symvers: build the kernel (`make`), or put the one of the binary kernel there")


def _check_tools(config: dict[str, str], llvm: str) -> str:
    """Raises LabError unless the host's tools are those of the kernel; returns the C compiler's name."""
    clang = "CONFIG_CC_IS_CLANG" in config
    if clang and not llvm:
        raise LabError("this kernel was built with clang: add LLVM=1 (or LLVM=-19 for clang-19)")
    if not clang and llvm:
        raise LabError("this kernel was built with gcc: leave LLVM= away")
    suffix = llvm if llvm.startswith("-") else ""
    compiler = os.environ.get("CC") or (f"clang{suffix}" if clang else config["CONFIG_CC_VERSION_TEXT"].split()[0])
    for tool in ("make", compiler):
        if not shutil.which(tool):
            raise LabError(f"{tool} is missing; this kernel was built with: {config['CONFIG_CC_VERSION_TEXT']}")
    wanted = config.get("CONFIG_RUSTC_VERSION_TEXT", "")
    rustc = os.environ.get("RUSTC", "rustc")
    if not shutil.which(rustc):
        raise LabError(f"rustc is missing; this kernel was built with: {wanted}")
    have = _says(rustc, "--version")
    if have != wanted:
        raise LabError(f"{rustc} is not the kernel's: it says “{have}”, the kernel was built with “{wanted}”. Put that one "
                       "first in PATH, or set RUSTC=")
    if not shutil.which(os.environ.get("BINDGEN", "bindgen")):
        raise LabError("bindgen is missing: install the package bindgen (Debian), bindgen-cli (others), or set BINDGEN=")
    return compiler


def _rust_source() -> str:
    """What to add to the advice to prepare a kernel when the host could not: its Rust needs the library's source."""
    rustc = os.environ.get("RUSTC", "rustc")
    if not shutil.which(rustc):
        return ""
    library = os.environ.get("RUST_LIB_SRC") or _says(rustc, "--print", "sysroot") + "/lib/rustlib/src/rust/library"
    if (Path(library) / "core/src/lib.rs").exists():
        return ""
    return ". For that the source of Rust's library is missing here: install rust-src (or `rustup component add rust-src`)"


def _says(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout.strip()
