// SPDX-License-Identifier: GPL-2.0

//! `virtio.ko`: the virtio bus. It brings drivers and devices together by the functions of
//! `include/linux/virtio.h` and `include/linux/virtio_config.h`, for every driver and transport.
//!
//! Reading order:
//!
//! 1. `virtio_bus/status.rs`: the device status; `ids.rs`: which device is for which driver;
//!    `text.rs`: how user space reads both.
//! 2. `virtio_bus/device.rs`, `driver.rs`: the two sides, as this module sees them.
//! 3. `virtio_bus/lifecycle.rs`: negotiation, probe, removal, sleep, reset; `gate.rs`: when a
//!    driver hears of a changed configuration; `watch.rs`: devices that ask for a reset.
//! 4. `virtio_bus/register.rs`: devices come and go; `index.rs`: their numbers; `node.rs`: their
//!    nodes in a device tree; `debug.rs`: `CONFIG_VIRTIO_DEBUG`.
//! 5. `virtio_bus/bus.rs`: how the driver core gets at all this; `sysfs.rs`: the attributes.
//! 6. `virtio_bus/exports.rs`: the C functions.
//!
//! How a reset is waited for is in `virtio/reset.rs`, which transports use as well.
//!
//! The files under 1 use only `core`; a host runs their tests. Those and `lifecycle.rs` contain no
//! unsafe code.
//!
//! # The device is not trusted
//!
//! What a device says is read once for each decision. A status is believed only after it was read
//! back, features only if they were offered; no wait for a device is without end. A device that
//! breaks the rules gets a line in the log and no driver, or broken queues if it has one.

pub mod config;

/// What this module uses of the facilities that the kernel crate does not wrap yet.
#[path = "kernel_ext"]
pub mod kernel_ext {
    #[cfg(not(MODULE))]
    pub mod initcall;
    pub mod static_work;
}

/// What this module uses of the shared virtio sources.
#[path = "virtio"]
pub mod virtio {
    pub mod bindings;
    pub mod endian;
    pub mod export;
    pub mod reset;
}

mod virtio_bus;

use kernel::prelude::*;
use virtio_bus::Virtio;

module! {
    type: Virtio,
    name: "virtio",
    authors: ["The virtio-rust developers"],
    description: "Virtio core interface",
    license: "GPL",
}
