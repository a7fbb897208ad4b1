# SPDX-License-Identifier: GPL-2.0
"""The parts of the modules that use only `core`, compiled and run on the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


PURE = [
    "tests/units/config.rs", "virtio_balloon/ladder.rs", "virtio_balloon/page_size.rs", "virtio_balloon/policy.rs", "virtio_balloon/restraint.rs",
    "tests/units/ring.rs", "tests/units/bus.rs", "tests/units/mmio.rs", "tests/units/pci.rs",
]


@pytest.mark.parametrize("source", PURE)
def test_pure_file(source: str, tmp_path: Path) -> None:
    """The file's own tests hold."""
    program = tmp_path / "test"
    subprocess.run(["rustc", "--edition=2021", "--test", "-Copt-level=1", "-Cdebug-assertions", "-Dwarnings", "-o", program, ROOT / source], check=True)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 passed" not in result.stdout, "no test ran"


@pytest.mark.long
@pytest.mark.parametrize(("module", "count"), [("property", 2), ("order", 7)])
def test_ring_crates(tmp_path: Path, module: str, count: int) -> None:
    """Rings hold against whatever proptest thinks of, which makes small what fails, and in whatever order loom lets both sides see the other's writes.

    Long, since the crates are compiled the first time.
    """
    debian = ["--config", 'source.crates-io.replace-with="debian"', "--config", 'source.debian.directory="/usr/share/cargo/registry"']
    command = ["cargo", "test", "--offline", *debian, "--target-dir", ROOT / "build/property", "--test", "ring", module]
    environment = {**os.environ, "CARGO_HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT / "tests/units/property", env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{count} passed" in result.stdout


@pytest.mark.long
def test_ring_fuzz(tmp_path: Path) -> None:
    """Rings hold against whatever device libFuzzer thinks of in a minute; it looks for writes that reach new code."""
    coverage = ["-Cpasses=sancov-module", *(f"-Cllvm-args=-sanitizer-coverage-{what}" for what in ("level=4", "inline-8bit-counters", "pc-table"))]
    library, program = tmp_path / "libring.a", tmp_path / "fuzz-ring"
    rustc = ["rustc", "--edition=2021", "-O", "-Cdebug-assertions", "--cfg=fuzzing", "-Awarnings", "--crate-type=staticlib", *coverage]
    subprocess.run([*rustc, "-o", library, ROOT / "tests/units/ring.rs"], check=True, env={**os.environ, "RUSTC_BOOTSTRAP": "1"})
    subprocess.run(["clang-19", "-fsanitize=fuzzer", library, "-o", program], check=True)
    result = subprocess.run([program, "-max_total_time=60", "-print_final_stats=1"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "stat::number_of_executed_units" in result.stderr
