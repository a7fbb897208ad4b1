// SPDX-License-Identifier: GPL-2.0

//! The API for drivers and for transports as a crate, for the files beside this one, which must not
//! compile. `test_compile_fail.py` compiles it with the flags of a module.

#![allow(missing_docs, unused_macros, unused_imports, dead_code)]

#[path = "../../config.rs"]
pub mod config;

#[path = "../../kernel_ext"]
pub mod kernel_ext {
    pub mod delayed_work;
    pub mod io_address;
    pub mod iomap;
    pub mod irq_handler;
    pub mod kthread;
    pub mod registration;
    pub mod sg;
    pub mod wait;
}

/// What the API for drivers and transports have in common.
#[path = "../../virtio"]
pub mod virtio {
    pub mod bindings;
    pub mod buffers;
    pub mod device;
    pub mod driver;
    pub mod endian;
    pub mod id;
    pub mod payload;
    pub mod pm;
    pub mod prelude;
    pub mod queue;
    pub mod reset;
    pub mod stream;
    pub mod transport;

    pub use self::{
        device::{
            Device,
            Negotiation,
            Reset, //
        },
        driver::Driver,
        endian::{
            ByteOrder,
            Le32, //
        },
        id::DeviceId, //
    };
}

use kernel::{
    prelude::*,
    ModuleMetadata,
    ThisModule, //
};
use virtio::prelude::{
    DeviceId,
    IdTable, //
};

/// The module that the files beside this one belong to.
pub struct LocalModule;

impl ModuleMetadata for LocalModule {
    const NAME: &'static CStr = c"compile_fail";
    // SAFETY: It is never loaded.
    const THIS_MODULE: ThisModule = unsafe { ThisModule::from_ptr(core::ptr::null_mut()) };
}

virtio::prelude::virtio_device_table!(IDS, [DeviceId::any_vendor(DeviceId::RNG)]);

/// The devices of all drivers in the files beside this one.
pub const TABLE: IdTable = &IDS;
