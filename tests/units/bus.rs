// SPDX-License-Identifier: GPL-2.0

//! Runs the tests of the pure parts of `virtio.ko` on the host.

#![allow(dead_code)]

#[path = "../../config.rs"]
mod config;

#[path = "../../virtio"]
mod virtio {
    pub mod endian;
}

#[path = "../../virtio_bus"]
mod bus {
    pub mod ids;
    pub mod status;
    pub mod text;
}
