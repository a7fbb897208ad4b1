// SPDX-License-Identifier: GPL-2.0

//! The parts of `virtio_pci.ko`; the crate root says in which order to read them.

mod admin;
mod caps;
mod choice;
mod common;
mod device;
mod driver;
mod exports;
mod interface;
mod interrupts;
#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
mod legacy;
#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
mod legacy_regs;
mod modern;
mod queues;
mod regs;
mod shared;
mod space;
mod structures;
mod vectors;

pub(crate) use driver::VirtioPci;
