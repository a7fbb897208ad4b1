# SPDX-License-Identifier: GPL-2.0
"""What our sources are in a kernel tree: which file goes where, what changes in the files that are there, and in which
patches it comes.

Nothing here writes: a `Tree` gives the contents of files of a kernel, and the functions give those that they would have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Optional

from lab import paths
from lab.errors import LabError

FOLDER = "drivers/virtio/rust"
PAGES = "Documentation/driver-api/virtio/rust"
MAKEFILE = "drivers/virtio/Makefile"
KCONFIG = "drivers/virtio/Kconfig"
INDEX = "Documentation/driver-api/virtio/index.rst"
# Files of a kernel that are changed; not every tree has the last one.
CHANGED = (MAKEFILE, KCONFIG, INDEX)
# Pages that are about this checkout, and not about the kernel.
OF_THE_LAB = ("testing", "benchmarks", "installing", "intree")
SOURCES = (
    "*.rs", "Kbuild", "Kconfig", "kernel_ext/**/*.rs", "samples/*.rs", "virtio/**/*", "virtio_*/**/*.rs",
    "tests/modules/*_kunit.rs", "tests/modules/ring_exports/*.rs", "tests/modules/.kunitconfig",
)
# Folders that have another name there.
RENAMED = {"tests/modules/": "tests/kunit/"}
# Options that come with a file.
OPTIONS = {"VIRTIO_RNG_RUST": "samples/virtio_rng.rs", "VIRTIO_RUST_KUNIT_TEST": "tests/modules/ring_kunit.rs"}

Tree = Callable[[str], Optional[bytes]]
"""Gives the contents of a file of a kernel by its path in there, None if there is no such file."""


@dataclass(frozen=True)
class Patch:
    """A patch of the series: its files by pattern, as far as no earlier patch has them, and the object files of
    drivers/virtio that are made from Rust from here on."""

    subject: str
    text: str
    files: tuple[str, ...]
    objects: tuple[str, ...] = ()


SERIES = (
    Patch("virtio: Let the configuration choose between C and Rust", """\
CONFIG_VIRTIO_RUST says which language the virtio core, its transports
and the balloon are made from. All other options keep their meaning, so
that what depends on them need not know of it.

There is nothing in Rust to choose yet: each of the following patches
moves one object file into the alternative.
""", ("Kbuild", "Kconfig")),
    Patch("virtio: rust: Wrap interrupts, PCI and platform devices", """\
Wrap what transports need of the kernel and the kernel crate does not
have: interrupt handlers and vectors, capabilities and power management
of PCI functions, platform devices made of module parameters.

The files know nothing of virtio and could be part of the kernel crate.
""", ("kernel_ext/pci_*", "kernel_ext/platform*", "kernel_ext/irq*", "kernel_ext/io_*", "kernel_ext/mod?*.rs")),
    Patch("virtio: rust: Wrap pages that leave the kernel", """\
Wrap what a balloon needs of memory management: pages that are taken from
the kernel in blocks, counted, listed, moved by compaction and given back,
reports of free pages, the shrinker and the counters of the system.
""", ("kernel_ext/*page*", "kernel_ext/mem.rs", "kernel_ext/shrinker.rs", "kernel_ext/vm_stat.rs")),
    Patch("virtio: rust: Wrap threads, notifiers and early initialisation", """\
Wrap freezable threads and the waiting of theirs, notifiers, sources of
wakeup, hardware random number generators, scatterlists and
core_initcall(): the rest of what the kernel crate does not have.
""", ("kernel_ext/*",)),
    Patch("virtio: rust: Add bindings, byte orders and feature sets", """\
The layouts of the structures and the constants of virtio come from the
kernel's own headers by bindgen, with the flags of the build.

The types of feature sets and configuration fields use core only.
""", ("virtio/bindings.*", "virtio/export.rs", "virtio/endian.rs", "config.rs")),
    Patch("virtio: rust: Add virtqueues", """\
Split and packed rings with every feature that the C code has. What the
driver wrote is kept in private memory and never read back; what the
device writes is fetched once, checked against what is outstanding, then
used.

