# SPDX-License-Identifier: GPL-2.0
"""What the API for drivers and transports forbids does not compile, with the error that says why.

Each file of `tests/compile_fail/` is compiled as a part of a module. Below a line that must be an error stands `//~^ ERROR CODE: text`, with
the beginning of what the compiler says, and another `^` for each line in between. `//~ ELSEWHERE CODE: text` is an error that the compiler finds in the API, when it makes code for
this file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "tests/compile_fail"
BUILD = ROOT / "build/modules/tests"
FILES = sorted(path.stem for path in SOURCES.glob("*.rs") if path.stem != "api")
MARK = re.compile(r"//~(?:(\^+) ERROR| ELSEWHERE) (.*)")


PANIC = re.compile(r"panicked(?: at|:) '?([^',]+)")
"""What a constant says that cannot be evaluated."""

pytestmark = pytest.mark.xdist_group("compile_fail")


class Mistake(NamedTuple):
    """An error, expected or found."""

    line: int
    """0 if it is in another file."""
    text: str


def kbuild() -> tuple[dict[str, str], list[str]]:
    """Environment and command with which Kbuild compiled a module on the API, without what is to be compiled and made."""
    saved = (BUILD / ".virtio_held.o.cmd").read_text().splitlines()[0].split(":=", 1)[1].split(" ; ")[0]
    words = shlex.split(saved)
    start = words.index("rustc")
    environment = {**os.environ, **dict(word.split("=", 1) for word in words[:start]), "RUSTC_BOOTSTRAP": "1"}
    environment["VIRTIO_BINDINGS"] = str(BUILD / "virtio_bindings.rs")
    skip = {"--out-dir", "./"}
    command = [word for word in words[start:] if word not in skip and not word.startswith("--emit") and not word.endswith(".rs")]
    return environment, [*command, "--error-format=json", "-Zalways-encode-mir"]


def compile_file(source: Path, folder: Path, emit: str) -> list[dict]:
    """Compiles a file; gives back the errors."""
    environment, command = kbuild()
    command += [f"--emit={emit}", f"--out-dir={folder}", *([] if source.stem == "api" else ["-L", str(folder), "--extern=api"]), str(source)]
    done = subprocess.run(command, env=environment, cwd=BUILD.parent, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    errors = [message for message in found if message["level"] == "error" and message["spans"]]
    assert errors or done.returncode == 0, done.stderr
    return errors


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the API as a crate."""
    folder = tmp_path_factory.mktemp("compile_fail")
    errors = [message["rendered"] for message in compile_file(SOURCES / "api.rs", folder, "metadata")]
    assert not errors, "".join(errors)
    return folder


def wanted(source: Path) -> list[Mistake]:
    """The errors that a file asks for."""
    marks = [(number, MARK.search(line)) for number, line in enumerate(source.read_text().splitlines(), 1)]
    return [Mistake(number - len(mark[1]) if mark[1] else 0, mark[2]) for number, mark in marks if mark]


def seen(source: Path, errors: list[dict]) -> list[Mistake]:
    """The errors that were found."""
    mistakes = []
    for error in errors:
        place = next(span for span in error["spans"] if span["is_primary"])
        code = f"{error['code']['code']}: " if error["code"] else ""
        line = place["line_start"] if Path(place["file_name"]).name == source.name else 0
        panic = PANIC.search(f"{error['message']} {place['label']}")
        mistakes.append(Mistake(line, code + (panic[1] if panic else error["message"])))
    return mistakes


@pytest.mark.parametrize("name", FILES)
def test_forbidden(api: Path, name: str) -> None:
    """If this fails safe code can do what the file tries, or is told something else than the reason."""
    source = SOURCES / f"{name}.rs"
    # Errors of the same line in the order of what they say.
    found = sorted(seen(source, compile_file(source, api, "obj" if name in ("constants", "control") else "metadata")))
    expected = sorted(wanted(source))
    assert bool(expected) == (name != "control")
    shown = [Mistake(now.line, now.text[:len(then.text)]) for now, then in zip(found, expected)]
    assert shown == expected, "\n".join(map(str, found))
    assert len(found) == len(expected), "\n".join(map(str, found))
