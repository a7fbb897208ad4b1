// SPDX-License-Identifier: GPL-2.0

//! Runs the pure parts of `virtio_mmio.ko` on the host: their own tests.

#![allow(dead_code)]

#[path = "../../virtio_mmio"]
mod mmio {
    pub mod cmdline;
    pub mod regs;
}
