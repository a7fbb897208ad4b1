// SPDX-License-Identifier: GPL-2.0

//! The parts of the balloon driver; `virtio_balloon.rs` says in which order to read them.

#![deny(unsafe_code)]

mod device;
mod engine;
mod ladder;
mod layout;
mod migrate;
mod queues;
mod requests;
mod shared;
mod sleep;
mod snapshot;
mod teardown;
mod thread;

pub(crate) use self::device::BalloonDriver;
