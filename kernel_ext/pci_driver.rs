// SPDX-License-Identifier: GPL-2.0

//! PCI drivers that take part in system sleep and in resets of their devices.
//!
//! The kernel crate's `pci::Driver` has probe and unbind only; this adds the callbacks of the PM
//! core, those of `struct pci_error_handlers` and SR-IOV around its adapter. C headers:
//! `include/linux/pci.h`, `include/linux/pm.h`.

use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::addr_of_mut, //
};
use kernel::{
    bindings,
    device::{
        Bound,
        BoundInternal, //
    },
    driver,
    error::from_result,
    pci,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// A PCI driver whose devices sleep when the system does. The device is locked in each callback.
#[cfg(CONFIG_PM_SLEEP)]
pub trait SleepDriver: pci::Driver {
    /// The machine is about to be suspended.
    ///
    /// # Errors
    ///
    /// Any error vetoes the transition.
    ///
    /// # Context
    ///
    /// A callback of the PM core that may sleep; tasks are frozen.
    fn suspend(dev: &pci::Device<Bound>, data: Pin<&Self::Data<'_>>) -> Result;

    /// The machine was suspended, or was not after all.
    ///
    /// # Errors
    ///
    /// Any error is logged by the PM core; the device stays bound.
    ///
    /// # Context
    ///
    /// As for [`Self::suspend`].
    fn resume(dev: &pci::Device<Bound>, data: Pin<&Self::Data<'_>>) -> Result;

    /// The device is about to lose its state: the creation of an image, power-off.
    ///
    /// # Errors
    ///
    /// As for [`Self::suspend`].
    ///
    /// # Context
    ///
    /// As for [`Self::suspend`].
    fn freeze(dev: &pci::Device<Bound>, data: Pin<&Self::Data<'_>>) -> Result;

    /// The device is there again.
    ///
    /// # Errors
    ///
    /// As for [`Self::resume`].
    ///
    /// # Context
    ///
    /// As for [`Self::suspend`].
    fn restore(dev: &pci::Device<Bound>, data: Pin<&Self::Data<'_>>) -> Result;
}

/// A PCI driver on a kernel that does not sleep.
#[cfg(not(CONFIG_PM_SLEEP))]
pub trait SleepDriver: pci::Driver {}

#[cfg(not(CONFIG_PM_SLEEP))]
impl<T: pci::Driver> SleepDriver for T {}

/// A PCI driver with more callbacks. While one of them runs the device is locked, so none runs in
/// parallel with another, nor with probe and unbind.
pub trait FullDriver: SleepDriver {
    /// The PCI core is about to reset the device.
    ///
    /// # Context
    ///
    /// May sleep.
    fn prepare_reset(dev: &pci::Device<Bound>, data: Pin<&Self::Data<'_>>);

    /// The PCI core has reset the device, and restored its configuration space.
    ///
    /// # Context
    ///
    /// May sleep.
    fn finish_reset(dev: &pci::Device<Bound>, data: Pin<&Self::Data<'_>>);

    /// Somebody wants the device to have `count` virtual functions, or none. It has none if
    /// `count` is not 0. Returns how many it has then.
    ///
    /// # Errors
    ///
    /// Any; what was there before stays.
    ///
    /// # Context
    ///
    /// May sleep.
    fn set_functions(
        dev: &pci::Device<Bound>,
        data: Pin<&Self::Data<'_>>,
        count: u16,
    ) -> Result<u16>;
}

/// Connects the PCI bus and a [`FullDriver`].
pub struct Adapter<T: FullDriver>(PhantomData<T>);

// SAFETY: As for `pci::Adapter`, which stores the data.
unsafe impl<T: FullDriver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: As for `pci::Adapter`, which does it.
unsafe impl<T: FullDriver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        #[cfg(CONFIG_PM_SLEEP)]
        // SAFETY: The structure is not registered yet, so its fields may be set.
        unsafe {
            addr_of_mut!((*reg.get()).driver.pm).write(&Self::PM)
        };
        // SAFETY: As above.
        unsafe { addr_of_mut!((*reg.get()).err_handler).write(&Self::ERROR_HANDLERS) };
        // SAFETY: As above.
        unsafe {
            addr_of_mut!((*reg.get()).sriov_configure).write(Some(Self::sriov_configure_callback))
        };
        // SAFETY: By the requirements of this function.
        unsafe { pci::Adapter::<T>::register(reg, name, module) }
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: By the requirements of this function.
        unsafe { pci::Adapter::<T>::unregister(reg) }
    }
}

#[cfg(CONFIG_PM_SLEEP)]
impl<T: FullDriver> Adapter<T> {
    const PM: bindings::dev_pm_ops = bindings::dev_pm_ops {
        suspend: Some(Self::suspend_callback),
        resume: Some(Self::resume_callback),
        freeze: Some(Self::freeze_callback),
        thaw: Some(Self::restore_callback),
        poweroff: Some(Self::freeze_callback),
        restore: Some(Self::restore_callback),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called only by the PM core, with a device that this driver is bound to.
    unsafe extern "C" fn suspend_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: By the requirements above.
        unsafe { Self::transition(dev, T::suspend) }
    }

    /// # Safety
    ///
    /// As for [`Self::suspend_callback`].
    unsafe extern "C" fn resume_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: By the requirements above.
        unsafe { Self::transition(dev, T::resume) }
    }

    /// # Safety
    ///
    /// As for [`Self::suspend_callback`].
    unsafe extern "C" fn freeze_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: By the requirements above.
        unsafe { Self::transition(dev, T::freeze) }
    }

    /// # Safety
    ///
    /// As for [`Self::suspend_callback`].
    unsafe extern "C" fn restore_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: By the requirements above.
        unsafe { Self::transition(dev, T::restore) }
    }

    /// # Safety
    ///
    /// As for [`Self::suspend_callback`].
    unsafe fn transition(
        dev: *mut bindings::device,
        step: impl FnOnce(&pci::Device<Bound>, Pin<&T::Data<'_>>) -> Result,
    ) -> c_int {
        // SAFETY: By the requirements above it is the `struct device` of a PCI device.
        let pdev = unsafe { kernel::container_of!(dev, bindings::pci_dev, dev) };

        // SAFETY: By the requirements above.
        from_result(|| unsafe { Self::with(pdev, step) }.map(|()| 0))
    }
}

impl<T: FullDriver> Adapter<T> {
    const ERROR_HANDLERS: bindings::pci_error_handlers = bindings::pci_error_handlers {
        reset_prepare: Some(Self::reset_prepare_callback),
        reset_done: Some(Self::reset_done_callback),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called only by the PCI core, with a device that this driver is bound to.
    unsafe extern "C" fn reset_prepare_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: By the requirements above.
        unsafe { Self::with(pdev, T::prepare_reset) }
    }

    /// # Safety
    ///
    /// As for [`Self::reset_prepare_callback`].
    unsafe extern "C" fn reset_done_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: By the requirements above.
        unsafe { Self::with(pdev, T::finish_reset) }
    }

    /// # Safety
    ///
    /// As for [`Self::reset_prepare_callback`].
    unsafe extern "C" fn sriov_configure_callback(
        pdev: *mut bindings::pci_dev,
        count: c_int,
    ) -> c_int {
        from_result(|| {
            let count = u16::try_from(count)?;

            // SAFETY: By the requirements above.
            unsafe { Self::with(pdev, |dev, data| T::set_functions(dev, data, count)) }
                .map(c_int::from)
        })
    }

    /// Calls the driver with the device and its data.
    ///
    /// # Safety
    ///
    /// This driver must be bound to the device, which must be locked.
    unsafe fn with<R>(
        pdev: *mut bindings::pci_dev,
        step: impl FnOnce(&pci::Device<Bound>, Pin<&T::Data<'_>>) -> R,
    ) -> R {
        // SAFETY: By the requirements above it is bound for the whole call; `pci::Device` is a
        // transparent wrapper.
        let pdev = unsafe { &*pdev.cast::<pci::Device<BoundInternal>>() };
        // SAFETY: The lock is held, so the device's probe has stored the data.
        let data = unsafe { pdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        step(pdev, data)
    }
}
