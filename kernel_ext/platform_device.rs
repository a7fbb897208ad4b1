// SPDX-License-Identifier: GPL-2.0

//! Platform devices that a driver makes itself, because no firmware describes them.
//!
//! C header: `include/linux/platform_device.h`, `include/linux/device.h`.

use core::ptr::{
    addr_of_mut,
    NonNull, //
};
use kernel::{
    bindings,
    error::from_err_ptr,
    io::{
        PhysAddr,
        ResourceSize, //
    },
    prelude::*, //
};

/// A device that is the parent of others and nothing else; dropping it unregisters it.
///
/// # Invariants
///
/// `0` was registered by `__root_device_register()`.
pub struct RootDevice(NonNull<bindings::device>);

impl RootDevice {
    /// Registers a device `/sys/devices/<name>`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EEXIST` if there is one.
    pub fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is copied.
        let device = from_err_ptr(unsafe {
            bindings::__root_device_register(name.as_char_ptr(), core::ptr::null_mut())
        })?;

        // INVARIANT: Registered above.
        Ok(Self(NonNull::new(device).ok_or(ENOMEM)?))
    }
}

impl Drop for RootDevice {
    fn drop(&mut self) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::root_device_unregister(self.0.as_ptr()) };
    }
}

// SAFETY: A device can be unregistered from any thread.
unsafe impl Send for RootDevice {}

/// What a platform device is made of: one range of physical memory, in bytes, and one interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// First byte.
    pub start: PhysAddr,
    /// Number of bytes, at least 1; the last one has an address.
    pub size: ResourceSize,
    /// The interrupt, as `request_irq()` takes it.
    pub irq: u32,
}

/// A platform device; dropping it unregisters it.
///
/// # Invariants
///
/// `0` is registered, with [`Parts`] as its two resources.
pub struct PlatformDevice(NonNull<bindings::platform_device>);

impl PlatformDevice {
    /// Registers a device `<name>.<id>`; a driver may be bound to it at once.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something else has the memory, `EEXIST` if there is such a device, `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(parent: &RootDevice, name: &CStr, id: i32, parts: Parts) -> Result<Self> {
        let resources = [
            bindings::resource {
                start: parts.start,
                end: parts.start + (parts.size - 1),
                // CAST: A flag of the C header that fits.
                flags: bindings::IORESOURCE_MEM as c_ulong,
                ..Default::default()
            },
            bindings::resource {
                start: ResourceSize::from(parts.irq),
                end: ResourceSize::from(parts.irq),
                // CAST: As above.
                flags: bindings::IORESOURCE_IRQ as c_ulong,
                ..Default::default()
            },
        ];
        let info = bindings::platform_device_info {
            parent: parent.0.as_ptr(),
            name: name.as_char_ptr(),
            id,
            res: resources.as_ptr(),
            // CAST: Two.
            num_res: resources.len() as c_uint,
            ..Default::default()
        };
        // SAFETY: Everything that `info` points to is copied, but the parent, which is referenced.
        let device = from_err_ptr(unsafe { bindings::platform_device_register_full(&info) })?;

        // INVARIANT: Registered above.
        Ok(Self(NonNull::new(device).ok_or(ENOMEM)?))
    }

    /// The number behind the device's name.
    pub fn id(&self) -> i32 {
        // SAFETY: Registered by the type invariant; the field does not change.
        unsafe { (*self.0.as_ptr()).id }
    }
}

impl Drop for PlatformDevice {
    fn drop(&mut self) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::platform_device_unregister(addr_of_mut!(*self.0.as_ptr())) };
    }
}

// SAFETY: A device can be unregistered from any thread.
unsafe impl Send for PlatformDevice {}
