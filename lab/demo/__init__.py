# SPDX-License-Identifier: GPL-2.0
"""The demo: two guests side by side, one with our balloon driver and one with the C driver, that hibernate with an inflated balloon.

`python3 -m lab.demo` inside the build root, `make demo` from outside. `acts.py` says what happens, `report.py` and `plot.py` show it.
"""
