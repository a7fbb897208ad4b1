# SPDX-License-Identifier: GPL-2.0
"""The demo's figures: whether they are as expected, a table for people, and a JSON file for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.guest import PAGES_PER_MIB
from lab.guest.pmtimes import total_usecs

from .acts import BALLOON_PAGES, FAIL, RESUME, SLEEP, Record


def figures(record: Record) -> dict[str, Any]:
    """One driver's entry in result.json. Pages and `actual` count 4 KiB pages; moved pages count in both directions.

    What was not measured is None.
    """
    fail, sleep, resume = record.act(FAIL), record.act(SLEEP), record.act(RESUME)
    return {
        "pages_moved_failed_hibernation": fail.traffic.pages,
        "actual_min_failed_hibernation": fail.traffic.actual_min,
        "pages_moved_s4": sleep.traffic.pages + resume.traffic.pages,
        "modules_rust": record.modules,
        "modules_c": record.control,
        "memtotal_before_kib": record.memtotal_before,
        "memtotal_after_resume_kib": record.memtotal_after_resume,
        "freeze_ns": _nanoseconds(total_usecs(sleep.callbacks, "freeze")),
        "restore_ns": _nanoseconds(total_usecs(resume.callbacks, "restore")),
        "image_pages": record.image_pages,
        "checksum_ok": record.checksum_ok,
    }


def problems(ours: Record, control: Record) -> list[str]:
    """What is not as expected, one sentence each; empty when the demo shows what it should."""
    found = []
    for record in (ours, control):
        name = f"{record.driver} driver"
        if record.memtotal_after_resume != record.memtotal_before:
            found.append(f"{name}: MemTotal was {record.memtotal_before} KiB and is {record.memtotal_after_resume} KiB after resume")
        if not record.checksum_ok:
            found.append(f"{name}: the file's checksum changed over hibernation")
        if not record.filled:
            found.append(f"{name}: the memory that was available before inflation could not be filled, or changed, after resume")
    moved = figures(ours)["pages_moved_failed_hibernation"], figures(ours)["pages_moved_s4"]
    if any(moved):
        found.append(f"our driver moved {moved[0]} pages in the failed hibernation and {moved[1]} in the real one instead of none")
    if ours.act(FAIL).traffic.actual_min != BALLOON_PAGES:
        found.append(f"our driver let actual fall to {ours.act(FAIL).traffic.actual_min} pages in the failed hibernation")
    there, back = control.act(FAIL).traffic.deflated, control.act(FAIL).traffic.inflated
    if (there, back) != (BALLOON_PAGES, BALLOON_PAGES):
        found.append(f"the C driver gave back {there} and took again {back} pages in act 1 instead of {BALLOON_PAGES} each")
    return found


def table(records: list[Record]) -> str:
    """A table with a row per measurement and a column per driver."""
    rows: list[tuple[str, Callable[[Record], str]]] = [
        ("virtio modules in Rust / in C", lambda r: f"{len(r.modules)} / {len(r.control)}"),
        ("act 1: hibernation without swap fails", lambda _: ""),
        ("  pages given back / taken again", lambda r: f"{r.act(FAIL).traffic.deflated:,} / {r.act(FAIL).traffic.inflated:,}"),
        ("  lowest / highest actual, MiB", lambda r: _range(r, FAIL)),
        ("  time in freeze / thaw, ms", lambda r: f"{_ms(r, FAIL, 'freeze')} / {_ms(r, FAIL, 'thaw')}"),
        ("act 2: hibernation to disk and resume", lambda _: ""),
        ("  pages moved before power-off / after", lambda r: f"{r.act(SLEEP).traffic.pages:,} / {r.act(RESUME).traffic.pages:,}"),
        ("  lowest / highest actual before it, MiB", lambda r: _range(r, SLEEP)),
        ("  time in freeze / restore, ms", lambda r: f"{_ms(r, SLEEP, 'freeze')} / {_ms(r, RESUME, 'restore')}"),
        ("  pages in the image", lambda r: f"{r.image_pages:,}"),
        ("  MemTotal before inflation, KiB", lambda r: f"{r.memtotal_before:,}"),
        ("  MemTotal after resume, KiB", lambda r: f"{r.memtotal_after_resume:,}"),
        ("act 3: all memory is usable again", lambda _: ""),
        ("  memory available before inflation, KiB", lambda r: f"{r.available_before:,}"),
        ("  memory filled and checked, KiB", lambda r: f"{r.filled:,}" if r.filled else "FAILED"),
        ("  checksum of the file", lambda r: "holds" if r.checksum_ok else "BROKEN"),
    ]
    names = {"rust": "Rust driver", "c": "C driver"}
    cells = [("", [names[record.driver] for record in records])]
    cells += [(title, [value(record) for record in records]) for title, value in rows]
    left = max(len(title) for title, _ in cells)
    right = max(len(value) for _, values in cells for value in values)
    lines = [(title.ljust(left) + "".join(f"  {value:>{right}}" for value in values)).rstrip() for title, values in cells]
    return "\n".join(lines)


def _range(record: Record, act: str) -> str:
    traffic = record.act(act).traffic
    return f"{traffic.actual_min / PAGES_PER_MIB:.0f} / {traffic.actual_max / PAGES_PER_MIB:.0f}"


def _ms(record: Record, act: str, phase: str) -> str:
    usecs = total_usecs(record.act(act).callbacks, phase)
    return "-" if usecs is None else f"{usecs / 1000:.1f}"


def _nanoseconds(usecs: int | None) -> int | None:
    return None if usecs is None else usecs * 1000
