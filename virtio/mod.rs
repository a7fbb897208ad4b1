// SPDX-License-Identifier: GPL-2.0

//! Virtio for drivers in safe Rust.
//!
//! This folder is compiled into every module that needs it: modules share source, and speak to each
//! other only through the C functions and structures of `include/linux/virtio*.h`. A driver written
//! on it therefore runs on the C core and rings as well as on the ones in Rust.
//!
//! # Words
//!
//! - *driver*, *device*: the two sides, as in the specification; never guest and host.
//! - *buffer*: what the driver makes *available* and the device marks *used*.
//! - *notification*: driver to device when a buffer is available, device to driver when one was
//!   used or when the configuration changed.
//! - *live*: the device has been told `DRIVER_OK` and has not been reset since.
//!
//! # Reading order
//!
//! [`driver`] (the trait to implement and when its methods are called), [`device`], [`queue`] with
//! [`payload`] and [`stream`], then [`crate::config`]. A driver begins with [`prelude`].
//!
//! Below that: `driver/binding.rs` owns the queues, `queue/slot.rs` lends them to a driver's
//! handles, [`buffers`] puts payloads into them, `driver/adapter.rs` makes methods of the callbacks
//! of the core. [`bindings`] is for the adapters only.
//! `Documentation/writing-drivers.rst` walks through a complete driver.

pub mod bindings;
pub mod buffers;
pub mod device;
pub mod driver;
pub mod endian;
pub mod id;
pub mod payload;
pub mod pm;
pub mod prelude;
pub mod queue;
pub mod stream;

pub use self::{
    device::{
        Device,
        Negotiation,
        Reset, //
    },
    driver::Driver,
    endian::{
        ByteOrder,
        Le32, //
    },
    id::DeviceId, //
};
