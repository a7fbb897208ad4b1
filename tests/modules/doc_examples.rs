// SPDX-License-Identifier: GPL-2.0

//! The examples in the documentation of `virtio/` and `config.rs`, compiled as in a driver; those
//! that need no device are run, too, by KUnit. `examples.py` collects them.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "without KUnit there are no tests, and no example is called by another one"
)]

use kernel::prelude::*;

#[path = "../../config.rs"]
pub mod config;

/// What the API uses.
#[path = "../../kernel_ext"]
pub mod kernel_ext {
    pub mod kthread;
    pub mod registration;
    pub mod sg;
    pub mod wait;
}

#[path = "../../virtio/mod.rs"]
pub mod virtio;

module! {
    type: DocExamples,
    name: "doc_examples",
    authors: ["The virtio-rust developers"],
    description: "Examples of the API for virtio drivers",
    license: "GPL",
}

struct DocExamples;

impl kernel::Module for DocExamples {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

include!(env!("VIRTIO_EXAMPLES"));
