# SPDX-License-Identifier: GPL-2.0
"""Draws what the host saw: the size of each guest's balloon over time, as SVG and PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from lab.guest import PAGES_PER_MIB  # noqa: E402

from .acts import BALLOON_MIB, FAIL, INFLATE, RESUME, SLEEP, USE, Act, Record  # noqa: E402

TITLES = {"rust": "Rust driver", "c": "C driver"}
COLOURS = {"rust": "#b7410e", "c": "#33658a"}
COLUMNS = {
    INFLATE: ("inflates", 1.2, "#ffffff"),
    FAIL: ("act 1: hibernation fails", 2.2, "#f8ecd8"),
    SLEEP: ("act 2: hibernates", 2.2, "#e3eaf0"),
    RESUME: ("resumes in a new QEMU", 1.9, "#eef2e6"),
    USE: ("act 3: all memory is used", 2.2, "#ffffff"),
}
"""Each act's title, width and colour. Both panels have the same columns, whatever time the acts took."""

RESOLUTION = (0.01, 4)
"""Points nearer to each other than this, in widths and MiB, are drawn as one."""


def draw(records: list[Record], folder: Path) -> None:
    """Writes actual.svg and actual.png, one panel per driver."""
    plt.rcParams.update({"font.size": 10, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(len(records), 1, figsize=(11, 6.6), layout="constrained")
    for panel, record in zip(panels, records):
        _panel(panel, record)
    figure.suptitle("Balloon size that the host sees while a guest of 1 GiB hibernates", fontsize=13)
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"actual.{suffix}", dpi=130)
    plt.close(figure)


def _panel(panel: Axes, record: Record) -> None:
    colour = COLOURS[record.driver]
    left, edges = 0.0, {}
    for act in record.acts:
        title, width, shade = COLUMNS[act.name]
        middle, edges[act.name] = left + width / 2, left
        panel.axvspan(left, left + width, color=shade, linewidth=0, zorder=0)
        panel.text(middle, BALLOON_MIB * 1.36, title, ha="center", va="center", fontsize=9.5)
        panel.text(middle, BALLOON_MIB * 1.18, _moved(act), ha="center", va="center", fontsize=8.5, color="#555555")
        panel.text(middle, -BALLOON_MIB * 0.09, f"{act.end - act.begin:.1f} s", ha="center", va="center", fontsize=9)
        left += width
    off = record.act(SLEEP).end
    for points in ([p for p in record.actual if p[0] <= off], [p for p in record.actual if p[0] > off]):
        last = off if points[-1][0] <= off else record.acts[-1].end
        line = _thin([(_position(record, edges, time), pages / PAGES_PER_MIB) for time, pages in [*points, (last, points[-1][1])]])
        panel.step(*zip(*line), where="post", color=colour, linewidth=2)
        panel.fill_between(*zip(*line), step="post", color=colour, alpha=0.2, linewidth=0)
    panel.axvline(edges[RESUME], ymax=0.72, color="#444444", linewidth=1, linestyle=(0, (4, 3)))
    panel.text(edges[RESUME] + 0.05, BALLOON_MIB * 0.5, "power off", rotation=90, ha="left", va="center", fontsize=8.5, color="#444444")
    panel.set_xlim(0, left)
    panel.set_ylim(0, BALLOON_MIB * 1.46)
    panel.set_xticks([])
    panel.set_yticks(range(0, BALLOON_MIB + 1, BALLOON_MIB // 4))
    panel.set_ylabel("actual, MiB")
    panel.set_title(TITLES[record.driver], loc="left", fontsize=11.5, color=colour, fontweight="bold")


def _position(record: Record, edges: dict[str, float], time: float) -> float:
    """Where a moment is on the horizontal axis; the time between two acts has no width."""
    position = 0.0
    for act in record.acts:
        if time >= act.begin:
            part = min((time - act.begin) / (act.end - act.begin), 1)
            position = edges[act.name] + part * COLUMNS[act.name][1]
    return position


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leaves out points that nobody could tell from the one before, but neither the first nor the last."""
    kept = points[:1]
    for point in points[1:-1]:
        if any(abs(new - old) >= least for new, old, least in zip(point, kept[-1], RESOLUTION)):
            kept.append(point)
    return kept + points[-1:]


def _moved(act: Act) -> str:
    there, back = act.traffic.deflated, act.traffic.inflated
    if there and back:
        return f"{there:,} pages given back,\n{back:,} taken again"
    if there or back:
        return f"{there or back:,} pages\n{'given back' if there else 'taken'}"
    return "no page moved"
