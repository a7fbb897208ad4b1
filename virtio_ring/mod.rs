// SPDX-License-Identifier: GPL-2.0

//! The parts of `virtio_ring.ko`; the crate root says in which order to read them.

mod add;
mod area;
mod barrier;
mod create;
mod event;
mod exports;
mod indirect;
mod layout;
mod map;
mod mapped;
mod memory;
mod packed;
mod pool;
mod queue;
mod reset;
mod sg;
mod split;
mod state;
mod suppression;
mod take;
