// SPDX-License-Identifier: GPL-2.0

//! The C functions of this module, and nothing else.
//!
//! Their contracts are those of `include/linux/virtio.h` and `include/linux/virtio_config.h`. In
//! every one of them a device is one that a transport registers, or has registered, with its table
//! of operations.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contracts are those of the C headers"
)]

use super::{
    bus,
    device::VirtioDevice,
    gate,
    lifecycle,
    register,
    status::Status, //
};
use crate::virtio::{
    bindings::{
        self,
        device,
        module,
        virtio_device,
        virtio_driver, //
    },
    export::export_symbol_gpl, //
};

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    dev_warn,
    prelude::*,
    task::might_sleep,
    warn_on, //
};

export_symbol_gpl! {
    virtio_check_driver_offered_feature,
    virtio_config_changed,
    virtio_config_driver_disable,
    virtio_config_driver_enable,
    virtio_add_status,
    virtio_reset_device,
    virtio_device_shutdown,
    __register_virtio_driver,
    unregister_virtio_driver,
    register_virtio_device,
    is_virtio_device,
    unregister_virtio_device,
    virtio_device_reset_prepare,
    virtio_device_reset_done,
}

#[cfg(CONFIG_PM_SLEEP)]
export_symbol_gpl! {
    virtio_device_freeze,
    virtio_device_restore,
}

/// 0 or a negative errno.
fn errno(result: Result) -> c_int {
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

// Drivers

/// Registers a driver of a module.
#[no_mangle]
pub(crate) unsafe extern "C" fn __register_virtio_driver(
    driver: *mut virtio_driver,
    owner: *mut module,
) -> c_int {
    // SAFETY: By the contract of the function.
    errno(unsafe { register::add_driver(driver, owner) })
}

/// Unregisters a driver; its devices are unbound.
#[no_mangle]
pub(crate) unsafe extern "C" fn unregister_virtio_driver(driver: *mut virtio_driver) {
    // SAFETY: By the contract of the function the driver is registered.
    unsafe { bindings::driver_unregister(&raw mut (*driver).driver) };
}

/// Warns if a driver asks for a feature that is not in its tables, hence never there.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_check_driver_offered_feature(
    vdev: *const virtio_device,
    fbit: c_uint,
) {
    static WARNED: AtomicBool = AtomicBool::new(false);

    // SAFETY: By the contract of the function.
    let device = unsafe { VirtioDevice::from_raw(vdev.cast_mut()) };
    let known = device.driver().is_some_and(|driver| driver.knows(fbit));

    if !known && !WARNED.swap(true, Ordering::Relaxed) {
        dev_warn!(
            device.as_ref(),
            "the driver has no feature {fbit} in its tables\n"
        );
        warn_on!(true);
    }
}

// Devices

/// Registers a device.
#[no_mangle]
pub(crate) unsafe extern "C" fn register_virtio_device(vdev: *mut virtio_device) -> c_int {
    // SAFETY: By the contract of the function.
    errno(unsafe { register::add_device(vdev) })
}

/// Unregisters a device; its driver is unbound.
#[no_mangle]
pub(crate) unsafe extern "C" fn unregister_virtio_device(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function.
    register::remove_device(unsafe { VirtioDevice::from_raw(vdev) });
}

/// Tells whether a device is on this bus.
#[no_mangle]
pub(crate) unsafe extern "C" fn is_virtio_device(dev: *mut device) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { (*dev).bus == bus::as_raw() }
}

/// Adds bits to the status of a device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_add_status(vdev: *mut virtio_device, status: c_uint) {
    might_sleep();
    // CAST: A status is a byte.
    let bits = Status::from_bits(status as u8);
    // SAFETY: By the contract of the function.
    unsafe { VirtioDevice::from_raw(vdev) }.add_status(bits);
}

/// Resets a device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_reset_device(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function. A device that does not comply was named in the log;
    // callers cannot be told.
    let _ = unsafe { VirtioDevice::from_raw(vdev) }.reset();
}

/// Stops a device for good.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_device_shutdown(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function.
    lifecycle::stop(unsafe { VirtioDevice::from_raw(vdev) });
}

// Configuration changes

/// The transport heard that the configuration changed; may be called in an interrupt.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_config_changed(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function.
    gate::changed(unsafe { VirtioDevice::from_raw(vdev) });
}

/// The driver does not want to hear of changes for now; does not nest.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_config_driver_disable(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function.
    gate::disable(unsafe { VirtioDevice::from_raw(vdev) });
}

/// The driver wants to hear of changes again, also of those meanwhile.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_config_driver_enable(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function.
    gate::enable(unsafe { VirtioDevice::from_raw(vdev) });
}

// Sleep, and resets that the transport makes

/// Prepares a device for sleep.
#[cfg(CONFIG_PM_SLEEP)]
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_device_freeze(vdev: *mut virtio_device) -> c_int {
    // SAFETY: By the contract of the function.
    errno(lifecycle::freeze(unsafe { VirtioDevice::from_raw(vdev) }))
}

/// Brings a device back from sleep.
#[cfg(CONFIG_PM_SLEEP)]
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_device_restore(vdev: *mut virtio_device) -> c_int {
    // SAFETY: By the contract of the function.
    errno(lifecycle::restore(unsafe { VirtioDevice::from_raw(vdev) }))
}

/// Prepares a device for a reset that the transport is about to make.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_device_reset_prepare(vdev: *mut virtio_device) -> c_int {
    // SAFETY: By the contract of the function.
    errno(lifecycle::reset_prepare(unsafe {
        VirtioDevice::from_raw(vdev)
    }))
}

/// Brings a device back from such a reset.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_device_reset_done(vdev: *mut virtio_device) -> c_int {
    // SAFETY: By the contract of the function.
    errno(lifecycle::reset_done(unsafe {
        VirtioDevice::from_raw(vdev)
    }))
}
