// SPDX-License-Identifier: GPL-2.0

//! Runs the pure parts of `virtio_pci.ko`, and of all transports, on the host: their own tests.

#![allow(dead_code)]

#[path = "../../virtio_pci"]
mod pci {
    #[path = "admin/layout.rs"]
    pub mod admin_layout;
    #[path = "admin/legacy_layout.rs"]
    pub mod admin_legacy_layout;
    #[path = "admin/objects.rs"]
    pub mod admin_objects;
    pub mod caps;
    pub mod legacy_regs;
    pub mod regs;
    pub mod vectors;
}

#[path = "../../virtio/reset"]
mod reset {
    pub mod state;
}

#[path = "../../virtio/transport"]
mod transport {
    pub mod generation;
}
