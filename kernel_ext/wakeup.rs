// SPDX-License-Identifier: GPL-2.0

//! Devices that keep the system from going to sleep while they have something to do.
//!
//! C header: `include/linux/pm_wakeup.h`.

use core::ptr::from_ref;
#[cfg(CONFIG_PM_SLEEP)]
use kernel::bindings::{
    device_set_wakeup_capable,
    pm_relax,
    pm_stay_awake, //
};
use kernel::{
    bindings,
    device::Device,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full, //
        }, //
    }, //
};

#[cfg(not(CONFIG_PM_SLEEP))]
use no_sleep::*;

/// The functions of the C header for a kernel that does not sleep.
#[cfg(not(CONFIG_PM_SLEEP))]
mod no_sleep {
    use kernel::bindings::device;

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn device_set_wakeup_capable(_dev: *mut device, _capable: bool) {}

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn pm_stay_awake(_dev: *mut device) {}

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn pm_relax(_dev: *mut device) {}
}

/// The wakeup source of a device, with up to 32 reasons to stay awake.
///
/// User space decides in `power/wakeup` of the device whether it has any effect.
pub struct Wakeup {
    dev: ARef<Device>,
    /// A bit for each reason that there is at present.
    reasons: Atomic<u32>,
}

impl Wakeup {
    /// Makes `dev` capable of keeping the system awake.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(dev: &Device) -> Self {
        let this = Self {
            dev: dev.into(),
            reasons: Atomic::new(0),
        };

        // SAFETY: The device is valid.
        unsafe { device_set_wakeup_capable(this.as_raw(), true) };
        this
    }

    /// The C structure of the device.
    fn as_raw(&self) -> *mut bindings::device {
        // `Device` is a transparent wrapper of an `Opaque`.
        from_ref::<Device>(&self.dev).cast_mut().cast()
    }

    /// There is a reason to stay awake.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub fn begin(&self, reason: u32) {
        if self.change(|reasons| reasons | reason) == 0 {
            // SAFETY: The device is valid.
            unsafe { pm_stay_awake(self.as_raw()) };
        }
    }

    /// A reason is gone.
    ///
    /// When a new one comes up at the same moment the system may count two events instead of one.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub fn end(&self, reason: u32) {
        let before = self.change(|reasons| reasons & !reason);

        if before != 0 && before & !reason == 0 {
            // SAFETY: The device is valid.
            unsafe { pm_relax(self.as_raw()) };
            if self.reasons.load(Acquire) != 0 {
                // SAFETY: As above.
                unsafe { pm_stay_awake(self.as_raw()) };
            }
        }
    }

    /// Replaces the reasons by `f` of them; returns what they were.
    fn change(&self, f: impl Fn(u32) -> u32) -> u32 {
        let mut before = self.reasons.load(Acquire);

        while let Err(now) = self.reasons.cmpxchg(before, f(before), Full) {
            before = now;
        }
        before
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        // SAFETY: The device is valid. Nobody can call the other functions any more.
        unsafe { pm_relax(self.as_raw()) };
        // SAFETY: As above.
        unsafe { device_set_wakeup_capable(self.as_raw(), false) };
    }
}
