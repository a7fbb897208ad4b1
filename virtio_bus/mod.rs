// SPDX-License-Identifier: GPL-2.0

//! The parts of `virtio.ko`; the crate root says in which order to read them.

mod bus;
mod debug;
mod device;
mod driver;
mod exports;
mod gate;
mod ids;
mod index;
mod lifecycle;
mod node;
mod register;
mod status;
mod sysfs;
mod text;
mod watch;

use self::{
    bus::Registration,
    index::Numbers,
    watch::Running, //
};

use kernel::prelude::*;

/// The module: the bus is there as long as this is.
pub(crate) struct Virtio {
    // Dropped in this order: first what devices use last.
    _debug: debug::Folder,
    _bus: Registration,
    _watch: Running,
    _numbers: Numbers,
}

impl kernel::Module for Virtio {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: Called once, before the bus is registered; nobody can have a number before.
        let numbers = unsafe { Numbers::new() };
        // SAFETY: As above: there are no devices that could be looked at.
        let watch = unsafe { Running::new() };

        Ok(Self {
            _numbers: numbers,
            _watch: watch,
            _bus: Registration::new()?,
            _debug: debug::Folder::new(),
        })
    }
}
