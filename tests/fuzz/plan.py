# SPDX-License-Identifier: GPL-2.0
"""What a device does in one execution: an input of the fuzzer, as text and as it is changed at random.

A device is honest but for what the lines of its plan say. One line is one deviation, so that plans can be read, cut down and kept as
tests. `Documentation/fuzzing.rst` lists the lines.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Self

DEVICES = ("balloon", "entropy", "net")
TRANSPORTS = ("msix", "line", "mmio")
STEPS = ("bind", "unbind", "use", "read", "sleep", "remove")
REGISTERS = (
    "device_feature", "config_msix_vector", "num_queues", "device_status", "config_generation", "queue_size", "queue_msix_vector",
    "queue_enable", "queue_notify_off", "queue_reset", "isr", "magic", "version", "device_id",
)
ACTIONS = ("gone", "back", "needs_reset", "config", "interrupt", "target", "command", "statistics", "scribble", "raise", "lower")
COMPLETIONS = ("id", "length", "twice", "never", "late", "quiet", "jump")
STRUCTURES = ("common", "isr", "device", "notify")
PLACES = ("bar", "offset", "length", "missing")

FEATURES = (0, 1, 2, 3, 4, 5, 28, 29, 33, 34, 35, 36, 38, 39, 40)
"""Bits that are offered, or not, at random."""
VALUES = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 129, 255, 256, 1023, 1024, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF,
          0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ALWAYS = -1
"""In the place of a number of times: each time."""
MOST_LINES = 12

_FORMS: dict[str, tuple[object, ...]] = {
    "lie": (REGISTERS, "time", "value"),
    "flip": (REGISTERS, "time", "value"),
    "config": ("offset", "byte"),
    "deaf": (REGISTERS,),
    "used": ("queue", "time", COMPLETIONS, "value"),
    "at": ("moment", ACTIONS, "value"),
    "after": ("milliseconds", ACTIONS, "value"),
    "structure": (STRUCTURES, PLACES, "value"),
}
_LIMITS = {"time": 12, "offset": 64, "byte": 256, "queue": 5, "moment": 250, "milliseconds": 400}

Line = tuple[str | int, ...]
"""The name of a deviation, and its parameters."""


class PlanError(ValueError):
    """A text that is no plan."""


@dataclass(frozen=True)
class Plan:
    """An input."""

    device: str
    transport: str
    offers: int
    """Features that are offered beside VERSION_1."""
    steps: tuple[str, ...]
    """What the guest does; the driver is unbound at the end in any case."""
    lines: tuple[Line, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a plan; `#` begins a comment. Raises PlanError."""
        found: dict[str, list[str]] = {}
        lines: list[Line] = []
        for raw in text.splitlines():
            words = raw.partition("#")[0].split()
            if not words:
                continue
            if words[0] in ("device", "offers", "steps"):
                found[words[0]] = words[1:]
            else:
                lines.append(_parse_line(words))
        try:
            (device, transport), (offers,), steps = found["device"], found["offers"], found["steps"]
            plan = cls(device, transport, int(offers, 0), tuple(steps), tuple(lines))
        except (KeyError, ValueError) as error:
            raise PlanError(f"a plan needs lines `device`, `offers` and `steps`: {error}") from error
        if device not in DEVICES or transport not in TRANSPORTS or not set(steps) <= set(STEPS):
            raise PlanError("there is no such device, transport or step")
        return plan

    def __str__(self) -> str:
        head = [f"device {self.device} {self.transport}", f"offers {self.offers:#x}", " ".join(("steps", *self.steps))]
        return "\n".join([*head, *(" ".join(str(word) for word in line) for line in self.lines)]) + "\n"


def _parse_line(words: list[str]) -> Line:
    form = _FORMS.get(words[0])
    if form is None or len(words) != len(form) + 1:
        raise PlanError(f"{' '.join(words)}: a plan has no such line")
    line: list[str | int] = [words[0]]
    for word, kind in zip(words[1:], form, strict=True):
        if isinstance(kind, tuple):
            if word not in kind:
                raise PlanError(f"{' '.join(words)}: {word} is none of {', '.join(kind)}")
            line.append(word)
        else:
            line.append(int(word, 0))
    return tuple(line)


# At random


def honest(device: str, transport: str, offers: int = 0) -> Plan:
    """A device that tells the truth."""
    return Plan(device, transport, offers, ("bind", "use", "read", "unbind"))


def changed(plan: Plan, others: list[Plan], pick: random.Random) -> Plan:
    """Another plan, somewhat like this one, or like this one and another."""
    for _ in range(pick.choice((1, 1, 2, 3, 5))):
        plan = _changed_once(plan, others, pick)
    return plan


def _changed_once(plan: Plan, others: list[Plan], pick: random.Random) -> Plan:
    lines = list(plan.lines)
    match pick.randrange(12):
        case 0 | 1 | 2 | 3 if len(lines) < MOST_LINES:
            lines.insert(pick.randint(0, len(lines)), _random_line(pick))
        case 4 if lines:
            del lines[pick.randrange(len(lines))]
        case 5 | 6 | 7 if lines:
            place = pick.randrange(len(lines))
            lines[place] = _tweaked(lines[place], pick)
        case 8 if others:
            other = pick.choice(others).lines
            lines = [*lines[:pick.randint(0, len(lines))], *other[pick.randint(0, len(other)):]][:MOST_LINES]
        case 9:
            return replace(plan, offers=plan.offers ^ 1 << pick.choice(FEATURES))
        case 10:
            steps = list(plan.steps)
            steps.insert(pick.randint(0, len(steps)), pick.choice(STEPS))
            if len(steps) > 6:
                del steps[pick.randrange(len(steps))]
            return replace(plan, steps=tuple(steps))
        case 11 if pick.random() < 0.5:
            return replace(plan, device=pick.choice(DEVICES), transport=pick.choice(TRANSPORTS))
    return replace(plan, lines=tuple(lines))


def _random_line(pick: random.Random) -> Line:
    name = pick.choice(("lie", "lie", "flip", "config", "deaf", "used", "used", "used", "at", "at", "after", "after", "structure"))
    return (name, *(_random_word(kind, pick) for kind in _FORMS[name]))


def _tweaked(line: Line, pick: random.Random) -> Line:
    form = _FORMS[str(line[0])]
    place = pick.randrange(len(form))
    word = line[place + 1]
    if isinstance(word, int) and word >= 0 and pick.random() < 0.5:
        changed_word = pick.choice((word + 1, max(0, word - 1), word ^ 1 << pick.randrange(32), word * 2 & 0xFFFFFFFF))
        kind = form[place]
        limit = _LIMITS.get(str(kind), 1 << 32)
        return (*line[:place + 1], changed_word % limit, *line[place + 2:])
    return (*line[:place + 1], _random_word(form[place], pick), *line[place + 2:])


def _random_word(kind: object, pick: random.Random) -> str | int:
    if isinstance(kind, tuple):
        return pick.choice(kind)
    if kind == "value":
        return pick.choice(VALUES) if pick.random() < 0.8 else pick.getrandbits(32)
    if kind == "time" and pick.random() < 0.4:
        return ALWAYS
    return pick.randrange(_LIMITS[str(kind)])
