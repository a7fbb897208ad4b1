# SPDX-License-Identifier: GPL-2.0
"""What a bench found: a table for people and a JSON file for programs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Say = Callable[[str], None]
"""Prints one line of progress."""

Samples = defaultdict[str, list[float]]
"""What was measured of one side, by a name of the bench's own."""


@dataclass(frozen=True)
class Row:
    """One measure: the samples of the C modules and of ours, and the target for their ratio, if there is one."""

    measure: str
    unit: str
    c: Sequence[float]
    rust: Sequence[float]
    target: float | None = None
    more_is_better: bool = False
    absolute: bool = False
    """The target is for our figure, not for the ratio."""
    typical: Callable[[Sequence[float]], float] = median
    """Makes one figure of the samples."""

    @property
    def ratio(self) -> float | None:
        """Ours by C's; None where C's is 0 and ours is not."""
        c, rust = self.typical(self.c), self.typical(self.rust)
        if c == 0:
            return 1.0 if rust == 0 else None
        return rust / c

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        found = self.typical(self.rust) if self.absolute else self.ratio
        if found is None:
            return self.more_is_better
        return found >= self.target if self.more_is_better else found <= self.target

    def record(self) -> dict[str, Any]:
        """The row's entry in the JSON file. `spread` is (largest - smallest) / typical for each side; null for a single sample."""
        return {
            "measure": self.measure, "unit": self.unit, "c": self.typical(self.c), "rust": self.typical(self.rust),
            "ratio": self.ratio, "target": self.target, "met": self.met,
            "spread": {"c": _spread(self.c, self.typical), "rust": _spread(self.rust, self.typical)},
        }


def write(rows: Sequence[Row], path: Path) -> None:
    """Writes the JSON file: a list of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.record() for row in rows], indent=2) + "\n")


def table(rows: Sequence[Row]) -> str:
    """A table with a line per measure."""
    cells = [("", "C", "Rust", "ratio", "target", "", "spread C, Rust")]
    for row in rows:
        found = row.record()
        ratio = "-" if row.ratio is None else f"{row.ratio:.{_digits(row.target)}f}"
        target = "" if row.target is None else f"{'>=' if row.more_is_better else '<='} {row.target:g}{' alone' if row.absolute else ''}"
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        spread = ", ".join("-" if part is None else f"{part:.1%}" for part in found["spread"].values())
        cells.append((f"{row.measure}, {row.unit}", _number(found["c"]), _number(found["rust"]), ratio, target, verdict, spread))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" if column in (0, 5) else f"{cell:>{width}}" for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in cells
    )


def missed(rows: Sequence[Row]) -> list[str]:
    """A sentence for each target that is missed."""
    lines = []
    for row in rows:
        if row.met is False:
            found = row.typical(row.rust) if row.absolute else row.ratio
            what = "C has none" if found is None else f"{'ours is' if row.absolute else 'the ratio is'} {found:.4g}"
            lines.append(f"target missed: {row.measure}: {what}, {'at least' if row.more_is_better else 'at most'} {row.target:g} wanted")
    return lines


def _spread(samples: Sequence[float], typical: Callable[[Sequence[float]], float]) -> float | None:
    if len(samples) < 2:
        return None
    middle = typical(samples)
    return (max(samples) - min(samples)) / middle if middle else 0.0


def _digits(target: float | None) -> int:
    return 5 if target is not None and target < 0.01 else 2


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
