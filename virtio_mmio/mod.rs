// SPDX-License-Identifier: GPL-2.0

//! The parts of `virtio_mmio.ko`; the crate root says in which order to read them.

#[cfg(CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES)]
mod cmdline;
#[cfg(CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES)]
mod devices;
mod platform;
#[cfg(CONFIG_PM_SLEEP)]
mod pm;
mod queues;
mod regs;
mod transport;
mod window;

pub(crate) use platform::VirtioMmio;
