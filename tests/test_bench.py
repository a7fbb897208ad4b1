# SPDX-License-Identifier: GPL-2.0
"""The benches without guests: what they make of their samples, and which parts `make bench` has."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import pytest
from lab.bench import pci, results, stack
from lab.bench.results import Row, Samples, Say

SYSTEM_MAP = """\
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000040 t __pfx_text_poke
ffffffff81400000 T _etext
ffffffff81500000 D _edata
ffffffff81900000 B _end
"""


@pytest.mark.parametrize(("row", "met"), [
    pytest.param(Row("x", "s", [4, 2, 3], [3, 9, 1], 1.0), True, id="median"),
    pytest.param(Row("x", "s", [4, 2, 3], [3, 9, 2.5], 1.0, typical=min), False, id="smallest"),
    pytest.param(Row("x", "s", [3], [3.1], 1.0), False, id="more"),
    pytest.param(Row("x", "s", [3], [6], 2.0, more_is_better=True), True, id="more-is-better"),
    pytest.param(Row("x", "s", [3], [2], 1.5, absolute=True), False, id="absolute"),
    pytest.param(Row("x", "s", [0], [2], 1.5), False, id="none-in-c"),
    pytest.param(Row("x", "s", [3], [4]), None, id="no-target"),
])
def test_target(row: Row, met: bool | None, tmp_path: Path) -> None:
    """If this fails a table says that a target is met which is missed, or the other way round."""
    assert row.met is met
    assert len(results.missed([row])) == (met is False)
    assert ("MISSED" in results.table([row])) == (met is False)
    results.write([row], tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text())[0]["met"] is met


def test_sizes() -> None:
    """If this fails the size of the kernel is something else's."""
    found: Samples = defaultdict(list)
    stack.system_map(SYSTEM_MAP, found)
    assert dict(found) == {stack.TEXT: [0x400000], stack.MEMORY: [0x900000]}


def test_memory() -> None:
    """If this fails memory that is free counts as used, or what the kernel never gave to anybody is left out."""
    found: Samples = defaultdict(list)
    stack.memory({"MemTotal": 1_000_000, "MemFree": 700_000, "MemAvailable": 900_000, "Slab": 20_000}, found)
    assert dict(found) == {stack.KEPT: [(stack.MEMORY_MIB << 10) - 1_000_000], stack.USED: [100_000], stack.SLAB: [20_000]}


class Bench:
    """A bench that measures nothing and says what it was asked for."""

    PARTS = ("one", "two")

    def __init__(self) -> None:
        self.asked: list[tuple[str, Collection[str]]] = []

    def measure(self, kernel: str, parts: Collection[str], say: Say, profile: None) -> list[Row]:
        """One row."""
        self.asked.append((kernel, parts))
        say("works")
        return [Row("work", "s", [2.0], [1.0], 0.7)]


def test_single_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails `make bench` leaves out what the other benches measure, or does not say which of them a figure is of."""
    benches = {"ring": Bench(), "rng": Bench()}
    monkeypatch.setattr(stack, "MODULE_BENCHES", benches)
    said: list[str] = []
    assert stack.measure("full", ["rng"], said.append) == [Row("rng: work", "s", [2.0], [1.0], 0.7)]
    assert said == ["rng       works"]
    assert benches["ring"].asked == [] and benches["rng"].asked == [("full", Bench.PARTS)]


def test_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails a figure of the whole is not in the table, is the other side's, or the table has figures that nobody asked for."""
    class Guests:
        """Stands for the guests, of which each would take minutes."""

        def __init__(self, kernel: str, name: str, ours: Collection[str], parts: Collection[str], say: Say, profile: None) -> None:
            assert not ours and parts == ["disks"]
            self.figure = 10.0 if kernel == "c" else 9.0

        def run(self) -> Samples:
            """The same for all work."""
            return defaultdict(list, {name: [self.figure] for name in pci.work(["disks"])})

    monkeypatch.setattr(pci, "Bench", Guests)
    rows = stack.measure("full", ["disks"], lambda text: None)
    assert [row.measure for row in rows] == [f"all: {name}" for name in pci.work(["disks"])] and len(rows) == 4
    assert {(*row.c, *row.rust, row.target) for row in rows} == {(10.0, 9.0, 1.0)}


def test_parts_are_told_apart() -> None:
    """If this fails `--only` takes two parts for one."""
    assert len(set(stack.PARTS)) == len(stack.PARTS)
