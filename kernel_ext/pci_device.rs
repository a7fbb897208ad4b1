// SPDX-License-Identifier: GPL-2.0

//! What the kernel crate's `pci::Device` lacks: being on and off, and what can be asked of it.
//!
//! C header: `include/linux/pci.h`.

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    bindings,
    dev_err,
    device::{
        Bound,
        Device, //
    },
    error::to_result,
    io::Io,
    pci,
    prelude::*, //
};

/// The command register, and its bit that lets a device access memory.
const COMMAND: usize = bindings::PCI_COMMAND as usize;
const MASTER: u16 = bindings::PCI_COMMAND_MASTER as u16;

/// `PCI_PM_CTRL` of the power management capability, and its bit `No_Soft_Reset`.
const PM_CTRL: usize = bindings::PCI_PM_CTRL as usize;
const NO_SOFT_RESET: u16 = bindings::PCI_PM_CTRL_NO_SOFT_RESET as u16;

/// A device that answers accesses to its memory and I/O ports; off when this is dropped.
pub struct Enabled<'a> {
    dev: &'a pci::Device<Bound>,
    on: AtomicBool,
}

impl<'a> Enabled<'a> {
    /// Enables a device.
    ///
    /// # Errors
    ///
    /// That of `pci_enable_device()`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(dev: &'a pci::Device<Bound>) -> Result<Self> {
        let this = Self {
            dev,
            on: AtomicBool::new(false),
        };

        this.enable()?;
        Ok(this)
    }

    /// Enables the device if it is not.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    ///
    /// # Context
    ///
    /// May sleep; the device is locked.
    pub fn enable(&self) -> Result {
        if !self.is_on() {
            // SAFETY: The device is bound.
            to_result(unsafe { bindings::pci_enable_device(raw(self.dev)) })?;
            self.on.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Disables the device if it is enabled; it cannot be bus master any more, either.
    ///
    /// # Context
    ///
    /// As for [`Self::enable`].
    pub fn disable(&self) {
        if self.on.swap(false, Ordering::Relaxed) {
            // SAFETY: The device is bound, and was enabled.
            unsafe { bindings::pci_disable_device(raw(self.dev)) };
        }
    }

    /// Tells whether it is enabled.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

impl Drop for Enabled<'_> {
    fn drop(&mut self) {
        self.disable();
    }
}

/// Lets the device access memory.
pub fn set_master(dev: &pci::Device<Bound>) {
    // SAFETY: The device is bound.
    unsafe { bindings::pci_set_master(raw(dev)) };
}

/// Keeps the device from memory. Returns whether the device confirms it, or is not there. What it
/// wrote before has arrived then.
///
/// # Context
///
/// Any.
pub fn clear_master(dev: &pci::Device<Bound>) -> bool {
    // SAFETY: The device is bound.
    unsafe { bindings::pci_clear_master(raw(dev)) };

    match dev.config_space().try_read16(COMMAND) {
        Ok(u16::MAX) | Err(_) => !is_present(dev),
        Ok(command) => command & MASTER == 0,
    }
}

/// The device's name, as in `0000:00:03.0`.
pub fn name(dev: &pci::Device<Bound>) -> &CStr {
    Device::name(dev.as_ref())
}

/// Tells whether the device still answers.
pub fn is_present(dev: &pci::Device<Bound>) -> bool {
    // SAFETY: The device is bound, hence valid.
    unsafe { bindings::pci_device_is_present(raw(dev)) }
}

/// Tells whether the device keeps its state when it comes back from a low power state
/// (`No_Soft_Reset`).
pub fn keeps_state(dev: &pci::Device<Bound>) -> bool {
    // SAFETY: The device is bound, hence valid; the field does not change any more.
    let capability = usize::from(unsafe { (*raw(dev)).pm_cap });

    if capability == 0 {
        return false;
    }
    match dev.config_space().try_read16(capability + PM_CTRL) {
        Ok(u16::MAX) | Err(_) => {
            dev_err!(dev, "Unable to query pmcsr");
            false
        }
        Ok(control) => control & NO_SOFT_RESET != 0,
    }
}

fn raw(dev: &pci::Device<Bound>) -> *mut bindings::pci_dev {
    // CAST: `pci::Device` is a transparent wrapper.
    core::ptr::from_ref(dev).cast_mut().cast()
}
