# SPDX-License-Identifier: GPL-2.0
"""What can go wrong with a guest. Every message names the guest's logs."""

from __future__ import annotations


class GuestError(Exception):
    """A guest did not do what the test needs of it."""


class ScriptFailed(GuestError):
    """A script in the guest ended with a status other than 0."""


class GuestTimeout(GuestError):
    """The guest did not answer, or did not reach a state, in time."""


class KernelFault(GuestError):
    """The guest's kernel reported a bug: oops, panic, warning, lockdep splat, hung task and the like."""


class QemuDied(GuestError):
    """The QEMU process ended although nobody asked it to."""
