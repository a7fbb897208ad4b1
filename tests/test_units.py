"""The parts of the modules that use only `core`, compiled and run on the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


PURE = ["tests/units/config.rs", "virtio_balloon/ladder.rs", "virtio_balloon/restraint.rs", "tests/units/ring.rs", "tests/units/bus.rs", "tests/units/mmio.rs"]


@pytest.mark.parametrize("source", PURE)
def test_pure_file(source: str, tmp_path: Path) -> None:
    """The file's own tests hold."""
    program = tmp_path / "test"
    subprocess.run(["rustc", "--edition=2021", "--test", "-Copt-level=1", "-Cdebug-assertions", "-Dwarnings", "-o", program, ROOT / source], check=True)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 passed" not in result.stdout, "no test ran"


@pytest.mark.long
def test_ring_properties(tmp_path: Path) -> None:
    """Rings hold against whatever proptest thinks of; what fails is made small. Long, since proptest itself is compiled the first time."""
    debian = ["--config", 'source.crates-io.replace-with="debian"', "--config", 'source.debian.directory="/usr/share/cargo/registry"']
    command = ["cargo", "test", "--offline", *debian, "--target-dir", ROOT / "build/property", "--test", "ring", "property"]
    environment = {**os.environ, "CARGO_HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT / "tests/units/property", env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout
