# SPDX-License-Identifier: GPL-2.0
"""The pages can be built, and the conformance tables name files, functions and tests that exist, and leave no rule out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import unsafe_list

ROOT = Path(__file__).resolve().parents[1]

RULES = {
    *(f"BAL-{n}" for n in range(1, 68)), *(f"BAL-L{n}" for n in range(1, 7)),
    *(f"DEV-{n}" for n in (*range(8, 15), 17, 24, *range(27, 31))), "Q-1", "Q-2",
}


CORE_RULES = {
    *(f"STAT-{n}" for n in range(1, 7)), *(f"NOTIF-{n}" for n in range(1, 6)), *(f"FEAT-{n}" for n in range(1, 11)), "FEAT-L1", "FEAT-L2",
    *(f"RST-{n}" for n in range(1, 4)),
    *(f"CFG-{n}" for n in range(1, 8)), "CFG-L1", "CFG-L2", *(f"INIT-{n}" for n in range(1, 9)), "INIT-L1", "OPER-1", "CLN-1", "CLN-2",
    *(f"SUSP-{n}" for n in range(1, 7)), *(f"RFB-{n}" for n in range(1, 14)), *(f"RFB-L{n}" for n in range(1, 4)),
    *(f"DEV-{n}" for n in range(15, 21)),
}


ADMIN_RULES = {*(f"ADM-{n}" for n in range(24)), "PCI-22", "PCI-26", "RFB-9", "RFB-10", "RFB-11"}


CELL = r"     - (\S.*(?:\n       .*)*)\n"
ROW = re.compile(rf"^   \* - ([A-Z]+-\w+)\n{CELL}{CELL}{CELL}", re.MULTILINE)
SHOWN = re.compile(r"``test_\w+\.py::\w+``|^by reading$|^not applicable$|^see \w+\.rst$")
"""What shows that a rule is followed; the balloon's table says more of what nothing shows."""

ANYHOW = re.compile(r"``test_\w+\.py::\w+``|\w{6}")


@pytest.mark.parametrize(("page", "rules", "shown", "least_places", "least_tests"), [
    ("conformance-balloon.rst", RULES, ANYHOW, 80, 60),
    ("core.rst", CORE_RULES, SHOWN, 80, 60),
    ("pci-admin.rst", ADMIN_RULES, SHOWN, 20, 20),
])
def test_conformance(page: str, rules: set[str], shown: re.Pattern[str], least_places: int, least_tests: int) -> None:
    """Each rule has a row, each row says what is done, where, and what shows it; that exists."""
    text = (ROOT / "Documentation" / page).read_text()
    rows = {rule: cells for rule, *cells in ROW.findall(text)}
    named = re.findall(r"^   \* - ([A-Z]+-\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(rules), set(named) ^ rules
    assert len(rows) == len(rules), f"a cell is missing: {rules - set(rows)}"
    for rule, (does, where, seen) in rows.items():
        assert does, rule
        assert where == "none" or "``" in where, f"{rule} is nowhere"
        assert shown.search(seen), f"{rule} is not seen by anything: {seen}"
    places = re.findall(r"``(\S+\.rs)``: ``(\w+)``", text)
    assert len(places) > least_places
    for path, name in places:
        code = (ROOT / path).read_text()
        assert re.search(rf"\b(fn|const|struct|enum|type|static|trait) {name}\b", code), f"{path} has no {name}"
    tests = re.findall(r"``(test_\w+\.py)::(\w+)``", text)
    assert len(tests) > least_tests
    for path, name in tests:
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path} has no {name}"


@pytest.mark.parametrize(("transport", "rules"), [
    ("mmio", [*map(str, range(1, 29)), *(f"L{n}" for n in range(1, 8))]),
    ("pci", [*map(str, range(1, 47)), *(f"L{n}" for n in range(1, 9))]),
])
def test_rules_of_transport(transport: str, rules: list[str]) -> None:
    """Every rule is in the table, and what is named is in the code or the tests."""
    text = (ROOT / f"Documentation/{transport}.rst").read_text()
    text = text[text.index("Rules of the specification"):]
    named = re.findall(rf"^({transport.upper()}-\w+(?:, \d+)*)  ", text, re.MULTILINE)
    assert ", ".join(named).replace(f"{transport.upper()}-", "").split(", ") == rules
    sources = [*(ROOT / f"virtio_{transport}").glob("*.rs"), *(ROOT / "tests").glob(f"test_{transport}*.py")]
    code = "".join(path.read_text() for path in sources) + " ".join(path.name for path in sources)
    for name in re.findall(r"``([\w.]+)``", text):
        assert re.search(rf"\b{re.escape(name)}\b", code), f"{name} is nowhere"


def test_walk_through_a_driver() -> None:
    """The quoted lines are those of the sample, in order, and none is left out."""
    text = (ROOT / "Documentation/writing-drivers.rst").read_text()
    sample = [line for line in (ROOT / "samples/virtio_rng.rs").read_text().splitlines() if line]
    quoted = re.findall(r"^\.\. code-block:: rust\n\n((?:(?:   .*)?\n)+)", text, re.MULTILINE)
    lines = [line[3:] for block in quoted for line in block.splitlines() if line]
    assert lines == sample[sample.index("#![deny(unsafe_code)]"):]
    for path, names in {"virtio_balloon/layout.rs": re.findall(r"^  (pub.* const .*;)$", text, re.MULTILINE)}.items():
        assert len(names) == 2
        assert all(line in (ROOT / path).read_text().splitlines() for line in names)


def test_unsafe_list() -> None:
    """Each `unsafe` of the API states its fact, and the page that lists them is what the source says."""
    uses = [(path.name, use) for path in unsafe_list.files() for use in unsafe_list.listed(path)]
    assert len(uses) > 200
    nowhere = [f"{name}:{use.line} in {use.where}" for name, use in uses if not use.reason or use.kind == "use" and use.reason.startswith(("As above", "As for"))]
    assert not nowhere, f"no reason is stated: {nowhere}"
    kept = (ROOT / "Documentation/unsafe.rst").read_text()
    assert kept == unsafe_list.page(), "run: python3 tests/unsafe_list.py >Documentation/unsafe.rst"


def test_pages(tmp_path: Path) -> None:
    """If this fails a page has a mistake that building the kernel's documentation complains of, no list has it, or one that it names is not there."""
    source = ROOT / "Documentation"
    command = ["sphinx-build", "-q", "-n", "-W", "--keep-going", "-C", "-D", "master_doc=index", "-b", "dummy", "-d", tmp_path / "trees", source, tmp_path / "out"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [*source.glob("*.rst"), ROOT / "README.md"]
    assert len(pages) > 15
    for page in pages:
        missing = [name for name in re.findall(r"\b[a-z-]+\.rst\b", page.read_text()) if not (source / name).exists()]
        assert not missing, f"{page.name} names {missing}"


def test_help() -> None:
    """If this fails `make help` leaves a target out, or lists one that the lab does not know."""
    listed = re.findall(r"^  make (\S+)", subprocess.run(["make", "help"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout, re.MULTILINE)
    targets = re.findall(r"^TARGETS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert sorted(listed) == sorted({"help", *targets})
    known = re.findall(r'"([a-z0-9-]+)": \w', re.findall(r"^COMMANDS = \{(.*?)^\}", (ROOT / "lab/__main__.py").read_text(), re.MULTILINE | re.DOTALL)[0])
    assert sorted(known) == sorted(targets)
