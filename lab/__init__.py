# SPDX-License-Identifier: GPL-2.0
"""The lab: builds kernels and modules and tests them in QEMU guests, all inside a Debian build root of its own.

`python3 -m lab COMMAND` runs on the host with nothing but the standard library; `make help` lists the commands.
"""