The two formats are state machines without access to memory, so that
they can be tested on any machine.
""", ("virtio_ring.rs", "virtio_ring/*"), ("virtio_ring.o",)),
    Patch("virtio: rust: Add the bus", """\
The bus that brings virtio drivers and devices together, with the C
functions that drivers and transports in C know it by. A status is
believed after it was read back, features if they were offered, and no
wait is without end.
""", ("virtio.rs", "virtio_bus/*"), ("virtio.o",)),
    Patch("virtio: rust: Add what transports have in common", """\
A trait for transports, and the adapter between it and struct
virtio_config_ops.
""", ("virtio/transport.rs", "virtio/transport/*")),
    Patch("virtio: rust: Add virtio_mmio", """\
Devices whose registers are in memory, in the legacy and the modern
layout, from device trees, ACPI, and the parameter device=.
""", ("virtio_mmio.rs", "virtio_mmio/*"), ("virtio_mmio.o",)),
    Patch("virtio: rust: Add virtio_pci", """\
Devices on PCI, modern and legacy. Capabilities are checked against the
regions that they name before anything of it is mapped.

The libraries that virtio_pci shares with vDPA drivers in C are built
for those only.
""", ("virtio_pci.rs", "virtio_pci/*"), ("virtio_pci.o",)),
    Patch("virtio: rust: Add an API for drivers", """\
Virtio drivers in safe Rust: a trait with the callbacks of a driver,
queues that own the buffers in flight, typed configuration fields, and
the phases of system sleep.
""", ("virtio/*",)),
    Patch("virtio: rust: Add the balloon driver", """\
A memory balloon that stays inflated over hibernation: no page is moved
before the image is written, and a resumed kernel takes its pages back
by its own books. It has all features of the C driver, and no unsafe
code.
""", ("virtio_balloon.rs", "virtio_balloon/*"), ("virtio_balloon.o",)),
    Patch("virtio: rust: Add an entropy driver as a sample", """\
The smallest complete driver on the API for Rust, fit for use.
""", ("samples/*",)),
    Patch("virtio: rust: Add KUnit suites", """\
Test what needs no device as the kernel's compiler options make it: sets
of features and fields of the configuration space, the state machines of
both ring formats, and the functions that virtio_ring exports, on rings
whose device is the test:

  tools/testing/kunit/kunit.py run --arch=x86_64 \\
    --kunitconfig=drivers/virtio/rust/tests/kunit
""", ("tests/*",)),
    Patch("Documentation: virtio: Describe the Rust implementation", """\
How it is built up, what it guarantees towards a device, what hibernation
does to a balloon, how to write a driver, and which rule of the
specification is followed where.
""", ("*.rst",)),
)


def files() -> dict[str, Path]:
    """Our files: path in this checkout's own layout -> file. Pages have no folder."""
    found = {str(path.relative_to(paths.CHECKOUT)): path for pattern in SOURCES for path in paths.CHECKOUT.glob(pattern)
             if path.is_file()}
    pages = (page for page in (paths.CHECKOUT / "Documentation").glob("*.rst") if page.stem not in OF_THE_LAB)
    return dict(sorted((found | {page.name: page for page in pages}).items()))


def state(tree: Tree, count: int = len(SERIES)) -> dict[str, bytes]:
    """What the first `count` patches leave in a kernel tree: path -> contents of all files that they add or change.

    Raises LabError if a file of the tree is not as expected, or one of ours is in no patch.
    """
    order = _patch_of(files())
    ours = {name: path for name, path in files().items() if order[name] < count}
    result = {place(name): _contents(name, path, ours) for name, path in ours.items()}
    objects = [name for patch in SERIES[:count] for name in patch.objects]
    result[MAKEFILE] = makefile(_text(tree, MAKEFILE), objects).encode()
    result[KCONFIG] = kconfig(_text(tree, KCONFIG), objects).encode()
    if any(name.endswith(".rst") for name in ours) and tree(INDEX) is not None:
        result[INDEX] = index(_text(tree, INDEX)).encode()
    return result


def place(name: str) -> str:
    """Where a file of ours is in a kernel tree."""
    for ours, theirs in RENAMED.items():
        if name.startswith(ours):
            name = theirs + name[len(ours):]
    return f"{PAGES}/{name}" if name.endswith(".rst") else f"{FOLDER}/{name}"


def _patch_of(names: Iterable[str]) -> dict[str, int]:
    order = {}
    for name in names:
        for number, patch in enumerate(SERIES):
            if any(fnmatch(name, pattern) for pattern in patch.files):
                order[name] = number
                break
        else:
            raise LabError(f"{name} is in no patch of the series (lab/series.py)")
    return order


def _contents(name: str, path: Path, ours: Iterable[str]) -> bytes:
    """A file of ours; what it says of files that come with a later patch is left out."""
    text = path.read_text()
    if name == "Kbuild":
        text = _without(text, lambda line: _missing(line, ours))
    elif name == "Kconfig":
        for option in (option for option, file in OPTIONS.items() if file not in ours):
            text = re.sub(rf"\nconfig {option}\n(?:\t.*\n|\n(?=\t))*", "", text)
    elif name == "index.rst":
        text = _without(text, lambda line: line.strip() in OF_THE_LAB)
    return text.encode()


def _missing(line: str, ours: Iterable[str]) -> bool:
    named = re.match(r"obj-\S+ \+= (\S+)\.o$|include \$\(src\)/(\S+)$", line)
    return bool(named) and f"{FOLDER}/{f'{named[1]}.rs' if named[1] else named[2]}" not in map(place, ours)


def _without(text: str, unwanted: Callable[[str], bool]) -> str:
    kept = "".join(line for line in text.splitlines(keepends=True) if not unwanted(line.rstrip("\n")))
    return re.sub(r"\n{3,}", "\n\n", kept)


def makefile(text: str, objects: Iterable[str]) -> str:
    """drivers/virtio/Makefile with `objects` made from C only if CONFIG_VIRTIO_RUST is not set. Raises LabError."""
    objects = set(objects)
    kept, moved = [], []
    for line in _plain(text).splitlines():
        rule = re.match(r"(obj-\$\(CONFIG_\w+\) \+=) (.*)", line)
        named = rule[2].split() if rule else []
        ours = [name for name in named if name in objects]
        rest = [name for name in named if name not in objects]
        if ours:
            moved.append(f"{rule[1]} {' '.join(ours)}")
            objects.difference_update(ours)
        if rest or not ours:
            kept.append(f"{rule[1]} {' '.join(rest)}" if ours else line)
    if objects:
        raise LabError(f"{MAKEFILE} does not make {', '.join(sorted(objects))}: it is not that of Linux")
    lines = [*kept, "", "ifdef CONFIG_VIRTIO_RUST", "obj-y += rust/", *(["else", *moved] if moved else []), "endif"]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """The Makefile without the alternative that an earlier run made."""
    made = re.search(r"\nifdef CONFIG_VIRTIO_RUST\nobj-y \+= rust/\n(?:else\n((?:obj-.*\n)*))?endif\n\Z", text)
    return text[:made.start()] + (made[1] or "") if made else text


def kconfig(text: str, objects: Iterable[str]) -> str:
    """drivers/virtio/Kconfig with our options, and with C's libraries for virtio_pci only if that is C's. Raises LabError."""
    source = f'source "{FOLDER}/Kconfig"\n'
    end = "\nendif # VIRTIO_MENU\n"
    if source not in text:
        if text.count(end) != 1:
            raise LabError(f"{KCONFIG} has no line “{end.strip()}”: it is not that of Linux")
        text = text.replace(end, f"\n{source}{end}")
    if "virtio_pci.o" in objects:
        text = re.sub(r"^(\tselect VIRTIO_PCI_LIB(?:_LEGACY)?)$", r"\1 if !VIRTIO_RUST", text, flags=re.MULTILINE)
    return text


def index(text: str) -> str:
    """The page that lists the pages on virtio, with ours. Raises LabError."""
    if "   rust/index\n" in text:
        return text
    last = "   writing_virtio_drivers\n"
    if text.count(last) != 1:
        raise LabError(f"{INDEX} does not list writing_virtio_drivers: it is not that of Linux")
    return text.replace(last, f"{last}   rust/index\n")


def _text(tree: Tree, path: str) -> str:
    data = tree(path)
    if data is None:
        raise LabError(f"{path} is missing in the kernel tree")
    return data.decode()
