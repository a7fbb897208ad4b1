// SPDX-License-Identifier: GPL-2.0

//! `virtio_mmio.ko`: virtio devices whose registers are in memory (Virtio 1.4, 4.2).
//!
//! Reading order:
//!
//! 1. `virtio_mmio/regs.rs`: the registers and who may read or write them; `window.rs`: access.
//! 2. `virtio_mmio/transport.rs`: what the core wants of a device; `queues.rs`: its virtqueues and
//!    its interrupt.
//! 3. `virtio_mmio/platform.rs`: how devices are found; `pm.rs`: system sleep.
//! 4. `virtio_mmio/cmdline.rs`: the syntax of the parameter `device=`; `devices.rs`: the devices
//!    that it makes.
//!
//! `regs.rs` and `cmdline.rs` use only `core`; a host runs their tests. Below all this are
//! `virtio/transport.rs`, what transports have in common, and `kernel_ext/`, which wraps what the
//! kernel crate lacks.
//!
//! # The device is not trusted
//!
//! What is read from a register is used once, after a check. Every wait has an end. A queue that
//! the device does not give back keeps its memory for good.
//!
//! # Limitations
//!
//! As in C: one interrupt for all queues, so no affinity; no admin queue, which MMIO does not
//! define; 64 feature bits.

pub mod config;

/// What this module uses of the facilities that the kernel crate does not wrap yet.
#[path = "kernel_ext"]
pub mod kernel_ext {
    pub mod delayed_work;
    pub mod io_address;
    pub mod iomap;
    pub mod irq;
    pub mod irq_handler;
    pub mod mmio;
    #[cfg(CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES)]
    pub mod module_param;
    pub mod platform;
    #[cfg(CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES)]
    pub mod platform_device;
    #[cfg(CONFIG_PM_SLEEP)]
    pub mod platform_driver;
}

/// What this module uses of the shared virtio sources.
#[path = "virtio"]
pub mod virtio {
    pub mod bindings;
    pub mod endian;
    pub mod reset;
    pub mod transport;
}

#[path = "virtio_mmio/mod.rs"]
mod mmio;

use kernel::prelude::*;

module! {
    type: mmio::VirtioMmio,
    name: "virtio_mmio",
    authors: ["The virtio-rust developers"],
    description: "Platform bus driver for memory mapped virtio devices",
    license: "GPL",
}
