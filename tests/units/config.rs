// SPDX-License-Identifier: GPL-2.0

//! Runs the pure parts of the driver API on the host: feature sets and configuration fields.

#![allow(dead_code)]

#[path = "../../virtio"]
mod virtio {
    pub mod endian;
}

#[path = "../../config.rs"]
mod config;

#[path = "config/features.rs"]
mod features;
#[path = "config/fields.rs"]
mod fields;
