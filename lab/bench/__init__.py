# SPDX-License-Identifier: GPL-2.0
"""Measures the C modules and ours in one run: `python3 -m lab.bench balloon` inside the build root, `make bench-balloon` outside.

`counter.rs` is a QEMU plugin that counts guest instructions, `profile.py` says in which functions they are; `balloon.py` and
others say what is measured, `stack.py` all of it; `results.py` and `plot.py` show it. Documentation/benchmarks.rst explains the figures.
"""
