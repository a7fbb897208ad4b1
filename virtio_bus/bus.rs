// SPDX-License-Identifier: GPL-2.0

//! The bus `virtio` and what the driver core calls (`struct bus_type`).

use super::{
    device::VirtioDevice,
    driver::VirtioDriver,
    lifecycle,
    sysfs,
    text, //
};
use crate::virtio::bindings::{
    self,
    bus_type,
    cpumask,
    device,
    device_driver,
    kobj_uevent_env, //
};

use core::ptr::{
    null,
    null_mut, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    str::as_char_ptr_in_const_context, //
};

/// A description of a bus.
#[repr(transparent)]
struct Bus(bus_type);

// SAFETY: Nobody writes to it; what its pointers lead to is static and not written to, either.
unsafe impl Sync for Bus {}

static BUS: Bus = Bus(bus_type {
    name: as_char_ptr_in_const_context(c"virtio"),
    dev_groups: sysfs::GROUPS,
    match_: Some(match_callback),
    uevent: Some(uevent_callback),
    probe: Some(probe_callback),
    remove: Some(remove_callback),
    shutdown: Some(shutdown_callback),
    irq_get_affinity: Some(irq_get_affinity_callback),
    num_vf: Some(num_vf_callback),
    ..pin_init::zeroed()
});

/// What drivers and devices of the bus name it by.
pub(super) fn as_raw() -> *const bus_type {
    &raw const BUS.0
}

/// The registered bus; dropping it takes it away.
pub(super) struct Registration(());

impl Registration {
    /// Registers the bus.
    ///
    /// # Errors
    ///
    /// Those of the driver core.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: The bus is static, and registered once since the module begins once.
        to_result(unsafe { bindings::bus_register(as_raw()) })?;
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: `new` registered it. Nobody who could use it is there any more: drivers and
        // transports need this module.
        unsafe { bindings::bus_unregister(as_raw()) };
    }
}

/// Visits all devices on the bus. None of them is freed meanwhile, but drivers come and go.
///
/// # Context
///
/// May sleep.
pub(super) fn each_device<F: FnMut(&VirtioDevice)>(mut visit: F) {
    /// # Safety
    ///
    /// `dev` is a device on the virtio bus, `data` points to an `F`.
    unsafe extern "C" fn callback<F: FnMut(&VirtioDevice)>(
        dev: *mut device,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: By the requirements above.
        let visit = unsafe { &mut *data.cast::<F>() };

        // SAFETY: As above; the driver core holds a reference to the device.
        visit(unsafe { VirtioDevice::from_dev(dev) });
        0
    }

    // SAFETY: The bus is registered while there are devices to look for. The callback gets what it
    // wants.
    unsafe {
        bindings::bus_for_each_dev(
            as_raw(),
            null_mut(),
            (&raw mut visit).cast(),
            Some(callback::<F>),
        )
    };
}

/// # Safety
///
/// Called only by the driver core, with a device and a driver of this bus.
unsafe extern "C" fn match_callback(dev: *mut device, driver: *const device_driver) -> c_int {
    // SAFETY: By the requirements above.
    let device = unsafe { VirtioDevice::from_dev(dev) };
    // SAFETY: By the requirements above.
    let driver = unsafe { VirtioDriver::from_driver(driver) };

    driver.takes(device.id()).into()
}

/// # Safety
///
/// Called only by the driver core, with a device of this bus.
unsafe extern "C" fn uevent_callback(dev: *const device, env: *mut kobj_uevent_env) -> c_int {
    // SAFETY: By the requirements above.
    let alias = text::alias(unsafe { VirtioDevice::from_dev(dev) }.id());

    // SAFETY: The format takes one string, and the text ends with a NUL.
    unsafe {
        bindings::add_uevent_var(env, c"MODALIAS=%s".as_char_ptr(), alias.with_nul().as_ptr())
    }
}

/// # Safety
///
/// Called only by the driver core, with a device of this bus that it is about to bind.
unsafe extern "C" fn probe_callback(dev: *mut device) -> c_int {
    // SAFETY: By the requirements above.
    let device = unsafe { VirtioDevice::from_dev(dev) };

    from_result(|| lifecycle::probe(device).map(|()| 0))
}

/// # Safety
///
/// Called only by the driver core, with a device of this bus that was bound.
unsafe extern "C" fn remove_callback(dev: *mut device) {
    // SAFETY: By the requirements above.
    lifecycle::remove(unsafe { VirtioDevice::from_dev(dev) });
}

/// # Safety
///
/// Called only by the driver core, with a device of this bus.
unsafe extern "C" fn shutdown_callback(dev: *mut device) {
    // SAFETY: By the requirements above.
    lifecycle::shutdown(unsafe { VirtioDevice::from_dev(dev) });
}

/// # Safety
///
/// Called only by users of a device of this bus, while it is bound.
unsafe extern "C" fn irq_get_affinity_callback(dev: *mut device, vector: c_uint) -> *const cpumask {
    // SAFETY: By the requirements above.
    let device = unsafe { VirtioDevice::from_dev(dev) };
    let vector = c_int::try_from(vector);

    match (device.ops().get_vq_affinity, vector) {
        // SAFETY: By the type invariants of `VirtioDevice`.
        (Some(get), Ok(vector)) => unsafe { get(device.as_raw(), vector) },
        _ => null(),
    }
}

/// # Safety
///
/// Called only by users of a device of this bus.
unsafe extern "C" fn num_vf_callback(dev: *mut device) -> c_int {
    // SAFETY: By the requirements above.
    let parent = unsafe { (*dev).parent };
    if parent.is_null() {
        return 0;
    }
    // SAFETY: A parent outlives its children; its bus is set once.
    let Some(bus) = (unsafe { (*parent).bus.as_ref() }) else {
        return 0;
    };
    match bus.num_vf {
        // SAFETY: The parent is on that bus.
        Some(num_vf) => unsafe { num_vf(parent) },
        None => 0,
    }
}
