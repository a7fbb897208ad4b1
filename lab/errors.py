# SPDX-License-Identifier: GPL-2.0
"""The one exception whose text is meant for the person at the terminal."""


class LabError(Exception):
    """Something a person can put right: the text says what is wrong and what to do. Printed without a traceback."""
