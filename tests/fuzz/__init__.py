# SPDX-License-Identifier: GPL-2.0
"""A fuzzer for devices: `make fuzz`, `Documentation/fuzzing.rst`."""
