# SPDX-License-Identifier: GPL-2.0
"""Ways for a balloon device to behave, from slow to hostile; `honest` is in `balloon.py`."""

from __future__ import annotations

import time

from .balloon import BalloonDevice, Behaviour, Request, honest

NEVER_ISSUED = 60
"""An id that every ring here has. Rings issue the lowest ones, and our driver uses few at a time."""


def mute(device: BalloonDevice, request: Request) -> None:
    """Answers nothing; `answer_all()` may do so later."""


def without_interrupt(device: BalloonDevice, request: Request) -> None:
    """Answers at once, but does not notify the driver."""
    device.answer(request, interrupt=False)


def with_absurd_length(device: BalloonDevice, request: Request) -> None:
    """Answers, and claims to have written 4 GiB to a buffer that it may only read."""
    device.answer(request, length=0xFFFFFFFF)


def with_spurious_interrupts(device: BalloonDevice, request: Request) -> None:
    """Notifies before and after the answer, for both queues."""
    for queue in (0, 1, 1, 0):
        device.interrupt(queue)
    device.answer(request)
    for queue in (1, 0, 0, 1):
        device.interrupt(queue)


def id_out_of_range(device: BalloonDevice, request: Request) -> None:
    """Completes a buffer whose id no ring of this size has; never answers the request."""
    device.use(request.queue, (0x7FF0, 0, 1))


def id_never_issued(device: BalloonDevice, request: Request) -> None:
    """Completes a buffer that is not outstanding; never answers the request."""
    device.use(request.queue, (NEVER_ISSUED, 0, request.buffer.slots))


def twice(device: BalloonDevice, request: Request) -> None:
    """Answers, and completes the same buffer once more in the same breath."""
    element = (request.buffer.id, 0, request.buffer.slots)
    device.complete(request)
    device.use(request.queue, element, element)


def index_jump(device: BalloonDevice, request: Request) -> None:
    """Does what was asked for, and exposes 100 used elements that it never wrote.

    Not before the driver has made available what it can: in a packed ring it would otherwise write over the elements, and wait in
    vain for a device that is ahead of it.
    """
    device.complete(request)
    time.sleep(0.05)
    device.jump(request.queue, 100)


def after(count: int, then: Behaviour) -> Behaviour:
    """Honest for `count` requests, seen from now on, then something else."""
    seen = 0

    def behaviour(device: BalloonDevice, request: Request) -> None:
        nonlocal seen
        seen += 1
        (honest if seen <= count else then)(device, request)

    return behaviour
