"""The parts of the modules that use only `core`, compiled and run on the host."""

from __future__ import annotations

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
