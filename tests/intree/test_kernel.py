# SPDX-License-Identifier: GPL-2.0
"""The kernel `rust` or `rust-debug`: core, rings, transports and balloon from Rust, all built in, and the kernel's own drivers on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from balloon_books import check_files, fill, host_pages, inflate, total_kib
from lab.guest import Guest, facts
from test_ring import ALL, IN_ORDER, PAIRWISE, PROGRAMS, Devices, Ring, use_balloon

Factory = Callable[..., Guest]

(KERNEL,) = facts().kernels
SYMBOLS = facts().kernels[KERNEL].image.with_name("System.map")
C_SOURCES = facts().kernels[KERNEL].source / "drivers/virtio"

OF_C = {
    "virtio": ("virtio_dev_match", "virtio_dev_probe", "virtio_features_ok", "virtio_device_restore_priv", "virtio_init"),
    "virtio_ring": ("virtqueue_add_split", "virtqueue_add_packed", "detach_buf_split", "more_used_packed", "vring_alloc_queue"),
    "virtio_mmio": ("vm_setup_vq", "vm_find_vqs", "vm_interrupt", "virtio_mmio_probe", "vm_cmdline_set"),
    "virtio_pci_common": ("vp_interrupt", "vp_find_vqs_msix", "vp_setup_vq", "virtio_pci_probe"),
    "virtio_pci_modern": ("vp_finalize_features", "vp_modern_find_vqs", "virtio_pci_modern_probe"),
    "virtio_pci_modern_dev": ("vp_modern_probe", "vp_modern_set_queue_enable"),
    "virtio_pci_legacy_dev": ("vp_legacy_probe", "vp_legacy_get_features"),
    "virtio_balloon": ("virtballoon_probe", "fill_balloon", "leak_balloon", "virtballoon_freeze"),
}
"""C's files that Rust takes the place of, and functions of each."""

CRATES = ("virtio", "virtio_ring", "virtio_mmio", "virtio_pci", "virtio_balloon")


def boot(guests: Factory, **options: object) -> Guest:
    """A started guest with that kernel on an initramfs, without swap if nothing else is said."""
    return guests(**{"kernel": KERNEL, "swap_mib": 0, "files": PROGRAMS, "memory_mib": 512, **options}).start()


def symbols() -> dict[str, str]:
    """The symbols of the kernel's image and their types."""
    lines = (line.split() for line in SYMBOLS.read_text().splitlines())
    return {name: kind for _, kind, name in lines}


@pytest.mark.parametrize("name", OF_C)
def test_nothing_of_c(name: str) -> None:
    """If this fails the kernel that these tests boot has a virtio core, transport or balloon in C, and they prove nothing."""
    source = (C_SOURCES / f"{name}.c").read_text()
    for function in OF_C[name]:
        assert re.search(rf"\b{function}\(", source), f"{name}.c has no {function}() any more: look for another one"
    assert not set(OF_C[name]) & symbols().keys()


@pytest.mark.parametrize("crate", CRATES)
def test_crate_is_built_in(crate: str) -> None:
    """If this fails the kernel was built without the Rust sources."""
    functions = [name for name, kind in symbols().items() if kind in "tT" and re.match(rf"_R\w*Cs\w+_{len(crate)}{crate}\d", name)]
    assert len(functions) > 20, functions


def test_exports() -> None:
    """If this fails drivers and transports that are modules cannot be loaded on this kernel."""
    found = symbols()
    for function in ("virtqueue_add_sgs", "vring_interrupt", "vring_create_virtqueue", "register_virtio_device", "__register_virtio_driver"):
        assert found.get(function) == "T" and f"__ksymtab_{function}" in found, function


def test_bus_is_early() -> None:
    """If this fails drivers that register before the level of devices, as that of remote processors does, find no bus."""
    def address(name: str) -> int:
        found = re.search(rf"^([0-9a-f]+) \w {name}$", SYMBOLS.read_text(), re.MULTILINE)
        assert found, name
        return int(found[1], 16)

    assert address("__initcall1_start") <= address("__initcall_virtio_core_initcall") < address("__initcall2_start")


def test_pci(guests: Factory, tmp_path: Path) -> None:
    """If this fails a disk, network interface, serial port, random number generator or balloon on PCI does not work, or loses data."""
    devices = Devices(tmp_path, "pci")
    devices.disks([*ALL[::2], *IN_ORDER])
    # QEMU's network device may stand still with both, see `Network` in test_debian.py; on a slow kernel it does.
    devices.nets([ring for ring in PAIRWISE if not (ring.packed and ring.event_idx)])
    devices.serials(PAIRWISE[4:6])
    devices.rngs(PAIRWISE[6:])
    guest = boot(guests, balloon="virtio-balloon-pci,ioeventfd=off,packed=on", qemu_options=devices.options)
    devices.check(guest)
    use_balloon(guest)


def test_mmio(guests: Factory, tmp_path: Path) -> None:
    """If this fails the parameter `virtio_mmio.device=` of a kernel that has the driver built in makes no devices, or they do not work."""
    devices = Devices(tmp_path, "device")
    devices.disks(PAIRWISE[:2])
    devices.nets(PAIRWISE[2:4])
    devices.rngs(PAIRWISE[4:5])
    guest = boot(
        guests, machine="microvm,acpi=off,rtc=off", balloon="virtio-balloon-device",
        qemu_options=["-global", "virtio-mmio.force-legacy=false", *devices.options],
    )
    given = re.findall(r"virtio_mmio\.device=(\S+)", guest.read("/proc/cmdline"))
    assert len(guest.read("/sys/module/virtio_mmio/parameters/device").replace("\0", "").split()) == len(given) > 5
    devices.check(guest)
    use_balloon(guest)


@pytest.mark.parametrize("features", [pytest.param(Ring(), id="split"), pytest.param(Ring(packed=True), id="packed")])
def test_hibernation(guests: Factory, features: Ring) -> None:
    """If this fails a kernel with virtio built in cannot hibernate to a virtio disk, loses data, or gives up its balloon for that."""
    guest = boot(
        guests, swap_mib=600, swap=f"virtio-blk-pci,disable-legacy=on,{features.options}",
        balloon=f"virtio-balloon-pci,ioeventfd=off,disable-legacy=on,{features.options}",
    )
    features.check(guest.read("/sys/block/vda/device/features"))
    total = total_kib(guest)
    fill(guest, 16)
    inflate(guest, 200, total)
    mark = guest.mark()
    assert guest.hibernate() is None
    assert guest.traffic(mark).pages == 0, "hibernation should move no page"
    guest.resume(target_mib=100)
    inflate(guest, 100, total)
    check_files(guest)
    inflate(guest, 0, total)
    assert host_pages(guest) == set()
