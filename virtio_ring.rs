// SPDX-License-Identifier: GPL-2.0

//! `virtio_ring.ko`: virtqueues, split and packed (Virtio 1.4, 2.6 to 2.9), for every driver and
//! transport, by the functions of `include/linux/virtio.h` and `include/linux/virtio_ring.h`.
//!
//! Reading order:
//!
//! 1. `virtio_ring/layout.rs`: what driver and device agree on.
//! 2. `virtio_ring/state.rs`: what the driver alone knows of its descriptors.
//! 3. `virtio_ring/split.rs`, `packed.rs`: the two formats as pure state machines; `event.rs` and
//!    `suppression.rs`: notifications; `indirect.rs`: indirect tables.
//! 4. `virtio_ring/memory.rs`: single accesses to shared memory; `barrier.rs`: their order, by
//!    architecture; `map.rs`, `mapped.rs`: addresses for the device; `area.rs`: the memory of
//!    rings; `sg.rs`: the drivers' buffers; `pool.rs`: the memory of indirect tables.
//! 5. `virtio_ring/queue.rs`: a virtqueue made of all these; `add.rs`, `take.rs`: buffers on their
//!    way to the device and back; `create.rs`, `reset.rs`: its coming and going.
//! 6. `virtio_ring/exports.rs` and its folder: the C functions.
//!
//! The files under 1 to 3 use only `core` and contain no unsafe code; a host runs their tests.
//!
//! # The device is not trusted
//!
//! What the driver wrote is kept in private memory and never read back from the ring. What the
//! device writes is fetched once, checked against what is outstanding, then used. A device that
//! names a buffer it does not have breaks its queue, with one line in the log: from then on adding
//! gives `EIO` and nothing comes back.

pub mod config;

/// What this module uses of the facilities that the kernel crate does not wrap yet.
#[path = "kernel_ext"]
pub mod kernel_ext {
    pub mod phys;
}

/// What this module uses of the shared virtio sources; it must not need `virtio.ko`.
#[path = "virtio"]
pub mod virtio {
    pub(crate) mod bindings;
    pub mod endian;
    pub mod export;
}

#[path = "virtio_ring/mod.rs"]
mod ring;

use kernel::prelude::*;

module! {
    type: VirtioRing,
    name: "virtio_ring",
    authors: ["The virtio-rust developers"],
    description: "Virtio ring implementation",
    license: "GPL",
}

/// The module itself: there is nothing to do but to be there.
struct VirtioRing;

impl kernel::Module for VirtioRing {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
