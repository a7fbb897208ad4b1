# SPDX-License-Identifier: GPL-2.0
"""Lists each `unsafe` of the API for drivers and of what transports have in common, with the fact that it rests on.

    python3 tests/unsafe_list.py >Documentation/unsafe.rst

Each stands below a `// SAFETY:` comment, or is a contract of its own, a `# Safety` section. `test_documentation.py` sees to it that
there is one for each, and that the page is what this prints.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("virtio", "virtio/driver", "virtio/queue", "virtio/transport")

HEAD = """.. SPDX-License-Identifier: GPL-2.0

===========
Unsafe code
===========

This page lists each ``unsafe`` of ``virtio/``: the API for drivers and what the
transports have in common. ``python3 tests/unsafe_list.py`` makes it of the
source. A test fails when it is out of date, or when an ``unsafe`` has no reason.

A *contract* is what the caller of an unsafe function, or who implements an
unsafe trait, must see to. A *use* states the fact that makes it right.

"""


class Unsafe(NamedTuple):
    """One ``unsafe``."""

    line: int
    kind: str
    where: str
    """The item that it is in, or that it is a part of."""
    reason: str
    """Empty if none is stated."""


def files() -> list[Path]:
    """The files with what is listed."""
    return sorted(path for place in PLACES for path in (ROOT / place).glob("*.rs") if path.name != "bindings.rs")


def comment_above(lines: list[str], at: int, mark: str) -> str:
    """What stands behind `mark` in the comment above line `at`, or in the statement that the line belongs to."""
    for above in range(at, max(at - 12, -1), -1):
        found = re.match(rf"\s*//[/!]? ?{mark} ?(.*)", lines[above])
        if found:
            rest = [found[1]]
            for line in lines[above + 1:]:
                more = re.match(r"\s*//[/!]? ?(.*)", line)
                if not more or re.match(r"(SAFETY|INVARIANT|CAST|PANIC):|#", more[1]) and rest != [""]:
                    break
                rest.append(more[1])
            return " ".join(part for part in rest if part)
        if mark == "SAFETY:" and above < at and re.match(r"\s*(fn|pub fn|impl|\})\b|^\}", lines[above]):
            break
    return ""


def listed(path: Path) -> list[Unsafe]:
    """Each ``unsafe`` of a file."""
    lines = path.read_text().splitlines()
    found, item, header = [], "the module", ""
    said = re.search(r'missing_safety_doc,\s*reason = "(.*?)"', "\n".join(lines))
    for at, line in enumerate(lines):
        header = line if line.startswith(("impl", "unsafe impl")) else header
        code = re.sub(r'//.*|"[^"]*"', "", line)
        named = re.match(r"\s*(?:pub(?:\([^)]*\))? )?(?:const )?(?:unsafe )?(?:extern \"C\" )?(fn|struct|trait|impl|macro_rules!)\W+(.*)", line)
        if named and not line.lstrip().startswith("//"):
            item = item_name(line)
        for use in re.finditer(r"\bunsafe\b", code):
            rest = code[use.end():].lstrip()
            if rest.startswith(("fn(", 'extern "C" fn(')) or re.match(r"extern\s+fn\(", rest):
                continue  # The type of a function.
            if re.match(r"(extern )?\s*fn\b|trait\b|extern\b", rest):
                if line.rstrip().endswith(("fn(", "]")) or re.search(r"[:\[(>] *unsafe (extern )", code):
                    continue  # The type of a function.
                inherited = "That of the trait." if re.search(r"\bfor\b", header) else said and said[1].capitalize() + "."
                found.append(Unsafe(at + 1, "contract", item, comment_above(lines, at, "# Safety") or inherited or ""))
            else:
                found.append(Unsafe(at + 1, "use", item, comment_above(lines, at, "SAFETY:")))
    return found


def item_name(line: str) -> str:
    """The name of the item that begins in a line."""
    found = re.search(r"\bfn (\w+)|\b(?:struct|trait) (\w+)|(impl.*?)\s*(?:\{|where|$)|macro_rules! (\w+)", line)
    return next((part for part in found.groups() if part), "the module") if found else "the module"


def escape(text: str) -> str:
    """A comment as reStructuredText."""
    text = re.sub(r"(^|\s)- ", r"\1", text)
    text = re.sub(r"\[`([^`]*)`\](?:\([^)]*\))?", r"`\1`", text)
    text = re.sub(r"`([^`]*)`", r"``\1``", text)
    return text.replace("*", r"\*").replace("_ ", r"\_ ")


def wrap(text: str, indent: str) -> str:
    """A text in lines of at most 80 columns."""
    lines, line = [], indent
    for word in text.split():
        if len(line) + len(word) + 1 > 80 and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += word + " "
    return "\n".join([*lines, line.rstrip()])


def page() -> str:
    """The page."""
    parts = [HEAD]
    for path in files():
        uses = listed(path)
        if uses:
            name = str(path.relative_to(ROOT))
            parts.append(f"{name}\n{'=' * len(name)}\n")
            parts += [f"``{use.where}`` ({use.kind})\n{wrap(escape(use.reason) or 'NO REASON', '  ')}\n" for use in uses]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
