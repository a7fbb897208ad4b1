// SPDX-License-Identifier: GPL-2.0

//! Runs the pure parts of `virtio_ring.ko` on the host, against a model of a device.

#![allow(dead_code)]

#[path = "../../virtio"]
mod virtio {
    pub mod endian;
}

#[path = "../../virtio_ring"]
mod ring {
    pub mod event;
    pub mod indirect;
    pub mod layout;
    pub mod packed;
    pub mod split;
    pub mod state;
    pub mod suppression;
}

#[path = "ring/driver.rs"]
mod driver;
#[path = "ring/fuzz.rs"]
mod fuzz;
#[path = "ring/hostile.rs"]
mod hostile;
#[cfg(feature = "property")]
#[path = "ring/order.rs"]
mod order;
#[path = "ring/packed.rs"]
mod packed;
#[cfg(feature = "property")]
#[path = "ring/property.rs"]
mod property;
#[path = "ring/random.rs"]
mod random;
#[path = "ring/split.rs"]
mod split;
