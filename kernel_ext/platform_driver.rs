// SPDX-License-Identifier: GPL-2.0

//! Platform drivers that take part in system sleep.
//!
//! The kernel crate's `platform::Driver` has no callbacks of the PM core; this adds them around its
//! adapter. C header: `include/linux/platform_device.h`, `include/linux/pm.h`.

use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::addr_of_mut, //
};
use kernel::{
    bindings,
    container_of,
    device::{
        Bound,
        BoundInternal, //
    },
    driver,
    error::from_result,
    platform,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// A platform driver whose devices lose their state in system sleep.
pub trait SleepDriver: platform::Driver {
    /// The device is about to lose its state: suspend, the creation of an image, power-off.
    ///
    /// # Errors
    ///
    /// Any error vetoes the transition.
    ///
    /// # Context
    ///
    /// A callback of the PM core that may sleep; tasks are frozen.
    fn freeze(dev: &platform::Device<Bound>, data: Pin<&Self::Data<'_>>) -> Result;

    /// The device is there again.
    ///
    /// # Errors
    ///
    /// Any error is logged by the PM core; the device stays bound.
    ///
    /// # Context
    ///
    /// As for [`Self::freeze`].
    fn restore(dev: &platform::Device<Bound>, data: Pin<&Self::Data<'_>>) -> Result;
}

/// Connects the platform bus and a [`SleepDriver`].
pub struct Adapter<T: SleepDriver>(PhantomData<T>);

// SAFETY: As for `platform::Adapter`, which stores the data.
unsafe impl<T: SleepDriver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::platform_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: As for `platform::Adapter`, which does it.
unsafe impl<T: SleepDriver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The structure is not registered yet, so its fields may be set.
        unsafe { addr_of_mut!((*reg.get()).driver.pm).write(&Self::PM) };
        // SAFETY: By the requirements of this function.
        unsafe { platform::Adapter::<T>::register(reg, name, module) }
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: By the requirements of this function.
        unsafe { platform::Adapter::<T>::unregister(reg) }
    }
}

impl<T: SleepDriver> Adapter<T> {
    /// As `SET_SYSTEM_SLEEP_PM_OPS()` of `include/linux/pm.h`.
    const PM: bindings::dev_pm_ops = bindings::dev_pm_ops {
        suspend: Some(Self::freeze_callback),
        resume: Some(Self::restore_callback),
        freeze: Some(Self::freeze_callback),
        thaw: Some(Self::restore_callback),
        poweroff: Some(Self::freeze_callback),
        restore: Some(Self::restore_callback),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called only by the PM core, with a device that this driver is bound to.
    unsafe extern "C" fn freeze_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: By the requirements above.
        unsafe { Self::call(dev, T::freeze) }
    }

    /// # Safety
    ///
    /// As for [`Self::freeze_callback`].
    unsafe extern "C" fn restore_callback(dev: *mut bindings::device) -> c_int {
        // SAFETY: By the requirements above.
        unsafe { Self::call(dev, T::restore) }
    }

    /// # Safety
    ///
    /// As for [`Self::freeze_callback`].
    unsafe fn call(
        dev: *mut bindings::device,
        step: impl FnOnce(&platform::Device<Bound>, Pin<&T::Data<'_>>) -> Result,
    ) -> c_int {
        // SAFETY: By the requirements above it is the `struct device` of a platform device.
        let pdev = unsafe { container_of!(dev, bindings::platform_device, dev) };
        // SAFETY: By the requirements above it is bound for the whole call; `platform::Device` is
        // a transparent wrapper.
        let pdev = unsafe { &*pdev.cast::<platform::Device<BoundInternal>>() };
        // SAFETY: The PM core holds the device's lock, so its probe has stored the data.
        let data = unsafe { pdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        from_result(|| step(pdev, data).map(|()| 0))
    }
}
