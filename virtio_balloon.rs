// SPDX-License-Identifier: GPL-2.0

//! `virtio_balloon.ko`: the traditional memory balloon (Virtio 1.4, 5.5) that stays inflated over
//! hibernation.
//!
//! Reading order:
//!
//! 1. `virtio_balloon/layout.rs`: what driver and device agree on, `page_size.rs` whatever the size
//!    of a page; `queues.rs`: the queues.
//! 2. `virtio_balloon/engine.rs`: the state of a balloon; `requests.rs`: what it has under way.
//! 3. `virtio_balloon/thread.rs`: inflation and deflation towards the target; `grow.rs`: where the
//!    pages come from; `ladder.rs`: which to take; `policy.rs` and `parameters.rs`: how many to
//!    leave.
//! 4. `virtio_balloon/sleep.rs`: suspend and hibernation; `snapshot.rs` finds out whether this
//!    kernel runs out of an image.
//! 5. `virtio_balloon/migrate.rs`: compaction; `teardown.rs`: removal.
//! 6. `virtio_balloon/informer.rs`: the second thread, which serves statistics (`stats.rs`), free
//!    page hints (`hint.rs`) and reports (`report.rs`); `oom.rs` with `restraint.rs`: shortage of
//!    memory; `poison.rs`.
//! 7. `virtio_balloon/device.rs`: how the driver core gets at all this.
//!
//! `virtio/` is the virtio API below it, `kernel_ext/` wraps what the kernel crate lacks.

pub mod config;
#[path = "kernel_ext/mod.rs"]
pub mod kernel_ext;
#[path = "virtio/mod.rs"]
pub mod virtio;

#[path = "virtio_balloon/mod.rs"]
mod balloon;

use virtio::prelude::*;

virtio_device_table!(ID_TABLE, [DeviceId::any_vendor(DeviceId::BALLOON)]);

module_virtio_driver! {
    type: balloon::BalloonDriver,
    name: "virtio_balloon",
    authors: ["The virtio-rust developers"],
    description: "Virtio memory balloon that stays inflated over hibernation",
    license: "GPL",
}
