# SPDX-License-Identifier: GPL-2.0
"""A virtio device on PCI in Python, honest or hostile, behind QEMU's `vfio-user-pci`.

`virtio.py` is the device and what a test can make it do, `legacy.py` a legacy one, `config.py` its configuration space and capabilities,
`disk.py` and `net.py` what it is good for, `vfio_user.py` the thread that serves QEMU. Rings and memory are those of `device`.
"""
