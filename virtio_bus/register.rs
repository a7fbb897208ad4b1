// SPDX-License-Identifier: GPL-2.0

//! Devices and drivers come to the bus, and leave it.

use super::{
    bus,
    debug,
    device::VirtioDevice,
    gate,
    index::{
        self,
        Index, //
    },
    node,
    status::Status, //
};
use crate::virtio::bindings::{
    self,
    module,
    virtio_device,
    virtio_driver, //
};

use kernel::{
    error::to_result,
    prelude::*,
    static_lock_class,
    warn_on, //
};

/// What all devices on the bus have in common, for the driver core.
struct Type(bindings::device_type);

// SAFETY: Nobody writes to it.
unsafe impl Sync for Type {}

/// A driver is bound and unbound under the lock of the transport's device as well, which whoever
/// resets a device by the bus of the machine has (`pci_reset_function()`).
static TYPE: Type = Type(bindings::device_type {
    need_parent_lock: true,
    ..pin_init::zeroed()
});

/// Registers a device; a driver that takes it is probed at once.
///
/// # Errors
///
/// Those of the driver core; `ENOMEM`; `EINVAL` if the transport lacks an operation, `EIO` if the
/// device does not finish a reset. The caller must drop its reference then, not free the device.
///
/// # Safety
///
/// The type invariants of [`VirtioDevice`] must hold for `vdev` until it is released by the driver
/// core; nobody else may use it yet. `parent` and `release` of its device are set.
///
/// # Context
///
/// May sleep.
pub(super) unsafe fn add_device(vdev: *mut virtio_device) -> Result {
    // SAFETY: By the safety requirements.
    let device = unsafe { VirtioDevice::from_raw(vdev) };

    // SAFETY: Nobody else uses the device yet, and the bus is static.
    unsafe { (*device.as_dev()).bus = bus::as_raw() };
    // SAFETY: Nobody else uses the device yet, and the type is static.
    unsafe { (*device.as_dev()).type_ = &raw const TYPE.0 };
    // SAFETY: As above; this comes once.
    unsafe { bindings::device_initialize(device.as_dev()) };
    if warn_on!(!device.is_complete()) {
        return Err(EINVAL);
    }
    // SAFETY: As above.
    unsafe { number(device) }.inspect_err(|_| device.add_status(Status::FAILED))
}

/// Gives the device its number, and goes on with it.
///
/// # Safety
///
/// As for [`introduce`].
unsafe fn number(device: &VirtioDevice) -> Result {
    let index = index::acquire()?;

    // SAFETY: By the safety requirements.
    unsafe { introduce(device, index) }.inspect_err(|_| index::release(index))
}

/// Makes the device known.
///
/// # Safety
///
/// `device` was initialised by [`add_device`], and nobody else uses it yet.
unsafe fn introduce(device: &VirtioDevice, index: Index) -> Result {
    let vdev = device.as_raw();

    // SAFETY: By the safety requirements.
    unsafe { (*vdev).index = index.as_raw() };
    // SAFETY: The format takes one number; the device is initialised.
    to_result(unsafe {
        bindings::dev_set_name(device.as_dev(), c"virtio%u".as_char_ptr(), index.as_raw())
    })?;
    node::attach(device)?;
    // SAFETY: By the safety requirements.
    unsafe { prepare(device) };

    // Whatever used the device before may have left anything behind.
    start(device).inspect_err(|_| drop(node::detach(device)))
}

/// Initialises what drivers and queues use.
///
/// # Safety
///
/// As for [`introduce`].
unsafe fn prepare(device: &VirtioDevice) {
    let vdev = device.as_raw();

    // SAFETY: By the safety requirements.
    unsafe { gate::prepare(device) };
    // SAFETY: As above; only an address is formed.
    unsafe { bindings::INIT_LIST_HEAD(&raw mut (*vdev).vqs) };
    // SAFETY: As above; name and key are static.
    unsafe {
        bindings::__spin_lock_init(
            &raw mut (*vdev).vqs_list_lock,
            c"virtio_device.vqs_list_lock".as_char_ptr(),
            static_lock_class!().as_ptr(),
        )
    };
}

/// Resets the device, and hands it to the driver core.
fn start(device: &VirtioDevice) -> Result {
    device.reset()?;
    device.add_status(Status::ACKNOWLEDGE);
    debug::add(device);

    // SAFETY: The device is complete.
    to_result(unsafe { bindings::device_add(device.as_dev()) })
        .inspect_err(|_| debug::remove(device))
}

/// Takes a device from the bus, and drops the transport's reference to it.
///
/// # Context
///
/// May sleep.
pub(super) fn remove_device(device: &VirtioDevice) {
    let index = device.index();
    let node = node::detach(device);

    debug::remove(device);
    // SAFETY: The device was registered by `add_device`. It may not exist any more after this.
    unsafe { bindings::device_unregister(device.as_dev()) };
    drop(node);
    index::release(index);
}

/// Registers a driver; devices that it takes are probed at once.
///
/// # Errors
///
/// Those of the driver core; `EINVAL` if the driver has no id table, or lacks a feature table that
/// it says it has.
///
/// # Safety
///
/// The type invariants of [`VirtioDriver`](super::driver::VirtioDriver) must hold for `driver`
/// until it is unregistered; nobody else may use it yet. `owner` is its module, or null.
///
/// # Context
///
/// May sleep.
pub(super) unsafe fn add_driver(driver: *mut virtio_driver, owner: *mut module) -> Result {
    // SAFETY: By the safety requirements. The reference ends before the driver is known to others.
    let fields = unsafe { &mut *driver };
    let no_table = fields.feature_table_size != 0 && fields.feature_table.is_null();

    if warn_on!(no_table || fields.id_table.is_null()) {
        return Err(EINVAL);
    }
    fields.driver.bus = bus::as_raw();
    fields.driver.owner = owner;
    // SAFETY: The driver is complete, and stays where it is.
    to_result(unsafe { bindings::driver_register(&raw mut (*driver).driver) })
}
