// SPDX-License-Identifier: GPL-2.0

//! When a driver hears that the configuration of its device changed.
//!
//! A change that comes while the driver must not hear of it is remembered and told later: this
//! module closes the gate until a probe is complete, over sleep and before removal, the driver
//! whenever it likes. One lock with interrupts off, `config_lock`, protects the three flags; it is
//! held while the driver is told.

use super::{
    device::VirtioDevice,
    watch, //
};
use crate::virtio::bindings;

use kernel::{
    prelude::*,
    static_lock_class, //
};

/// The flags of a device, locked.
struct Gate<'a> {
    device: &'a VirtioDevice,
    /// Whether this module lets the driver hear of changes.
    core_enabled: &'a mut bool,
    /// Whether the driver does not want to.
    driver_disabled: &'a mut bool,
    /// Whether there is a change that it did not hear of.
    pending: &'a mut bool,
}

impl<'a> Gate<'a> {
    /// Takes the lock. Interrupts are as before when it is dropped.
    fn lock(device: &'a VirtioDevice) -> Self {
        let vdev = device.as_raw();

        // SAFETY: A valid device; `prepare` initialised the lock.
        unsafe { bindings::spin_lock_irq_disable(&raw mut (*vdev).config_lock) };
        Self {
            device,
            // SAFETY: The lock protects the flag, and only this file uses it.
            core_enabled: unsafe { &mut (*vdev).config_core_enabled },
            // SAFETY: As above.
            driver_disabled: unsafe { &mut (*vdev).config_driver_disabled },
            // SAFETY: As above.
            pending: unsafe { &mut (*vdev).config_change_pending },
        }
    }

    /// Tells the driver of a change, or remembers it.
    fn changed(&mut self) {
        let device = self.device;

        if !*self.core_enabled || *self.driver_disabled {
            *self.pending = true;
        } else if device
            .driver()
            .is_some_and(|driver| driver.config_changed(device))
        {
            *self.pending = false;
        }
    }

    /// Tells the driver of what was remembered, if it may hear it now.
    fn replay(&mut self) {
        if *self.pending {
            self.changed();
        }
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        let vdev = self.device.as_raw();

        // SAFETY: Locked by `lock`.
        unsafe { bindings::spin_unlock_irq_enable(&raw mut (*vdev).config_lock) };
    }
}

/// Initialises lock and flags: closed, nothing pending.
///
/// # Safety
///
/// Nobody else uses the device yet.
pub(super) unsafe fn prepare(device: &VirtioDevice) {
    // SAFETY: By the safety requirements; the name is static, and so is the key.
    unsafe {
        bindings::__spin_lock_init(
            &raw mut (*device.as_raw()).config_lock,
            c"virtio_device.config_lock".as_char_ptr(),
            static_lock_class!().as_ptr(),
        )
    };
    let gate = Gate::lock(device);

    *gate.driver_disabled = false;
    *gate.core_enabled = false;
    *gate.pending = false;
}

/// The transport heard of a change.
///
/// # Context
///
/// Any.
pub(super) fn changed(device: &VirtioDevice) {
    Gate::lock(device).changed();
    // The device may have asked for a reset, which looks the same (2.1.2).
    watch::look(device);
}

/// Lets the driver hear of changes, on behalf of this module.
pub(super) fn open(device: &VirtioDevice) {
    let mut gate = Gate::lock(device);

    *gate.core_enabled = true;
    gate.replay();
}

/// Keeps changes from the driver, on behalf of this module.
pub(super) fn close(device: &VirtioDevice) {
    *Gate::lock(device).core_enabled = false;
}

/// Tells whether this module lets the driver hear of changes.
pub(super) fn is_open(device: &VirtioDevice) -> bool {
    *Gate::lock(device).core_enabled
}

/// Lets the driver hear of changes again, at its own wish.
pub(super) fn enable(device: &VirtioDevice) {
    let mut gate = Gate::lock(device);

    *gate.driver_disabled = false;
    gate.replay();
}

/// Keeps changes from the driver, at its own wish.
pub(super) fn disable(device: &VirtioDevice) {
    *Gate::lock(device).driver_disabled = true;
}
