// SPDX-License-Identifier: GPL-2.0

//! `virtio_pci.ko`: virtio devices on the PCI bus (Virtio 1.4, 4.1).
//!
//! Reading order:
//!
//! 1. `virtio_pci/caps.rs`: the capabilities that say where a device has its registers, and what
//!    is checked before any of it is mapped; `regs.rs`: the registers of the common configuration.
//! 2. `virtio_pci/interface.rs`: what the modern and the legacy interface of a device have in
//!    common; `modern.rs`: the modern one; `legacy_regs.rs` and `legacy.rs`: the legacy one;
//!    `choice.rs`: which one is used.
//! 3. `virtio_pci/device.rs`: what the core wants of a device; `queues.rs`: its virtqueues;
//!    `vectors.rs`: which interrupt serves which queue; `interrupts.rs`: the handlers.
//! 4. `virtio_pci/driver.rs`: how devices are found, sleep and are reset.
//! 5. `virtio_pci/admin.rs`: what a device does for its virtual functions; `exports.rs`: the C
//!    functions for those who drive such.
//!
//! `caps.rs`, `regs.rs`, `legacy_regs.rs`, `vectors.rs` and parts of `admin/` use only `core`; a
//! host runs their tests. Below all this are `virtio/transport.rs`, what transports have in common,
//! and `kernel_ext/`, which wraps what the kernel crate lacks.
//!
//! # The device is not trusted
//!
//! What is read from configuration space or a register is used once, after a check. Every wait has
//! an end. A queue that the device does not give back keeps its memory for good, and so does a
//! command.

pub mod config;

/// What this module uses of the facilities that the kernel crate does not wrap yet.
#[path = "kernel_ext"]
pub mod kernel_ext {
    pub mod delayed_work;
    pub mod io_address;
    pub mod iomap;
    pub mod irq_handler;
    pub mod irq_vectors;
    pub mod modinfo;
    #[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
    pub mod module_param;
    pub mod pci_cap;
    pub mod pci_device;
    pub mod pci_driver;
    pub mod pci_io;
    pub mod pci_iov;
    pub mod sg;
    pub mod sg_pieces;
    pub mod wait;
}

/// What this module uses of the shared virtio sources.
#[path = "virtio"]
pub mod virtio {
    pub mod bindings;
    pub mod buffers;
    pub mod endian;
    pub mod export;
    pub mod payload;
    pub mod reset;
    pub mod transport;
}

#[path = "virtio_pci/mod.rs"]
mod pci;

use kernel::prelude::*;

module! {
    type: pci::VirtioPci,
    name: "virtio_pci",
    authors: ["The virtio-rust developers"],
    description: "virtio-pci",
    license: "GPL",
}

kernel_ext::modinfo::modinfo!("version", "1");
