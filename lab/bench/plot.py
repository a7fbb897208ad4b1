# SPDX-License-Identifier: GPL-2.0
"""Draws a bench's ratios as horizontal bars, with their targets, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from .results import Row  # noqa: E402

COLOURS = {True: "#4c8c4a", False: "#b7410e", None: "#8a8f98"}
SMALLEST = 1e-4
"""Ratios below it are drawn as if they were this: the axis is logarithmic."""


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Writes one bar per measure: green where the target is met, red where not, grey where there is none."""
    plt.rcParams.update({"font.size": 10, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False})
    shown = [(row, max(row.ratio, SMALLEST)) for row in rows if row.ratio is not None]
    figure, axes = plt.subplots(figsize=(11, 1.2 + 0.5 * len(shown)), layout="constrained")
    for place, (row, ratio) in enumerate(shown):
        axes.barh(place, ratio - SMALLEST / 2, left=SMALLEST / 2, height=0.6, color=COLOURS[row.met])
        axes.annotate(f"{row.ratio:.3g}", (ratio, place), xytext=(4, 0), textcoords="offset points", va="center")
        if row.target is not None:
            axes.plot([row.target] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2)
    axes.axvline(1, color="#33658a", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [row.measure for row, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel("Rust by C; black: target, dashed: as much as C")
    axes.set_title(title, loc="left")
    figure.savefig(path)
    plt.close(figure)


def curves(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], x: str, y: str, path: Path) -> None:
    """Writes named curves of points beside each other, one panel for each title."""
    plt.rcParams.update({"font.size": 10, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False})
    figure, all_axes = plt.subplots(ncols=len(panels), figsize=(6.5 * len(panels), 4), sharey=True, squeeze=False, layout="constrained")
    for axes, (title, found) in zip(all_axes[0], panels.items()):
        for name, points in found.items():
            axes.plot(*zip(*points), label=name, linewidth=2)
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel(x)
    all_axes[0][0].set_ylabel(y)
    all_axes[0][0].legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)
