// SPDX-License-Identifier: GPL-2.0

//! The parts of the balloon driver; `virtio_balloon.rs` says in which order to read them.

#![deny(unsafe_code)]

mod device;
mod engine;
mod grow;
mod hint;
mod informer;
mod ladder;
mod layout;
mod migrate;
mod oom;
mod page_size;
mod parameters;
mod poison;
mod policy;
mod queues;
mod report;
mod requests;
mod restraint;
mod shared;
mod sleep;
mod snapshot;
mod stats;
mod teardown;
mod thread;

pub(crate) use self::device::BalloonDriver;
