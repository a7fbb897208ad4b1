# SPDX-License-Identifier: GPL-2.0
"""The barriers of the rings in the kernel's own memory model: `tests/litmus`, decided by herd7.

What a test forbids must not happen, with weak barriers and with strong ones, and must happen without any one of them. Each test
names the functions that it stands for and what they call, in order; the source is held against that.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from lab.guest import facts

ROOT = Path(__file__).resolve().parents[1]
LITMUS = sorted((ROOT / "tests/litmus").glob("*.litmus"))
CODE = re.compile(r"^ \* Code: (\S+) (\w+): (.+)$", re.M)
BARRIER = re.compile(r"^\tvirt_\w+\(\);\n", re.M)
STRONG = {"virt_wmb()": "dma_wmb()", "virt_rmb()": "dma_rmb()", "virt_mb()": "mb()"}
METHODS = ("publish", "observe", "full")
"""The barriers of the trait `Barriers`."""


def verdict(text: str, folder: Path) -> str:
    """What herd7 says of the outcome that a test forbids: Never, Sometimes or Always."""
    herd = Path(os.environ["LAB_HERD"])
    model = Path(next(iter(facts().kernels.values())).source) / "tools/memory-model"
    test, macros = folder / "test.litmus", folder / "kernel.def"
    test.write_text(text)
    macros.write_text((model / "linux-kernel.def").read_text() + (ROOT / "tests/litmus/barriers.def").read_text())
    # Its C library is newer than that of the build root.
    loader = [herd / "lib64/ld-linux-x86-64.so.2", "--library-path", herd / "usr/lib/x86_64-linux-gnu"]
    command = [*loader, herd / "usr/bin/herd7", "-set-libdir", herd / "usr/share/herdtools7/herd", "-I", model,
               "-conf", model / "linux-kernel.cfg", "-macros", macros, test]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"^Observation \S+ (\w+) ", done.stdout, re.M)
    assert done.returncode == 0 and not done.stderr and found, done.stdout + done.stderr
    return found[1]


@pytest.mark.parametrize("strength", ["weak", "strong"])
@pytest.mark.parametrize("path", LITMUS, ids=lambda path: path.stem)
def test_barriers(path: Path, strength: str, tmp_path: Path) -> None:
    """What the test forbids does not happen, but does without any one of the barriers."""
    assert os.environ.get("LAB_HERD"), "herd7 is not there: the reason stands above the tests' output"
    whole = path.read_text()
    barriers = list(BARRIER.finditer(whole))
    assert len(barriers) == 2, "one on each side"

    def decide(text: str) -> str:
        if strength == "strong":
            for weak, strong in STRONG.items():
                text = text.replace(weak, strong)
        return verdict(text, tmp_path)

    assert decide(whole) == "Never"
    for barrier in barriers:
        without = whole[:barrier.start()] + whole[barrier.end():]
        assert decide(without) == "Sometimes", f"not needed: {barrier[0].strip()}"


def body(file: str, function: str) -> str:
    """The text of a method in one of our files."""
    found = re.search(rf"^    (?:pub\S* )?fn {function}\b[^;{{]*\{{.*?^    }}$", (ROOT / file).read_text(), re.M | re.S)
    assert found, f"{file} has no method {function}"
    return found[0]


def calls(file: str, function: str) -> list[str]:
    """The methods that a method calls, in order."""
    return re.findall(r"(?:\w+\.|Self::)(\w+)\(", body(file, function))


@pytest.mark.parametrize("path", LITMUS, ids=lambda path: path.stem)
def test_code(path: Path) -> None:
    """The functions that the test names exist and call what it says, in that order."""
    named = CODE.findall(path.read_text())
    assert named, "it names no code"
    for file, function, steps in named:
        rest = iter(calls(file, function))
        for step in steps.split(", "):
            assert step in rest, f"{file}: {function} does not call {step}, or not in the order {steps}"


def test_every_barrier_is_argued() -> None:
    """Each barrier of the rings belongs to a litmus test."""
    argued = {(file, function, step) for path in LITMUS for file, function, steps in CODE.findall(path.read_text()) for step in steps.split(", ")}
    for source in sorted((ROOT / "virtio_ring").glob("*.rs")):
        file = str(source.relative_to(ROOT))
        text = source.read_text()
        for use in re.finditer(rf"\bmem\.({'|'.join(METHODS)})\(\)", text):
            function = re.findall(r"^    (?:pub\S* )?fn (\w+)", text[:use.start()], re.M)[-1]
            assert (file, function, use[1]) in argued, f"{file}: {function} has a barrier, {use[1]}, that no litmus test stands for"
