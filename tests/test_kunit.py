# SPDX-License-Identifier: GPL-2.0
"""KUnit suites: what the kernel's compiler makes of the parts that need no device, and of the examples in the documentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lab.guest import Guest

Factory = Callable[..., Guest]

ROOT = Path(__file__).resolve().parents[1]
API = [ROOT / "config.rs", *sorted((ROOT / "virtio").glob("*.rs"))]
SHOWN = ("config", "device", "driver", "endian", "payload", "queue", "stream")
"""The files of the API that are to have examples."""


def count_tests(module: str) -> int:
    """How many tests the source of a suite has."""
    return (ROOT / "tests" / "modules" / f"{module}.rs").read_text().count("    #[test]\n")


def test_suites(guests: Factory) -> None:
    """If this fails feature sets, configuration fields or rings do something else when the kernel's compiler options build them, or an
    example in the documentation of the API does not what it says. That all examples compile is what building the module shows."""
    examples = {path.stem: len(re.findall(r"^ *//[/!] ```$", path.read_text(), re.MULTILINE)) // 2 for path in API}
    assert all(examples[name] for name in SHOWN), examples
    suites = {
        "config_kunit": ("virtio_config", count_tests("config_kunit")), "ring_kunit": ("virtio_ring", count_tests("ring_kunit")),
        "doc_examples": ("virtio_examples", sum(examples.values())),
    }
    guest = guests(kernel="full", driver=None, balloon=False, rust={"virtio", "virtio_ring"}, swap_mib=0, memory_mib=256, modules=list(suites)).start()
    for module, (suite, count) in suites.items():
        guest.run(f"modprobe {module}")
        results = guest.read(f"/sys/kernel/debug/kunit/{suite}/results")
        assert "not ok" not in results and results.count("\n    ok ") == count > 0, results
