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

/// All there is from the beginning of the bus to its end.
struct Core {
    // Dropped in this order: first what devices use last.
    _debug: debug::Folder,
    _bus: Registration,
    _watch: Running,
    _numbers: Numbers,
}

impl Core {
    /// Makes the bus.
    ///
    /// # Errors
    ///
    /// Those of the driver core.
    ///
    /// # Safety
    ///
    /// To be called once.
    unsafe fn new() -> Result<Self> {
        // SAFETY: By the safety requirements, and before the bus is registered; nobody can have a
        // number before.
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

/// The module: the bus is there as long as this is. What is built in never ends, and has begun
/// before: see [`begin`].
pub(crate) struct Virtio {
    #[cfg(MODULE)]
    _core: Core,
}

impl kernel::Module for Virtio {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            #[cfg(MODULE)]
            // SAFETY: A module begins once.
            _core: unsafe { Core::new() }?,
        })
    }
}

/// Makes the bus for good, before the first driver or transport that is built in can want it.
#[cfg(not(MODULE))]
fn begin() -> Result {
    // SAFETY: Called once, by the line below.
    core::mem::forget(unsafe { Core::new() }?);
    Ok(())
}

#[cfg(not(MODULE))]
crate::kernel_ext::initcall::core_initcall!(virtio_core_initcall, begin);
